"""`python -m gru_jax` is the command `gru-jax`."""

import sys

from gru_jax.cli import main

sys.exit(main())
