"""Linear recurrences by one kernel, with the derivative of every other method.

The kernel is `kernels/recurrence.py` on a GPU or TPU; on a CPU `kernels/llvm/recurrence.py` for given factors, and for
minGRU and minLSTM `kernels/llvm/minimal.py`.

What a cell computes from its projected input alone is computed in the kernel, forwards and backwards, so that nothing
but that input, the states and their gradients goes through memory.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells.base import accumulator
from gru_jax.scans import derivative, engines, masking
from gru_jax.scans.derivative import Recurrence, Solver
from gru_jax.scans.engines.pallas import recurrence
from gru_jax.scans.engines.pallas.recurrence import Operands
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import WHOLE, TimeAxis
from gru_jax.types import Array, State


def run(a: Array, b: Array, h0: Array, *, reverse: bool, kernel: str, time: TimeAxis = WHOLE) -> Array:
    """The states of `h_t = a_t h_{t-1} + b_t`, arrays `[T, *batch, H]`, with a kernel of `kernels.FUSED`."""
    if kernel == "llvm":
        rows = h0.reshape(-1, h0.shape[-1])
        return _from_rows(_llvm().states(_rows(a, time), _rows(b, time), rows, **_how(reverse, time)), h0, time)
    streams = _rows(a, time), _rows(b, time)
    target, how = engines.target("linear_scan", kernel), {"reverse": reverse, "batch_leads": time.batch_leads}
    (h,) = recurrence.states(target, _as_read, Operands(streams), h0.reshape(-1, h0.shape[-1]), **how)
    return _from_rows(h, h0, time)


def transposed(a: Array, c: Array, *, reverse: bool, kernel: str, time: TimeAxis = WHOLE) -> Array:
    """The states of `l_t = c_t + a_{t+1} l_{t+1}`; arguments as for `run`."""
    start = jnp.zeros_like(c[0])
    flat = start.reshape(-1, c.shape[-1])
    if kernel == "llvm":
        a, c = _rows(a, time), _rows(c, time)
        return _from_rows(_llvm().gradients(a, flat, c, c, **_how(reverse, time))[1], start, time)
    operands = Operands((_rows(c, time),), lagged=((_rows(a, time), flat.astype(a.dtype)),))
    target, how = engines.target("linear_scan", kernel), {"reverse": not reverse, "batch_leads": time.batch_leads}
    (adjoint,) = recurrence.states(target, lambda c, a: (a, c), operands, flat, **how)
    return _from_rows(adjoint, start, time)


def linear(a: Array, b: Array, h0: Array, *, reverse: bool, kernel: str, time: TimeAxis) -> Array:
    """`run` with its derivative; the gradients of a and b come from one pass."""

    def step(context: Context, step: Steps, h: Array) -> Array:
        full = accumulator(h.dtype)
        a, b = step.x
        return (a.astype(full) * h.astype(full) + b.astype(full)).astype(h.dtype)

    def find(context: Context, steps: Steps) -> Array:
        a, b = steps.x
        return run(a, b, context.h0, reverse=reverse, kernel=kernel, time=time)

    def solver(context: Context, steps: Steps, starts: State) -> Solver:
        return _solver(steps.x[0], reverse, kernel, time)

    def gradients(context: Context, steps: Steps, h: Array, others: Any, c: Array) -> tuple[Array, Any]:
        a, b = (_rows(array, time) for array in steps.x)
        rows, h, c = context.h0.reshape(-1, h.shape[-1]), _rows(h, time), _rows(c, time)
        if kernel == "llvm":
            d_a, d_b, d_h0 = _llvm().gradients(a, rows, h, c, **_how(reverse, time))
        else:
            target, how = engines.target("linear_scan", kernel), {"reverse": reverse, "batch_leads": time.batch_leads}
            each, d_h0 = recurrence.gradients(target, _as_read, Operands((a, b)), rows, h, c, **how)
            d_a, d_b = each.streams
        d_a, d_b = (_from_rows(array, context.h0, time) for array in (d_a, d_b))
        d_h0 = d_h0.reshape(context.h0.shape)
        return d_b, (context._replace(h0=d_h0), steps._replace(x=(d_a, d_b)))

    context = Context(params=(), h0=h0, drop_x=None, drop_h=None, time=time)
    whole = Recurrence(step, reverse, solver, gradients)
    return derivative.differentiable(find, whole)(context, Steps((a, b), use=None, reset=None))


def takes(cell: Any, steps: Steps, kernel: str) -> bool:
    """Whether the kernel can compute a cell's (a, b) from its projected input."""
    if kernel == "llvm":
        from gru_jax.scans.engines.llvm import minimal

        return minimal.takes(cell) and steps.reset is None
    return kernel in engines.PALLAS and hasattr(cell, "coefficients")


