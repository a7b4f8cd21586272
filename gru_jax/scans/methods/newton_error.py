"""How far off a trajectory may be that has converged: the network amplifies what rounding adds in every step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.scans.methods.jacobians import AllSteps, Jacobian, orthogonal_signs
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array, DType

CERTIFY = 66
"""Rounds in which the estimate of the error has to settle. Each makes at least one more step exact, so that windows of
64 steps do, whatever their Jacobians are."""

ROUNDINGS = 8
"""How often independent roundings are pretended, a power of 2: one draw alone may be lucky with its signs where the
network amplifies what happens in a few steps."""

DRAWS = ROUNDINGS + 2
"""How many errors are solved for: these, and two of roundings that are the same in steps alike."""

SAFETY = 2.0
"""How many times the largest error of independent roundings an error is taken to be."""


class _Errors(NamedTuple):
    """The largest errors solved for so far, `[*batch]`.

    Attributes:
      independent: of independent roundings.
      same: of what is left of the residual, and of roundings that are the same in steps alike.
    """

    independent: Array
    same: Array

    def estimate(self) -> Array:
        """What both may add up to."""
        return jnp.hypot(SAFETY * self.independent, self.same)


def estimate(
    f: AllSteps, j: Jacobian, before: Array, h: Array, off: Array, error: Array, part: Array, done: Array,
    bound: float, kernel: str,
) -> tuple[Array, Array]:  # fmt: skip
    """How far off the states may be, relative to max(1, |h|), `[*batch]`, and of each draw what the last one may.

    Even a trajectory whose every step is right to the last bit drifts away from the true one where the network
    amplifies differences. How its steps are rounded is not known. So the tangent system is solved for what is left of
    the residual and for roundings of pretended signs.

    Args:
      f: the steps.
      j: their Jacobian.
      before: the states before each step, at which it was taken, `[T, *batch, S]`.
      h: the states after it.
      off: what is left of the residual.
      error: how far off what they start from may be, `[DRAWS, *batch, S]`.
      part: which of the parts that time was cut into these steps are.
      done: of which sequences it is asked, `[*batch]`; of the others it is infinite.
      bound: from which on it is no longer looked at closely.
      kernel: what solves linear recurrences.

    Returns:
      The estimate, and the errors of the last states, as `error`.
    """
    shape = (h.shape[0], h.shape[-1])
    steps, units = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    # Not the same signs in every part: what they add up to would be the same in each, and grow with their number.
    key = jax.random.fold_in(jax.random.key(1), f.time.numbered(part))
    signs = jax.random.rademacher(key, shape, h.dtype)
    # Those of neighbours, units or steps, are orthogonal over the draws: what they do together is not left to chance.
    place = (steps + units) % ROUNDINGS
    rounding, diagonal = f.rounding(before), j.diagonal(h)

    def judge(found: _Errors, draw: tuple[Array, Array, Array]) -> tuple[_Errors, Array]:
        number, of_place, start = draw
        independent = number < ROUNDINGS
        pattern = jnp.where(
            independent, _of_units(signs * of_place[place], off), _signs_of_steps(diagonal, number, h.dtype)
        )
        new_in_step = rounding * pattern + jnp.where(independent, jnp.zeros_like(off), off)
        # What is refused by one draw is not followed through the others.
        there = found.estimate() <= bound
        e, largest = _solve(f, j, new_in_step, start, h, there, kernel)
        nothing = jnp.zeros_like(largest)
        largest = jnp.where(there, largest, nothing)
        return _Errors(
            jnp.maximum(found.independent, jnp.where(independent, largest, nothing)),
            jnp.maximum(found.same, jnp.where(independent, nothing, largest)),
        ), e[-1]

    none = jnp.zeros_like(done, h.dtype)
    first = _Errors(none, jnp.where(done, none, jnp.full_like(none, jnp.inf)))
    of_places = jnp.pad(jnp.asarray(orthogonal_signs(ROUNDINGS), h.dtype), ((0, DRAWS - ROUNDINGS), (0, 0)))
    draws = jnp.arange(DRAWS, dtype=jnp.int32), of_places, error
    found, ends = lax.scan(judge, on_same_axes((first, off))[0], draws)
    return found.estimate(), ends


def _signs_of_steps(diagonal: Array, draw: Array, dtype: DType) -> Array:
    """A sign for each step and unit that is the same in steps alike, `[T, *batch, S]`, from dF/dh's diagonal.

    A gate of much the same size is rounded much the same, step after step, and it adds up to as much as there are
    steps. Where what comes in differs, so does how much is forgotten, 1 - dF/dh, and signs are as good as random.
    """
    forgets = (1 - jnp.abs(diagonal)).astype(jnp.float32)
    # What differs by less than some 2 % is alike: of the mantissa six bits remain.
    bits = (lax.bitcast_convert_type(forgets, jnp.uint32) >> jnp.uint32(17)) + draw.astype(jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # every bit has a part in the last one that is looked at
        bits = (bits ^ (bits >> jnp.uint32(shift))) * jnp.uint32(factor)
    return jnp.where(bits >> jnp.uint32(31) == 1, 1, -1).astype(dtype)


def _solve(
    f: AllSteps, j: Jacobian, new_in_step: Array, start: Array, h: Array, there: Array, kernel: str
) -> tuple[Array, Array]:
    """How far off the states are that are off by so much more in each step, `[T, *batch, S]`, and the largest of it.

    Not of sequences that are not `there`, `[*batch]`.
    """
    e = j.solve(new_in_step, start, kernel)
    if j.exact:
        return e, size(f, e, h)

    def more(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, _, settled, k = carry
        return f.time.any(~settled) & (k < CERTIFY)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        e, changed, settled, k = carry
        before = f.before(e, start)
        new = j.solve(new_in_step + j.tangent(before) - j.times_kept(before), start, kernel)
        change = size(f, new - e, h)
        # What all rounds to come would change, if each changes as much less than the one before.
        shrinks = change / jnp.maximum(changed, jnp.finfo(h.dtype).tiny)
        to_come = change * shrinks / (1 - shrinks)
        small = (change == 0) | ((shrinks < 0.9) & (to_come <= 0.1 * size(f, new, h)))
        return new, change, settled | small, k + 1

    first = on_same_axes((e, size(f, e, h), ~there))
    e, _, settled, _ = lax.while_loop(more, step, (*first, jnp.zeros((), jnp.int32)))
    largest = 1.1 * size(f, e, h)
    return e, jnp.where(settled & there, largest, jnp.full_like(largest, jnp.inf))


def _of_units(signs: Array, like: Array) -> Array:
    """`[T, S]` spread over `[T, *batch, S]`."""
    return jnp.broadcast_to(signs.reshape(signs.shape[0], *(1,) * (like.ndim - 2), signs.shape[-1]), like.shape)


def size(f: AllSteps, a: Array, h: Array) -> Array:
    """The largest element relative to max(1, |h|), for each sequence: `[T, *batch, S]` to `[*batch]`."""
    return f.time.largest(jnp.abs(a) / jnp.maximum(jnp.abs(h), 1))
