"""What Newton's method accepts is within what it promises, and what is right is accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import gru_jax as gj
from benchmarks import newton_accepted
from gru_jax.scans.methods import newton_rounds

from .cases import I


@pytest.mark.parametrize("name", ("float16", pytest.param("bfloat16", marks=pytest.mark.slow)))
def test_half_precision_is_right_to_its_own_rounding(name):
    """Of the trajectory that the stored weights have, whatever their scale."""
    dtype = jnp.dtype(name)
    cell = gj.GRU(8)
    run = jax.jit(lambda p, x: gj.scan(cell, p, x, method=gj.Newton(fallback="nan"), stats=True))
    exact = jax.jit(lambda p, x: gj.scan(cell, p, x, method=gj.Sequential(kernel="scan"))[0])
    accepted = []
    for scale in (1.0, 3.0, 8.0):
        keys = jax.random.split(jax.random.key(0), 3)
        params = cell.init(keys[0], I)
        params = params._replace(w_h=jax.random.normal(keys[1], (8, 24)) * scale)
        params, x = jax.tree.map(lambda a: a.astype(dtype), (params, jax.random.normal(keys[2], (64, 64, I))))
        y, _, stats = run(params, x)
        truth = exact(*jax.tree.map(lambda a: a.astype(jnp.float32), (params, x)))
        off = jnp.abs(y.astype(jnp.float32) - truth).max((1, 2))
        accepted.append(int(stats.converged.sum()))
        # The steps in float32 are themselves as far off as what is promised beside the rounding.
        assert (off <= newton_accepted.promised(dtype) + 2e-5)[stats.converged].all()
        assert (stats.error >= float(jnp.finfo(dtype).eps) / 2).all()
    assert accepted[0] == 64 and accepted[-1] < 64


def test_a_slow_network_is_accepted_in_any_windows():
    """One whose units keep most of their state: what rounding adds up to does not depend on where time is cut."""
    cell = gj.GRU(8, init="torch")
    params = cell.init(jax.random.key(0), I)
    params = params._replace(b_x=params.b_x.at[8:16].add(4.0))
    x = jax.random.normal(jax.random.key(1), (2, 400, I))
    expected = gj.scan(cell, params, x, method="sequential")[0]
    errors = []
    for window in (2, None):
        y, _, stats = gj.scan(cell, params, x, method=gj.Newton("dense", window=window, fallback="nan"), stats=True)
        assert stats.converged.all()
        np.testing.assert_allclose(y, expected, atol=1e-5)
        errors.append(stats.error)
    assert (errors[0] <= 3 * errors[1]).all()


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (gj.Newton(window=4), r"Newton: window=4 needs a known number of steps; got T = t; .* or use window=None"),
        (gj.Newton(kernel="interpret-gpu"), "Newton: kernel='interpret-gpu' needs known sizes; got T = t; .*'xla'"),
    ],
    ids=("window", "kernel"),
)
def test_symbolic_sizes_that_decide_what_is_computed_are_refused(method, match):
    cell = gj.GRU(4)
    params = cell.init(jax.random.key(0), I)
    x = jax.ShapeDtypeStruct(export.symbolic_shape(f"2, t, {I}"), jnp.float32)
    with pytest.raises(ValueError, match=match):
        export.export(jax.jit(lambda x: gj.scan(cell, params, x, method=method)[0]))(x)


def test_neighbours_have_orthogonal_signs():
    signs = np.asarray(newton_rounds._patterns(12, 5, jnp.float32))
    for step, unit in ((0, 0), (3, 4), (4, 0)):
        for other_step, other_unit in ((step + 1, unit), (step + 7, unit)):
            assert signs[:, step, unit] @ signs[:, other_step, other_unit] == 0
    assert signs[:, 2, 1] @ signs[:, 2, 3] == 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ("float32", "float16", "bfloat16"))
def test_none_is_over(dtype, monkeypatch):
    count = "100000" if dtype == "float32" else "20000"
    monkeypatch.setattr("sys.argv", ["newton_accepted", "--dtype", dtype, "--count", count, "--seed", "1"])
    newton_accepted.main()
