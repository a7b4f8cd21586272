"""Weights of flax's GRU cells: load and export."""
