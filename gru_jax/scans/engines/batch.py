"""Arrays of all steps with one axis for the batch, as the engines take them."""

from typing import NamedTuple

import jax.numpy as jnp

from gru_jax.types import Array, BoolArray


class Rows(NamedTuple):
    """How such arrays lie: `[T, B, ...]`, or `[B, T, ...]` as in the caller's, so that two turns cancel.

    Attributes:
      batch_leads: whether it is the latter.
    """

    batch_leads: bool

    @property
    def axis(self) -> int:
        """The axis of the batch."""
        return 0 if self.batch_leads else 1

    def of(self, a: Array) -> Array:
        """`[T, *batch, n]` to `[B, T, n]` or `[T, B, n]`."""
        if self.batch_leads:
            return jnp.moveaxis(a, 0, -2).reshape(-1, a.shape[0], a.shape[-1])
        return a.reshape(a.shape[0], -1, a.shape[-1])

    def back(self, a: Array, batch: tuple[int, ...]) -> Array:
        """The inverse."""
        if self.batch_leads:
            return jnp.moveaxis(a.reshape(*batch, *a.shape[1:]), -2, 0)
        return a.reshape(a.shape[0], *batch, a.shape[-1])

    def flag(self, a: BoolArray) -> BoolArray:
        """`[T, *batch]` likewise."""
        if self.batch_leads:
            return jnp.moveaxis(a, 0, -1).reshape(-1, a.shape[0])
        return a.reshape(a.shape[0], -1)
