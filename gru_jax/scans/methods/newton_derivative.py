"""The derivative's linear recurrence without a step-by-step loop: structured scans, repeated until nothing is left.

Where the kept part K of the Jacobian is all of it, one scan solves the recurrence. Where it is the diagonal, what is
missing is moved to the right side and the scan repeated, `v <- solve_K(b + (J - K) v_before)`, one product with J for
all steps at a time. What does not settle is solved step by step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import Cell, accumulator
from gru_jax.scans import solve_by_steps
from gru_jax.scans.derivative import Solver
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.methods import jacobians
from gru_jax.scans.methods.jacobians import AllSteps
from gru_jax.scans.time_axis import TimeAxis, on_same_axes
from gru_jax.types import Array, State, Tree

MOST = 64
"""Rounds in which a solution has to settle."""


def solver(
    cell: Cell, reverse: bool, jacobian: str, kernel: str, context: Context, steps: Steps, starts: State
) -> Solver:
    """The solver of `gru_jax.scans.derivative.Recurrence` for a Jacobian "dense" or "diagonal".

    `kernel` is one of `gru_jax.scans.linear.forms`.
    """
    by_steps = lambda: solve_by_steps.by_scan(cell, reverse)(context, steps, starts)  # noqa: E731

    def turn(tree: Tree) -> Tree:
        return jax.tree.map(lambda a: jnp.flip(a, 0), tree) if reverse else tree

    pack = jacobians.unravel(context.h0)
    wide = lambda tree: jacobians.ravel(jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), tree))  # noqa: E731
    time = context.time.flipped() if reverse else context.time
    f = AllSteps(cell, context._replace(h0=pack(wide(context.h0)), time=time), turn(steps))

    def finite(vector: Array) -> Array:
        # Products of factors above 1 overflow where the recurrence itself, step by step, may not.
        return ~time.any(~jnp.isfinite(vector))

    def narrow(vector: Array, like: State) -> State:
        return jax.tree.map(lambda a, b: a.astype(b.dtype), pack(vector), like)

    def solve(b: State, v_0: State) -> State:
        right, start = wide(turn(b)), wide(v_0)
        j = f.linearize(wide(turn(starts)), jacobian)
        if j.exact:
            v = j.solve(right, start, kernel)
            return lax.cond(finite(v), lambda: turn(narrow(v, b)), lambda: by_steps().solve(b, v_0))

        def again(v: Array) -> Array:
            before = f.before(v, start)
            return j.solve(right + j.tangent(before) - j.times_kept(before), start, kernel)

        v, settled = _until_settled(again, j.solve(right, start, kernel), time, last=True)
        return lax.cond(settled, lambda: turn(narrow(v, b)), lambda: by_steps().solve(b, v_0))

    def transpose(c: State) -> tuple[State, State]:
        right = wide(turn(c))
        j = f.linearize(wide(turn(starts)), jacobian)
        end = jax.tree.map(jnp.zeros_like, context.h0)

        def result(l: Array) -> tuple[State, State]:
            return turn(narrow(l, c)), time.only_first(narrow(j.cotangent(l)[0], end), False)

        if j.exact:
            l = j.solve_transposed(right, kernel)
            return lax.cond(finite(l), lambda: result(l), lambda: by_steps().transpose(c))

        def again(l: Array) -> Array:
            missing = j.cotangent(l) - j.kept_transposed_times(l)
            return j.solve_transposed(right + time.following(missing, False), kernel)

        l, settled = _until_settled(again, j.solve_transposed(right, kernel), time, last=False)
        return lax.cond(settled, lambda: result(l), lambda: by_steps().transpose(c))

    return Solver(solve, transpose)


def _until_settled(
    again: Callable[[Array], Array], first: Array, time: TimeAxis, *, last: bool
) -> tuple[Array, Array]:
    """The fixed point of `again`, `[T, *batch, S]`, and whether it was reached.

    Each unit is held to its own size, for heads need not be of one scale. And the end that the solution runs to (the
    last step, or the first), which may have faded to nothing beside the rest, is held to its own: it is what h_T
    tells of h0.
    """
    eps = float(jnp.finfo(first.dtype).eps)

    def reached(new: Array, old: Array) -> Array:
        change, size = jnp.abs(new - old), jnp.abs(new)
        of_units = time.largest(size, axis=0)
        steady = (time.largest(change, axis=0) <= 4 * eps * of_units) & jnp.isfinite(of_units)
        at_end, of_end = (time.from_edge(a[-1 if last else 0], last=last).max(-1) for a in (change, size))
        return steady.all(-1) & (at_end <= 64 * eps * of_end)

    def more(carry: tuple[Array, Array, Array]) -> Array:
        _, settled, k = carry
        return time.any(~settled) & (k < MOST)

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        v, _, k = carry
        new = again(v)
        return new, reached(new, v), k + 1

    start = (first, jnp.zeros(first.shape[1:-1], bool), jnp.zeros((), jnp.int32))
    v, settled, _ = lax.while_loop(more, step, (*on_same_axes(start[:2]), start[2]))
    return v, ~time.any(~settled)
