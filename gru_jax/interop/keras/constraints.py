"""Keras' constraints: projections of a weight, applied after each update."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.identifiers import Configured
from gru_jax.types import Array

EPSILON = 1e-7  # what Keras adds to a norm before it divides


def _norms(w: Array, axis: Any) -> Array:
    return jnp.sqrt(jnp.square(w).sum(axis, keepdims=True))


def _scaled(w: Array, desired: Array, norms: Array) -> Array:
    return w * jnp.broadcast_to(desired / (EPSILON + norms), w.shape)


def _fix_axis(constraint: Any) -> None:
    if isinstance(constraint.axis, list):  # a list, as in configs, has no hash
        object.__setattr__(constraint, "axis", tuple(constraint.axis))


@dataclasses.dataclass(frozen=True)
class MaxNorm(Configured):
    """Norms of at most `max_value`.

    Args:
      max_value: the greatest norm.
      axis: along which norms are taken; 0 takes the weights into each unit and gate.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(x), 4) for x in MaxNorm(2.5)(jnp.array([[3.0, 0.6], [4.0, 0.8]]))[0]]
      [1.5, 0.6]
    """

    max_value: float = 2
    axis: Any = 0

    def __post_init__(self) -> None:
        _fix_axis(self)

    def __call__(self, w: Array) -> Array:
        """The projected weight."""
        norms = _norms(w, self.axis)
        return _scaled(w, jnp.clip(norms, 0, self.max_value), norms)


@dataclasses.dataclass(frozen=True)
class NonNeg(Configured):
    """No number below 0."""

    def __call__(self, w: Array) -> Array:
        """The projected weight."""
        return jnp.maximum(w, 0)


@dataclasses.dataclass(frozen=True)
class UnitNorm(Configured):
    """Norms of 1.

    Args:
      axis: along which norms are taken.
    """

    axis: Any = 0

    def __post_init__(self) -> None:
        _fix_axis(self)

    def __call__(self, w: Array) -> Array:
        """The projected weight."""
        norms = _norms(w, self.axis)
        return _scaled(w, jnp.ones_like(norms), norms)


@dataclasses.dataclass(frozen=True)
class MinMaxNorm(Configured):
    """Norms moved the share `rate` of the way into `[min_value, max_value]`.

    Args:
      min_value: the least norm.
      max_value: the greatest.
      rate: 1 moves all the way.
      axis: along which norms are taken.
    """

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: Any = 0

    def __post_init__(self) -> None:
        _fix_axis(self)

    def __call__(self, w: Array) -> Array:
        """The projected weight."""
        norms = _norms(w, self.axis)
        desired = self.rate * jnp.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms
        return _scaled(w, desired, norms)


# The names by which Keras' users make them.
max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm
KNOWN = identifiers.table(MaxNorm, NonNeg, UnitNorm, MinMaxNorm)


def get(who: str, option: str, given: Any) -> Any:
    """The constraint behind an identifier: None, a name, a config, a class, an object, or a function."""
    return identifiers.get(who, option, given, KNOWN, "constraint")
