"""DreamerV3's recurrent cell against its equations in float64, by every method."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gru_jax as gj

from ..scans.cases import CHUNKED, HOLES, RESET_TO, RESETS, B, H, I, T, arrays, assert_close, outputs_and_gradients

EVERYTHING = {"mask": HOLES, "resets": RESETS, "reset_to": RESET_TO, "reverse": True}
CELLS = {
    "joint": gj.DreamerGRU(H, heads=2),
    "joint, rms, dense": gj.DreamerGRU(H, heads=1, norm="rms", epsilon=1e-3, update_bias=0.5),
    "layer": gj.DreamerGRU(H, heads=2, layers=1, projection_size=3, activation="tanh"),
    "two layers of parts, rms": gj.DreamerGRU(H, heads=2, norm="rms", layers=2, input_sizes=(1, 2)),
}


@cache
def scattered(cell, dtype=jnp.float32, **sizes):
    """Arrays whose biases, scales and shifts are not those of `init`."""
    params, x, h0 = arrays(cell, dtype, **sizes)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [a + 0.5 * jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    return structure.unflatten(moved), x, h0


def by_equations(cell, params, x, h, resets):
    """The loop over time in float64, unit by unit where that matters: nothing of the library but the options."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x, h, k = np.asarray(x, np.float64), np.asarray(h, np.float64), cell.heads
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    active = np.tanh if cell.activation == "tanh" else lambda a: a * sigmoid(a)

    def norm(linear, a):
        if cell.norm == "layer":
            a = a - a.mean(-1, keepdims=True)
        a = a / np.sqrt((a**2).mean(-1, keepdims=True) + cell.epsilon) * linear.scale
        return a if linear.shift is None else a + linear.shift

    def blocks(w, v):
        whole = np.zeros((v.shape[-1], w.shape[-1] // w.shape[-2], k, v.shape[-1] // k))
        for i, rows in enumerate(np.split(whole, k)):
            rows[:, :, i] = w[i].reshape(rows[:, :, i].shape)
        return v @ whole.reshape(len(whole), -1)

    outputs = []
    for t in range(x.shape[1]):
        h = np.where(np.asarray(resets)[:, t, None], 0, h)
        if cell.layers == 0:
            a = norm(p.joint, x[:, t] @ p.w_x + blocks(p.joint.w, h))
        else:
            ends = np.cumsum([linear.w.shape[0] for linear in p.inputs])[:-1]
            parts = np.split(x[:, t], ends, -1)
            seen = [active(norm(one, v @ one.w + one.b)) for one, v in zip(p.inputs, parts, strict=True)]
            own = active(norm(p.state, h @ p.state.w + p.state.b))
            v = np.concatenate(seen, -1) @ p.w_x + own @ p.w_s + blocks(p.joint.w, h) + p.joint.b
            v = active(norm(p.joint, v))
            for one in p.layers[:-1]:
                v = active(norm(one, blocks(one.w, v) + one.b))
            a = blocks(p.layers[-1].w, v) + p.layers[-1].b
        r, z, n = np.split(a, 3, -1)
        z = sigmoid(z + cell.update_bias)
        h = z * np.tanh(sigmoid(r) * n) + (1 - z) * h
        outputs.append(h)
    return np.stack(outputs, 1)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("joint, rms, dense", "layer")]


@pytest.mark.parametrize("name", ["joint", *SLOW, "two layers of parts, rms"])
def test_the_numbers_are_those_of_the_equations(name):
    cell = CELLS[name]
    params, x, h0 = scattered(cell)
    y, h = gj.scan(cell, params, x, h0, resets=RESETS)
    wanted = by_equations(cell, params, x, h0, RESETS)
    np.testing.assert_allclose(y, wanted, atol=2e-6)
    np.testing.assert_allclose(h, wanted[:, -1], atol=2e-6)


@pytest.mark.parametrize("name", ["joint", pytest.param("two layers of parts, rms", marks=pytest.mark.slow)])
def test_half_precision_is_summed_in_single(name):
    cell = CELLS[name]
    params, x, h0 = scattered(cell, jnp.bfloat16)
    y, _ = gj.scan(cell, params, x, h0, resets=RESETS)
    assert y.dtype == jnp.bfloat16 and cell.project(params, x).dtype == jnp.float32
    np.testing.assert_allclose(y.astype(jnp.float32), by_equations(cell, params, x, h0, RESETS), atol=0.04)


@cache
def naive(name):
    return outputs_and_gradients(CELLS[name], *scattered(CELLS[name]), method="naive", **EVERYTHING)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("joint", CHUNKED["kept chunks"]),
        pytest.param("layer", CHUNKED["one chunk"], marks=pytest.mark.slow),
        pytest.param("joint", gj.Newton("dense"), marks=pytest.mark.slow),
        pytest.param("two layers of parts, rms", CHUNKED["kept chunks"], marks=pytest.mark.slow),
        pytest.param("two layers of parts, rms", CHUNKED["chunks"], marks=pytest.mark.slow),
        pytest.param("two layers of parts, rms", gj.Sequential(keep="states"), marks=pytest.mark.slow),
        pytest.param("joint", gj.Sequential(keep="states"), marks=pytest.mark.slow),
        pytest.param("joint, rms, dense", CHUNKED["one chunk"], marks=pytest.mark.slow),
        pytest.param("layer", gj.Newton("diagonal"), marks=pytest.mark.slow),
        pytest.param("layer", "auto", marks=pytest.mark.slow),
        pytest.param("two layers of parts, rms", gj.Sequential(kernel="scan", keep="gates"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_method_in_every_situation_at_once(name, method):
    cell = CELLS[name]
    found = outputs_and_gradients(cell, *scattered(cell), method=method, **EVERYTHING)
    assert_close(found, naive(name), 2e-6, 5e-5)


@pytest.mark.slow
def test_half_precision_through_chunks():
    cell = CELLS["layer"]
    given = scattered(cell, jnp.bfloat16)
    same = jax.tree.map(lambda a: a.astype(jnp.float32), given)
    half, full = (outputs_and_gradients(cell, *each, method=CHUNKED["chunks"], resets=RESETS) for each in (given, same))
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.08 * max(1, float(np.abs(b).max())))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joint", "two layers of parts, rms"])
def test_the_fronts_of_flax_and_streams_compute_the_same(name):
    cell = CELLS[name]
    held, x = gj.inside.nnx.Cell(cell, I, rngs=nnx.Rngs(0)), arrays(cell)[1]
    params = jax.tree.map(lambda a: a[...], held.params, is_leaf=lambda a: isinstance(a, nnx.Variable))
    y, _ = gj.scan(cell, params, x)
    np.testing.assert_allclose(gj.inside.nnx.RNN(held)(x), y, atol=1e-6)
    np.testing.assert_allclose(nnx.RNN(held)(x), y, atol=1e-6)
    ours, theirs = (rnn(gj.inside.linen.Cell(cell)) for rnn in (gj.inside.linen.RNN, linen.RNN))
    variables = ours.init(jax.random.key(0), x)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-6)
    stream = gj.Stream(cell, params, batch=B)
    np.testing.assert_allclose(np.stack([stream(frame) for frame in np.moveaxis(x, 1, 0)], 1), y, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_time_sharding(name):
    cell = CELLS[name]
    mesh = jax.make_mesh((4,), ("time",), (jax.sharding.AxisType.Auto,))
    given = scattered(cell, steps=8)
    method = gj.TimeSharded(mesh, "time")
    naive = outputs_and_gradients(cell, *given, method="naive")
    assert_close(outputs_and_gradients(cell, *given, method=method), naive, 5e-6, 1e-4)


@pytest.mark.parametrize("name", [pytest.param("joint", marks=pytest.mark.slow), *SLOW, "two layers of parts, rms"])
def test_the_closed_form_is_the_derivative(x64, name):
    cell = CELLS[name]
    params, x, h = scattered(cell, jnp.float64, batch=(2, B))
    x, c = x[..., 0, :], jnp.cos(3 * h)

    @jax.jit
    def both(params, x, h, c):
        u = cell.project(params, x)
        at = cell.linearize(params, u, h, cell.products(params, h) if cell.has_products else None)
        step = lambda params, x, h: cell.step(params, cell.project(params, x), h)  # noqa: E731
        moved = jax.jvp(lambda h: step(params, x, h), (h,), (c,))[1]
        d_params, d_x, d_h = jax.vjp(step, params, x, h)[1](c)
        back = cell.cotangent(params, at, c, cell.transposed(params, jnp.float64))
        return (moved, d_params, d_x, d_h), (cell.tangent(params, at, c), *cell.pullback(params, at, x, h, c), back)

    theirs, ours = both(params, x, h, c)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), ours, theirs)


