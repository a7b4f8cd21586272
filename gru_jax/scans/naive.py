"""The semantics of `gru_jax.scan`, written down as a plain Python loop: the oracle that every method is tested against.

Nothing here is fast, nothing is shared with the code it judges but the cell itself and the draw of dropout masks.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells.base import Gates
from gru_jax.scans.masking import dropout_masks
from gru_jax.types import Array, BoolArray, DType, IntArray, Key, Params, State


def scan(
    cell: Any,
    params: Params,
    x: Array,
    h0: State = None,
    *,
    lengths: IntArray | None = None,
    mask: BoolArray | None = None,
    resets: BoolArray | None = None,
    reset_to: State = None,
    reverse: bool = False,
    time_major: bool = False,
    padding: str = "zero",
    input_dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    key: Key | None = None,
    return_gates: bool = False,
    state_dtype: DType | None = None,
) -> tuple[Array, State] | tuple[Array, State, Gates]:
    """What `gru_jax.scan` computes, step by step in Python; arguments and returns are the same, nothing is checked.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.GRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = scan(cell, params, jnp.ones((2, 5, 3)), lengths=jnp.array([5, 0]))
      >>> float(jnp.abs(h[1]).max())
      0.0
    """
    if time_major:
        x = jnp.moveaxis(x, 0, -2)
        mask = None if mask is None else jnp.moveaxis(mask, 0, -1)
        resets = None if resets is None else jnp.moveaxis(resets, 0, -1)
    batch, T, input_size = x.shape[:-2], x.shape[-2], x.shape[-1]
    if h0 is None:
        h0 = cell.initial_state(batch, x.dtype)
    if reset_to is None:
        reset_to = cell.initial_state(batch, x.dtype)
    if state_dtype is not None:
        h0, reset_to = jax.tree.map(lambda a: a.astype(state_dtype), (h0, reset_to))
    hidden = cell.output(h0).shape[-1]
    rates, sizes = (input_dropout, recurrent_dropout), (input_size, hidden)
    drop_x, drop_h = dropout_masks(key, batch, sizes, rates, x.dtype)

    def pick(flag: BoolArray, yes: State, no: State) -> State:
        return jax.tree.map(lambda a, b: jnp.where(flag[..., None] & jnp.ones(a.shape, bool), a, b), yes, no)

    h = h0
    outputs: dict[int, Array] = {}
    gates: dict[int, Gates] = {}
    for t in reversed(range(T)) if reverse else range(T):
        x_t = x[..., t, :]
        use = jnp.ones(batch, bool)
        if lengths is not None:
            use = t < lengths
        if mask is not None:
            use = mask[..., t]
        x_t = pick(use, x_t, jnp.zeros_like(x_t))
        start = h if resets is None else pick(resets[..., t], reset_to, h)
        u = cell.project(params, x_t if drop_x is None else x_t * drop_x)
        stepped = cell.step(params, u, start) if drop_h is None else cell.step(params, u, start, drop_h)
        h = pick(use, stepped, h)
        y_t = cell.output(h).astype(x.dtype)
        outputs[t] = pick(use, y_t, jnp.zeros_like(y_t)) if padding == "zero" else y_t
        if return_gates:
            seen = cell.gates(params, u, start, *([] if drop_h is None else [drop_h]))
            seen = jax.tree.map(lambda g: g.astype(x.dtype), seen)
            gates[t] = pick(use, seen, jax.tree.map(jnp.zeros_like, seen))

    axis = 0 if time_major else len(batch)
    empty = (*batch[:axis], 0, *batch[axis:], hidden)

    def stack(values: list[Array]) -> Array:
        return jnp.stack(values, axis) if values else jnp.zeros(empty, x.dtype)

    y = stack([outputs[t] for t in range(T)])
    if not return_gates:
        return y, h
    return y, h, Gates(*(stack([getattr(gates[t], name) for t in range(T)]) for name in Gates._fields))
