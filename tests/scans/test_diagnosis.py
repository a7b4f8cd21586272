"""The diagnosis: exponents against products of Jacobians, rounds against the run that they predict."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.scans import diagnosis
from gru_jax.scans.diagnosis import lyapunov

I, H = 3, 16


@dataclasses.dataclass(frozen=True)
class Leak:
    """h' = decay h + x for two vectors, carried as a tuple; every Jacobian is decay times the identity."""

    decay: float

    def init(self, key, input_size):
        return ()

    def project(self, params, x):
        return x

    def step(self, params, u, h):
        return tuple(jnp.asarray(self.decay, part.dtype) * part + u for part in h)

    def initial_state(self, batch, dtype=jnp.float32):
        return jnp.zeros((*batch, I), dtype), jnp.ones((*batch, I), dtype)

    def output(self, h):
        return h[0]


def arrays(cell, steps, batch=(2,), scale=1.0):
    """(params, x, h0), time leading in x."""
    keys = jax.random.split(jax.random.key(1), 3)
    params = jax.tree.map(lambda p: p * scale, cell.init(keys[0], I))
    x = jax.random.normal(keys[1], (steps, *batch, I))
    return params, x, jax.random.normal(keys[2], (*batch, H))


@pytest.mark.parametrize("scale", (pytest.param(1.0, marks=pytest.mark.slow), 20.0), ids=("forgets", "chaotic"))
def test_exponent_is_the_growth_of_the_product_of_jacobians(scale):
    # Few enough that chaos has not yet grown rounding into another trajectory.
    cell, steps = gj.GRU(H, init="torch"), 120
    params, x, h0 = arrays(cell, steps, scale=scale)
    ours = lyapunov(cell, params, x, h0)
    y, _ = gj.scan(cell, params, x, h0, time_major=True)
    starts = jnp.concatenate([h0[None], y[:-1]])
    one = jax.jacfwd(lambda h, x: cell.step(params, cell.project(params, x), h))
    each = np.asarray(jax.vmap(jax.vmap(one))(starts, x), np.float64)
    for b in range(2):
        product, grown = np.eye(H), 0.0
        for j in each[:, b]:
            product = j @ product
            size = np.linalg.norm(product, 2)
            product, grown = product / size, grown + np.log(size)
        # One direction at random has its share in the fastest one, which T steps make up for.
        assert abs(float(ours[b]) - grown / steps) < 6 / steps
    assert (ours > 0).all() if scale > 1 else (ours < 0).all()


def test_exponent_of_a_linear_cell_is_that_of_its_slowest_unit():
    cell = gj.MinGRU(H)
    params, x, h0 = arrays(cell, 500)
    a, _ = cell.affine(params, cell.project(params, x))
    expected = jnp.log(a).mean(0).max(-1)
    np.testing.assert_allclose(lyapunov(cell, params, x, h0), expected, atol=4 / 500)


def test_masked_steps_do_not_count():
    """A sequence with holes has the exponent of the sequence without them, whatever stands in the holes."""
    cell = gj.GRU(H, init="torch")
    params, x, h0 = arrays(cell, 40)
    use = jnp.arange(80) % 2 == 1
    holes = jnp.full((80, 2, I), jnp.nan).at[1::2].set(x)
    ours = lyapunov(cell, params, holes, h0, jnp.broadcast_to(use[:, None], (80, 2)))
    np.testing.assert_allclose(ours, lyapunov(cell, params, x, h0), rtol=1e-5)


@pytest.mark.parametrize(("decay", "expected"), ((0.5, np.log(0.5)), (2.0, np.log(2.0)), (0.0, -np.inf)))
def test_resets_and_masks_change_nothing_where_every_step_is_alike(decay, expected):
    step = jnp.broadcast_to(jnp.arange(20)[:, None], (20, 3))
    use = step < jnp.broadcast_to(jnp.array([20, 7, 0]), (20, 3))
    reset = step % jnp.broadcast_to(jnp.array([20, 3, 2]), (20, 3)) == 0
    cell, x = Leak(decay), jnp.ones((20, 3, I))
    ours = lyapunov(cell, (), x, cell.initial_state((3,)), use, reset)
    np.testing.assert_allclose(ours[:2], [expected] * 2, rtol=1e-6)
    assert jnp.isnan(ours[2]), "nothing was measured"


