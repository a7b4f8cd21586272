"""What gated cells share: options, the projected input with their gates side by side, and the state as output."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells import activations
from gru_jax.cells.base import accumulator
from gru_jax.types import Activation, Array, DType, Key, Params


class GatedCell:
    """A cell whose state and output are h, `[*batch, H]`, and whose input is projected for G gates at once.

    Attributes:
      name: of the cell, for messages.
      gates_wide: G, how many gates are side by side in u.
    """

    name: ClassVar[str]
    gates_wide: ClassVar[int]

    hidden_size: int

    def _set(self, *options: object) -> None:
        """Fills the fields: the option `init` and the method `init` share a name, which a generated init cannot do."""
        for field, value in zip(dataclasses.fields(self), options, strict=True):  # type: ignore[arg-type]
            object.__setattr__(self, field.name, value)

    def _check_init(self, key: Key, input_size: int, dtype: DType) -> None:
        checks.positive(self.name, "input_size", input_size)
        checks.random_key(self.name, key)
        checks.floating_dtype(self.name, dtype)

    def project(self, params: Params, x: Array) -> Array:
        """`u = x w_x + b_x`: everything that needs no state.

        Args:
          params: from `init`.
          x: input, `[*batch, I]`; a time axis may be among the leading ones.

        Returns:
          u, `[*batch, G H]`, gates side by side; float32 for half-precision `x`.

        Raises:
          ValueError: when x has another number of features than `params` were made for.
        """
        x = checks.floating(self.name, "x", x)
        self._check_features(params, x.shape[-1] if x.ndim else 0)
        return add(jnp.matmul(x, params.w_x, preferred_element_type=accumulator(x.dtype)), params.b_x)

    def initial_state(self, batch: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        """Zeros, `[*batch, H]`."""
        return jnp.zeros((*batch, self.hidden_size), dtype)

    def output(self, h: Array) -> Array:
        """The state itself, `[*batch, H]`."""
        return h

    def _check_step(self, u: Array, h: Array) -> None:
        width = self.gates_wide * self.hidden_size
        if u.shape[-1:] != (width,):
            raise ValueError(
                f"{self.name}: u must be the projected input, [*batch, {width}]; got shape {list(u.shape)};"
                f" make it with cell.project(params, x)"
            )
        batch = "the state has the batch of u; cell.initial_state(batch) makes zeros"
        checks.shape(self.name, "h", h.shape, (*u.shape[:-1], self.hidden_size), batch)

    def _check_features(self, params: Params, features: int) -> None:
        if params.w_x.ndim == 2 and params.w_x.shape[0] != features:
            raise ValueError(
                f"{self.name}: x has {features} features but params were made for {params.w_x.shape[0]};"
                f" pass input_size={features} to init"
            )


class RecurrentGates(GatedCell):
    """One with recurrent products, a closed-form derivative, and activations to choose."""

    activation: Activation
    gate_activation: Activation

    def _gate(self, a: Array) -> Array:
        return activations.get(self.gate_activation)(a)

    def _candidate(self, a: Array) -> Array:
        return activations.get(self.activation)(a)


def add(a: Array, bias: Array | None) -> Array:
    """`a + bias`, the bias spelled out to a's shape: users may run with rank promotion forbidden."""
    return a if bias is None else a + jnp.broadcast_to(bias.astype(a.dtype), a.shape)


def scale(a: Array, mask: Array | None) -> Array:
    """a where nothing is dropped."""
    return a if mask is None else a * mask.astype(a.dtype)


def rows(a: Array) -> Array:
    """`[*batch, n]` to `[B, n]`."""
    return a.reshape(-1, a.shape[-1])
