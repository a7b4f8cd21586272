"""Labelled sequences in files of one's own: an archive of arrays, a long table, or a folder of tables."""
