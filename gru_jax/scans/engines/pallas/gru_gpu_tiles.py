"""What the GPU's kernels for a GRU share: tiles of arrays, recurrent products of a tile, one step of the GRU on a tile.

Every tile is a power of two on each side, as Triton wants it, and masked where the array ends. Products have one of
three forms. "own": each unit sees itself alone. "sum": multiplied and added in float32 on the ordinary cores, where
each thread keeps its part of the matrices in registers; Triton's own product of float32 would give each thread whole
rows. "dot": tensor cores, factors in half precision, sums in float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.cells.gru_derivative import Linearization
from gru_jax.scans.engines.pallas.target import Ref
from gru_jax.types import Array, BoolArray, IntArray

WIDE = 4
"""Neighbouring elements of a contraction in one thread of "sum": 16 bytes of float32, one load."""

MASKED, USED, RESET = 0, 1, 2
"""What happens at a step: nothing, the step, the step from the state after a reset."""


class Tile(NamedTuple):
    """Some rows and columns of an array `[..., rows, columns]`.

    Attributes:
      row: the first row.
      rows: how many.
      all_rows: how many the array has; those past the last are masked.
      base: the first column of the head.
      column: the first column, counted from there.
      columns: how many.
      width: how many the head has; those past the last are masked.
      turned: whether values have the columns first.
    """

    row: Array | int
    rows: int
    all_rows: int
    base: Array | int
    column: Array | int
    columns: int
    width: int
    turned: bool = False

    def mask(self) -> Array | None:
        """Where the tile lies inside of the array, or None where all of it does."""
        shape = (self.rows, self.columns)
        inside = self.in_rows()
        mask = None if inside is None else jnp.broadcast_to(inside[:, None], shape)
        if self.width % self.columns == 0:
            return mask
        along = jnp.broadcast_to((self.column + jnp.arange(self.columns))[None] < self.width, shape)
        return along if mask is None else mask & along

    def in_rows(self) -> Array | None:
        """Which rows there are, or None where there are all."""
        return None if self.all_rows % self.rows == 0 else self.row + jnp.arange(self.rows) < self.all_rows

    def at(self, ref: Ref, *leading: Array, shift: int = 0) -> Ref:
        """The part of `ref`, its columns counted from `shift`."""
        from jax.experimental import pallas as pl

        columns = pl.ds(shift + self.base + self.column, self.columns)
        return ref.at[(*leading, pl.ds(self.row, self.rows), columns)]

    def load(self, ref: Ref, *leading: Array, shift: int = 0) -> Array:
        """Its values in float32, 0 where it is masked."""
        from jax.experimental.pallas import triton as plgpu

        mask = self.mask()
        other = None if mask is None else jnp.zeros((), ref.dtype)
        part = self.at(ref, *leading, shift=shift)
        value = plgpu.load(part, mask=mask, other=other).astype(jnp.float32)
        return value.T if self.turned else value

    def store(
        self, ref: Ref, *leading: Array, value: Array, when: BoolArray | None = None, shift: int = 0
    ) -> None:
        """Writes values, rounded to what `ref` holds, in all of the tile or nowhere."""
        from jax.experimental.pallas import triton as plgpu

        mask = self.mask()
        value = value.T if self.turned else value
        if when is not None:
            when = jnp.broadcast_to(when, value.shape)
            mask = when if mask is None else mask & when
        plgpu.store(self.at(ref, *leading, shift=shift), value.astype(ref.dtype), mask=mask)

    def flags(self, ref: Ref, t: Array) -> Array:
        """What happens at step t in each row, `[R, 1]`, or turned."""
        from jax.experimental import pallas as pl
        from jax.experimental.pallas import triton as plgpu

        mask = self.in_rows()
        other = None if mask is None else jnp.zeros((), ref.dtype)
        value = plgpu.load(ref.at[t, pl.ds(self.row, self.rows)], mask=mask, other=other)
        return value[None] if self.turned else value[:, None]


def flags(use: BoolArray | None, reset: BoolArray | None) -> IntArray | None:
    """What happens at each step, `[T, B]`; None where every step is used and none is reset."""
    if use is None and reset is None:
        return None
    used = jnp.ones(reset.shape, bool) if use is None else use  # type: ignore[union-attr]
    known = jnp.where(used, jnp.int32(USED), jnp.int32(MASKED))
    return known if reset is None else jnp.where(used & reset, jnp.int32(RESET), known)


def product(v: Array, w: Array) -> Array:
    """The product of a tile with a matrix, in float32.

    Args:
      v: `[R, K]`, float32; of one row for "sum".
      w: `[1, K]` ("own"), `[K / 4, N, 4]` ("sum") or `[K, N]` ("dot").

    Returns:
      `[R, N]`.
    """
    if w.ndim == 3:
        # Three dimensions, as the matrix was loaded: it then stays in the registers that it was loaded into, and a
        # thread sums most of a column alone.
        spread = v.reshape(w.shape[0], 1, WIDE)
        return (jnp.broadcast_to(spread, w.shape) * w.astype(v.dtype)).sum(2).sum(0)[None]
    if w.shape[0] == 1:
        return v * jnp.broadcast_to(w.astype(v.dtype), v.shape)
    return jax.lax.dot(v.astype(w.dtype), w, preferred_element_type=jnp.float32)


def end(flag: Array | None, after: Array, h: Array) -> Array:
    """Where a step ends: h where it is masked."""
    return after if flag is None else jnp.where(jnp.broadcast_to(flag == MASKED, h.shape), h, after)


def begin(flag: Array | None, reset_to: Array | None, h: Array) -> Array:
    """Where a step sets out from."""
    return h if flag is None or reset_to is None else jnp.where(jnp.broadcast_to(flag == RESET, h.shape), reset_to, h)


def scale(a: Array, drop: Array | None) -> Array:
    """a, dropped out."""
    return a if drop is None else a * drop


def gate(a: Array) -> Array:
    """The logistic function."""
    return 1 / (1 + jnp.exp(-a))


def blend(u: tuple[Array, ...], g: tuple[Array, ...], h: Array) -> Array:
    """The next state from projected input and recurrent products, biases added, with the reset after the product."""
    r, z = gate(u[0] + g[0]), gate(u[1] + g[1])
    n = jnp.tanh(u[2] + r * g[2])
    return n + z * (h - n)


COEFFICIENTS = ("z", "k_r", "k_z", "k_n")
"""What of a `Linearization` a gradient needs on its way through a step with the reset after the product."""


def coefficients(at: Linearization) -> dict[str, Array]:
    """What a gradient needs on its way through a step."""
    names = COEFFICIENTS if at.r is None else (*COEFFICIENTS, "r")
    return {name: getattr(at, name) for name in names}


def power(n: int) -> int:
    """The least power of two that is n at least."""
    return 1 << max(n - 1, 0).bit_length()
