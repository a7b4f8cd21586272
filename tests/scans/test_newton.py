"""Newton's method over time: the numbers of the steps where it converges, a flag and the steps where it does not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax as gj

from .cases import CELLS, SITUATIONS, B, H, I, T, arrays, assert_close, oracle, outputs_and_gradients, table, weigh

JACOBIANS = ("dense", "diagonal")
# Windows with resets and gradients are quick in test_episodes.py, dropout in tests/cells/test_mgu.py.
QUICK = {("after-full-1", "diagonal", "resets and holes", False)}


@pytest.mark.parametrize(
    "cell, jacobian, situation, reverse",
    table(CELLS, JACOBIANS, SITUATIONS, (False, True), quick=lambda *row: row in QUICK),
)
def test_agrees_with_the_loop(cell, jacobian, situation, reverse):
    """Outputs, final states and every gradient, in one piece and in windows that do not divide T."""
    naive = oracle(cell, situation, reverse)
    cell, options = CELLS[cell], {**SITUATIONS[situation], "reverse": reverse}
    for window in (None, 2) if situation == "everything" else (None,):
        ours = outputs_and_gradients(cell, *arrays(cell), method=gj.Newton(jacobian, window=window), **options)
        assert_close(ours, naive, 1e-6, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    (
        gj.GRU(32, init="torch"),
        pytest.param(gj.GRU(32, reset="before", heads=4, init="torch"), marks=pytest.mark.slow),
    ),
    ids=("dense", "heads"),
)
def test_a_long_sequence_converges_in_a_few_rounds(cell):
    params = cell.init(jax.random.key(0), I)
    x = jax.random.normal(jax.random.key(1), (2, 3000, I))
    h0 = jax.random.normal(jax.random.key(2), (2, 32))
    lengths = jnp.array([3000, 1234])

    def run(method, **more):
        def loss(params, x, h0):
            y, h, *stats = gj.scan(cell, params, x, h0, lengths=lengths, method=method, **more)
            return weigh((y, h)), (y, stats)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, x, h0)

    (_, (y, (stats,))), gradients = run(gj.Newton(), stats=True)
    (_, (expected, _)), expected_gradients = run("sequential")
    assert stats.converged.all() and not stats.fell_back.any()
    assert (stats.iterations <= 16).all() and (stats.residual <= 1e-6).all()
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (gradients, expected_gradients)), strict=True):
        assert np.abs(a - b).max() <= 2e-4 * np.abs(b).max()


def test_double_precision(x64):
    cell = gj.GRU(8, init="torch")
    params = cell.init(jax.random.key(0), I, jnp.float64)
    x = jax.random.normal(jax.random.key(1), (2000, I), jnp.float64)
    y, _, stats = gj.scan(cell, params, x, method=gj.Newton("diagonal"), stats=True)
    assert stats.converged
    np.testing.assert_allclose(y, gj.scan(cell, params, x, method="sequential")[0], atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", (jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)))
def test_half_precision(dtype):
    """The states are rounded once, at the end, so they are nearer to the exact ones than those of the steps."""
    cell = gj.GRU(8, init="torch")
    params = cell.init(jax.random.key(0), I, dtype)
    x = jax.random.normal(jax.random.key(1), (2, 200, I), dtype)
    y, h, stats = gj.scan(cell, params, x, method=gj.Newton(), stats=True)
    exact, _ = gj.scan(cell, *jax.tree.map(lambda a: a.astype(jnp.float32), (params, x)), method="sequential")
    assert y.dtype == h.dtype == dtype and stats.converged.all()
    assert np.abs(y.astype(jnp.float32) - exact).max() <= 4 * float(jnp.finfo(dtype).eps)


HARD = gj.GRU(8, init="torch")


@jax.jit
def both_ways(seed, scale, of_x, steps):
    params = jax.tree.map(lambda p: p * scale, HARD.init(jax.random.key(seed), I))
    drawn = jax.random.normal(jax.random.key(seed + 1), (3, 60, I))
    x = jnp.where(jnp.arange(60)[None, :, None] < steps, drawn * of_x, 0)
    method = gj.Newton("diagonal", max_iters=70)
    y, _, stats = gj.scan(HARD, params, x, method=method, stats=True)
    dense, _, dense_stats = gj.scan(HARD, params, x, method=gj.Newton("dense"), stats=True)
    return (y, stats), (dense, dense_stats), gj.scan(HARD, params, x, method="sequential")[0]


@pytest.mark.parametrize("examples", (25, pytest.param(400, marks=pytest.mark.slow)))
def test_never_wrong_without_saying_so(examples):
    """Whatever the weights: right to 1e-4, by convergence or by the fallback. One compilation serves all draws."""

    @given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30), of_x=st.floats(0.1, 10), steps=st.integers(1, 60))
    @settings(max_examples=examples)
    def check(seed, scale, of_x, steps):
        *found, expected = both_ways(seed, scale, of_x, steps)
        for y, stats in found:
            assert np.abs(y - expected).max() <= 1e-4
            assert (stats.converged != stats.fell_back).all()

    check()


def test_a_hard_sequence_leaves_the_others_alone():
    """The input opens the update gate of the second sequence's chaotic network and of no other's."""
    cell = gj.GRU(8, init="torch")
    params = jax.tree.map(lambda p: p * 1.0, cell.init(jax.random.key(0), I))
    params = params._replace(w_h=params.w_h * 12)
    calm = jnp.zeros((400, I))
    x = jnp.stack([calm, jax.random.normal(jax.random.key(1), (400, I)) * 2])
    closed = params._replace(b_x=params.b_x.at[8:16].set(0))
    mask = jnp.array([[False] * 400, [True] * 400])
    y, _, stats = gj.scan(cell, closed, x, method=gj.Newton(), stats=True, mask=mask)
    assert stats.converged.tolist() == [True, False] and stats.fell_back.tolist() == [False, True]
    assert int(stats.iterations[0]) <= 2
    np.testing.assert_array_equal(y[0], 0)
    # In the same batch: a chaotic network makes of another order of summation another trajectory.
    np.testing.assert_allclose(y, gj.scan(cell, closed, x, method="sequential", mask=mask)[0], atol=1e-6)


@pytest.mark.slow
def test_a_trajectory_from_before_saves_rounds():
    """Only the number of rounds depends on where Newton starts: not the states, not the gradient."""
    params = HARD.init(jax.random.key(0), I)
    x = jax.random.normal(jax.random.key(1), (2, 300, I))

    @jax.jit
    def run(params, init):
        def loss(params, init):
            method = gj.Newton("diagonal", init=init)
            y, h, stats = gj.scan(HARD, params, x, lengths=jnp.array([300, 120]), method=method, stats=True)
            return weigh((y, h)), (y, stats)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, init)

    (_, (y, stats)), _ = run(params, jnp.zeros((2, 300, 8)))
    nearby = jax.tree.map(lambda p: p * 1.0001, params)
    (_, (cold, cold_stats)), (cold_gradient, of_init) = run(nearby, jnp.full((2, 300, 8), jnp.nan))
    (_, (warm, warm_stats)), (warm_gradient, _) = run(nearby, y)
    assert (warm_stats.iterations < cold_stats.iterations).all() and warm_stats.converged.all()
    np.testing.assert_allclose(warm, cold, atol=5e-6)
    for a, b in zip(warm_gradient, cold_gradient, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(of_init, 0)
    assert gj.Newton(init=y) == gj.Newton() and hash(gj.Newton(init=y)) == hash(gj.Newton())


@pytest.mark.parametrize(
    ("init", "error", "match"),
    [
        (jnp.zeros((2, 60, 7)), ValueError, r"Newton: init must have shape \[2, 60, 8\]; got \[2, 60, 7\]"),
        ((jnp.zeros((2, 60, 8)),), TypeError, "Newton: init must be .* as cell.initial_state makes it; got"),
        (jnp.zeros((2, 60, 8), int), TypeError, "Newton: init must be"),
        (jnp.zeros((2, 60, 8), jnp.bfloat16), TypeError, "init is bfloat16"),
    ],
)
def test_an_init_of_another_shape_is_refused(init, error, match):
    params = HARD.init(jax.random.key(0), I)
    with pytest.raises(error, match=match):
        gj.scan(HARD, params, jnp.ones((2, 60, I)), method=gj.Newton(init=init))


@pytest.mark.parametrize("where", (pytest.param("params", marks=pytest.mark.slow), "one sequence"))
def test_nan_never_converges(where):
    """In a batch so large that XLA's maximum over it loses NaN."""
    params, x = HARD.init(jax.random.key(0), I), jax.random.normal(jax.random.key(1), (128, 60, I))
    bad = jnp.arange(128) == 17
    if where == "params":
        params, bad = params._replace(b_h=params.b_h.at[0].set(jnp.nan)), jnp.ones_like(bad)
    else:
        x = x.at[17, 30].set(jnp.nan)

    def loss(x):
        y, _, stats = gj.scan(HARD, params, x, method=gj.Newton("diagonal"), stats=True)
        return y.sum(), (y, stats)

    gradient, (y, stats) = jax.jit(jax.grad(loss, has_aux=True))(x)
    np.testing.assert_array_equal(stats.converged, ~bad)
    np.testing.assert_array_equal(jnp.isnan(y).any((1, 2)), bad)
    np.testing.assert_array_equal(jnp.isnan(gradient).any((1, 2)), bad)


