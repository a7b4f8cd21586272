"""The layers of a torch.nn.GRU as two programs of JAX, forward and backward, over arrays that lie as torch has them."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.cells import GRU, GRUParams
from gru_jax.cells.gru_layout import LaidOut, Layout, Original
from gru_jax.scans import passes, scan
from gru_jax.types import Array, IntArray, Options, Tree


class Net(NamedTuple):
    """What of a torch.nn.GRU a program depends on.

    Attributes:
      units: H.
      layers: L.
      directions: 1 or 2.
      bias: whether there are biases.
      time_major: x is `[T, B, I]` instead of `[B, T, I]`.
    """

    units: int
    layers: int
    directions: int
    bias: bool
    time_major: bool

    @property
    def cell(self) -> GRU:
        """What every layer runs."""
        return GRU(self.units, bias="full" if self.bias else "none")

    def places(self, layer: int) -> Iterator[tuple[int, Options]]:
        """The rows of a layer's directions in states and weights, and how each runs over time."""
        for direction in range(self.directions):
            how = {"reverse": direction == 1, "time_major": self.time_major}
            yield layer * self.directions + direction, how

    def params(self, weights: tuple[Array, ...], place: int) -> LaidOut:
        """The parameters of one direction, without a copy where machine code reads them as they lie."""
        kinds = 4 if self.bias else 2
        w_x, w_h, *biases = weights[place * kinds : (place + 1) * kinds]
        b_x, b_h = biases or (None, None)
        original = Original(GRUParams(w_x, w_h, b_x, b_h), Layout(transposed=True))
        return LaidOut(GRUParams(w_x.T, w_h.T, b_x, b_h), original)

    def weights(self, params: GRUParams) -> list[Array]:
        """The inverse, for gradients."""
        return [a for a in (params.w_x.T, params.w_h.T, params.b_x, params.b_h) if a is not None]


class Given(NamedTuple):
    """What the programs read, and, of what moves, its gradients.

    Attributes:
      x: `[T, B, I]`, or `[B, T, I]`.
      h0: `[L*D, B, H]`.
      weights: torch's, in its order.
      lengths: `[B]`, or None.
      masks: what the outputs of each layer but the last are multiplied with: dropout. None without.
    """

    x: Array
    h0: Array
    weights: tuple[Array, ...]
    lengths: IntArray | None = None
    masks: tuple[Array, ...] | None = None


@functools.partial(jax.jit, static_argnums=0)
def alone(net: Net, given: Given) -> tuple[Array, Array]:
    """The last layer's outputs and the last states of all, `[L*D, B, H]`, with no backward pass to come."""
    y, ends = given.x, []
    for layer in range(net.layers):
        parts = []
        for place, how in net.places(layer):
            params, h0 = net.params(given.weights, place), given.h0[place]
            part, end = scan(net.cell, params, y, h0, lengths=given.lengths, **how)
            parts.append(part)
            ends.append(end)
        y = _onward(net, given, layer, parts)
    return y, jnp.stack(ends)


@functools.partial(jax.jit, static_argnums=0)
def forward(net: Net, given: Given) -> tuple[tuple[Array, Array], list[Tree]]:
    """The same, and what `backward` takes."""
    y, ends, kept = given.x, [], []
    for layer in range(net.layers):
        parts = []
        for place, how in net.places(layer):
            params, h0 = net.params(given.weights, place), given.h0[place]
            part, end, own = passes.forward(net.cell, params, y, h0, given.lengths, **how)
            parts.append(part)
            ends.append(end)
            kept.append(own)
        y = _onward(net, given, layer, parts)
    return (y, jnp.stack(ends)), kept


@functools.partial(jax.jit, static_argnums=0)
def backward(net: Net, given: Given, kept: list[Tree], d_y: Array | None, d_ends: Array | None) -> Given:
    """The gradients of x, h0 and the weights.

    Args:
      net, given: as for `forward`.
      kept: what that returned.
      d_y: gradient of the outputs, None for zeros.
      d_ends: gradient of the last states, None for zeros.
    """
    inputs = _inputs(net, given, kept)
    d_h0: dict[int, Array] = {}
    d_weights: dict[int, list[Array]] = {}
    d: Tree = d_y  # None no longer than until the last layer's gradient is there
    for layer in reversed(range(net.layers)):
        if given.masks is not None and layer < net.layers - 1:
            d = d * given.masks[layer]
        d_parts = [None] * net.directions if d is None else jnp.split(d, net.directions, -1)
        d_inputs = []
        for (place, how), d_part in zip(net.places(layer), d_parts, strict=True):
            d_end = None if d_ends is None else d_ends[place]
            params, h0 = net.params(given.weights, place), given.h0[place]
            made = passes.backward(
                net.cell, params, inputs[layer], h0, given.lengths, kept[place], d_part, d_end, **how
            )
            d_weights[place] = net.weights(made[0])
            d_inputs.append(made[1])
            d_h0[place] = made[2]
        d = d_inputs[0] if net.directions == 1 else d_inputs[0] + d_inputs[1]
    each = range(net.layers * net.directions)
    weights = tuple(weight for place in each for weight in d_weights[place])
    return Given(d, jnp.stack([d_h0[place] for place in each]), weights)


def _onward(net: Net, given: Given, layer: int, parts: list[Array]) -> Array:
    """What the next layer reads, or, of the last, the outputs."""
    y = parts[0] if net.directions == 1 else jnp.concatenate(parts, -1)
    return y if given.masks is None or layer == net.layers - 1 else y * given.masks[layer]


def _inputs(net: Net, given: Given, kept: list[Tree]) -> list[Array]:
    """What each layer read: made of the states that were kept, or, where none were, by the forward pass once more."""
    found = [given.x]
    for layer in range(net.layers - 1):
        parts = []
        for place, how in net.places(layer):
            if kept[place]:
                parts.append(passes.outputs(kept[place], given.lengths, time_major=net.time_major))
            else:
                params, h0 = net.params(given.weights, place), given.h0[place]
                parts.append(scan(net.cell, params, found[-1], h0, lengths=given.lengths, **how)[0])
        found.append(_onward(net, given, layer, parts))
    return found
