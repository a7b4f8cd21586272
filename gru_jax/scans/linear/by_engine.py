"""Linear recurrences by an engine, with the derivative of every other method.

What a cell computes from its projected input alone is computed by the engine where it can, forwards and backwards, so
that nothing but that input, the states and their gradients goes through memory.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells.base import accumulator
from gru_jax.scans import derivative, masking
from gru_jax.scans.derivative import Recurrence, Solver
from gru_jax.scans.engines.batch import Rows
from gru_jax.scans.engines.registry import Around, LinearEngine
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import WHOLE, TimeAxis
from gru_jax.types import Array, State


def run(engine: LinearEngine, a: Array, b: Array, h0: Array, *, reverse: bool, time: TimeAxis = WHOLE) -> Array:
    """The states of `h_t = a_t h_{t-1} + b_t`, arrays `[T, *batch, H]`."""
    rows, how = _lie(time, reverse)
    h = engine.states(rows.of(a), rows.of(b), h0.reshape(-1, h0.shape[-1]), **how)
    return rows.back(h, h0.shape[:-1])


def transposed(engine: LinearEngine, a: Array, c: Array, *, reverse: bool, time: TimeAxis = WHOLE) -> Array:
    """The states of `l_t = c_t + a_{t+1} l_{t+1}`; arguments as for `run`."""
    rows, how = _lie(time, reverse)
    return rows.back(engine.adjoint(rows.of(a), rows.of(c), **how), c.shape[1:-1])


def linear(engine: LinearEngine, a: Array, b: Array, h0: Array, *, reverse: bool, time: TimeAxis) -> Array:
    """`run` with its derivative; the gradients of a and b come from one pass."""
    rows, how = _lie(time, reverse)

    def step(context: Context, step: Steps, h: Array) -> Array:
        full = accumulator(h.dtype)
        a, b = step.x
        return (a.astype(full) * h.astype(full) + b.astype(full)).astype(h.dtype)

    def find(context: Context, steps: Steps) -> Array:
        a, b = steps.x
        return run(engine, a, b, context.h0, reverse=reverse, time=time)

    def solver(context: Context, steps: Steps, starts: State) -> Solver:
        return _solver(engine, steps.x[0], reverse, time)

    def gradients(
        context: Context, steps: Steps, h: Array, others: object, c: Array
    ) -> tuple[Array, tuple[Context, Steps]]:
        a, b, h, c = (rows.of(array) for array in (*steps.x, h, c))
        d_a, d_b, d_h0 = engine.gradients(a, b, context.h0.reshape(-1, h.shape[-1]), h, c, **how)
        d_a, d_b = (rows.back(array, context.h0.shape[:-1]) for array in (d_a, d_b))
        return d_b, (context._replace(h0=d_h0.reshape(context.h0.shape)), steps._replace(x=(d_a, d_b)))

    context = Context(params=(), h0=h0, drop_x=None, drop_h=None, time=time)
    whole = Recurrence(step, reverse, solver, gradients)
    return derivative.differentiable(find, whole)(context, Steps((a, b), use=None, reset=None))


def trajectory(engine: LinearEngine, cell: Any, context: Context, steps: Steps, reverse: bool) -> Array:
    """The states of a cell that the engine takes, `[T, *batch, H]`, with their derivative."""
    rows, how = _lie(context.time, reverse)

    def read(moving: tuple[Context, Array]) -> tuple[Array, Array, Array | None]:
        """What moves: the projected input, h0, and what a reset sets back to."""
        context, x = moving
        to = None if steps.reset is None else context.reset_to.reshape(-1, context.reset_to.shape[-1])
        return _projected(cell, context, x), context.h0.reshape(-1, context.h0.shape[-1]), to

    def around(steps: Steps, to: Array | None) -> Around:
        use, reset = (None if flag is None else rows.flag(flag) for flag in (steps.use, steps.reset))
        return Around(use, reset, to)

    def find(context: Context, steps: Steps) -> Array:
        u, h0, to = read((context, steps.x))
        h = engine.cell_states(cell, u, h0, around(steps, to), **how)
        return rows.back(h, context.h0.shape[:-1]).astype(context.h0.dtype)

    def factors(context: Context, steps: Steps) -> Array:
        return jax.vmap(lambda step: masking.affine(cell, context, step)[0])(steps)

    def solver(context: Context, steps: Steps, starts: State) -> Solver:
        return _solver(engine, factors(context, steps), reverse, context.time)

    def gradients(
        context: Context, steps: Steps, h: Array, others: object, c: Array
    ) -> tuple[Array, tuple[Context, Steps]]:
        (u, h0, to), pull = jax.vjp(read, (context, steps.x))
        found = engine.cell_gradients(cell, u, h0, around(steps, to), rows.of(h), rows.of(c), **how)
        ((d_context, d_x),) = pull(jax.tree.map(lambda d, like: d.astype(like.dtype), found, (u, h0, to)))
        # Only a derivative of this derivative looks at the adjoint: a pass of its own, which is not compiled elsewhere.
        a = factors(context, steps)
        adjoint = transposed(engine, a, c.astype(a.dtype), reverse=reverse, time=context.time).astype(c.dtype)
        nothing = jax.tree.map(jnp.zeros_like, steps)
        return adjoint, (d_context, nothing._replace(x=d_x))

    step = lambda context, step, h: masking.F(cell, context, step, h)  # noqa: E731
    return derivative.differentiable(find, Recurrence(step, reverse, solver, gradients))(context, steps)


def _lie(time: TimeAxis, reverse: bool) -> tuple[Rows, dict[str, bool]]:
    return Rows(time.batch_leads), {"reverse": reverse, "batch_leads": time.batch_leads}


def _solver(engine: LinearEngine, a: Array, reverse: bool, time: TimeAxis) -> Solver:
    """The linearized recurrence by the engine of the plain one."""
    first = -1 if reverse else 0

    def solve(b: Array, v_0: Array) -> Array:
        return run(engine, a, b, v_0, reverse=reverse, time=time)

    def transpose(c: Array) -> tuple[Array, Array]:
        adjoint = transposed(engine, a, c, reverse=reverse, time=time)
        return adjoint, (a[first].astype(c.dtype) * adjoint[first]).astype(c.dtype)

    return Solver(solve, transpose)


def _projected(cell: Any, context: Context, x: Array) -> Array:
    """The projected input of all steps in parts, `[T, B, P, H]` or `[B, T, P, H]`, projected as it lies."""
    drop = context.drop_x
    if context.time.batch_leads:
        x = jnp.moveaxis(x, 0, -2)
        x = x if drop is None else x * jnp.broadcast_to(drop[..., None, :], x.shape)
        shape = (-1, x.shape[-2])
    else:
        x = x if drop is None else x * jnp.broadcast_to(drop, x.shape)
        shape = (x.shape[0], -1)
    # All rows in one product of two matrices: XLA's CPU compiler puts the bias into that.
    u = cell.project(context.params, x.reshape(-1, x.shape[-1]))
    return u.reshape(*shape, cell.parts, context.h0.shape[-1])
