"""Which activation functions the scan may run in Keras' place."""

import functools

import keras

from gru_jax import cells
from gru_jax.interop.keras import activations
from gru_jax.types import Activation, Function

_BY_FUNCTION = {function: name for name, function in cells.activations.ACTIVATIONS.items()}
_PURE = ("keras.src.activations.", "keras.src.ops.", "jax.")
"""Modules whose functions depend on nothing but their argument."""


def served(function: object) -> Activation | None:
    """What a cell takes for an activation of a Keras layer; None for one that is left to Keras.

    Any other function than those of Keras and JAX may read a variable or draw random numbers, and so may a layer; a
    compiled loop would keep what they gave at first.
    """
    home = getattr(function, "__module__", None) or ""
    return _served(function) if home.startswith(_PURE) and hasattr(function, "__name__") else None


@functools.lru_cache(maxsize=256)
def _served(function: Function) -> Activation | None:
    name = getattr(function, "__name__", "")
    if getattr(keras.activations, name, None) is function and name in activations.NAMES:
        known = activations.for_cell(activations.ALIASES.get(name, name))
    else:
        known = _BY_FUNCTION.get(function, function)
    try:
        return known if activations.is_elementwise(known) else None
    except Exception:  # more than one argument, another shape, whatever else Keras may know how to do with it
        return None
