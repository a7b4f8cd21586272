"""Cells that are linear in their state: one linear recurrence gives the numbers of the steps, in every situation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.scans.linear.forms import KERNELS

from .cases import HOLES, RESETS, SITUATIONS, B, H, I, T, arrays, assert_close, outputs_and_gradients, table, weigh

CELLS = {
    f"{cell.__name__}-{form}": cell(H, form=form, init="torch")
    for cell in (gj.MinGRU, gj.MinLSTM)
    for form in ("linear", "log")
}
POSSIBLE = [name for name, options in SITUATIONS.items() if "recurrent_dropout" not in options]
METHODS = {kernel: gj.Associative(kernel) for kernel in (*KERNELS, "interpret-gpu", "interpret-tpu")}
METHODS["sequential"] = gj.Sequential(keep="states")


def given(cell, dtype=jnp.float32):
    params, x, h0 = arrays(cell, dtype)
    return params, x, jnp.abs(h0)


@pytest.mark.parametrize(
    "cell, method, situation, reverse",
    table(
        CELLS, METHODS, POSSIBLE, (False, True),
        quick=lambda cell, method, situation, reverse: (
            (cell, method) in (("MinGRU-linear", "chunked"), ("MinGRU-log", "associative"), ("MinLSTM-log", "scan"))
            and (situation, reverse) == ("resets and holes", True)
        ),
    ),
)  # fmt: skip
def test_agrees_with_the_loop(cell, method, situation, reverse):
    cell, options = CELLS[cell], {**SITUATIONS[situation], "reverse": reverse}
    ours = outputs_and_gradients(cell, *given(cell), method=METHODS[method], **options)
    assert_close(ours, outputs_and_gradients(cell, *given(cell), method="naive", **options), 1e-6, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, form",
    table((gj.MinGRU, gj.MinLSTM), ("linear", "log"), quick=lambda kind, form: (kind, form) == (gj.MinGRU, "log")),
)
def test_a_hundred_thousand_steps(kind, form):
    """Against the steps themselves in float64, with h0 and resets."""
    steps, cell = 100_000, kind(H, form=form, init="torch")
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        params = cell.init(keys[0], I, jnp.float64)
        x = jax.random.normal(keys[1], (steps, I), jnp.float64)
        h0 = jnp.abs(jax.random.normal(keys[2], (H,), jnp.float64))
        resets = jnp.zeros(steps, bool).at[jnp.array([7, 50_000])].set(True)
        single = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x, h0))
        double = jax.tree.map(lambda a: a.astype(jnp.float64), single)
        exact = np.asarray(gj.scan(cell, *double, resets=resets, method="sequential")[0])
    for kernel in KERNELS:
        y, _ = gj.scan(cell, *single, resets=resets, method=gj.Associative(kernel))
        assert np.abs(np.asarray(y) - exact).max() <= 1e-5


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("method", ("sequential", "associative"))
def test_a_zero_start_can_be_trained(name, method):
    cell = CELLS[name]
    params, x, h0 = given(cell)
    gradient = jax.grad(lambda h0: gj.scan(cell, params, x, h0, method=method)[0].sum())(jnp.zeros_like(h0))
    assert jnp.isfinite(gradient).all() and (jnp.abs(gradient) > 1e-3).all()


@pytest.mark.parametrize(
    "name, dtype",
    table(
        CELLS,
        (jnp.bfloat16, jnp.float16),
        quick=lambda name, dtype: (name, dtype) in (("MinGRU-log", jnp.bfloat16), ("MinLSTM-linear", jnp.float16)),
    ),
)
def test_half_precision(name, dtype):
    """Within 4 units in the last place of the exact states over 2000 steps: nothing adds up but in float32."""
    cell = CELLS[name]
    params = cell.init(jax.random.key(0), I, dtype)
    x = jax.random.normal(jax.random.key(1), (2, 2000, I), dtype)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    exact, _ = gj.scan(cell, *wide, method="sequential")
    for kernel in KERNELS:
        y, h = gj.scan(cell, params, x, method=gj.Associative(kernel))
        assert y.dtype == h.dtype == dtype
        bound = 4 * float(jnp.finfo(dtype).eps) * float(np.abs(exact).max())
        assert float(np.abs(y.astype(jnp.float32) - exact).max()) <= bound


@dataclasses.dataclass(frozen=True)
class Rotation:
    """A user's own cell with a matrix for each step: turns a pair of numbers, the angle being the input."""

    def init(self, key, input_size, dtype=jnp.float32):
        return jax.random.normal(key, (input_size,), dtype)

    def project(self, params, x):
        return x, jnp.einsum("...i,i->...", x, params)

    def affine(self, params, u):
        x, angle = u
        c, s = jnp.cos(angle), jnp.sin(angle)
        return jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2) * 0.9, x[..., :2]

    def step(self, params, u, h):
        a, b = self.affine(params, u)
        return jnp.einsum("...ij,...j->...i", a, h) + b

    def initial_state(self, batch, dtype):
        return jnp.zeros((*batch, 2), dtype)

    def output(self, h):
        return h


@pytest.mark.parametrize(
    "kernel, reverse", table(KERNELS, (False, True), quick=lambda kernel, reverse: reverse == (kernel == KERNELS[0]))
)
def test_a_users_cell_with_matrices(kernel, reverse):
    cell, (params, x, _) = Rotation(), arrays(CELLS["MinGRU-linear"])
    params, h0 = cell.init(jax.random.key(3), I), jnp.ones((B, 2))
    options = {"mask": HOLES, "resets": RESETS, "reverse": reverse}
    ours = outputs_and_gradients(cell, params, x, h0, method=gj.Associative(kernel), **options)
    assert_close(ours, outputs_and_gradients(cell, params, x, h0, method="naive", **options), 1e-6, 1e-5)


TRANSFORMS = {
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda x, h0: weigh(f(x, h0)), (0, 1))),
    "jvp": lambda f: lambda x, h0: jax.jvp(f, (x, h0), (jnp.cos(x), h0)),
    "forward over reverse": lambda f: lambda x, h0: jax.jvp(jax.grad(lambda h: weigh(f(x, h))), (h0,), (h0,)),
    "remat": lambda f: jax.grad(jax.checkpoint(lambda x, h0: weigh(f(x, h0)))),
}


@pytest.mark.parametrize(
    "name, transform",
    table(
        ("MinGRU-linear", "MinLSTM-log"), TRANSFORMS,
        quick=lambda name, transform: ("log" in name) == (transform in ("vmap of grad", "jvp")),
    ),
)  # fmt: skip
def test_transforms(name, transform):
    cell = CELLS[name]
    params, x, h0 = given(cell)
    results = [
        jax.jit(TRANSFORMS[transform](lambda x, h0, m=m: gj.scan(cell, params, x, h0, method=m)))(x, h0)
        for m in (gj.Associative("chunked"), gj.Sequential(keep="gates"))
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-5)


@pytest.mark.slow
def test_stacks_and_both_directions():
    layer = gj.bidirectional(gj.recurrent(gj.MinGRU(H, form="log"), method="associative"))
    net = gj.stack(layer, layer, residual=True, norm="rms")
    params = net.init(jax.random.key(0), I)
    x = jax.random.normal(jax.random.key(1), (B, T, I))
    y, h = net.apply(params, x, lengths=jnp.array([T, 2, 0]))
    assert y.shape == (B, T, 2 * H) and h[1][0].shape == (B, H)
    alone, _ = net.apply(params, x[1, :2])
    np.testing.assert_allclose(y[1, :2], alone, atol=1e-6)
