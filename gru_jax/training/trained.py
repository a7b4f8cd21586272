"""`load` under the name that it had before 0.2; it is `gru_jax.runs.load` now."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("gru_jax.runs.load_trained"), name)
