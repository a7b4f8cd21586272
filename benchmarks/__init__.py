"""Measurements to run by hand, one module each: `python -m benchmarks.NAME`."""
