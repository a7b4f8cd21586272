"""Linear recurrences: every form against a loop, for factors, matrices and blocks, with every derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax as gj
from gru_jax.scans.engines.registry import ROUNDS
from gru_jax.scans.linear.forms import DIAGONAL, KERNELS, LOGARITHMIC, MATRIX, run

from .cases import table, weigh


def by_loop(a, b, h0, reverse):
    """`[T, ...]`, in float64."""
    a, b, h = (np.asarray(array, np.float64) for array in (a, b, h0))
    states = np.empty_like(b)
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        h = (a[t] * h if a.ndim == b.ndim else np.einsum("...ij,...j->...i", a[t], h)) + b[t]
        states[t] = h
    return states


def arrays(T, batch, H, matrix, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    a = jax.random.normal(keys[0], (T, *batch, H) + (H,) * matrix) * (0.4 if matrix else 0.9)
    return a, jax.random.normal(keys[1], (T, *batch, H)), jax.random.normal(keys[2], (*batch, H))


@pytest.mark.parametrize(
    "kernel, matrix, reverse, T",
    table(
        KERNELS, (False, True), (False, True), (1, 2, 7, 16),
        quick=lambda kernel, matrix, reverse, T: reverse and (T == 7 or (T == 1 and not matrix)),
    ),
)  # fmt: skip
def test_every_form_is_the_loop(kernel, matrix, reverse, T):
    a, b, h0 = arrays(T, (2, 3), 4, matrix)
    h = gj.linear_scan(a, b, h0, reverse=reverse, time_major=True, kernel=kernel)
    np.testing.assert_allclose(h, by_loop(a, b, h0, reverse), atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("reverse", (False, True))
def test_logarithms_are_the_same_recurrence(kernel, reverse):
    a, b, h0 = (jnp.abs(array) for array in arrays(9, (2,), 3, False))
    h0 = h0.at[0].set(0.0)
    h = jnp.exp(run(LOGARITHMIC, jnp.log(a), jnp.log(b), jnp.log(h0), reverse=reverse, kernel=kernel))
    np.testing.assert_allclose(h, by_loop(a, b, h0, reverse), rtol=1e-5)


@given(
    T=st.integers(0, 20), H=st.integers(1, 3), batch=st.lists(st.integers(0, 2), max_size=2),
    kernel=st.sampled_from(("auto", *KERNELS)), reverse=st.booleans(), matrix=st.booleans(),
)  # fmt: skip
@settings(max_examples=4)
def test_any_shape(T, H, batch, kernel, reverse, matrix):
    a, b, h0 = arrays(T, tuple(batch), H, matrix)
    to_batch_major = lambda array: jnp.moveaxis(array, 0, len(batch))  # noqa: E731
    h = gj.linear_scan(to_batch_major(a), to_batch_major(b), h0, reverse=reverse, kernel=kernel)
    expected = np.moveaxis(by_loop(a, b, h0, reverse), 0, len(batch))
    assert h.shape == expected.shape
    np.testing.assert_allclose(h, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "kernel, matrix", table(KERNELS, (False, True), quick=lambda kernel, matrix: matrix == (kernel == KERNELS[-1]))
)
def test_derivatives_are_those_of_the_plain_loop(x64, kernel, matrix):
    keys = jax.random.split(jax.random.key(0), 3)
    a = jax.random.normal(keys[0], (6, 3) + (3,) * matrix, jnp.float64) * 0.5
    b, h0 = jax.random.normal(keys[1], (6, 3), jnp.float64), jax.random.normal(keys[2], (3,), jnp.float64)

    def plain(a, b, h0):
        states = []
        for t in range(6):
            h0 = (a[t] @ h0 if matrix else a[t] * h0) + b[t]
            states.append(h0)
        return jnp.stack(states)

    ours = lambda a, b, h0: gj.linear_scan(a, b, h0, time_major=True, kernel=kernel)  # noqa: E731
    modes = {
        "reverse": lambda f: jax.grad(lambda *args: weigh(f(*args)), (0, 1, 2)),
        "forward": lambda f: lambda *args: jax.jvp(f, args, tuple(map(jnp.cos, args))),
        "both": lambda f: lambda *args: jax.jvp(jax.grad(lambda *a: weigh(f(*a) ** 2), (0, 2)), args, args),
    }
    for mode in modes.values():
        for x, y in zip(*(jax.tree.leaves(jax.jit(mode(f))(a, b, h0)) for f in (ours, plain)), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.parametrize(
    "kernel, reverse", table(ROUNDS[1:], (False, True), quick=lambda *row: row == ("interpret-gpu", True))
)
def test_one_kernel_is_the_loop_with_its_derivatives(x64, kernel, reverse):
    """In one program: with a derivative of each mode, batched by `vmap` and by its own batch."""
    a, b, h0 = (array.astype(jnp.float64) for array in arrays(5, (2,), 3, False))

    def everything(kernel, a, b, h0):
        scan = lambda *args: gj.linear_scan(*args, reverse=reverse, time_major=True, kernel=kernel)  # noqa: E731
        gradient = jax.grad(lambda *args: weigh(scan(*args) ** 2), (0, 1, 2))
        tangents = tuple(map(jnp.cos, (a, b, h0)))
        each = jax.vmap(scan, (1, 1, 0), 1)(a, b, h0)
        return scan(a, b, h0), each, jax.jvp(scan, (a, b, h0), tangents), jax.jvp(gradient, (a, b, h0), tangents)

    run = jax.jit(everything, static_argnums=0)
    for x, y in zip(*(jax.tree.leaves(run(k, a, b, h0)) for k in (kernel, "scan")), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.parametrize("algebra", (MATRIX, LOGARITHMIC))
def test_one_kernel_multiplies_factors_only(algebra):
    a, b, h0 = arrays(5, (2,), 3, algebra is MATRIX)
    with pytest.raises(ValueError, match="takes a factor for each unit"):
        run(algebra, a, b, h0, kernel="interpret-gpu")
    assert run(DIAGONAL, b, b, h0, kernel="interpret-gpu").shape == b.shape


def test_vmap_over_everything():
    a, b, h0 = arrays(5, (4,), 3, False)
    rows = jax.vmap(lambda a, b, h0: gj.linear_scan(a, b, h0), (1, 1, 0))(a, b, h0)
    np.testing.assert_allclose(rows, jnp.moveaxis(by_loop(a, b, h0, False), 0, 1), atol=1e-5)


def test_blocks_are_a_batch_dimension():
    a, b, h0 = arrays(5, (2,), 3, True)
    h = gj.linear_scan(jnp.moveaxis(a, 0, 1), jnp.moveaxis(b, 0, 1), h0)
    whole = jax.vmap(lambda parts: jax.scipy.linalg.block_diag(*parts))(a)
    together = gj.linear_scan(whole, b.reshape(5, 6), h0.reshape(6))
    np.testing.assert_allclose(jnp.moveaxis(h, 1, 0).reshape(5, 6), together, atol=1e-5)


def test_half_precision_is_summed_in_single():
    b = jnp.full((4096, 1), 0.01, jnp.bfloat16)
    h = gj.linear_scan(jnp.ones_like(b), b)
    assert h.dtype == jnp.bfloat16
    assert float(h[-1, 0]) == pytest.approx(4096 * float(b[0, 0]), rel=5e-3)


@pytest.mark.parametrize(
    ("a", "b", "options", "match"),
    [
        ((5, 3), (5, 4), {}, r"a must have b's shape \[5, 4\], or \[5, 4, 4\] for matrices; got \[5, 3\]"),
        ((5,), (5,), {}, r"b must have at least 2 dimensions, \[\*batch, T, H\]; got shape \[5\]"),
        ((5, 3), (5, 3), {"h0": jnp.ones(2)}, r"h0 must have shape \[3\]; got \[2\]"),
        ((5, 3), (5, 3), {"kernel": "scna"}, "did you mean 'scan'"),
        ((5, 3), (5, 3), {"reverse": 1}, "reverse must be True or False"),
    ],
)
def test_what_is_refused(a, b, options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        gj.linear_scan(jnp.ones(a), jnp.ones(b), **options)


def test_dtypes_are_not_mixed():
    with pytest.raises(TypeError, match="b is float32 but a is bfloat16"):
        gj.linear_scan(jnp.ones((5, 3), jnp.bfloat16), jnp.ones((5, 3)))
