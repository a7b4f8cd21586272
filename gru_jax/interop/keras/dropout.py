"""Keras' dropout: masks drawn once a call, for each gate one of its own where Keras does so."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax.cells import GRU, GRUParams, activations
from gru_jax.cells.base import accumulator
from gru_jax.interop.keras import initializers
from gru_jax.types import Array, DType, Key, exportable


class Seed(nnx.Variable[Array]):
    """The state of a layer's dropout: the seed, and how many masks were drawn."""


class Stream(nnx.Module):
    """Where a layer's dropout masks come from: Keras' own numbers for a seed, or an `nnx.Rngs`."""

    def __init__(self, seed: int | None, rngs: nnx.Rngs | None) -> None:
        start = initializers.fresh_seed() if seed is None else seed
        self.seed = nnx.data(Seed(initializers.key_of(start)) if rngs is None else None)
        self.rngs: Any = nnx.data(None if rngs is None else rngs.dropout.fork())

    def variables(self) -> list[nnx.Variable[Array]]:
        """What the next masks are drawn from."""
        return [self.rngs.key, self.rngs.count] if self.seed is None else [self.seed]

    def masks(
        self, rate: float, count: int, shape: tuple[int, ...], dtype: DType, keep: Callable[..., None]
    ) -> Array | None:
        """`count` scaled masks, `[count, *shape]` in the order z, r, n; None at rate 0.

        Args:
          rate: of dropout.
          count: how many.
          shape: of each.
          dtype: of each.
          keep: how the new state of the seed is kept.
        """
        if not rate:
            return None
        keys = self._keys(count, keep)
        return jnp.stack([jax.random.bernoulli(key, 1 - rate, shape).astype(dtype) / (1 - rate) for key in keys])

    def _keys(self, count: int, keep: Callable[..., None]) -> list[Key]:
        if self.seed is None:
            return list(jax.random.split(self.rngs(), count))
        first = self.seed.get_value()
        keys = [first.at[1].add(jnp.uint32(index)) for index in range(count)]
        keep(self.seed, first.at[1].add(jnp.uint32(count)))
        return keys


@exportable("DroppedParams")
class DroppedParams(NamedTuple):
    """A GRU's parameters and the dropout masks of one call.

    Attributes:
      gru: `GRUParams`.
      drop_x: masks of the input by gate z, r, n, `[3, B, I]`, or None.
      drop_h: masks of the state, `[3, B, H]`, or None.
    """

    gru: GRUParams
    drop_x: Array | None = None
    drop_h: Array | None = None


@dataclasses.dataclass(frozen=True)
class DroppedGRU:
    """A GRU whose gates each see the input and the state through a mask of their own.

    It offers no closed-form derivative, so its activations need not be elementwise: softmax works.

    Args:
      cell: the GRU without masks.
    """

    cell: GRU

    def init(self, key: Key, input_size: int) -> DroppedParams:
        """Fresh parameters without masks."""
        return DroppedParams(self.cell.init(key, input_size))

    def check_params(self, params: DroppedParams, features: int) -> None:
        """As the cell's."""
        self.cell.check_params(params.gru, features)

    def project(self, params: DroppedParams, x: Array) -> Array:
        """`[*batch, I]` to `[*batch, 3H]`, gates r, z, n."""
        if params.drop_x is None:
            return self.cell.project(params.gru, x)
        b_x = params.gru.b_x
        parts = zip(_in_our_order(params.drop_x), jnp.split(params.gru.w_x, 3, -1), strict=True)
        u = jnp.concatenate([_product(_masked(x, mask), w) for mask, w in parts], -1)
        return u if b_x is None else u + jnp.broadcast_to(b_x.astype(u.dtype), u.shape)

    def step(self, params: DroppedParams, u: Array, h: Array) -> Array:
        """The state after one step."""
        if params.drop_h is None:
            return self.cell.step(params.gru, u, h)
        w_r, w_z, w_n = jnp.split(params.gru.w_h, 3, -1)
        h_r, h_z, h_n = (_masked(h, mask) for mask in _in_our_order(params.drop_h))
        wide = u.dtype
        b_h = params.gru.b_h
        zeros = jnp.zeros(3 * self.cell.hidden_size, wide)
        b_r, b_z, b_n = jnp.split(zeros if b_h is None else b_h.astype(wide), 3, -1)
        u_r, u_z, u_n = jnp.split(u, 3, -1)
        gate, candidate = (activations.get(a) for a in (self.cell.gate_activation, self.cell.activation))
        r = gate(u_r + _product(h_r, w_r) + jnp.broadcast_to(b_r, u_r.shape))
        z = gate(u_z + _product(h_z, w_z) + jnp.broadcast_to(b_z, u_z.shape))
        b_n = jnp.broadcast_to(b_n, u_n.shape)
        if self.cell.reset == "after":
            inner = r * (_product(h_n, w_n) + b_n)
        else:
            inner = _product((r * h_n.astype(r.dtype)).astype(h.dtype), w_n) + b_n
        n = candidate(u_n + inner)
        return (n + z * (h.astype(wide) - n)).astype(h.dtype)

    def initial_state(self, batch: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        """Zeros."""
        return self.cell.initial_state(batch, dtype)

    def output(self, h: Array) -> Array:
        """The state itself."""
        return h


def _in_our_order(masks: Array) -> tuple[Array, Array, Array]:
    return masks[1], masks[0], masks[2]


def _masked(a: Array, mask: Array) -> Array:
    return a * jnp.broadcast_to(mask.astype(a.dtype), a.shape)


def _product(a: Array, w: Array) -> Array:
    return jnp.matmul(a, w, preferred_element_type=accumulator(w.dtype))
