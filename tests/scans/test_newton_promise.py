"""What Newton's method accepts is within what it promises, and what is right is accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import gru_jax as gj
from benchmarks import newton_accepted
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.methods import jacobians

from .cases import I


@pytest.mark.slow
@pytest.mark.parametrize("name", ("float16", "bfloat16"))
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


@pytest.mark.parametrize(
    ("logit", "size", "steps", "is_right"),
    [
        (17.0, 1, 300, False), pytest.param(17.0, 1, 2000, False, marks=pytest.mark.slow), (12.0, 0, 600, False),
        (9.0, 10, 600, True), (40.0, 1, 2000, True),
    ],
)
def test_what_every_step_rounds_alike_adds_up(logit, size, steps, is_right):
    """Gates that round to 1, or, the input being the same, to one number: random signs make next to nothing of it."""
    cell = gj.GRU(1)
    params = cell.init(jax.random.key(0), I)
    params = params._replace(b_x=jnp.array([0.0, logit, 30.0]), w_h=jnp.zeros((1, 3)), w_x=params.w_x * 0.1)
    x, h0 = jax.random.normal(jax.random.key(1), (4, steps, I)) * size, -jnp.ones((4, 1))
    y, _, stats = gj.scan(cell, params, x, h0=h0, method=gj.Newton(), stats=True)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (params, x, h0))
        exact = gj.scan(cell, *wide[:2], h0=wide[2], method=gj.Sequential(kernel="scan"))[0]
    off = np.abs(np.asarray(y) - np.asarray(exact)).max((1, 2))
    promised = newton_accepted.promised(jnp.float32)
    assert ((off <= promised) == is_right).all() and (stats.converged == is_right).all()
    # What is refused is not followed to the end.
    assert (stats.error >= np.minimum(off, promised)).all()


def test_terms_that_cancel_leave_their_rounding():
    """Whatever the sizes: of two products that cancel, the sum is as uncertain as each of them."""
    cell = gj.GRU(1, bias="none")
    params = cell.init(jax.random.key(0), 2)._replace(w_x=jnp.array([[0, 0, 1.0], [0, 0, -1.0]]), w_h=jnp.zeros((1, 3)))
    x = jax.random.normal(jax.random.key(1), (200, 1, 1)) * 1e4 * jnp.ones((1, 1, 2))
    start = jnp.zeros((1, 1))
    f = jacobians.AllSteps(cell, Context(params, start, None, None), Steps(x, None, None))
    found = f.rounding(jnp.zeros((200, 1, 1)))
    expected = jnp.abs(x[..., :1]) * float(jnp.finfo(jnp.float32).eps)
    assert (found >= 0.75 * expected).all() and (found <= 6 * expected + 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ("float32", "float16", "bfloat16"))
def test_none_is_over(dtype, monkeypatch):
    count = "100000" if dtype == "float32" else "20000"
    monkeypatch.setattr("sys.argv", ["newton_accepted", "--dtype", dtype, "--count", count, "--seed", "1"])
    newton_accepted.main()
