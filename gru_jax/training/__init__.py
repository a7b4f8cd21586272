"""Experiments: configs, optimizers, the training step and loop, checkpoints, records, pictures."""
