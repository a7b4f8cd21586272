"""Flax's cells under `gj.scan` and the combinators: the numbers of `linen.RNN`, its gradients, padding."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import gru_jax as gj
from gru_jax.models.output_layer import pooled

B, T, I, H = 3, 5, 2, 4
LENGTHS = np.array([5, 3, 1])
VALID = np.broadcast_to((np.arange(T) < LENGTHS[:, None])[..., None], (B, T, H))
CELLS = {
    "lstm": (gj.models.LSTM(H), linen.OptimizedLSTMCell(H)),
    "tanh": (gj.models.TanhRNN(H), linen.SimpleCell(H)),
}
METHOD = gj.Sequential(keep="states", hoist=True)
X = np.random.default_rng(0).normal(size=(B, T, I)).astype(np.float32)


def test_what_is_drawn_is_flax_own() -> None:
    carry = (jnp.zeros(H), jnp.zeros(H))
    params = jax.jit(linen.OptimizedLSTMCell(H).init)(jax.random.key(0), carry, X[0, 0])["params"]
    remembering = jax.jit(gj.models.LSTM(H, forget_bias=1.5).init, static_argnums=1)(jax.random.key(0), I)
    np.testing.assert_array_equal(remembering["hf"].pop("bias"), params["hf"].pop("bias") + 1.5)
    chex.assert_trees_all_equal(remembering, params)


def test_gates_look_at_their_own_memory() -> None:
    """By hand, one step after another, as Graves 2013 writes it; without weights on the memory it is flax's cell."""
    cell = gj.LSTM(H, forget_bias=1.0, peepholes=True)
    params = cell.init(jax.random.key(0), I)
    plain = {name: leaf for name, leaf in params.items() if name != "peepholes"}
    chex.assert_trees_all_equal(plain, gj.LSTM(H, forget_bias=1.0).init(jax.random.key(0), I))
    at_zero = gj.scan(cell, params, X, lengths=LENGTHS)
    chex.assert_trees_all_close(at_zero, gj.scan(gj.LSTM(H), plain, X, lengths=LENGTHS), atol=1e-6)
    p = np.random.default_rng(1).normal(size=(3, H)).astype(np.float32)
    y, (c, h) = gj.scan(cell, {**params, "peepholes": jnp.asarray(p)}, X)
    now, out, weights = np.zeros((B, H)), np.zeros((B, H)), jax.device_get(plain)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    for t in range(T):
        sums = {
            g: X[:, t] @ weights[f"i{g}"]["kernel"] + out @ weights[f"h{g}"]["kernel"] + weights[f"h{g}"]["bias"]
            for g in "ifog"
        }
        i, f = sigmoid(sums["i"] + p[0] * now), sigmoid(sums["f"] + p[1] * now)
        now = f * now + i * np.tanh(sums["g"])
        out = sigmoid(sums["o"] + p[2] * now) * np.tanh(now)
        assert np.abs(y[:, t] - out).max() < 1e-6
    assert np.abs(c - now).max() < 1e-6 and np.abs(h - out).max() < 1e-6


@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients_of_linen(name: str) -> None:
    cell, module = CELLS[name]
    params = cell.init(jax.random.key(0), I)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(B, T, H)).astype(np.float32) * VALID)

    def of_linen(params: Any, x: Any) -> Any:
        variables = {"params": {"cell": params}}
        carry, y = linen.RNN(module, return_carry=True).apply(variables, x, seq_lengths=LENGTHS)
        return (y * weight).sum(), (carry, jnp.where(VALID, y, jnp.zeros_like(y)))

    def ours(params: Any, x: Any, method: Any) -> Any:
        y, state = gj.scan(cell, params, x, lengths=LENGTHS, method=method)
        return (y * weight).sum(), (tuple(state) if name == "lstm" else state, y)

    gradient = {"argnums": (0, 1), "has_aux": True}
    with jax.numpy_rank_promotion("allow"):  # of linen.RNN
        (_, expected), expected_grads = jax.jit(jax.value_and_grad(of_linen, **gradient))(params, X)
    (_, found), grads = jax.jit(jax.value_and_grad(ours, **gradient), static_argnums=2)(params, X, METHOD)
    chex.assert_trees_all_close(found, expected, atol=1e-6)
    chex.assert_trees_all_close(grads, expected_grads, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_newton_finds_the_same_states(name: str) -> None:
    cell, _ = CELLS[name]
    params = cell.init(jax.random.key(0), I)
    expected = gj.scan(cell, params, X, lengths=LENGTHS, method="naive")
    y, state, stats = gj.scan(cell, params, X, lengths=LENGTHS, method="newton", stats=True)
    chex.assert_trees_all_close((y, state), expected, atol=1e-5)
    assert stats.converged.all() and not stats.fell_back.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_time_split_over_devices(name: str) -> None:
    """Newton's method with a derivative that jax finds: these cells have no closed form."""
    cell, _ = CELLS[name]
    params = cell.init(jax.random.key(0), I)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 8, I)).astype(np.float32))
    method = gj.TimeSharded(jax.make_mesh((2, 2), ("data", "time")), "time", "data")

    def loss(params: Any, method: Any) -> Any:
        return jnp.square(gj.scan(cell, params, x, method=method)[0]).sum()

    found, expected = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, m) for m in (method, "sequential"))
    chex.assert_trees_all_close(found, expected, atol=1e-5)


