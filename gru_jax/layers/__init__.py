"""Layers: holders of parameters for Flax NNX and Flax Linen over one set of options; no maths."""
