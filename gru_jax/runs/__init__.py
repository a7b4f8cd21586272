"""Runs: a config trained from its first step to its result, continued, watched, and loaded again."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_jax.runs.load_trained import load as load


def __getattr__(name: str) -> Any:
    if name == "load":  # imported at first use: a command that only lists runs does without the models
        return importlib.import_module("gru_jax.runs.load_trained").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
