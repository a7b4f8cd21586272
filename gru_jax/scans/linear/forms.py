"""Linear recurrences `h_t = a_t h_{t-1} + b_t`, in forms that give the same numbers.

"scan" is one `lax.scan`: O(T) steps, each array read once. "associative" is `lax.associative_scan`: O(log T) steps,
each array read and written several times. "chunked" cuts time into chunks that run side by side, then carries one
state a chunk from each to the next: O(sqrt T) steps, each array read twice. "pallas" and, on a CPU, "llvm"
are one kernel, for factors.

Inside the scans time is the leading axis.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.scans.engines import registry
from gru_jax.scans.linear import by_engine
from gru_jax.scans.time_axis import WHOLE, TimeAxis, on_same_axes
from gru_jax.types import Array

KERNELS = ("scan", "associative", "chunked")

WORTH_COMPILING = 10**5
"""From how many numbers on compiled code is worth its compilation: some ten microseconds of a loop."""


class Algebra(NamedTuple):
    """What a recurrence multiplies and adds with.

    Attributes:
      apply: `(a, h) -> a h`.
      apply_product: the same for an a that is composed of many.
      compose: `(later a, earlier a) -> their product`.
      add: `(h, h) -> their sum`.
      one: an `a` like the given one that changes nothing.
      zero: an `h` like the given one that adds nothing.
    """

    apply: Callable[[Array, Array], Array]
    apply_product: Callable[[Array, Array], Array]
    compose: Callable[[Array, Array], Array]
    add: Callable[[Array, Array], Array]
    one: Callable[[Array], Array]
    zero: Callable[[Array], Array]


def _product_times(a: Array, h: Array) -> Array:
    """a h, but 0 where h is 0: a product of factors above 1 overflows before the states do, or where there are none."""
    return jnp.where(jnp.isinf(a) & (h == 0), jnp.zeros_like(h), a * h)


DIAGONAL = Algebra(jnp.multiply, _product_times, jnp.multiply, jnp.add, jnp.ones_like, jnp.zeros_like)
"""a and h of one shape, multiplied element by element."""

def _matrix_times(a: Array, h: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", a, h, precision=lax.Precision.HIGHEST)


MATRIX = Algebra(
    _matrix_times,
    _matrix_times,
    lambda late, early: jnp.einsum("...ij,...jk->...ik", late, early, precision=lax.Precision.HIGHEST),
    jnp.add,
    lambda a: jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape),
    jnp.zeros_like,
)
"""a a matrix for each state vector, `[..., H, H]` for h `[..., H]`: dense, or one for each block of H."""

LOGARITHMIC = Algebra(
    jnp.add, jnp.add, jnp.add, jnp.logaddexp, jnp.zeros_like, lambda h: jnp.full_like(h, -jnp.inf)
)
"""a and h given by their logarithms, both of them 0 at least: no product over many steps underflows."""


def run(
    algebra: Algebra,
    a: Array,
    b: Array,
    h0: Array,
    *,
    reverse: bool = False,
    kernel: str = "scan",
    time: TimeAxis = WHOLE,
) -> Array:
    """The states of a linear recurrence.

    Args:
      algebra: `DIAGONAL`, `MATRIX` or `LOGARITHMIC`.
      a: `[T, *batch, H]`, for MATRIX `[T, *batch, H, H]`.
      b: `[T, *batch, H]`.
      h0: `[*batch, H]`.
      reverse: from the last step to the first.
      kernel: "scan", "associative" or "chunked"; for DIAGONAL one of `engines.registry.LINEAR`, too.
      time: where the steps lie.

    Returns:
      h, `[T, *batch, H]`.
    """
    if (engine := registry.linear(kernel)) is not None:
        check_factors(algebra, kernel)
        return by_engine.run(engine, a, b, h0, reverse=reverse, time=time)
    if time.split:
        h0 = _start_of_part(algebra, a, b, h0, reverse, kernel, time)
    if (form := _FORMS.get(kernel)) is not None:
        return form(algebra, a, b, h0, reverse)
    if algebra is LOGARITHMIC:
        return _log_steps(a, b, h0, reverse)

    def body(h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        h = algebra.add(algebra.apply(now[0], h), now[1])
        return h, h

    if algebra is DIAGONAL:
        # On one axis: XLA's CPU code for a loop that slices and writes more than that takes twice as long.
        flat_a, flat_b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        return lax.scan(body, h0.reshape(-1), (flat_a, flat_b), reverse=reverse)[1].reshape(b.shape)
    return lax.scan(body, h0, (a, b), reverse=reverse)[1]


def _log_steps(log_a: Array, log_b: Array, log_h0: Array, reverse: bool) -> Array:
    """Step by step in logarithms, with what each sum rounds away carried along.

    A state that decays slowly changes its logarithm by less than a unit in the last place of it; a plain sum would
    round that away in every step, always in the same direction.
    """

    def exactly(a: Array, b: Array) -> tuple[Array, Array]:
        """a + b, and what its rounding lost."""
        total = a + b
        of_b = total - a
        lost = (a - (total - of_b)) + (b - of_b)
        return total, jnp.where(jnp.isfinite(total), lost, jnp.zeros_like(lost))

    def body(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        h, lost = carry
        decayed, lost_a = exactly(h, now[0])
        lost = lost + lost_a
        # log(a h + b) = log(a h) + log(1 + b / (a h)), or the other way round, whichever is small.
        larger = jnp.maximum(decayed, now[1])
        gap = jnp.where(jnp.isfinite(larger), -jnp.abs(decayed + lost - now[1]), jnp.full_like(larger, -jnp.inf))
        h, lost_b = exactly(larger, jnp.log1p(jnp.exp(gap)))
        lost = jnp.where(decayed >= now[1], lost, jnp.zeros_like(lost)) + lost_b
        return (h, lost), h + lost

    start = on_same_axes(((log_h0, jnp.zeros_like(log_h0)), (log_a[0], log_b[0])))[0]
    return lax.scan(body, start, (log_a, log_b), reverse=reverse)[1]


def transposed(
    algebra: Algebra, a: Array, c: Array, *, reverse: bool = False, kernel: str = "scan", time: TimeAxis = WHOLE
) -> Array:
    """The transposed recurrence, `l_t = c_t + a_{t+1}^T l_{t+1}`; arguments as for `run`."""
    if (engine := registry.linear(kernel)) is not None:
        check_factors(algebra, kernel)
        return by_engine.transposed(engine, a, c, reverse=reverse, time=time)
    if algebra is MATRIX:
        a = jnp.swapaxes(a, -1, -2)
    if algebra is DIAGONAL and kernel == "scan" and not time.split:
        return _transposed_steps(a, c, reverse)
    following = time.following(a, reverse)
    return run(algebra, following, c, jnp.zeros_like(c[0]), reverse=not reverse, kernel=kernel, time=time)


def _transposed_steps(a: Array, c: Array, reverse: bool) -> Array:
    """Carrying a_{t+1} l_{t+1}, so that a need not be shifted."""

    def body(through: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        adjoint = now[1] + through
        return now[0] * adjoint, adjoint

    flat_a, flat_c = a.reshape(a.shape[0], -1), c.reshape(c.shape[0], -1)
    start = on_same_axes((jnp.zeros_like(flat_c[0]), (flat_a[0], flat_c[0])))[0]
    return lax.scan(body, start, (flat_a, flat_c), reverse=not reverse)[1].reshape(c.shape)


def check_factors(algebra: Algebra, kernel: str) -> None:
    """Raises unless the kernel can multiply as the algebra does."""
    if algebra is not DIAGONAL:
        raise ValueError(
            f"linear_scan: kernel={kernel!r} takes a factor for each unit, [*batch, T, H]; got matrices or logarithms;"
            f" use kernel='chunked'"
        )


def check_known(who: str, kernel: str, steps: object, others: Sequence[object]) -> None:
    """Raises where a kernel was asked for by name that needs the sizes which jax.export leaves open."""
    by_engine = registry.linear(kernel) is not None
    if isinstance(steps, int) and (not by_engine or all(isinstance(size, int) for size in others)):
        return
    if kernel not in ("auto", "scan"):
        raise ValueError(
            f"{who}: kernel={kernel!r} needs {'sizes that are' if by_engine else 'a number of steps that is'} known;"
            f" got symbolic sizes; use kernel='scan'"
        )


def chosen(
    kernel: str, algebra: Algebra | None = None, b: Array | jax.ShapeDtypeStruct | None = None, time: TimeAxis = WHOLE
) -> str:  # fmt: skip
    """The form behind "auto".

    On CPU that is one pass of compiled code for factors of enough numbers b, else step by step, which runs at nearly
    the speed of a copy, too; chunked elsewhere. This is the place for a choice of "pallas", once it is measured.
    """
    if kernel != "auto":
        return kernel
    if jax.default_backend() != "cpu":
        # A symbolic number of steps, under jax.export, cannot be cut into chunks.
        return "chunked" if b is None or isinstance(b.shape[0], int) else "scan"
    if algebra is not DIAGONAL or b is None or not _is_large(b) or time.split or jax.device_count() > 1:
        return "scan"
    machine_code = registry.linear("llvm")
    served = machine_code is not None and machine_code.refusal_of_recurrence("linear_scan", b.dtype) is None
    return "llvm" if served else "scan"


def _is_large(b: Array | jax.ShapeDtypeStruct) -> bool:
    return all(isinstance(size, int) for size in b.shape) and b.size >= WORTH_COMPILING


def _associative(algebra: Algebra, a: Array, b: Array, h0: Array, reverse: bool) -> Array:
    first = -1 if reverse else 0
    b = b.at[first].set(algebra.add(algebra.apply(a[first], h0), b[first]))

    return lax.associative_scan(functools.partial(_one_after_the_other, algebra), (a, b), reverse=reverse)[1]


def _start_of_part(
    algebra: Algebra, a: Array, b: Array, h0: Array, reverse: bool, kernel: str, time: TimeAxis
) -> Array:
    """The state before this part's first step, of a recurrence whose steps lie in parts on several devices.

    Each part is summed up as one step (its factor, its end from zero); only those travel, in O(log parts) exchanges.
    """
    factor, end = _summed_up(algebra, a, b, reverse, kernel)
    place, distance = time.place(reverse), 1
    while distance < time.parts:
        earlier = time.received((factor, end), reverse, distance)
        joined = _one_after_the_other(algebra, earlier, (factor, end))
        factor, end = jax.tree.map(
            lambda new, old, reached=place >= distance: jnp.where(reached, new, old), joined, (factor, end)
        )
        distance *= 2
    return time.handed_on(algebra.add(algebra.apply_product(factor, h0), end), h0, reverse)


def _summed_up(algebra: Algebra, a: Array, b: Array, reverse: bool, kernel: str) -> tuple[Array, Array]:
    """All steps as one, `h -> factor h + end`."""
    if kernel == "scan":
        def body(all: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            return _one_after_the_other(algebra, all, now), None

        nothing = algebra.one(a[0]), algebra.zero(b[0])
        return lax.scan(body, on_same_axes((nothing, (a[0], b[0])))[0], (a, b), reverse=reverse)[0]
    if reverse:
        a, b = jnp.flip(a, 0), jnp.flip(b, 0)
    while a.shape[0] > 1:
        if a.shape[0] % 2:
            a = jnp.concatenate([a, algebra.one(a[:1])])
            b = jnp.concatenate([b, algebra.zero(b[:1])])
        a, b = _one_after_the_other(algebra, (a[0::2], b[0::2]), (a[1::2], b[1::2]))
    return a[0], b[0]


def _one_after_the_other(
    algebra: Algebra, early: tuple[Array, Array], late: tuple[Array, Array]
) -> tuple[Array, Array]:
    return algebra.compose(late[0], early[0]), algebra.add(algebra.apply_product(late[0], early[1]), late[1])


def _chunked(algebra: Algebra, a: Array, b: Array, h0: Array, reverse: bool) -> Array:
    T = b.shape[0]
    size = max(1, math.isqrt(T))
    chunks = -(-T // size)

    def cut(array: Array, filling: Callable[[Array], Array]) -> Array:
        """`[T, ...]` to `[size, chunks, ...]`, the end filled up with steps that change nothing."""
        missing = chunks * size - T
        if missing:
            array = jnp.concatenate([array, filling(jnp.broadcast_to(array[:1], (missing, *array.shape[1:])))])
        return jnp.swapaxes(array.reshape(chunks, size, *array.shape[1:]), 0, 1)

    def within(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        product, h = carry
        product = algebra.compose(now[0], product)
        h = algebra.add(algebra.apply(now[0], h), now[1])
        return (product, h), (product, h)

    a, b = cut(a, algebra.one), cut(b, algebra.zero)
    nothing, _ = on_same_axes(((algebra.one(a[0]), algebra.zero(b[0])), (a[0], b[0])))
    (factor, rest), (products, local) = lax.scan(within, nothing, (a, b), reverse=reverse)

    def across(h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        return algebra.add(algebra.apply_product(now[0], h), now[1]), h

    starts = lax.scan(across, h0, (factor, rest), reverse=reverse)[1]
    h = algebra.add(algebra.apply_product(products, jnp.broadcast_to(starts, local.shape)), local)
    return jnp.swapaxes(h, 0, 1).reshape(chunks * size, *h.shape[2:])[:T]


_FORMS = {"associative": _associative, "chunked": _chunked}