@pytest.mark.slow
def test_an_lstm_in_two_directions_with_an_output_layer() -> None:
    """The last valid output of both; what stands in padding is never seen."""
    layer = gj.recurrent(gj.models.LSTM(H))
    net = gj.stack(gj.bidirectional(layer), gj.bidirectional(layer))
    model = gj.models.readout(net, I, 2)
    params = model.init(jax.random.key(0))
    noise = np.where(VALID[..., :1], X, np.float32(np.nan))
    found, states = model.apply(params, noise, lengths=LENGTHS, return_state=True)
    for row, length in enumerate(LENGTHS[:2]):
        y, _ = net.apply(params.net, X[row, :length])
        ends = jnp.concatenate([y[-1, :H], y[0, H:]])
        np.testing.assert_allclose(found[row], ends @ params.w, atol=1e-6)
    assert isinstance(states[1][0], gj.models.LSTMState)
    again = model.apply(params, X[:, :2], states)
    assert not np.allclose(again, model.apply(params, X[:, :2]))


@pytest.mark.slow
def test_an_lstm_in_one_direction_gives_its_output_not_its_memory() -> None:
    layer = gj.recurrent(gj.models.LSTM(H))
    alone, stacked = (gj.models.readout(net, I, 2) for net in (layer, gj.stack(layer)))
    params = alone.init(jax.random.key(0))
    expected = gj.scan(gj.models.LSTM(H), params.net, X, lengths=LENGTHS)[1].h @ params.w
    np.testing.assert_allclose(alone.apply(params, X, lengths=LENGTHS), expected, atol=1e-6)
    in_stack = params._replace(net=gj.StackParams((params.net,), ()))
    np.testing.assert_allclose(stacked.apply(in_stack, X, lengths=LENGTHS), expected, atol=1e-6)


def test_what_the_output_layer_reads_of_states() -> None:
    """Of two directions the outputs of both, of one the last valid output, be its state a tuple or not."""
    c, h = jnp.zeros((1, 2)), jnp.array([[1.0, 2.0]])
    state = gj.models.LSTMState(c, h)
    y = jnp.arange(6.0).reshape(1, 3, 2)
    np.testing.assert_array_equal(pooled(y, (state, state), None, "last"), [[1, 2, 1, 2]])
    np.testing.assert_array_equal(pooled(y, (h, h), None, "last"), [[1, 2, 1, 2]])
    np.testing.assert_array_equal(pooled(y, state, None, "last"), [[4, 5]])


def test_half_precision_stays() -> None:
    cell = gj.models.TanhRNN(H)
    params = cell.init(jax.random.key(0), I, jnp.bfloat16)
    y, h = jax.eval_shape(lambda p: gj.scan(cell, p, jnp.ones((1, 2, I), jnp.bfloat16)), params)
    assert y.dtype == h.dtype == params["h"]["kernel"].dtype == jnp.bfloat16



def shapes(features: int) -> Any:
    drawn = jax.eval_shape(lambda key: gj.models.LSTM(4).init(key, features), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), drawn)


WRONG = [
    (lambda: gj.models.LSTM(0), ValueError, "hidden_size must be at least 1"),
    (lambda: gj.models.LSTM(4, forget_bias=float("nan")), TypeError, "forget_bias must be a plain finite number"),
    (lambda: gj.models.TanhRNN(2.5), TypeError, "hidden_size must be a whole number"),
    (lambda: gj.models.TanhRNN(4).init(0, 2), TypeError, "key must be one random key"),
    (
        lambda: gj.scan(gj.models.LSTM(4), shapes(3), X),
        ValueError,
        r"params.i\w.kernel must be an array of shape \[2, 4\]; got an array of shape \[3, 4\]",
    ),
    (
        lambda: gj.scan(gj.models.TanhRNN(4), shapes(2), X),
        ValueError,
        "make params with this cell's init",
    ),
    (
        lambda: gj.scan(gj.models.LSTM(4), shapes(2), X, jnp.zeros((B, 4))),
        TypeError,
        "as cell.initial_state makes it",
    ),
]


@pytest.mark.parametrize(("make", "error", "match"), WRONG, ids=range(len(WRONG)))
def test_what_is_refused(make: Any, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        make()
