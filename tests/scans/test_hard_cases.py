"""Inputs on which parallel methods go wrong unless they look twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from .cases import I


def test_chaos_is_seen_across_windows():
    """Every window of four steps is right by itself; the sequence is not."""
    cell = gj.GRU(8, init="torch")
    params = jax.tree.map(lambda p: 10 * p, cell.init(jax.random.key(0), I))
    x = jax.random.normal(jax.random.key(1), (4, 600, I))
    y, _, stats = gj.scan(cell, params, x, method=gj.Newton("diagonal", window=4), stats=True)
    assert (stats.residual <= 1e-6).all() and (stats.error > 1e-4).all() and stats.fell_back.all()
    np.testing.assert_allclose(y, gj.scan(cell, params, x, method="sequential")[0], atol=1e-6)


@pytest.mark.parametrize("jacobian", ("diagonal", pytest.param("dense", marks=pytest.mark.slow)))
def test_a_start_that_drifts_is_no_solution(jacobian):
    """A rotation adds up residuals that are in phase with it, each of them within the tolerance."""
    steps, cell = 500, gj.GRU(2, activation="linear")
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), 2))
    turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    params = params._replace(
        w_x=params.w_x.at[:, 4:].set(jnp.eye(2)),
        w_h=params.w_h.at[:, 4:].set(turn),
        b_x=params.b_x.at[:2].set(40).at[2:4].set(-200),
    )
    x = 1e-3 * jax.random.normal(jax.random.key(1), (1, steps, 2))
    phase = jnp.arange(steps, dtype=x.dtype) * jnp.pi / 2
    other = x + 7e-7 * jnp.stack([jnp.cos(phase), jnp.sin(phase)], -1)[None]
    init = gj.scan(cell, params, other, method="sequential")[0]
    expected = gj.scan(cell, params, x, method="sequential")[0]
    assert np.abs(init - expected).max() > 2e-4
    y, _, stats = gj.scan(cell, params, x, method=gj.Newton(jacobian, init=init), stats=True)
    assert np.abs(y - expected).max() <= 1e-5
    assert stats.fell_back.all() or jacobian == "dense"


@pytest.mark.parametrize("kernel", ("scan", "chunked", "associative"))
def test_slow_decay_in_log_space(kernel):
    """By so little in a step that the logarithm of the state does not change: exp(-20000 softplus(-15.4))."""
    cell = gj.MinGRU(1, form="log")
    params = cell.init(jax.random.key(0), 1)
    params = params._replace(w_x=jnp.zeros((1, 2)), b_x=jnp.array([-15.4, -30.0]))
    _, h = gj.scan(cell, params, jnp.zeros((20_000, 1)), jnp.full(1, 1000.0), method=gj.Associative(kernel))
    exact = 1000 * np.exp(-20_000 * np.log1p(np.exp(-15.4)))
    assert abs(float(h[0]) / exact - 1) <= (1e-6 if kernel == "scan" else 5e-5)


SLOWLY = [pytest.param(steps, marks=pytest.mark.slow) for steps in (20, 45)]


@pytest.mark.parametrize("steps", (*SLOWLY, 60))
def test_what_has_faded_is_still_right(steps):
    """The gradient of the last state with respect to the first, and the tangent the other way, are tiny and exact."""
    cell = gj.GRU(32, init="torch")
    params = cell.init(jax.random.key(0), I)
    x, h0 = jax.random.normal(jax.random.key(1), (2, 60, I)), jnp.zeros((2, 32))
    mask = jnp.broadcast_to(jnp.arange(60) < steps, (2, 60))

    def both(method):
        last = lambda h0: gj.scan(cell, params, x, h0, mask=mask, method=method)[1]  # noqa: E731
        return jax.jit(lambda h0: (jax.grad(lambda h: last(h).sum())(h0), jax.jvp(last, (h0,), (h0 + 1,))[1]))(h0)

    for ours, theirs in zip(both(gj.Newton("diagonal")), both("sequential"), strict=True):
        assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()


@pytest.mark.slow
def test_heads_of_different_scale():
    cell = gj.GRU(8, heads=2, init="torch")
    params = cell.init(jax.random.key(0), I)
    params = params._replace(w_h=params.w_h.at[0].set(0))
    x = jax.random.normal(jax.random.key(1), (1, 100, I))
    weight = jnp.where(jnp.broadcast_to(jnp.arange(8), (1, 100, 8)) < 4, 1e6, 1.0)

    def gradient(method):
        return jax.grad(lambda p: (gj.scan(cell, p, x, method=method)[0] * weight).sum())(params).w_h[1]

    ours, theirs = gradient(gj.Newton("diagonal")), gradient("sequential")
    assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("kernel", ("scan", "chunked", "associative"))
def test_factors_overflow_where_there_is_no_state(kernel):
    a = jnp.full((16, 1), 1e20)
    np.testing.assert_array_equal(gj.linear_scan(a, jnp.zeros_like(a), kernel=kernel), 0)
    gradient = jax.grad(lambda b: gj.linear_scan(a, b, kernel=kernel)[2].sum())(jnp.zeros_like(a))
    np.testing.assert_array_equal(gradient[3:], 0)
    assert jnp.isinf(gradient[0]).all() and float(gradient[2, 0]) == 1


@pytest.mark.slow
def test_growing_factors_over_devices():
    """The Jacobians of 300 steps multiply to infinity; the gradient of an early output does not see them."""
    cell = gj.GRU(8)
    params = jax.tree.map(lambda p: 4 * p, cell.init(jax.random.key(0), I))
    x = jnp.zeros((1, 1200, I))
    mesh = jax.make_mesh((4,), ("time",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])

    def gradient(method):
        return jax.jit(jax.grad(lambda p: gj.scan(cell, p, x, method=method)[0][:, 1].sum()))(params)

    for ours, theirs in zip(gradient(gj.TimeSharded(mesh)), gradient("sequential"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Rooted:
    """A user's own cell whose derivative does not exist where a state is 0."""

    def init(self, key, input_size):
        return jax.random.normal(key, (input_size, 4))

    def project(self, params, x):
        return x @ params

    def step(self, params, u, h):
        return 0.3 * jnp.tanh(u) + 0.5 * jnp.sqrt(h * h)

    def initial_state(self, batch, dtype):
        return jnp.zeros((*batch, 4), dtype)

    def output(self, h):
        return h


def test_a_derivative_that_is_nan_stays_where_it_is():
    cell = Rooted()
    params = cell.init(jax.random.key(0), I)
    x = jax.random.normal(jax.random.key(1), (2, 12, I))
    h0 = jnp.ones((2, 4)).at[0, 0].set(0)

    def gradients(method):
        loss = lambda p, x, h0: gj.scan(cell, p, x, h0, method=method)[0].sum()  # noqa: E731
        return jax.grad(loss, (0, 1, 2))(params, x, h0)

    for ours, theirs in zip(gradients(gj.Newton("dense")), gradients(gj.Sequential(keep="states")), strict=True):
        np.testing.assert_array_equal(jnp.isnan(ours), jnp.isnan(theirs))


def test_an_affine_of_another_shape_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Fixed(Rooted):
        def affine(self, params, u):
            return jnp.full(4, 0.5), u

    cell = Fixed()
    params = cell.init(jax.random.key(0), I)
    match = r"Fixed.affine: a must be \[\*batch, H\].*here \[2, 4\]; got \[4\] and \[2, 4\]; broadcast"
    with pytest.raises(ValueError, match=match):
        gj.scan(cell, params, jnp.ones((2, 5, I)), method="associative")
