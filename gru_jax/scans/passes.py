"""A GRU's forward and backward pass as two functions, for a framework that differentiates by itself.

What JAX keeps between the two passes of one program is more than it uses, and all of it would be written where the
program is cut in two. Here the states and the gates pass from one to the other, where there is machine code, and
nothing where the backward pass runs the forward one again.
"""

import functools

import jax
import jax.numpy as jnp

from gru_jax.cells import GRU, gru_layout
from gru_jax.scans import masking, select
from gru_jax.scans.choices import Sizes
from gru_jax.scans.engines import registry
from gru_jax.scans.engines.registry import Asked, Engine, How
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.methods.sequential import Lean, Sequential
from gru_jax.scans.over_time import scan
from gru_jax.scans.time_axis import TimeAxis
from gru_jax.types import Array, IntArray, Params


def forward(
    cell: GRU, params: Params, x: Array, h0: Array, lengths: IntArray | None, *, reverse: bool, time_major: bool
) -> tuple[Array, Array, tuple[Array, ...]]:
    """The forward pass that a backward pass follows.

    Args:
      cell: a GRU.
      params: `GRUParams`, or `gru_layout.LaidOut`.
      x: `[B, T, I]`, `[T, B, I]` with time_major.
      h0: `[B, H]`.
      lengths: `[B]`, or None.
      reverse: from each sequence's end.
      time_major: see x.

    Returns:
      y and h_T, as `gru_jax.scan` gives them, and what `backward` takes.
    """
    engine, how = _engine(cell, x, lengths, time_major)
    if not engine.two_passes:
        return *scan(cell, params, x, h0, lengths=lengths, reverse=reverse, time_major=time_major), ()
    context, steps = _prepared(params, x, h0, lengths, time_major)
    states, kept = engine.forward(cell, context, steps, reverse, how)
    y = masking.zero_where_masked(steps.use, states)
    return _from_time_major(y, time_major), context.time.end(states, reverse), kept


def outputs(kept: tuple[Array, ...], lengths: IntArray | None, *, time_major: bool) -> Array:
    """y of `forward` again, from what it kept where that is anything."""
    states = kept[0]
    if lengths is None:
        return states
    mask = masking.from_lengths(lengths, states.shape[0 if time_major else 1])
    return masking.zero_where_masked(mask if time_major else mask.T, states)


def backward(
    cell: GRU,
    params: Params,
    x: Array,
    h0: Array,
    lengths: IntArray | None,
    kept: tuple[Array, ...],
    d_y: Array | None,
    d_h: Array | None,
    *,
    reverse: bool,
    time_major: bool,
) -> tuple[Params, Array, Array]:
    """The gradients of params (in the neutral layout), x and h0 from those of y and h_T.

    Args:
      cell, params, x, h0, lengths, reverse, time_major: as for `forward`.
      kept: what that returned.
      d_y: gradient of y; None for zeros.
      d_h: gradient of h_T; None for zeros.
    """
    neutral, _ = gru_layout.apart(params)
    if not kept:
        run = functools.partial(scan, cell, lengths=lengths, reverse=reverse, time_major=time_major)
        (y, h), pull = jax.vjp(run, neutral, x, h0)
        cotangents = (jnp.zeros_like(like) if d is None else d for like, d in ((y, d_y), (h, d_h)))
        return pull(tuple(cotangents))
    engine, how = _engine(cell, x, lengths, time_major)
    context, steps = _prepared(neutral, x, h0, lengths, time_major)
    c = jnp.zeros((steps.x.shape[0], *h0.shape), h0.dtype)
    if d_y is not None:
        c = masking.zero_where_masked(steps.use, d_y if time_major else jnp.moveaxis(d_y, 1, 0))
    if d_h is not None:
        c = c.at[0 if reverse else -1].add(d_h)
    d_context, d_steps = engine.backward(cell, context, steps, reverse, kept, c, how)
    return d_context.params, _from_time_major(d_steps.x, time_major), d_context.h0


def _engine(cell: GRU, x: Array, lengths: IntArray | None, time_major: bool) -> tuple[Engine, How]:
    """What "auto" would run a training step by, and how."""
    T, B = x.shape[:2] if time_major else x.shape[1::-1]
    asked = Asked(x.dtype, lengths=lengths is not None)
    method = select.resolve("auto", cell, Sizes(T, B, cell.hidden_size), asked)
    method = method.differentiated if isinstance(method, Lean) else method
    method = method if isinstance(method, Sequential) else Sequential(kernel="scan")
    return registry.engine(method.kernel), method.how


def _prepared(
    params: Params, x: Array, h0: Array, lengths: IntArray | None, time_major: bool
) -> tuple[Context, Steps]:
    neutral, original = gru_layout.apart(params)
    x = x if time_major else jnp.moveaxis(x, 1, 0)
    use = None if lengths is None else masking.from_lengths(lengths, x.shape[0])
    time = TimeAxis(batch_leads=not time_major)
    return Context(neutral, h0, None, None, time, original=original), Steps(x, use, None)


def _from_time_major(a: Array, time_major: bool) -> Array:
    return a if time_major else jnp.moveaxis(a, 0, 1)
