"""Loops that XLA compiles, where they are more than one jax.lax.scan."""
