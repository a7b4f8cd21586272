"""`gru_jax.interop`: code and weights from elsewhere run here. One module per framework, each imported at first use.

`torch` and `keras` have layers that are called as there; all of them have `load` and `export` for weights.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gru_jax.interop.dreamer as dreamer
    import gru_jax.interop.equinox as equinox
    import gru_jax.interop.flax as flax
    import gru_jax.interop.haiku as haiku
    import gru_jax.interop.keras as keras
    import gru_jax.interop.onnx as onnx
    import gru_jax.interop.torch as torch

__all__ = ["dreamer", "equinox", "flax", "haiku", "keras", "onnx", "torch"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"gru_jax.interop.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