def trajectory(cell: Any, context: Context, steps: Steps, *, reverse: bool, kernel: str) -> Array:
    """The states of a cell that has `coefficients`, `[T, *batch, H]`, with their derivative."""
    if kernel == "llvm":
        return _minimal(cell, context, steps, reverse)
    target, time = engines.target("Associative", kernel), context.time
    masked, resets = steps.use is not None, steps.reset is not None
    how = {"reverse": reverse, "batch_leads": time.batch_leads}

    def coefficients(*values: Array) -> tuple[Array, Array]:
        a, b = cell.coefficients(*values[: cell.parts])
        rest = iter(values[cell.parts :])
        use = next(rest) if masked else None
        if resets:
            reset, start = next(rest), next(rest)
            a, b = jnp.where(reset, jnp.zeros_like(a), a), jnp.where(reset, a * start + b, b)
        if use is not None:
            a, b = jnp.where(use, a, jnp.ones_like(a)), jnp.where(use, b, jnp.zeros_like(b))
        return a, b

    def read(moving: Any) -> tuple[Array, Array, tuple[Array, ...]]:
        """What moves: the projected input, h0, and what a reset sets back to."""
        context, x = moving
        u = _projected(cell, context, x)
        h0 = context.h0.reshape(-1, context.h0.shape[-1])
        rows = (context.reset_to.reshape(h0.shape),) if resets else ()
        return u.reshape(*u.shape[:2], cell.parts, -1), h0, rows

    def operands(steps: Steps, u: Array, rows: tuple[Array, ...]) -> Operands:
        flags = tuple(_flag(flag, time) for flag in (steps.use, steps.reset) if flag is not None)
        return Operands((u,), flags=flags, rows=rows)

    def find(context: Context, steps: Steps) -> Array:
        u, h0, rows = read((context, steps.x))
        (h,) = recurrence.states(target, coefficients, operands(steps, u, rows), h0, **how)
        return _from_rows(h, context.h0, time)

    def factors(context: Context, steps: Steps) -> Array:
        return jax.vmap(lambda step: masking.affine(cell, context, step)[0])(steps)

    def solver(context: Context, steps: Steps, starts: State) -> Solver:
        return _solver(factors(context, steps), reverse, kernel, time)

    def gradients(context: Context, steps: Steps, h: Array, others: Any, c: Array) -> tuple[Array, Any]:
        (u, h0, rows), pull = jax.vjp(read, (context, steps.x))
        each, d_h0 = recurrence.gradients(
            target, coefficients, operands(steps, u, rows), h0, _rows(h, time), _rows(c, time), **how
        )
        ((d_context, d_x),) = pull((each.streams[0], d_h0, each.rows))
        # Only a derivative of this derivative looks at the adjoint: a pass of its own, which is not compiled elsewhere.
        adjoint = transposed(factors(context, steps), c, reverse=reverse, kernel=kernel, time=time)
        nothing = jax.tree.map(jnp.zeros_like, steps)
        return adjoint, (d_context, nothing._replace(x=d_x))

    return derivative.differentiable(find, Recurrence(_step(cell), reverse, solver, gradients))(context, steps)