def hard_case():
    params = jax.tree.map(lambda p: p * 20, HARD.init(jax.random.key(0), I))
    return params, jax.random.normal(jax.random.key(1), (2, 500, I))


def test_fallback_error_names_the_residual_and_the_way_out():
    params, x = hard_case()
    with pytest.raises(Exception, match=r"2 of 2 sequences did not converge.*residual .*fallback='sequential'"):
        jax.block_until_ready(jax.jit(lambda x: gj.scan(HARD, params, x, method=gj.Newton(fallback="error")))(x))
        jax.effects_barrier()


def test_fallback_nan():
    params, x = hard_case()
    y, _, stats = gj.scan(HARD, params, x, method=gj.Newton(fallback="nan"), stats=True)
    assert jnp.isnan(y).all() and not stats.converged.any() and not stats.fell_back.any()


@dataclasses.dataclass(frozen=True)
class Peephole:
    """A user's own cell: two states of different widths in a dict, no closed form of anything."""

    def init(self, key, input_size, dtype=jnp.float32):
        return tuple(
            jax.random.normal(k, shape, dtype) * 0.3
            for k, shape in zip(jax.random.split(key, 3), ((input_size, 4), (4, 4), (2, 4)), strict=True)
        )

    def project(self, params, x):
        return x @ params[0]

    def step(self, params, u, h):
        c = jnp.tanh(u + h["c"] @ params[1] + h["m"] @ params[2])
        return {"c": c, "m": 0.5 * h["m"] + 0.5 * c[..., :2]}

    def initial_state(self, batch, dtype):
        return {"c": jnp.zeros((*batch, 4), dtype), "m": jnp.zeros((*batch, 2), dtype)}

    def output(self, h):
        return h["c"]


