"""`gru_jax.inside`: our computation inside models of other frameworks. One module each, imported at first use."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gru_jax.inside.keras as keras
    import gru_jax.inside.linen as linen
    import gru_jax.inside.nnx as nnx
    import gru_jax.inside.torch as torch

__all__ = ["keras", "linen", "nnx", "torch"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"gru_jax.inside.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