def _minimal(cell: Any, context: Context, steps: Steps, reverse: bool) -> Array:
    """`trajectory` by the kernel for a CPU, which knows the cells' equations."""
    from gru_jax.scans.engines.llvm import minimal

    time, how = context.time, _how(reverse, context.time)

    def read(moving: Any) -> tuple[Array, Array]:
        context, x = moving
        u = _projected(cell, context, x)
        u = u.reshape(*u.shape[:2], cell.parts, -1)
        return u, context.h0.reshape(-1, context.h0.shape[-1]).astype(u.dtype)

    def use(steps: Steps) -> Array | None:
        return None if steps.use is None else _flag(steps.use, time)

    def find(context: Context, steps: Steps) -> Array:
        u, h0 = read((context, steps.x))
        h = minimal.states(cell, u, h0, use(steps), **how)
        return _from_rows(h, context.h0, time).astype(context.h0.dtype)

    def factors(context: Context, steps: Steps) -> Array:
        return jax.vmap(lambda step: masking.affine(cell, context, step)[0])(steps)

    def solver(context: Context, steps: Steps, starts: State) -> Solver:
        return _solver(factors(context, steps), reverse, "llvm", time)

    def gradients(context: Context, steps: Steps, h: Array, others: Any, c: Array) -> tuple[Array, Any]:
        (u, h0), pull = jax.vjp(read, (context, steps.x))
        h, flat = (_rows(array, time).astype(u.dtype) for array in (h, c))
        moving = minimal.gradients(cell, u, h0, use(steps), h, flat, **how)
        ((d_context, d_x),) = pull(moving)
        # Of use, and so computed, only where a gradient is differentiated once more.
        adjoint = transposed(factors(context, steps), c.astype(u.dtype), reverse=reverse, kernel="llvm", time=time)
        nothing = jax.tree.map(jnp.zeros_like, steps)
        return adjoint.astype(c.dtype), (d_context, nothing._replace(x=d_x))

    return derivative.differentiable(find, Recurrence(_step(cell), reverse, solver, gradients))(context, steps)


def _step(cell: Any) -> Any:
    return lambda context, step, h: masking.F(cell, context, step, h)


def _solver(a: Array, reverse: bool, kernel: str, time: TimeAxis) -> Solver:
    """The linearized recurrence by the kernel of the plain one."""
    first = -1 if reverse else 0

    def solve(b: Array, v_0: Array) -> Array:
        return run(a, b, v_0, reverse=reverse, kernel=kernel, time=time)

    def transpose(c: Array) -> tuple[Array, Array]:
        adjoint = transposed(a, c, reverse=reverse, kernel=kernel, time=time)
        return adjoint, (a[first].astype(c.dtype) * adjoint[first]).astype(c.dtype)

    return Solver(solve, transpose)


def _llvm() -> Any:
    # Imported here: what is not used need not be there.
    from gru_jax.scans.engines.llvm import recurrence

    return recurrence


def _how(reverse: bool, time: TimeAxis) -> dict[str, Any]:
    return {"reverse": reverse, "batch_leads": time.batch_leads, "cores": engines.usable_cores()}


def _as_read(a: Array, b: Array) -> tuple[Array, Array]:
    return a, b


def _projected(cell: Any, context: Context, x: Array) -> Array:
    """The projected input of all steps, `[T, B, parts H]` or `[B, T, parts H]`, projected as it lies."""
    drop = context.drop_x
    if not context.time.batch_leads:
        x = x if drop is None else x * jnp.broadcast_to(drop, x.shape)
        return _of_rows(cell, context.params, x).reshape(x.shape[0], -1, cell.parts * context.h0.shape[-1])
    x = jnp.moveaxis(x, 0, -2)
    x = x if drop is None else x * jnp.broadcast_to(drop[..., None, :], x.shape)
    return _of_rows(cell, context.params, x).reshape(-1, x.shape[-2], cell.parts * context.h0.shape[-1])


def _of_rows(cell: Any, params: Any, x: Array) -> Array:
    """The projection of all rows as one product of two matrices: XLA's CPU compiler puts the bias into that."""
    return cell.project(params, x.reshape(-1, x.shape[-1]))


def _rows(array: Array, time: TimeAxis) -> Array:
    """`[T, *batch, H]` to `[T, B, H]`, or `[B, T, H]` where the caller's arrays lie so: two turns that cancel."""
    if time.batch_leads:
        return jnp.moveaxis(array, 0, -2).reshape(-1, array.shape[0], array.shape[-1])
    return array.reshape(array.shape[0], -1, array.shape[-1])


def _from_rows(array: Array, like: Array, time: TimeAxis) -> Array:
    """Back to `[T, *batch, H]`, with the batch of `like`, `[*batch, H]`."""
    if time.batch_leads:
        return jnp.moveaxis(array.reshape(*like.shape[:-1], array.shape[1], like.shape[-1]), -2, 0)
    return array.reshape(array.shape[0], *like.shape)


def _flag(flag: Array, time: TimeAxis) -> Array:
    """`[T, *batch]` to `[T, B]` or `[B, T]`."""
    if time.batch_leads:
        return jnp.moveaxis(flag, 0, -1).reshape(-1, flag.shape[0])
    return flag.reshape(flag.shape[0], -1)
