"""Data sets as arrays, their fixed splits, and batches that depend on seed and step alone."""
