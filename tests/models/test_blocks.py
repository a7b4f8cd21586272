"""The block of minGRU and minLSTM: its parts in their order, step by step, padding, dropout."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.models.blocks import BlockState

T, I, W = 6, 3, 4
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, T, I)).astype(np.float32))
KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "lstm": {"cell": "min_lstm", "norm": "layer", "conv": 1, "forget_bias": 1.0},
    "gru": {"cell": "gru", "conv": 2, "feed_forward": None},
    "para_gru": {"cell": "para_gru", "conv": 2, "feed_forward": None},
    "bare": {"conv": None, "feed_forward": None, "form": "linear"},
}
SOME = ["all", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "all")]


def make(**options: Any) -> tuple[Any, Any]:
    last = gj.models.min_block(W, last_norm=True, **options)
    net = gj.stack(gj.models.min_block(W, **options), last)
    return net, jax.jit(net.init, static_argnums=1)(jax.random.key(0), I)


def test_the_parts_in_their_order() -> None:
    """Against NumPy, every parameter random."""
    block = gj.models.min_block(W, conv=3, expansion=2, feed_forward=1.5, last_norm=True, norm="layer")
    params = jax.eval_shape(lambda key: block.init(key, I), jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    leaves = [np.asarray(rng.normal(size=leaf.shape).astype(np.float32)) for leaf in leaves]
    p = tree.unflatten(leaves)

    def normed(norm: Any, x: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * norm.scale + norm.bias

    x = np.asarray(X) @ p.inward.w + p.inward.b
    past = np.concatenate([np.zeros((2, 2, W), np.float32), x], 1)
    seen = sum(past[:, k : k + T] * p.conv.taps[k] for k in range(3)) + p.conv.b
    x = x + seen @ p.conv.mix.w + p.conv.mix.b
    y, _ = gj.scan(gj.MinGRU(2 * W, form="log"), p.cell, jnp.asarray(normed(p.norm, x)))
    x = x + np.asarray(y) @ p.back.w + p.back.b
    both = normed(p.ff_norm, x) @ p.ff_in.w + p.ff_in.b
    values, gates = both[..., :6], both[..., 6:]
    gelu = np.asarray(jax.scipy.stats.norm.cdf(gates)) * gates
    x = x + (values * gelu) @ p.ff_out.w + p.ff_out.b
    expected = normed(p.last_norm, x)
    found = jax.jit(block.apply)(jax.tree.map(jnp.asarray, p), X)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", SOME)
def test_step_by_step_is_the_whole(kind: str) -> None:
    net, params = make(**KINDS[kind])
    apply = jax.jit(net.apply)
    whole, end = apply(params, X)
    h, steps = None, []
    for t in range(T):
        y, h = apply(params, X[:, t : t + 1], h)
        steps.append(y)
    np.testing.assert_allclose(jnp.concatenate(steps, 1), whole, atol=1e-5)
    chex.assert_trees_all_close(h, end, atol=1e-5)


@pytest.mark.parametrize("kind", SOME)
def test_padding_never_counts(kind: str) -> None:
    """Outputs, states (a sequence shorter than the convolution too) and gradients, whatever stands in padding."""
    net, params = make(**KINDS[kind])
    lengths = np.array([T, 2])
    noise = X.at[1, 2:].set(jnp.nan)

    def loss(params: Any) -> tuple[Any, Any]:
        y, h = net.apply(params, noise, lengths=lengths)
        return jnp.square(y).sum(), (y, h)

    grads, (y, h) = jax.jit(jax.grad(loss, has_aux=True))(params)
    chex.assert_tree_all_finite(grads)
    short, h_short = jax.jit(net.apply)(params, X[1:, :2])
    np.testing.assert_allclose(y[1, :2], short[0], atol=1e-5)
    np.testing.assert_array_equal(y[1, 2:], np.zeros((T - 2, W)))
    chex.assert_trees_all_close(jax.tree.map(lambda a: a[1:], h), h_short, atol=1e-5)


@pytest.mark.slow
def test_without_a_convolution_as_any_layer() -> None:
    """Holes, and the other direction."""
    net, params = make(conv=None)
    both = gj.bidirectional(gj.models.min_block(W, conv=None))
    mask = np.array([[True, False, True, True, False, True]] * 2)
    y, h = net.apply(params, X, mask=mask)
    dense, h_dense = net.apply(params, X[:, mask[0]])
    np.testing.assert_allclose(y[:, mask[0]], dense, atol=1e-5)
    chex.assert_trees_all_close(h, h_dense, atol=1e-5)
    y, _ = both.apply(both.init(jax.random.key(0), I), X)
    assert y.shape == (2, T, 2 * W)


@pytest.mark.slow
def test_dropout_by_one_key_or_one_for_each_sequence() -> None:
    net, params = make(dropout=0.5)
    apply = jax.jit(net.apply, static_argnames="deterministic")
    keys = jax.random.split(jax.random.key(1), 2)
    each = apply(params, X, key=keys)[0]
    alone = apply(params, X[1:], key=keys[1:])[0]
    np.testing.assert_allclose(each[1:], alone, atol=1e-5)
    plain = apply(params, X, deterministic=True)[0]
    assert not np.allclose(each, plain) and not np.allclose(each, apply(params, X, key=jax.random.key(3))[0])
    with pytest.raises(ValueError, match="dropout above 0 needs a random key"):
        net.apply(params, X)


@pytest.mark.slow
def test_blocks_in_a_model_over_tokens_draw_what_they_would_tell() -> None:
    last = gj.models.min_block(W, last_norm=True)
    model = gj.models.sequence_model(gj.stack(gj.models.min_block(W), last), 5, W)
    params = model.init(jax.random.key(0))
    params = params._replace(w=params.w * 20)
    prompt = np.array([[1, 4]])
    drawn = model.sample(params, jax.random.key(1), prompt, 6, temperature=0)
    logits = model.apply(params, jnp.concatenate([prompt, drawn], 1))
    np.testing.assert_array_equal(drawn[0], logits[0, 1:-1].argmax(-1))


@pytest.mark.slow
def test_forget_bias_of_the_cell() -> None:
    block = gj.models.min_block(W, cell="min_lstm", expansion=1, forget_bias=3.0)
    b = block.init(jax.random.key(0), W).cell.b_x
    np.testing.assert_array_equal(b, [3.0] * W + [0.0] * 2 * W)


WRONG: list[tuple[dict[str, Any], dict[str, Any], type, str]] = [
    ({"width": 0}, {}, ValueError, "width must be at least 1"),
    ({"cell": "elman"}, {}, ValueError, "cell must be one of 'min_gru', 'min_lstm', 'gru', 'para_gru'; got 'elman'"),
    ({"norm": None}, {}, ValueError, "norm must be one of 'rms', 'layer'"),
    ({"expansion": 0.1}, {}, ValueError, "expansion times width must be at least 1"),
    ({"feed_forward": "4"}, {}, TypeError, "feed_forward must be a plain finite number"),
    ({"feed_forward": None, "dropout": 0.1}, {}, ValueError, "dropout acts on the feed-forward"),
    ({"forget_bias": 1.0}, {}, ValueError, "forget_bias is minLSTM's"),
    ({}, {"mask": jnp.ones((2, T), bool)}, ValueError, "pass lengths, or build the block with conv=None"),
    ({}, {"reverse": True}, ValueError, "the convolution runs forward"),
    ({}, {"time_major": True}, ValueError, "leave time_major and padding out"),
    ({}, {"h0": jnp.zeros((2, W))}, TypeError, "h0 must be a BlockState with the convolution's inputs"),
    ({}, {"h0": BlockState(jnp.zeros((2, 2, W)), jnp.zeros((2, 6)))}, ValueError, r"h0.conv must have shape \[2, 3, 4"),
]


@pytest.mark.parametrize(("options", "call", "error", "match"), WRONG, ids=range(len(WRONG)))
def test_what_is_refused(options: dict[str, Any], call: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        block = gj.models.min_block(**{"width": W, **options})
        jax.eval_shape(lambda key: block.apply(block.init(key, I), X, **call), jax.random.key(0))
