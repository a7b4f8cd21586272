"""Newton's method by its kernels, in Pallas's interpreter: the numbers and the verdicts of kernel="xla"."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.cells.base import accumulator
from gru_jax.scans.engines.pallas import newton_diagonal
from gru_jax.scans.engines.pallas.target import Target
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.methods import newton_rounds
from gru_jax.scans.methods.jacobians import AllSteps

from ..cases import CELLS, SITUATIONS, H, I, arrays, assert_close, outputs_and_gradients, table

KERNELS = ("interpret-gpu", "interpret-tpu")
FUSED = {name: cell for name, cell in CELLS.items() if newton_diagonal.serves(cell)}
APART = {"before-full-1": CELLS["before-full-1"], "callables": CELLS["callables"], "mgu": gj.MGU(H)}

PLATFORMS = ("gpu", "tpu")


def test_which_cells_are_fused():
    assert set(FUSED) == {
        *(f"after-{bias}-{heads}" for bias in ("full", "minimal", "none") for heads in (1, 2, H)),
        *(f"before-{bias}-{H}" for bias in ("full", "minimal", "none")),
        "activations",
    }
    others = (gj.MinGRU(H), gj.GRU(H, activation="gelu"), gj.GRU(H, gate_activation=jax.nn.sigmoid))
    assert not any(newton_diagonal.serves(cell) for cell in (*APART.values(), *others))


def one_round(cell, platform, dtype, shape, options, damping=(0.0, 0.25, 1.0)):
    """By how much a round moves some iterate, and F there: by the kernel, and by step, Jacobian, recurrence apart."""
    steps, B = shape
    size, full = cell.hidden_size, accumulator(dtype)
    of_params, *keys = jax.random.split(jax.random.key(3), 8)
    normal = lambda key, *shape: jax.random.normal(key, shape, full)  # noqa: E731
    params = cell.init(of_params, I, dtype)
    h, start = normal(keys[0], steps, B, size), normal(keys[1], B, size)
    flags = {
        "use": jax.random.bernoulli(keys[2], 0.7, (steps, B)),
        "reset": jax.random.bernoulli(keys[3], 0.3, (steps, B)),
    }
    drop = jax.random.bernoulli(keys[4], 0.6, (B, size)).astype(dtype) * 1.5 if "drop" in options else None
    reset_to = normal(keys[5], B, size) if "reset" in options else None
    context = Context(params, start, None, drop, reset_to=reset_to)
    all_steps = Steps(normal(keys[6], steps, B, I).astype(dtype), *(flags[k] if k in options else None for k in flags))
    damping = jnp.resize(jnp.array(damping, full), (B,))
    f = AllSteps(cell, context, all_steps)
    looks = (
        newton_rounds.fused(f, start, newton_diagonal.Rounds.of(cell, context, all_steps, Target(platform, True))),
        newton_rounds.apart(f, start, "diagonal", "scan"),
    )

    def run(look, h):
        after, move = look.see(h, damping)
        return move(damping), after

    return [jax.jit(functools.partial(run, look))(h) for look in looks]


ROUNDS = {
    "plain": ("after-full-1", jnp.float32, (7, 3), ()),
    "all flags": ("after-minimal-2", jnp.float32, (7, 3), ("use", "reset", "drop")),
    "diagonal": (f"after-full-{H}", jnp.float32, (7, 3), ("use", "reset", "drop")),
    "diagonal, before": (f"before-full-{H}", jnp.float32, (7, 3), ("reset", "drop")),
    "one step": ("after-none-1", jnp.float32, (1, 1), ("use",)),
    "activations": ("activations", jnp.float32, (5, 2), ("reset",)),
    "half": ("after-full-1", jnp.bfloat16, (7, 3), ("use", "reset")),
    "half, diagonal": (f"after-full-{H}", jnp.bfloat16, (7, 3), ()),
}
QUICK = {("all flags", "gpu"), ("diagonal, before", "tpu")}


@pytest.mark.parametrize("case, platform", table(ROUNDS, PLATFORMS, quick=lambda *row: row in QUICK))
def test_a_round(case, platform):
    cell, *how = ROUNDS[case]
    ours, expected = one_round(CELLS[cell], platform, *how)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape, size", [((1000, 1), 1), ((100, 3), 100), ((9, 3), 1536)], ids=str)
def test_a_round_of_another_size(shape, size, platform):
    cell = gj.GRU(size, init="torch")
    ours, expected = one_round(cell, platform, jnp.float32, shape, ("use", "reset"), damping=(0.25,))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_round_in_double_precision(x64, platform):
    ours, expected = one_round(CELLS["after-full-1"], platform, jnp.float64, (7, 3), ("use", "reset"))
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == jnp.float64
        np.testing.assert_allclose(a, b, atol=1e-14)


FEW = ("after-full-1", "after-minimal-2", f"after-none-{H}", f"before-full-{H}")
SCANS = {name: CELLS[name] for name in FEW} | APART
REVERSED = {"plain": False, "everything": False, "resets and holes": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, situation, kernel",
    table(SCANS, REVERSED, KERNELS, quick=lambda *row: True),
)
def test_agrees_with_xla(cell, situation, kernel):
    """Outputs, final states and every gradient."""
    cell, options = SCANS[cell], {**SITUATIONS[situation], "reverse": REVERSED[situation]}
    ours, expected = (
        outputs_and_gradients(cell, *arrays(cell), method=gj.Newton("diagonal", kernel=name), **options)
        for name in (kernel, "xla")
    )
    assert_close(ours, expected, 1e-6, 2e-5)


LONG = gj.GRU(8, init="torch")


def solved(kernel, params, x, **options):
    """(y, h, stats) of a GRU of 8 units."""
    return jax.jit(
        lambda params, x: gj.scan(LONG, params, x, method=gj.Newton("diagonal", kernel=kernel), stats=True, **options)
    )(params, x)


@pytest.mark.parametrize(
    "kernel, scale", table(KERNELS, (1.0, 5.0, 20.0), quick=lambda *row: row == ("interpret-gpu", 5.0))
)
def test_the_same_rounds_and_the_same_verdict(kernel, scale):
    """Of calm networks, of those whose residual grows, so that a round is damped, and of chaotic ones."""
    params = jax.tree.map(lambda p: p * scale, LONG.init(jax.random.key(0), I))
    x = jax.random.normal(jax.random.key(1), (3, 60, I))
    options = {"lengths": jnp.array([60, 31, 0])}
    y, h, stats = solved(kernel, params, x, **options)
    expected, end, expected_stats = solved("xla", params, x, **options)
    np.testing.assert_allclose(y, expected, atol=2e-5)
    np.testing.assert_allclose(h, end, atol=2e-5)
    np.testing.assert_array_equal(stats.converged, expected_stats.converged)
    np.testing.assert_array_equal(stats.fell_back, expected_stats.fell_back)
    # Once a chaotic sequence is past what can be told, so is the number of its rounds.
    told = np.asarray(stats.converged)
    assert np.abs(stats.iterations - expected_stats.iterations)[told].max(initial=0) <= 1
    assert (stats.residual[told] <= 1e-6).all() and (stats.error[told] <= 2e-5).all()


@pytest.mark.parametrize("kernel", (KERNELS[0], pytest.param(KERNELS[1], marks=pytest.mark.slow)))
def test_nan_never_converges(kernel):
    params, x = LONG.init(jax.random.key(0), I), jax.random.normal(jax.random.key(1), (3, 20, I))
    y, _, stats = solved(kernel, params, x.at[1, 13].set(jnp.nan))
    assert stats.converged.tolist() == [True, False, True]
    assert jnp.isnan(y).any((1, 2)).tolist() == [False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_half_precision_windows_and_vmap(kernel):
    params = LONG.init(jax.random.key(0), I, jnp.bfloat16)
    x = jax.random.normal(jax.random.key(1), (2, 3, 50, I), jnp.bfloat16)

    def run(kernel):
        method = gj.Newton("diagonal", kernel=kernel, window=20)
        return jax.jit(jax.vmap(lambda x: gj.scan(LONG, params, x, method=method, stats=True)))(x)

    (y, h, stats), (expected, end, _) = run(kernel), run("xla")
    assert y.dtype == jnp.bfloat16 and stats.converged.all()
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    np.testing.assert_allclose(y.astype(jnp.float32), expected.astype(jnp.float32), atol=2 * eps)
    np.testing.assert_allclose(h.astype(jnp.float32), end.astype(jnp.float32), atol=2 * eps)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"kernel": "pallas", "jacobian": "dense"},
            r"kernel='pallas' solves with the diagonal of the Jacobian; got jacobian='dense'; use jacobian='diagonal'",
        ),
        ({"kernel": "palas"}, "kernel must be one of 'auto', 'xla', 'pallas'.*did you mean 'pallas'"),
    ],
)
def test_what_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        gj.Newton(**options)


def test_without_a_device_it_says_so():
    params, x, h0 = arrays(CELLS["after-full-1"])
    if jax.default_backend() != "cpu":
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="Newton: kernel='pallas' needs a GPU or a TPU; JAX runs on cpu here"):
        gj.scan(CELLS["after-full-1"], params, x, h0, method=gj.Newton(kernel="pallas"))


def test_auto_takes_the_diagonal():
    assert gj.Newton(kernel="interpret-gpu").resolved(CELLS["after-full-1"], H) == "diagonal"
    assert gj.Newton(kernel="xla").resolved(CELLS["after-full-1"], H) == "dense"
