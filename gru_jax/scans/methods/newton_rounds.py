"""The rounds of Newton's method: an iterate is looked at and moved until nothing moves, then its error is estimated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gru_jax.scans.methods.jacobians import AllSteps, Jacobian
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.scans.trajectory import Stats
from gru_jax.types import Array

ERROR_OF_TOL = 16
"""The estimated error of an accepted trajectory, in units of tol, is at most this."""

CERTIFY = 66
"""Rounds in which the estimate of the error has to settle. Each makes at least one more step exact, so that windows of
64 steps do, whatever their Jacobians are."""

DRAWS = 8
"""How often rounding is pretended, a power of 2: one draw alone may be lucky with its signs where the network amplifies
what happens in a few steps."""

SAFETY = 2.0
"""How many times the root mean square of the draws' errors an error is taken to be."""


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


def fused(f: AllSteps, start: Array, rounds: Any) -> Look:
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
    """The states from `start` on, which may be off by `error`, `[DRAWS, *batch, S]`, and by how much the last one may.

    `part` says which of the parts that time was cut into these steps are.
    """
    batch, dtype = start.shape[:-1], start.dtype
    length = jax.tree.leaves(f.steps)[0].shape[0]

    def size(a: Array, h: Array) -> Array:
        return _size(f, a, h)

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
    # Not the same signs in every part: what they add up to would be the same in each, and grow with their number.
    key = jax.random.fold_in(jax.random.key(1), f.time.numbered(part))
    signs = jax.random.rademacher(key, (length, start.shape[-1]), dtype)
    rounding = f.rounding(before) * _of_units(signs, off)

    def judge(worst: Array, draw: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        pattern, start = draw
        # One draw that is too far off is enough: what is refused by it is not followed through the others.
        there = loop.done & (SAFETY / DRAWS**0.5 * worst <= ERROR_OF_TOL * tol)
        e, largest = _error(f, j, off + rounding * _of_units(pattern, off), start, loop.h, there, kernel)
        largest = jnp.where(there, largest, jnp.where(loop.done, worst, jnp.full_like(worst, jnp.inf)))
        return jnp.maximum(worst, largest), (e[-1], largest)

    nothing = on_same_axes((jnp.zeros(batch, dtype), off))[0]
    _, (ends, each) = lax.scan(judge, nothing, (_patterns(length, start.shape[-1], dtype), error))
    largest = SAFETY * jnp.sqrt((each**2).mean(0))
    converged = loop.done & (residual <= tol) & (largest <= ERROR_OF_TOL * tol)
    return loop.h, ends, Stats(loop.taken, residual, largest, converged, none)


def _patterns(length: int, size: int, dtype: Any) -> Array:
    """Signs for each draw, step and unit, `[DRAWS, T, S]`: those of neighbours are orthogonal over the draws.

    The mean square over the draws then has all of what each of as many neighbours, units or steps, adds, and nothing
    of what they do together, which is chance.
    """
    hadamard = np.array([[(-1) ** (a & b).bit_count() for b in range(DRAWS)] for a in range(DRAWS)])
    places = lax.broadcasted_iota(jnp.int32, (length, size), 0) + lax.broadcasted_iota(jnp.int32, (length, size), 1)
    return jnp.asarray(hadamard, dtype)[:, places % DRAWS]


def _error(
    f: AllSteps, j: Jacobian, new_in_step: Array, start: Array, h: Array, there: Array, kernel: str
) -> tuple[Array, Array]:
    """How far off the states are that are off by so much more in each step, `[T, *batch, S]`, and the largest of it.

    Even a trajectory whose every step is right to the last bit drifts away from the true one where the network
    amplifies differences. So the tangent system is solved for what is left of the residual, with its signs, and for
    rounding of a random sign in every step; not for sequences that are not `there`, `[*batch]`.
    """
    e = j.solve(new_in_step, start, kernel)
    if j.exact:
        return e, _size(f, e, h)

    def more(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, _, settled, k = carry
        return f.time.any(~settled) & (k < CERTIFY)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        e, changed, settled, k = carry
        before = f.before(e, start)
        new = j.solve(new_in_step + j.tangent(before) - j.times_kept(before), start, kernel)
        change = _size(f, new - e, h)
        # What all rounds to come would change, if each changes as much less than the one before.
        shrinks = change / jnp.maximum(changed, jnp.finfo(h.dtype).tiny)
        to_come = change * shrinks / (1 - shrinks)
        small = (change == 0) | ((shrinks < 0.9) & (to_come <= 0.25 * _size(f, new, h)))
        return new, change, settled | small, k + 1

    first = on_same_axes((e, _size(f, e, h), ~there))
    e, _, settled, _ = lax.while_loop(more, step, (*first, jnp.zeros((), jnp.int32)))
    largest = 1.25 * _size(f, e, h)
    return e, jnp.where(settled & there, largest, jnp.full_like(largest, jnp.inf))


def _of_units(signs: Array, like: Array) -> Array:
    """`[T, S]` spread over `[T, *batch, S]`."""
    return jnp.broadcast_to(signs.reshape(signs.shape[0], *(1,) * (like.ndim - 2), signs.shape[-1]), like.shape)


def _size(f: AllSteps, a: Array, h: Array) -> Array:
    """The largest element relative to max(1, |h|), for each sequence: `[T, *batch, S]` to `[*batch]`."""
    return f.time.largest(jnp.abs(a) / jnp.maximum(jnp.abs(h), 1))


def rows(flag: Array, like: Array) -> Array:
    """`[*batch]` spread over `[T, *batch, S]`."""
    return jnp.broadcast_to(flag[None, ..., None], like.shape)
