"""Keras' regularizers: a penalty, one number, for a weight or an output."""

import dataclasses

import jax.numpy as jnp

from gru_jax import checks
from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.identifiers import Configured, Identifier
from gru_jax.types import Array, Function


class Regularizer(Configured):
    """What all have in common: factors, which are finite numbers."""

    def __post_init__(self) -> None:
        who = type(self).__name__
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "mode":
                checks.choice(who, "mode", value, ("rows", "columns"))
                continue
            if value is None:  # as in Keras: None is the class' default
                value = field.default
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
                raise ValueError(f"{who}: {field.name} must be a finite number; got {value!r}")
            object.__setattr__(self, field.name, float(value))

    def __call__(self, x: Array) -> Array:
        """The penalty."""
        raise NotImplementedError


class L1(Regularizer):
    """`l1 * sum(|x|)`.

    Example:
      >>> import jax.numpy as jnp
      >>> float(L1(0.5)(jnp.array([1.0, -3.0])))
      2.0
    """

    l1: float = 0.01

    def __call__(self, x: Array) -> Array:
        return self.l1 * jnp.abs(x).sum()


class L2(Regularizer):
    """`l2 * sum(x^2)`."""

    l2: float = 0.01

    def __call__(self, x: Array) -> Array:
        return self.l2 * jnp.square(x).sum()


class L1L2(Regularizer):
    """`l1 * sum(|x|) + l2 * sum(x^2)`."""

    l1: float = 0.0
    l2: float = 0.0

    def __call__(self, x: Array) -> Array:
        # Not where a factor is 0: |x| has no derivative there.
        terms = [term(factor)(x) for term, factor in ((L1, self.l1), (L2, self.l2)) if factor]
        return sum(terms, jnp.zeros((), x.dtype))


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean |cosine| of the angles between different rows, or with `mode` "columns", of a matrix."""

    factor: float = 0.01
    mode: str = "rows"

    def __call__(self, x: Array) -> Array:
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


def get(who: str, option: str, given: Identifier) -> Function | None:
    """The regularizer behind an identifier: None, a name, a config, a class, an object, or a function."""
    if given in ("l1_l2", "l1l2"):
        return L1L2(0.01, 0.01)  # by its name alone it penalises; L1L2() does not
    return identifiers.get(who, option, given, KNOWN, "regularizer")
