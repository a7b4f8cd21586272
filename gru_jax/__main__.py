"""`python -m gru_jax` is the command `gru-jax`."""
# PYTHON_ARGCOMPLETE_OK

import sys

from gru_jax.cli import main

sys.exit(main())
