"""Kernels for GPU and TPU, written in Pallas."""
