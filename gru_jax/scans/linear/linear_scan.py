"""`linear_scan`: a linear recurrence over given factors, with its derivative."""


import jax.numpy as jnp
from jax import lax

from gru_jax import checks
from gru_jax.cells.base import accumulator
from gru_jax.scans.engines import registry
from gru_jax.scans.linear import by_engine, forms
from gru_jax.scans.linear.forms import (
    DIAGONAL,
    KERNELS,
    MATRIX,
    Algebra,
    check_factors,
    chosen,
    run,
    transposed,
)
from gru_jax.scans.mesh_axes import left_to_xla
from gru_jax.scans.time_axis import TimeAxis
from gru_jax.types import Array, Function


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
      kernel: "scan", "associative", "chunked", or "auto", decided by backend; for factors also one pass over
        memory: "llvm" on a CPU, in float32, "pallas" on a GPU or TPU ("interpret-gpu", "interpret-tpu": the same in
        Pallas's interpreter).

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
    checks.choice("linear_scan", "kernel", kernel, ("auto", *KERNELS, *registry.LINEAR))
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
    steps, *others = b.shape if time_major else (b.shape[-2], *b.shape[:-2])
    forms.check_known("linear_scan", kernel, steps, others)
    kernel = chosen(kernel, algebra, b)
    axis = b.ndim - 2
    full = accumulator(b.dtype)

    def leading(array: Array) -> Array:
        return array.astype(full) if time_major else jnp.moveaxis(array, axis, 0).astype(full)

    def states(b: Array, a: Array, h0: Array) -> Array:
        if engine is not None:
            a, b = (array if time_major else jnp.moveaxis(array, axis, 0) for array in (a, b))
            h = by_engine.linear(engine, a, b, h0, reverse=reverse, time=TimeAxis(batch_leads=not time_major))
        else:
            h = _differentiable(algebra, leading(a), leading(b), h0.astype(full), reverse, kernel).astype(b.dtype)
        return h if time_major else jnp.moveaxis(h, 0, axis)

    if 0 in b.shape:
        return jnp.zeros_like(b)
    engine = registry.linear(kernel)
    if engine is not None:
        check_factors(algebra, kernel)
        if (reason := engine.refusal_of_recurrence("linear_scan", b.dtype)) is not None:
            raise ValueError(f"linear_scan: kernel={kernel!r} does not serve {reason}; use kernel='scan'")
    return left_to_xla(states, b, a, h0, time_major=time_major)


def _differentiable(algebra: Algebra, a: Array, b: Array, h0: Array, reverse: bool, kernel: str) -> Array:
    """`run`, stated as a linear system: JAX then derives every mode from the system and solves it by `run` again."""
    first = -1 if reverse else 0
    b = b.at[first].add(algebra.apply(a[first], h0))

    def system(h: Array) -> Array:
        nothing = jnp.zeros_like(h[:1])
        before = jnp.concatenate([h[1:], nothing] if reverse else [nothing, h[:-1]])
        return h - algebra.apply(a, before)

    def solve(_: Function, right: Array) -> Array:
        return run(algebra, a, right, jnp.zeros_like(right[0]), reverse=reverse, kernel=kernel)

    def transpose_solve(_: Function, right: Array) -> Array:
        return transposed(algebra, a, right, reverse=reverse, kernel=kernel)

    return lax.custom_linear_solve(system, b, solve, transpose_solve)