@pytest.mark.slow
@pytest.mark.parametrize("jacobian", (pytest.param("dense", marks=pytest.mark.slow), "diagonal"))
def test_a_users_cell(jacobian):
    cell = Peephole()
    params = cell.init(jax.random.key(0), I)
    x = jax.random.normal(jax.random.key(1), (B, 12, I))
    h0 = {"c": jnp.ones((B, 4)), "m": jnp.full((B, 2), -0.5)}
    options = {"lengths": jnp.array([12, 5, 0])}
    ours = outputs_and_gradients(cell, params, x, h0, method=gj.Newton(jacobian), **options)
    assert_close(ours, outputs_and_gradients(cell, params, x, h0, method="naive", **options), 1e-6, 2e-5)
    assert gj.scan(cell, params, x, h0, method=gj.Newton(jacobian), stats=True, **options)[2].converged.all()


TRANSFORMS = {
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda x, h0: weigh(f(x, h0)), (0, 1))),
    "jvp": lambda f: lambda x, h0: jax.jvp(f, (x, h0), (jnp.cos(x), h0)),
    "forward over reverse": lambda f: lambda x, h0: jax.jvp(jax.grad(lambda h: weigh(f(x, h))), (h0,), (h0,)),
    "remat": lambda f: jax.grad(jax.checkpoint(lambda x, h0: weigh(f(x, h0)))),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "transform, jacobian",
    table(TRANSFORMS, JACOBIANS, quick=lambda *row: row in (("jvp", "dense"), ("vmap of grad", "diagonal"))),
)
def test_transforms(transform, jacobian):
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell)
    results = [
        jax.jit(TRANSFORMS[transform](lambda x, h0, m=m: gj.scan(cell, params, x, h0, method=m)))(x, h0)
        for m in (gj.Newton(jacobian), gj.Sequential(keep="gates"))
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6, rtol=1e-4)