@pytest.mark.slow
def test_rounds_predict_those_of_the_whole_sequence():
    cell = gj.GRU(H, init="torch")
    params, x, h0 = arrays(cell, 4000, scale=2.0)
    found = gj.diagnose(cell, params, x, h0, time_major=True, steps=250)
    assert (found.measured, found.steps) == (250, 4000)

    @jax.jit
    def actual(x, h0):
        methods = {name: gj.Newton(name.removeprefix("newton ")) for name in found.iterations}
        scan = functools.partial(gj.scan, cell, params, x, h0, time_major=True, stats=True)
        return {name: scan(method=method)[2] for name, method in methods.items()}

    for name, stats in actual(x, h0).items():
        predicted = found.iterations[name]
        assert stats.converged.all() and found.converged[name].all()
        assert np.abs(stats.iterations - predicted).max() <= 2
    assert set(found.milliseconds) == {"sequential", "newton dense", "newton diagonal"} == set(found.memory)
    lines = str(found).splitlines()
    assert lines[0].startswith("250 of the 4000 steps measured, 2 sequences, outputs, on cpu")
    assert lines[1].startswith("largest Lyapunov exponent, per step: -0.") and "fall to a third" in lines[1]
    assert f"{int(predicted.max()):8}        2 of 2" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("scale", (1.0, pytest.param(20.0, marks=pytest.mark.slow)))
def test_best_is_the_fastest_that_converged(scale, monkeypatch):
    """Whatever the times are: here the one that is listed last takes no time at all."""
    cell = gj.GRU(H, heads=H if scale == 1 else 1, init="torch")
    params, x, h0 = arrays(cell, 50, scale=scale)
    measure = diagnosis._times

    def pretended(runs, arrays):
        stats, times = measure(runs, arrays)
        return stats, {name: 1.0 / k for k, name in enumerate(times, start=1)}

    monkeypatch.setattr(diagnosis, "_times", pretended)
    found = gj.diagnose(cell, params, x, h0, time_major=True)
    if scale == 1:
        assert found.best == gj.Newton("diagonal") and "fastest here: gj.Newton(jacobian='diagonal')" in str(found)
        assert "newton dense      left out: the Jacobian is diagonal" in str(found)
    else:
        assert found.best == gj.Sequential() and "fastest here: gj.Sequential()" in str(found)
        assert not found.converged["newton diagonal"].any() and "cannot be counted on" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", (pytest.param(False, marks=pytest.mark.slow), True))
def test_measures_from_the_first_step_that_counts(reverse):
    """Half precision, no batch, either direction: the steps that are looked at are the first ones taken."""
    cell = gj.MinGRU(H)
    params, x, _ = arrays(cell, 30, batch=())
    narrow = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)  # noqa: E731
    options = {"lengths": jnp.array(20), "reverse": reverse, "steps": 8, "gradient": reverse}
    found = gj.diagnose(cell, narrow(params), narrow(x), **options)
    taken = x[:20][::-1][:8] if reverse else x[:8]
    exact = lyapunov(cell, *narrow((params, taken)), jnp.zeros(H))
    assert (found.measured, found.steps, found.lyapunov.shape) == (8, 30, ())
    np.testing.assert_allclose(found.lyapunov, exact, rtol=1e-5)
    assert set(found.milliseconds) == {"sequential", "associative"} and not found.iterations
    assert ("training step" if reverse else "outputs") in str(found)


def test_resets_reach_the_runs(monkeypatch):
    """With large weights and a reset at every step there is nothing left for Newton's method to solve."""
    cell = gj.GRU(H, init="torch")
    params, x, h0 = arrays(cell, 60, scale=8.0)
    monkeypatch.setattr(diagnosis, "DENSE_BUDGET", 0)
    every = jnp.ones((60, 2), bool)
    found = gj.diagnose(cell, params, x, h0, resets=every, reset_to=h0, time_major=True, steps=None)
    assert (found.iterations["newton diagonal"] <= 2).all() and jnp.isnan(found.lyapunov).all()
    assert "no step counts" in str(found) and "Jacobians of all 60 steps take" in found.left_out["newton dense"]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"steps": 0}, ValueError, "diagnose: steps must be at least 1; got 0"),
        ({"gradient": 1}, TypeError, "diagnose: gradient must be True or False"),
        ({"x": jnp.ones((2, 0, I))}, ValueError, r"x must have steps to measure; got shape \[2, 0, 3\]"),
        ({"x": jnp.ones((2, 5, I + 1))}, ValueError, "x has 4 features but params were made for 3"),
        ({"lengths": jnp.array([6, 1])}, ValueError, r"lengths must lie in \[0, 5\]"),
        ({"mask": jnp.ones((2, 4), bool)}, ValueError, "mask must have shape"),
    ],
)
def test_what_is_refused(change, error, match):
    cell = gj.GRU(H)
    options = {"x": jnp.ones((2, 5, I)), **change}
    with pytest.raises(error, match=match):
        gj.diagnose(cell, cell.init(jax.random.key(0), I), **options)


def test_traced_arrays_are_refused():
    cell = gj.GRU(H)
    params = cell.init(jax.random.key(0), I)
    with pytest.raises(TypeError, match="diagnose: x must be concrete, for runs are timed; got an array that is being"):
        jax.jit(lambda x: gj.diagnose(cell, params, x).lyapunov)(jnp.ones((2, 5, I)))
