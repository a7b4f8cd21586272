"""Weights of haiku's GRU cells: load and export."""