@pytest.mark.parametrize("shape", ((0, 5), (2, 0), (1,)), ids=str)
def test_nothing_to_do(shape):
    cell = CELLS["after-full-1"]
    params, _, _ = arrays(cell)
    y, h, stats = gj.scan(cell, params, jnp.ones((*shape, I)), method="newton", stats=True)
    assert y.shape == (*shape, H) and h.shape == stats.converged.shape + (H,) == (*shape[:-1], H)


@pytest.mark.slow
def test_layers_take_it():
    layer = gj.bidirectional(gj.recurrent(gj.GRU(H), method="newton"))
    net, plain = gj.stack(layer), gj.stack(gj.bidirectional(gj.recurrent(gj.GRU(H))))
    params = net.init(jax.random.key(0), I)
    x = jax.random.normal(jax.random.key(1), (B, T, I))
    np.testing.assert_allclose(net.apply(params, x)[0], plain.apply(params, x)[0], atol=1e-6)


@pytest.mark.parametrize("method", ("auto", "naive", "sequential"))
def test_stats_of_the_other_methods(method):
    cell = CELLS["after-full-1"]
    y, h, gates, stats = gj.scan(cell, *arrays(cell), method=method, stats=True, return_gates=True)
    assert gates.z.shape == y.shape
    assert stats.converged.tolist() == [True] * B and stats.iterations.tolist() == [0] * B


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"jacobian": "full"}, ValueError, "jacobian must be one of 'auto', 'dense', 'diagonal'; got 'full'"),
        ({"fallback": "nann"}, ValueError, "did you mean 'nan'"),
        ({"damping": -1}, ValueError, "damping must be at least 0 and finite; got -1"),
        ({"damping": float("nan")}, ValueError, "damping must be at least 0"),
        ({"tol": 0.0}, ValueError, "tol must be above 0"),
        ({"tol": "1e-5"}, TypeError, "tol must be a plain number; got '1e-5'"),
        ({"window": 0}, ValueError, "window must be at least 1; got 0"),
        ({"max_iters": 2.5}, TypeError, "max_iters must be a whole number"),
    ],
)
def test_what_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        gj.Newton(**options)


def test_what_is_returned_has_the_residual_that_was_asked_for():
    """A tolerance at the rounding of the states: the last move may leave more than what was seen before it."""
    cell, tol = gj.GRU(8, init="torch"), 1.5e-7
    params = jax.tree.map(lambda p: 2 * p, cell.init(jax.random.key(0), 3))
    x = jax.random.normal(jax.random.key(1), (64, 60, 3))
    scan = jax.jit(lambda params, x: gj.scan(cell, params, x, method=gj.Newton("diagonal", tol=tol), stats=True))
    stats = scan(params, x)[2]
    assert 0 < stats.converged.sum() < 64
    np.testing.assert_array_equal(stats.converged & (stats.residual > tol), False)
    np.testing.assert_array_equal(stats.fell_back, ~stats.converged)