def test_a_norm_ties_the_blocks_together():
    cell = CELLS["joint"]
    params, x, h = scattered(cell)
    jacobian = jax.jit(jax.jacobian(lambda h: cell.step(params, cell.project(params, x[0, 0]), h)))(h[0])
    assert np.abs(jacobian[: H // 2, H // 2 :]).min() > 1e-4
    assert not hasattr(cell, "block_size")


def test_fresh_parameters():
    cell = gj.DreamerGRU(64, heads=4, layers=2, projection_size=32)
    params = jax.jit(lambda key: cell.init(key, 16, jnp.bfloat16))(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert params.inputs[0].w.shape == (16, 32) and params.layers[1].w.shape == (4, 16, 48)
    assert (params.joint.scale == 1).all() and not params.joint.shift.any() and not params.layers[1].b.any()
    assert params.layers[1].scale is None
    # Of what comes into all blocks together: the state, and for each block both projections.
    assert abs(float(params.w_s.astype(jnp.float32).std()) * (64 + 4 * 64) ** 0.5 - 1) < 0.1
    assert gj.DreamerGRU(64, norm="rms").init(jax.random.key(0), 16).joint.shift is None
    two = CELLS["two layers of parts, rms"]
    assert two.input_size(two.init(jax.random.key(0), 3)) == 3


def run(cell, made_by, features=I, **options):
    return gj.scan(cell, made_by.init(jax.random.key(0), I), jnp.ones((2, T, features)), **options)


SMALL, LAYER = gj.DreamerGRU(4, heads=2), gj.DreamerGRU(4, heads=2, layers=1)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: gj.DreamerGRU(12), ValueError, "divisible by heads; got hidden_size=12 and heads=8"),
        (lambda: gj.DreamerGRU(8, norm="rsm"), ValueError, "did you mean 'rms'"),
        (lambda: gj.DreamerGRU(8, layers=True), TypeError, "layers must be a whole number"),
        (lambda: gj.DreamerGRU(8, projection_size=4), ValueError, "projection_size needs layers of at least 1"),
        (lambda: gj.DreamerGRU(8, activation="relu"), ValueError, "activation needs layers of at least 1"),
        (lambda: gj.DreamerGRU(8, epsilon=0), ValueError, "epsilon must be above 0"),
        (lambda: gj.DreamerGRU(8, update_bias="-1"), TypeError, "update_bias must be a plain number"),
        (lambda: CELLS["two layers of parts, rms"].init(jax.random.key(0), 4), ValueError, "the sum of input_sizes"),
        (lambda: run(SMALL, SMALL, method="associative"), ValueError, "linear in its state.*DreamerGRU is not"),
        (lambda: run(SMALL, SMALL, 5), ValueError, "x has 5 features but params were made for 3"),
        (lambda: run(SMALL, gj.DreamerGRU(8, heads=2)), ValueError, r"w_x must have shape \[3, 12\]; got \[3, 24\]"),
        (lambda: run(SMALL, gj.DreamerGRU(4, heads=2, norm="rms")), ValueError, r"joint.shift must have shape \[12\]"),
        (lambda: run(LAYER, gj.DreamerGRU(4, heads=2)), ValueError, r"params.inputs\[0\].w must have shape \[3, 4\]"),
        (lambda: run(SMALL, LAYER), ValueError, r"w_x must have shape \[3, 12\]; got \[4, 4\]"),
        (lambda: run(SMALL, gj.GRU(4)), TypeError, "must be DreamerGRUParams"),
    ],
)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
