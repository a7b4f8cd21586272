"""The rounds of Newton's method: an iterate is looked at and moved until nothing moves, then its error is estimated."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.scans.engines.registry import Rounds
from gru_jax.scans.methods import newton_error
from gru_jax.scans.methods.jacobians import AllSteps
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.scans.trajectory import Stats
from gru_jax.types import Array

ERROR_OF_TOL = 16
"""The estimated error of an accepted trajectory, in units of tol, is at most this."""


class Look(NamedTuple):
    """How a round sees an iterate.

    Attributes:
      see: `(h, damping) -> (F, move)`: F at the iterate, and `move(damping)`, by how much a round moves it.
      early: whether `see` has to be given the damping that `move` is, which is known for good only with F.
    """

    see: Callable[[Array, Array], tuple[Array, Callable[[Array], Array]]]
    early: bool


def apart(f: AllSteps, start: Array, jacobian: str, kernel: str) -> Look:
    """The step, its Jacobian, and the recurrence, one after the other."""

    def see(h: Array, _: Array) -> tuple[Array, Callable[[Array], Array]]:
        before = f.before(h, start)
        after = f(before)
        j = f.linearize(before, jacobian)
        return after, lambda damping: j.solve(after - h, jnp.zeros_like(start), kernel, damping)

    return Look(see, early=False)


def fused(f: AllSteps, start: Array, rounds: Rounds) -> Look:
    """All three in one kernel."""

    def see(h: Array, damping: Array) -> tuple[Array, Callable[[Array], Array]]:
        moved, after = rounds.solve(h, start, rounds.products(f.before(h, start)), damping)
        return after, lambda _: moved

    return Look(see, early=True)


def iterate(
    f: AllSteps,
    start: Array,
    error: Array,
    part: Array,
    guess: Array | None,
    look: Look,
    jacobian: str,
    kernel: str,
    damping: float,
    tol: float,
    max_iters: int,
) -> tuple[Array, Array, Stats]:
    """The states from `start` on, which may be off by `error`, `[draws, *batch, S]`, and by how much the last one may.

    `part` says which of the parts that time was cut into these steps are.
    """
    batch, dtype = start.shape[:-1], start.dtype
    length = jax.tree.leaves(f.steps)[0].shape[0]

    def size(a: Array, h: Array) -> Array:
        return newton_error.size(f, a, h)

    class Loop(NamedTuple):
        h: Array
        round: Array
        residual: Array
        damping: Array
        done: Array
        taken: Array
        again: Array

    def more(loop: Loop) -> Array:
        return f.time.any(~loop.done) & (loop.round < max_iters)

    def step(loop: Loop) -> Loop:
        lowered = jnp.maximum(loop.damping / 2, damping)
        lowered = jnp.where(lowered < jnp.maximum(damping, 1e-2), jnp.full_like(lowered, damping), lowered)
        lowered = jnp.where(loop.again, loop.damping, lowered)
        after, move = look.see(loop.h, lowered)
        residual = size(after - loop.h, loop.h)
        # Sequences that are there stay as they are; the others differ from them in nothing but this choice.
        grew = (residual > loop.residual) & ~loop.again
        raised = jnp.where(grew, jnp.maximum(loop.damping * 4, 0.25), lowered)
        moved = move(raised)
        new = loop.h + moved
        # Where a product of factors above 1 has overflowed, a plain step is taken instead.
        new = jnp.where(jnp.isfinite(new), new, after)
        done = loop.done | ((residual <= tol) & (size(moved, loop.h) <= ERROR_OF_TOL * tol))
        # What was found with too little damping is not taken: the same round once more, with that of now.
        again = f.time.any(grew) if look.early else jnp.zeros((), bool)
        done, known = jnp.where(again, loop.done, done), loop.done | again
        # The last move, too: of what is left of the residual it leaves next to nothing.
        h = jnp.where(rows(known, new), loop.h, new)
        taken = jnp.where(done | again, loop.taken, loop.taken + 1)
        round = jnp.where(again, loop.round, loop.round + 1)
        return Loop(h, round, jnp.where(known, loop.residual, residual), raised, done, taken, again)

    if guess is None:
        guess = f(jnp.broadcast_to(start, (length, *start.shape)))
    none = jnp.zeros(batch, bool)
    first = Loop(
        jnp.where(jnp.isfinite(guess), guess, jnp.zeros_like(guess)),
        jnp.zeros((), jnp.int32),
        jnp.full(batch, jnp.inf, dtype),
        jnp.full(batch, damping, dtype),
        none,
        jnp.zeros(batch, jnp.int32),
        jnp.zeros((), bool),
    )
    together = on_same_axes(first if look.early else first._replace(round=none, again=none))
    if not look.early:
        together = together._replace(round=first.round, again=first.again)
    loop = lax.while_loop(more, step, together)
    before = f.before(loop.h, start)
    off = f(before) - loop.h
    residual = size(off, loop.h)
    j = f.linearize(before, jacobian)
    bound = ERROR_OF_TOL * tol
    largest, ends = newton_error.estimate(f, j, before, loop.h, off, error, part, loop.done, bound, kernel)
    converged = loop.done & (residual <= tol) & (largest <= bound)
    return loop.h, ends, Stats(loop.taken, residual, largest, converged, none)


def rows(flag: Array, like: Array) -> Array:
    """`[*batch]` spread over `[T, *batch, S]`."""
    return jnp.broadcast_to(flag[None, ..., None], like.shape)
