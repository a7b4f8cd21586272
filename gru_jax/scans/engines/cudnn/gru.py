"""A GRU over time by cuDNN: what it serves, the trajectory, and the gradients that come with it."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells.base import Cell
from gru_jax.cells.gru import GRU
from gru_jax.cells.gru_params import GRUParams
from gru_jax.scans import derivative, masking, solve_by_steps
from gru_jax.scans.engines.batch import Rows
from gru_jax.scans.engines.cudnn import call, library, packing
from gru_jax.scans.engines.cudnn.build import BuildError
from gru_jax.scans.engines.cudnn.library import Net
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, exact
from gru_jax.types import Array, IntArray, State

BACKEND = "gpu"
"""The backend of JAX that cuDNN runs on."""


def refusal(cell: Cell, asked: Asked) -> str | None:
    """What of a call cuDNN does not serve, as the end of a sentence; None where it serves all of it.

    Raises:
      ValueError: where JAX has no GPU; nothing is looked for or built there.
    """
    backend = jax.default_backend()
    if backend != BACKEND:
        raise ValueError(
            f"Sequential: kernel='cudnn' needs an NVIDIA GPU; JAX runs on {backend} here; use kernel='auto'"
        )
    if not isinstance(cell, GRU):
        return f"{type(cell).__name__} (only GRU)"
    reasons = {
        "reset='before' (its reset comes after the recurrent product)": cell.reset != "after",
        f"heads={cell.heads} (its recurrent matrix is dense)": cell.heads != 1,
        "activations other than 'tanh' and 'sigmoid'": (cell.activation, cell.gate_activation) != ("tanh", "sigmoid"),
        f"{jnp.dtype(asked.dtype).name}": jnp.dtype(asked.dtype).name not in library.DTYPES,
        "a mask, which may have holes (pass lengths)": asked.mask,
        "resets": asked.resets,
        "recurrent dropout": asked.recurrent_dropout,
        "sizes that are not known": asked.symbolic,
        "a state of another dtype than x": asked.other_state,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is not None:
        return reason
    try:
        here = library.loaded()
    except BuildError as error:
        return f"this machine: {error}"
    # How many features there are makes no difference to what cuDNN can.
    problem = here.problem(Net(jnp.dtype(asked.dtype).name, cell.hidden_size, cell.hidden_size))
    return None if problem is None else f"this machine: {problem}"


def trajectory(cell: GRU, context: Context, steps: Steps, reverse: bool, *, persistent: bool = False) -> Trajectory:
    """The states of all steps, differentiable in every mode; gradients are cuDNN's.

    Args:
      cell: one that `refusal` has let pass.
      context: what is the same at every step; with `lengths` where there are any.
      steps: what differs.
      reverse: whether time runs from each sequence's end to its beginning.
      persistent: whether cuDNN is to keep the recurrent matrix on the chip, where it has that.

    Returns:
      The states.

    Raises:
      ValueError: for steps that are masked without lengths, and for sizes that are not known.
    """
    sizes = steps.x.shape
    if steps.use is not None and context.lengths is None:
        raise ValueError("Sequential: kernel='cudnn' takes lengths; got a mask, which may have holes; use kernel='xla'")
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError(
            f"Sequential: kernel='cudnn' needs sizes that are known; got x of {sizes}; use kernel='xla' to export"
        )
    dtype = jnp.dtype(steps.x.dtype).name
    net = Net(dtype, sizes[-1], cell.hidden_size, batch_major=context.time.batch_leads, tf32=_tf32())
    on_chip = dataclasses.replace(net, persistent=True)
    if persistent and library.loaded().problem(on_chip) is None:
        net = on_chip
    one = functools.partial(_find, cell, net, reverse)
    recurrence = derivative.Recurrence(
        functools.partial(masking.F, cell),
        reverse,
        solve_by_steps.by_scan(cell, reverse),
        functools.partial(_gradients, cell, net, reverse),
    )
    full = derivative.differentiable(functools.partial(one, training=True), recurrence, aux=True)
    # The reserve is nothing that a forward pass alone should have to write.
    alone = lambda context, steps: one(context, steps, training=False)[0]  # noqa: E731
    states = derivative.lean(alone, lambda context, steps: full(context, steps)[0])(context, steps)
    return exact(context, states, reverse)


def _find(
    cell: GRU, net: Net, reverse: bool, context: Context, steps: Steps, *, training: bool
) -> tuple[State, tuple[Array, ...]]:
    """The states, and with `training` the reserve."""
    batch, T = context.h0.shape[:-1], steps.x.shape[0]
    if not math.prod(batch):
        return jnp.zeros((T, *batch, cell.hidden_size), context.h0.dtype), ()
    lengths = _lengths(steps)
    x, h0, params = _inputs(cell, net, reverse, lengths, context.params, context.h0, context.drop_x, steps.x)
    run = call.forward_training if training else call.forward
    given = (x, h0, _packed(net, params), _at_least_one(lengths, T, x, net))
    y, h_last, *reserve = run(net, *given, ragged=lengths is not None)
    states = _turned(_rows(net).back(y, batch), lengths, reverse)
    if lengths is None:
        return states, (*reserve,)
    # A masked step holds the state before it: those behind a sequence's end its last, and in reverse, where they come
    # first, h0. cuDNN has no sequence without steps: it was given one, whose state is not looked at.
    ran = jnp.broadcast_to((lengths > 0)[..., None], context.h0.shape)
    held = context.h0 if reverse else jnp.where(ran, h_last.reshape(context.h0.shape), context.h0)
    return jnp.where(_like(steps.use, states), states, jnp.broadcast_to(held, states.shape)), (*reserve,)


def _gradients(
    cell: GRU, net: Net, reverse: bool, context: Context, steps: Steps, states: State, reserve: tuple[Array, ...],
    cotangent: State,
) -> tuple[State, tuple[Context, Steps]]:
    """What gradients of the states give to everything that made them."""
    gradient = jax.tree.map(jnp.zeros_like, context), jax.tree.map(jnp.zeros_like, steps)
    if not reserve:
        return cotangent, gradient
    # Not cuDNN's to say; of use, and so computed, only where a gradient is differentiated once more.
    starts = context.time.before(states, context.h0, reverse)
    adjoint, _ = solve_by_steps.by_scan(cell, reverse)(context, steps, starts).transpose(cotangent)
    lengths = _lengths(steps)
    prepare = functools.partial(_inputs, cell, net, reverse, lengths)
    (x, h0, params), pull = jax.vjp(prepare, context.params, context.h0, context.drop_x, steps.x)
    clean = lambda a: _rows(net).of(_turned(masking.zero_where_masked(steps.use, a), lengths, reverse))  # noqa: E731
    to_last, to_first = jnp.zeros_like(context.h0), jnp.zeros_like(context.h0)
    if lengths is not None:
        held = jnp.where(_like(steps.use, cotangent), jnp.zeros_like(cotangent), cotangent).sum(0)
        ran = jnp.broadcast_to((lengths > 0)[..., None], held.shape) & (not reverse)
        to_last, to_first = jnp.where(ran, held, to_last), jnp.where(ran, to_first, held)
    dx, dh0, dweights = call.backward(
        net, x, h0, _packed(net, params), _at_least_one(lengths, steps.x.shape[0], x, net), clean(states), reserve[0],
        clean(cotangent), to_last.reshape(h0.shape), ragged=lengths is not None,
    )  # fmt: skip
    # What stands past a sequence's end is undefined.
    dx = masking.zero_where_masked(steps.use, _rows(net).back(dx, context.h0.shape[:-1]))
    (d_full,) = packing.unpack(dweights, library.loaded().places(net), [net.input_size], net.hidden_size)
    d_params, d_h0, d_drop_x, d_x = pull((_rows(net).of(dx), dh0, d_full))
    d_context, d_steps = gradient
    d_context = d_context._replace(params=d_params, h0=d_h0 + to_first, drop_x=d_drop_x)
    return adjoint, (d_context, d_steps._replace(x=d_x))


def _inputs(
    cell: GRU, net: Net, reverse: bool, lengths: IntArray | None, params: GRUParams, h0: Array,
    drop_x: Array | None, x: Array,
) -> tuple[Array, Array, GRUParams]:
    """x and h0 as cuDNN's call takes them, and the parameters with all their biases."""
    x = x if drop_x is None else x * jnp.broadcast_to(drop_x, x.shape)
    return _rows(net).of(_turned(x, lengths, reverse)), h0.reshape(1, -1, cell.hidden_size), _full(cell, params)


