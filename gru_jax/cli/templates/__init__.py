"""What `gru-jax new` writes: files that run as they are, and say where one's own goes."""
