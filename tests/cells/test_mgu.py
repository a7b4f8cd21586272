"""The minimal gated unit against flax.linen.MGUCell, by every method."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import gru_jax as gj

from ..scans.cases import CHUNKED, HOLES, RESETS, B, H, I, arrays, assert_close, outputs_and_gradients

EVERYTHING = {"mask": HOLES, "resets": RESETS, "recurrent_dropout": 0.3, "key": jax.random.key(3), "reverse": True}


@pytest.mark.parametrize("reset_gate", (True, False))
def test_the_numbers_are_those_of_flax(reset_gate):
    theirs = linen.RNN(linen.MGUCell(H, reset_gate=reset_gate, activation_bias_init=linen.initializers.normal(0.5)))
    x = jax.random.normal(jax.random.key(0), (B, 6, I))
    variables = theirs.init(jax.random.key(1), x)
    p = variables["params"]["cell"]
    params = gj.MGUParams(
        jnp.concatenate([p["if"]["kernel"], p["in"]["kernel"]], -1),
        jnp.concatenate([p["hf"]["kernel"], p["hn"]["kernel"]], -1),
        jnp.concatenate([p["if"]["bias"], p["in"]["bias"]], -1),
        p["hn"]["bias"] if reset_gate else None,
    )
    y, _ = gj.scan(gj.MGU(H, reset_gate=reset_gate), params, x)
    np.testing.assert_allclose(y, theirs.apply(variables, x), atol=1e-6)


@cache
def naive(reset_gate):
    cell = gj.MGU(H, reset_gate=reset_gate)
    return outputs_and_gradients(cell, *arrays(cell), method="naive", **EVERYTHING)


@pytest.mark.parametrize(
    ("reset_gate", "method"),
    [
        pytest.param(True, gj.Sequential(keep="states"), marks=pytest.mark.slow),
        (False, gj.Sequential(keep="states")),
        (True, CHUNKED["kept chunks"]),
        pytest.param(False, CHUNKED["chunks"], marks=pytest.mark.slow),
        (True, gj.Newton("diagonal")),
        pytest.param(False, gj.Newton("dense"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_method_in_every_situation_at_once(reset_gate, method):
    cell = gj.MGU(H, reset_gate=reset_gate)
    found = outputs_and_gradients(cell, *arrays(cell), method=method, **EVERYTHING)
    assert_close(found, naive(reset_gate), 1e-6, 2e-5)


@pytest.mark.parametrize("reset_gate", (True, False))
def test_the_closed_form_is_the_jacobian(reset_gate):
    cell = gj.MGU(H, reset_gate=reset_gate, activation="softsign")
    params, x, h = arrays(cell)
    drop = jnp.array([[2.0, 0.0, 2.0, 2.0]] * B)

    @jax.jit  # one program: by itself every operation would be one
    def both(params, x, h):
        u, v = cell.project(params, x), jnp.cos(h)
        jacobian = jax.vmap(jax.jacfwd(lambda h, u, d: cell.step(params, u, h, d)))(h, u, drop)
        at = cell.linearize(params, u, h, drop)
        ours = cell.tangent(params, at, v, drop), cell.cotangent(params, at, v, drop), cell.diagonal(params, at, drop)
        by_hand = jacobian @ v[..., None], jnp.einsum("bij,bi->bj", jacobian, v), jnp.einsum("bii->bi", jacobian)
        return ours, (by_hand[0][..., 0], *by_hand[1:])

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *both(params, x[:, 0], h))


@pytest.mark.parametrize("drop", (False, True))
@pytest.mark.parametrize("reset_gate", (True, False))
def test_pullback_is_that_of_project_and_step(x64, reset_gate, drop):
    cell = gj.MGU(H, reset_gate=reset_gate, activation="softsign")
    params, x, h = arrays(cell, jnp.float64, batch=(2, B))
    x, c = x[..., 0, :], jnp.cos(3 * h)
    mask = np.where(np.arange(h.size).reshape(h.shape) % 4 == 0, 0.0, 1.5) if drop else None
    assert cell.has_products

    @jax.jit
    def both(params, x, h, c):
        u, known = cell.project(params, x), cell.products(params, h, mask)
        at = cell.linearize(params, u, h, mask, known)
        step = lambda params, x, h: cell.step(params, cell.project(params, x), h, mask)  # noqa: E731
        by_transposed = cell.cotangent(params, at, c, mask, cell.transposed(params, jnp.float64))
        ours = *cell.pullback(params, at, x, h, c, mask), by_transposed, cell.step(params, u, h, mask, known)
        return ours, (*jax.vjp(step, params, x, h)[1](c), step(params, x, h))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), *both(params, x, h, c))


def test_fresh_parameters():
    params = gj.MGU(H).init(jax.random.key(0), I, jnp.bfloat16)
    assert params.w_x.shape == (I, 2 * H) and params.w_x.dtype == jnp.bfloat16
    assert params.b_x.tolist() == [1.0] * H + [0.0] * H and not params.b_h.any()
    w = gj.MGU(H).init(jax.random.key(0), I).w_h[:, :H]
    np.testing.assert_allclose(w.T @ w, np.eye(H), atol=1e-5)
    assert gj.MGU(H, reset_gate=False).init(jax.random.key(0), I).b_h is None


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: gj.MGU(0), ValueError, "hidden_size must be at least 1"),
        (lambda: gj.MGU(4, reset_gate="after"), TypeError, "reset_gate must be True or False"),
        (lambda: gj.MGU(4, activation="tahn"), ValueError, "did you mean 'tanh'"),
        (lambda: gj.MGU(4, init="keras"), ValueError, "init must be one of 'flax'; got 'keras'"),
        (lambda: run(gj.MGU(4), gj.MGU(4), 5), ValueError, "x has 5 features but params were made for 3"),
        (lambda: run(gj.MGU(5), gj.MGU(4)), ValueError, r"w_x must have shape \[3, 10\]; got \[3, 8\]"),
        (lambda: run(gj.MGU(4, reset_gate=False), gj.MGU(4)), ValueError, "b_h must be None"),
        (lambda: run(gj.MGU(4), gj.GRU(4)), TypeError, "must be MGUParams"),
    ],
)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def run(cell, made_by, features=I):
    return gj.scan(cell, made_by.init(jax.random.key(0), I), jnp.ones((2, 7, features)))
