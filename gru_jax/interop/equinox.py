"""Weights of equinox's GRU cells: load and export."""
