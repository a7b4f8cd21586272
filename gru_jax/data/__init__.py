"""Data sets as arrays, their fixed splits, and batches that depend on the seed and the step alone."""
