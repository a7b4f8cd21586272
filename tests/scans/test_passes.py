"""A GRU's two passes apart, for a framework that differentiates by itself: the scan's numbers and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.cells import GRUParams
from gru_jax.cells.gru_layout import LaidOut, Layout, Original
from gru_jax.scans import passes
from gru_jax.scans.engines import registry

from .cases import table

T, B, I, H = 11, 3, 5, 16
PLAIN = gj.Sequential(kernel="scan")


def by_engine(monkeypatch, keep):
    """Machine code that keeps this; None for the loop, whose passes cannot be had apart."""
    method = gj.Sequential(kernel="scan" if keep is None else "llvm", keep=keep or "states", cores=1)
    monkeypatch.setattr(passes, "_engine", lambda *_: (registry.engine(method.kernel), method.how))


@pytest.mark.parametrize(
    ("keep", "lengths", "reverse", "time_major"),
    table(
        ("gates", "states", None), (True, False), (True, False), (True, False),
        quick=lambda keep, lengths, reverse, time_major: (keep, lengths, reverse, time_major) in {
            ("states", False, False, True), (None, True, True, True),
        },
    ),
)  # fmt: skip
def test_two_passes_are_the_scan_and_its_derivative(keep, lengths, reverse, time_major, monkeypatch):
    by_engine(monkeypatch, keep)
    cell = gj.GRU(H, init="torch")
    keys = jax.random.split(jax.random.key(0), 5)
    params = cell.init(keys[0], I)
    shape = (T, B) if time_major else (B, T)
    x, h0 = jax.random.normal(keys[1], (*shape, I)), jax.random.normal(keys[2], (B, H))
    d_y, d_h = jax.random.normal(keys[3], (*shape, H)), jax.random.normal(keys[4], (B, H))
    ends = jnp.array([T, 4, 0]) if lengths else None
    how = {"reverse": reverse, "time_major": time_major}

    @jax.jit
    def apart(params, x, h0):
        original = Original(GRUParams(params.w_x.T, params.w_h.T, *params[2:]), Layout(transposed=True))
        given = (cell, LaidOut(params, original), x, h0, ends)
        y, h, kept = passes.forward(*given, **how)
        some = [passes.backward(*given, kept, *d, **how) for d in ((d_y, d_h), (d_y, None), (None, d_h))]
        if kept:
            y = jnp.where(passes.outputs(kept, ends, time_major=time_major) == y, y, jnp.full_like(y, jnp.nan))
        return (y, h), some

    @jax.jit
    def together(params, x, h0):
        y, pull = jax.vjp(lambda *moving: gj.scan(cell, *moving, lengths=ends, method=PLAIN, **how), params, x, h0)
        return y, [pull(d) for d in ((d_y, d_h), (d_y, jnp.zeros_like(d_h)), (jnp.zeros_like(d_y), d_h))]

    for ours, expected in zip(*map(jax.tree.leaves, (apart(params, x, h0), together(params, x, h0))), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("keep", ["gates", "states"])
def test_what_is_kept_is_the_states_and_the_gates(keep, monkeypatch):
    """Not what JAX would keep of its own derivative, some fifty arrays of a layer."""
    by_engine(monkeypatch, keep)
    cell, x = gj.GRU(H), jnp.ones((B, T, I))
    made = jax.eval_shape(
        lambda params: passes.forward(cell, params, x, jnp.zeros((B, H)), None, reverse=False, time_major=False),
        cell.init(jax.random.key(0), I),
    )
    assert [leaf.shape[:2] for leaf in made[2]] == [(B, T), (T, B)][: 1 + (keep == "gates")]
