"""`gru_jax.interop`: code and weights from elsewhere run here. One module per framework, each imported at first use.

`torch` and `keras` have layers that are called as there; all of them have `load` and `export` for weights.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_jax.interop import equinox as equinox
    from gru_jax.interop import flax as flax
    from gru_jax.interop import haiku as haiku
    from gru_jax.interop import keras as keras
    from gru_jax.interop import onnx as onnx
    from gru_jax.interop import torch as torch

__all__ = ["equinox", "flax", "haiku", "keras", "onnx", "torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"gru_jax.interop.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
