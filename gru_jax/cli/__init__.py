"""The command `gru-jax`."""

from gru_jax.cli.commands import main as main
