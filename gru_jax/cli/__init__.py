"""The command `gru-jax`."""
# PYTHON_ARGCOMPLETE_OK

from gru_jax.cli.commands import main as main
