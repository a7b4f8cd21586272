"""Linear recurrences `h_t = a_t h_{t-1} + b_t`, in three forms that give the same numbers.

"scan" is one `lax.scan`: O(T) steps, each array read once. "associative" is `lax.associative_scan`: O(log T) steps,
each array read and written several times. "chunked" cuts time into chunks that run side by side, then carries one
state a chunk from each to the next: O(sqrt T) steps, each array read twice.

Inside the scans time is the leading axis.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax import checks
from gru_jax.cells.base import accumulator
from gru_jax.types import Array

KERNELS = ("scan", "associative", "chunked")


class Algebra(NamedTuple):
    """What a recurrence multiplies and adds with.

    Attributes:
      apply: `(a, h) -> a h`.
      compose: `(later a, earlier a) -> their product`.
      add: `(h, h) -> their sum`.
      one: an `a` like the given one that changes nothing.
      zero: an `h` like the given one that adds nothing.
    """

    apply: Callable[[Any, Any], Any]
    compose: Callable[[Any, Any], Any]
    add: Callable[[Any, Any], Any]
    one: Callable[[Any], Any]
    zero: Callable[[Any], Any]


DIAGONAL = Algebra(jnp.multiply, jnp.multiply, jnp.add, jnp.ones_like, jnp.zeros_like)
"""a and h of one shape, multiplied element by element."""

MATRIX = Algebra(
    lambda a, h: jnp.einsum("...ij,...j->...i", a, h, precision=lax.Precision.HIGHEST),
    lambda late, early: jnp.einsum("...ij,...jk->...ik", late, early, precision=lax.Precision.HIGHEST),
    jnp.add,
    lambda a: jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape),
    jnp.zeros_like,
)
"""a a matrix for each state vector, `[..., H, H]` for h `[..., H]`: dense, or one for each block of H."""

LOGARITHMIC = Algebra(
    jnp.add, jnp.add, jnp.logaddexp, jnp.zeros_like, lambda h: jnp.full_like(h, -jnp.inf)
)
"""a and h given by their logarithms, both of them 0 at least: no product over many steps underflows."""


def run(
    algebra: Algebra, a: Array, b: Array, h0: Array, *, reverse: bool = False, kernel: str = "scan"
) -> Array:
    """The states of a linear recurrence.

    Args:
      algebra: `DIAGONAL`, `MATRIX` or `LOGARITHMIC`.
      a: `[T, *batch, H]`, for MATRIX `[T, *batch, H, H]`.
      b: `[T, *batch, H]`.
      h0: `[*batch, H]`.
      reverse: from the last step to the first.
      kernel: "scan", "associative" or "chunked".

    Returns:
      h, `[T, *batch, H]`.
    """
    if kernel == "associative":
        return _associative(algebra, a, b, h0, reverse)
    if kernel == "chunked":
        return _chunked(algebra, a, b, h0, reverse)

    def body(h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        h = algebra.add(algebra.apply(now[0], h), now[1])
        return h, h

    return lax.scan(body, h0, (a, b), reverse=reverse)[1]


def transposed(algebra: Algebra, a: Array, c: Array, *, reverse: bool = False, kernel: str = "scan") -> Array:
    """The transposed recurrence, `l_t = c_t + a_{t+1}^T l_{t+1}`; arguments as for `run`."""
    if algebra is MATRIX:
        a = jnp.swapaxes(a, -1, -2)
    nothing = jnp.zeros_like(a[:1])
    following = jnp.concatenate([nothing, a[:-1]] if reverse else [a[1:], nothing])
    return run(algebra, following, c, jnp.zeros_like(c[0]), reverse=not reverse, kernel=kernel)


def linear_scan(
    a: Array,
    b: Array,
    h0: Array | None = None,
    *,
    reverse: bool = False,
    time_major: bool = False,
    kernel: str = "auto",
) -> Array:
    """The linear recurrence `h_t = a_t h_{t-1} + b_t`.

    Differentiable in both modes; the gradient is one more such recurrence, backwards. Half-precision arrays are summed
    in float32.

    Args:
      a: `[*batch, T, H]`, factors of each unit's own state; or `[*batch, T, H, H]`, a matrix for each step.
      b: `[*batch, T, H]`; blocks are one more batch dimension, a `[*batch, k, T, n, n]` and b `[*batch, k, T, n]`.
      h0: state before the first step, `[*batch, H]`; zeros when None.
      reverse: from the last step to the first, outputs in original time order.
      time_major: the time axis leads: `[T, *batch, ...]`.
      kernel: "scan", "associative", "chunked", or "auto", decided by backend.

    Returns:
      h, `[*batch, T, H]`.

    Raises:
      TypeError, ValueError: for a wrong shape, dtype or choice.

    Example:
      >>> import jax.numpy as jnp, gru_jax as gj
      >>> gj.linear_scan(jnp.full((3, 1), 0.5), jnp.ones((3, 1)))[:, 0].tolist()
      [1.0, 1.5, 1.75]
    """
    a, b = checks.floating("linear_scan", "a", a), checks.floating("linear_scan", "b", b)
    checks.choice("linear_scan", "kernel", kernel, ("auto", *KERNELS))
    checks.flag("linear_scan", "reverse", reverse)
    checks.flag("linear_scan", "time_major", time_major)
    if b.ndim < 2:
        layout = "[T, *batch, H]" if time_major else "[*batch, T, H]"
        raise ValueError(f"linear_scan: b must have at least 2 dimensions, {layout}; got shape {list(b.shape)}")
    if a.shape not in (b.shape, (*b.shape, b.shape[-1])):
        raise ValueError(
            f"linear_scan: a must have b's shape {list(b.shape)}, or {[*b.shape, b.shape[-1]]} for matrices;"
            f" got {list(a.shape)}"
        )
    checks.same_dtype("linear_scan", "a", a, b.dtype, "b")
    batch = b.shape[1:] if time_major else (*b.shape[:-2], b.shape[-1])
    if h0 is None:
        h0 = jnp.zeros(batch, b.dtype)
    h0 = checks.floating("linear_scan", "h0", h0)
    checks.shape("linear_scan", "h0", h0.shape, batch, "[*batch, H]")
    checks.same_dtype("linear_scan", "h0", h0, b.dtype, "b")
    algebra = DIAGONAL if a.ndim == b.ndim else MATRIX
    kernel = chosen(kernel)
    axis = b.ndim - 2
    full = accumulator(b.dtype)

    def leading(array: Array) -> Array:
        return array.astype(full) if time_major else jnp.moveaxis(array, axis, 0).astype(full)

    if 0 in b.shape:
        return jnp.zeros_like(b)
    h = _differentiable(algebra, leading(a), leading(b), h0.astype(full), reverse, kernel).astype(b.dtype)
    return h if time_major else jnp.moveaxis(h, 0, axis)


def chosen(kernel: str) -> str:
    """The form behind "auto": step by step on CPU, where it runs at nearly the speed of a copy; chunked elsewhere."""
    if kernel != "auto":
        return kernel
    return "scan" if jax.default_backend() == "cpu" else "chunked"


def _differentiable(algebra: Algebra, a: Array, b: Array, h0: Array, reverse: bool, kernel: str) -> Array:
    """`run`, stated as a linear system: JAX then derives every mode from the system and solves it by `run` again."""
    first = -1 if reverse else 0
    b = b.at[first].add(algebra.apply(a[first], h0))

    def system(h: Array) -> Array:
        nothing = jnp.zeros_like(h[:1])
        before = jnp.concatenate([h[1:], nothing] if reverse else [nothing, h[:-1]])
        return h - algebra.apply(a, before)

    def solve(_: Any, right: Array) -> Array:
        return run(algebra, a, right, jnp.zeros_like(right[0]), reverse=reverse, kernel=kernel)

    def transpose_solve(_: Any, right: Array) -> Array:
        return transposed(algebra, a, right, reverse=reverse, kernel=kernel)

    return lax.custom_linear_solve(system, b, solve, transpose_solve)


def _associative(algebra: Algebra, a: Array, b: Array, h0: Array, reverse: bool) -> Array:
    first = -1 if reverse else 0
    b = b.at[first].set(algebra.add(algebra.apply(a[first], h0), b[first]))

    def combine(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        return algebra.compose(late[0], early[0]), algebra.add(algebra.apply(late[0], early[1]), late[1])

    return lax.associative_scan(combine, (a, b), reverse=reverse)[1]


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

    def within(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[Any, Any]:
        product, h = carry
        product = algebra.compose(now[0], product)
        h = algebra.add(algebra.apply(now[0], h), now[1])
        return (product, h), (product, h)

    a, b = cut(a, algebra.one), cut(b, algebra.zero)
    nothing = algebra.one(a[0]), algebra.zero(b[0])
    (factor, rest), (products, local) = lax.scan(within, nothing, (a, b), reverse=reverse)

    def across(h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        return algebra.add(algebra.apply(now[0], h), now[1]), h

    starts = lax.scan(across, h0, (factor, rest), reverse=reverse)[1]
    h = algebra.add(algebra.apply(products, jnp.broadcast_to(starts, local.shape)), local)
    return jnp.swapaxes(h, 0, 1).reshape(chunks * size, *h.shape[2:])[:T]
