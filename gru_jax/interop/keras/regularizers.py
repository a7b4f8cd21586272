"""Keras' regularizers: a penalty, one number, for a weight or an output."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from gru_jax import checks
from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.identifiers import Configured
from gru_jax.types import Array


def _check_factors(regularizer: Any) -> None:
    for field in dataclasses.fields(regularizer):
        value = getattr(regularizer, field.name)
        if field.name == "mode":
            checks.choice(type(regularizer).__name__, "mode", value, ("rows", "columns"))
            continue
        if value is None:  # as in Keras: None is the class' default
            value = field.default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise ValueError(f"{type(regularizer).__name__}: {field.name} must be a finite number; got {value!r}")
        object.__setattr__(regularizer, field.name, float(value))


@dataclasses.dataclass(frozen=True)
class L1(Configured):
    """`l1 * sum(|x|)`.

    Args:
      l1: the factor.

    Example:
      >>> import jax.numpy as jnp
      >>> float(L1(0.5)(jnp.array([1.0, -3.0])))
      2.0
    """

    l1: float = 0.01

    def __post_init__(self) -> None:
        _check_factors(self)

    def __call__(self, x: Array) -> Array:
        """The penalty."""
        return self.l1 * jnp.abs(x).sum()


@dataclasses.dataclass(frozen=True)
class L2(Configured):
    """`l2 * sum(x^2)`.

    Args:
      l2: the factor.
    """

    l2: float = 0.01

    def __post_init__(self) -> None:
        _check_factors(self)

    def __call__(self, x: Array) -> Array:
        """The penalty."""
        return self.l2 * jnp.square(x).sum()


@dataclasses.dataclass(frozen=True)
class L1L2(Configured):
    """`l1 * sum(|x|) + l2 * sum(x^2)`.

    Args:
      l1: the first factor.
      l2: the second.
    """

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check_factors(self)

    def __call__(self, x: Array) -> Array:
        """The penalty."""
        penalty = jnp.zeros((), x.dtype)
        if self.l1:  # not at 0: |x| has no derivative there
            penalty = penalty + self.l1 * jnp.abs(x).sum()
        if self.l2:
            penalty = penalty + self.l2 * jnp.square(x).sum()
        return penalty


@dataclasses.dataclass(frozen=True)
class OrthogonalRegularizer(Configured):
    """`factor` times the mean |cosine| of the angles between different rows, or columns, of a matrix.

    Args:
      factor: the factor.
      mode: "rows" or "columns".
    """

    factor: float = 0.01
    mode: str = "rows"

    def __post_init__(self) -> None:
        _check_factors(self)

    def __call__(self, x: Array) -> Array:
        """The penalty."""
        if x.ndim != 2:
            raise ValueError(f"OrthogonalRegularizer: needs a matrix; got shape {list(x.shape)}")
        rows = x if self.mode == "rows" else x.T
        squares = jnp.square(rows).sum(-1, keepdims=True)
        rows = rows / jnp.sqrt(jnp.maximum(squares, 1e-12))
        size = rows.shape[0]
        products = jnp.abs(rows @ rows.T) * (1 - jnp.eye(size, dtype=x.dtype))
        return self.factor * products.sum() / (size * (size - 1))


# The two names by which Keras' users make them.
l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer
KNOWN = identifiers.table(L1, L2, L1L2, OrthogonalRegularizer)


def get(who: str, option: str, given: Any) -> Any:
    """The regularizer behind an identifier: None, a name, a config, a class, an object, or a function."""
    if given in ("l1_l2", "l1l2"):
        return L1L2(0.01, 0.01)  # by its name alone it penalises; L1L2() does not
    return identifiers.get(who, option, given, KNOWN, "regularizer")