def _packed(net: Net, params: GRUParams) -> Array:
    """The parameters as cuDNN has them."""
    here = library.loaded()
    size = here.sizes(net, 1, 1, False).weights // params.w_x.dtype.itemsize
    return packing.pack([params], here.places(net), size)


def _full(cell: GRU, params: GRUParams) -> GRUParams:
    """The parameters with all six biases, 0 where the cell has none."""
    none = jnp.zeros(3 * cell.hidden_size, params.w_x.dtype)
    b_x, b_h = (none if b is None else b for b in (params.b_x, params.b_h))
    if cell.bias == "minimal":
        b_h = jnp.concatenate([none[: 2 * cell.hidden_size], b_h])
    return GRUParams(params.w_x, params.w_h, b_x, b_h)


def _lengths(steps: Steps) -> IntArray | None:
    """The steps of each sequence, `[*batch]`; None where they are all T.

    Counted, because these steps may be a part of those that the caller's lengths are of.
    """
    return None if steps.use is None else steps.use.sum(0, dtype=jnp.int32)


def _at_least_one(lengths: IntArray | None, steps: int, x: Array, net: Net) -> IntArray:
    batch = x.shape[0 if net.batch_major else 1]
    return jnp.full(batch, steps, jnp.int32) if lengths is None else jnp.maximum(lengths.reshape(-1), 1)


def _turned(a: Array, lengths: IntArray | None, reverse: bool) -> Array:
    """`[T, *batch, n]` with each sequence turned around within its length; done twice, as it was."""
    if not reverse:
        return a
    if lengths is None:
        return jnp.flip(a, 0)
    now = jnp.broadcast_to(jnp.arange(a.shape[0], dtype=jnp.int32).reshape(-1, *(1,) * lengths.ndim), a.shape[:-1])
    ends = jnp.broadcast_to(lengths, now.shape)
    return jnp.take_along_axis(a, jnp.where(now < ends, ends - 1 - now, now)[..., None], 0)


def _rows(net: Net) -> Rows:
    return Rows(net.batch_major)


def _like(use: Any, a: Array) -> Array:
    return jnp.broadcast_to(use[..., None], a.shape)


def _tf32() -> bool:
    """Whether JAX would let a float32 product be rounded to TF32, by its option `jax_default_matmul_precision`."""
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return str(precision).lower() not in ("highest", "float32", "bfloat16_6x", "f32_f32_f32")
