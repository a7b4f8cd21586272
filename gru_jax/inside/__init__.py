"""`gru_jax.inside`: our computation inside models of other frameworks. One module each, imported at first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gru_jax.inside.keras as keras

__all__ = ["keras"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"gru_jax.inside.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
