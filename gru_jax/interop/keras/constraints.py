"""Keras' constraints: projections of a weight, applied after each update.

`axis` is the one along which norms are taken, or several; 0 takes the weights into each unit and gate.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.identifiers import Configured, Identifier
from gru_jax.types import Array, Function

EPSILON = 1e-7  # what Keras adds to a norm before it divides


class Constraint(Configured):
    """What all have in common: norms are moved to where `moved` says."""

    def __post_init__(self) -> None:
        if isinstance(getattr(self, "axis", None), list):  # a list, as in configs, has no hash
            object.__setattr__(self, "axis", tuple(self.axis))  # type: ignore[attr-defined]

    def __call__(self, w: Array) -> Array:
        """The projected weight."""
        norms = jnp.sqrt(jnp.square(w).sum(self.axis, keepdims=True))  # type: ignore[attr-defined]
        return w * jnp.broadcast_to(self.moved(norms) / (EPSILON + norms), w.shape)

    def moved(self, norms: Array) -> Array:
        """The norms of the projected weight."""
        raise NotImplementedError


class MaxNorm(Constraint):
    """Norms of at most `max_value`.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(x), 4) for x in MaxNorm(2.5)(jnp.array([[3.0, 0.6], [4.0, 0.8]]))[0]]
      [1.5, 0.6]
    """

    max_value: float = 2
    axis: int | Sequence[int] = 0

    def moved(self, norms: Array) -> Array:
        return jnp.clip(norms, 0, self.max_value)


class NonNeg(Constraint):
    """No number below 0."""

    def __call__(self, w: Array) -> Array:
        return jnp.maximum(w, 0)


class UnitNorm(Constraint):
    """Norms of 1."""

    axis: int | Sequence[int] = 0

    def moved(self, norms: Array) -> Array:
        return jnp.ones_like(norms)


class MinMaxNorm(Constraint):
    """Norms moved the share `rate` of the way into `[min_value, max_value]`."""

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: int | Sequence[int] = 0

    def moved(self, norms: Array) -> Array:
        return self.rate * jnp.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms


# The names by which Keras' users make them.
max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm
KNOWN = identifiers.table(MaxNorm, NonNeg, UnitNorm, MinMaxNorm)


def get(who: str, option: str, given: Identifier) -> Function | None:
    """The constraint behind an identifier: None, a name, a config, a class, an object, or a function."""
    return identifiers.get(who, option, given, KNOWN, "constraint")
