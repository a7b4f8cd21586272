"""The package onnx, imported when it is needed."""

import importlib
from types import ModuleType


def onnx(who: str) -> ModuleType:
    """The package; raises ImportError, saying how to install it, when it is missing."""
    try:
        module = importlib.import_module("onnx")
        for part in ("checker", "helper", "numpy_helper", "reference"):
            importlib.import_module(f"onnx.{part}")
    except ImportError as error:
        raise ImportError(f"{who}: needs the package onnx; pip install 'gru-jax[interop]'", name="onnx") from error
    return module
