"""Models over tokens: embedding and output layer, padding, and drawing tokens one by one."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

V, E = 5, 4
LAYER = gj.recurrent(gj.GRU(E))
TOKENS = np.random.default_rng(0).integers(0, V, (2, 6))


def make(net: Any = None, width: int | None = E, **options: Any) -> tuple[gj.models.SequenceModel, Any]:
    model = gj.models.sequence_model(LAYER if net is None else net, V, width, **options)
    return model, jax.jit(model.init)(jax.random.key(0))


@pytest.mark.parametrize("width", [None, pytest.param(E, marks=pytest.mark.slow)])
def test_tokens_are_rows(width: int | None) -> None:
    """One-hot or embedded: the logits are those of the network on the rows, and of the output layer behind it."""
    model, params = make(gj.recurrent(gj.GRU(3)), width, outputs=7)
    rows = jnp.eye(V) if width is None else params.embedding
    y, _ = gj.recurrent(gj.GRU(3)).apply(params.net, rows[TOKENS])
    np.testing.assert_allclose(model.apply(params, TOKENS), y @ params.w, atol=1e-6)
    assert params.b.shape == (7,) and (params.embedding is None) == (width is None)


def test_a_tied_output_layer_shares_the_embedding_and_its_gradient() -> None:
    """The gradient is the sum of those of two matrices that are equal and not tied."""
    model, params = make(tied=True)
    loose = gj.models.sequence_model(LAYER, V, E)
    assert params.w is None
    both = params._replace(w=params.embedding.T)

    def loss(apply: Any, params: Any) -> Any:
        return jnp.square(apply(params, TOKENS)).sum()

    tied = jax.jit(jax.grad(lambda p: loss(model.apply, p)))(params)
    apart = jax.jit(jax.grad(lambda p: loss(loose.apply, p)))(both)
    np.testing.assert_allclose(tied.embedding, apart.embedding + apart.w.T, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(tied.net, apart.net, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", ["all", *(pytest.param(steps, marks=pytest.mark.slow) for steps in ("last", "mean"))])
def test_padding_never_counts(steps: str) -> None:
    """Not even tokens that are none."""
    model, params = make(steps=steps)
    padded = np.where(np.arange(6) < 4, TOKENS, -9)
    lengths = np.array([4, 4])
    expected = jax.jit(model.apply)(params, TOKENS[:, :4])
    found = jax.jit(model.apply)(params, padded, lengths=lengths)
    np.testing.assert_allclose(found[:, :4] if steps == "all" else found, expected, atol=1e-6)

    def loss(params: Any) -> Any:
        out = model.apply(params, padded, lengths=lengths)
        return jnp.square(out[:, :4] if steps == "all" else out).sum()

    chex.assert_tree_all_finite(jax.jit(jax.grad(loss))(params))


@pytest.mark.slow
def test_states_chain_over_calls() -> None:
    model, params = make(gj.stack(LAYER, gj.recurrent(gj.models.LSTM(E)), residual=True))
    whole, end = model.apply(params, TOKENS, return_state=True)
    first, h = model.apply(params, TOKENS[:, :2], return_state=True)
    second, last = model.apply(params, TOKENS[:, 2:], h, return_state=True)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, atol=1e-6)
    chex.assert_trees_all_close(last, end, atol=1e-6)


def test_the_likeliest_tokens_are_those_of_the_whole_prefix() -> None:
    model, params = make()
    # Far from even, so that the likeliest token does not hang on rounding.
    params = params._replace(w=params.w * 20)
    lengths = np.array([3, 2])
    drawn = model.sample(params, jax.random.key(1), TOKENS[:, :3], 5, temperature=0, lengths=lengths)
    assert drawn.shape == (2, 5) and drawn.dtype == jnp.int32
    apply = jax.jit(model.apply)
    for row, length in enumerate(lengths):
        prefix = [*TOKENS[row, :length]]
        for token in np.asarray(drawn[row]):
            padded = np.array([*prefix, *[0] * (8 - len(prefix))])
            assert token == apply(params, padded)[len(prefix) - 1].argmax()
            prefix.append(token)


@pytest.mark.slow
def test_sampling_goes_on_where_it_stopped() -> None:
    model, params = make(gj.stack(LAYER, gj.recurrent(gj.models.LSTM(E)), residual=True))
    key = jax.random.key(1)
    whole = model.sample(params, key, TOKENS, 6, 0.0)
    first, h = model.sample(params, key, TOKENS, 3, 0.0, return_state=True)
    second = model.sample(params, key, first[:, -1:], 3, 0.0, h0=h)
    np.testing.assert_array_equal(jnp.concatenate([first, second], 1), whole)


@pytest.mark.slow
def test_samples_have_the_softmax_distribution() -> None:
    """The first token of many sequences, against its probabilities; a temperature makes them even or sharp."""
    model, params = make()
    params = params._replace(b=jnp.array([0.0, 1.0, 2.0, 0.0, -1.0]))
    prompt = np.broadcast_to(TOKENS[0], (20000, 6))
    logits = model.apply(params, TOKENS[0])[-1]
    for temperature in (0.5, 2.0):
        drawn = model.sample(params, jax.random.key(2), prompt, 1, temperature)
        share = np.bincount(np.asarray(drawn[:, 0]), minlength=V) / len(prompt)
        # Four standard deviations of a share near 1/2.
        np.testing.assert_allclose(share, jax.nn.softmax(logits / temperature), atol=0.015)


def test_tokens_outside_the_vocabulary() -> None:
    model, params = make()
    for bad in (-1, V):
        tokens = TOKENS.copy()
        tokens[0, 5] = bad
        with pytest.raises(ValueError, match=rf"tokens must lie in \[0, 5\), the vocabulary; got {bad}"):
            model.apply(params, tokens)
    out = jax.jit(model.apply)(params, tokens)
    assert np.isnan(out[0, 5]).all() and np.isfinite(out[0, :5]).all()


WRONG: list[tuple[Any, type, str]] = [
    (lambda: gj.models.sequence_model(gj.GRU(E), V), TypeError, "net must have init and apply"),
    (lambda: gj.models.sequence_model(LAYER, 0), ValueError, "vocabulary must be at least 1"),
    (lambda: gj.models.sequence_model(LAYER, V, steps="first"), ValueError, "steps must be one of"),
    (lambda: gj.models.sequence_model(LAYER, V, tied=True), ValueError, "needs an embedding to share"),
    (lambda: gj.models.sequence_model(LAYER, V, E, tied=True, outputs=2), ValueError, "each of the 5 tokens"),
    (lambda: make(LAYER, 3, tied=True), ValueError, "got 4 and 3; set width=4"),
    (
        lambda: gj.models.sequence_model(LAYER, V).apply(None, np.ones((2, 3), np.float32)),
        TypeError,
        "tokens must be whole numbers",
    ),
    (lambda: draw(prompt=TOKENS[:, :0]), ValueError, "prompt must hold a token at least"),
    (lambda: draw(length=0), ValueError, "length must be at least 1"),
    (lambda: draw(temperature=-1.0), ValueError, "temperature must be one number of at least 0"),
    (lambda: draw(steps="last"), ValueError, "a logit for each token at every step"),
    (lambda: draw(gj.stack(LAYER, gj.bidirectional(LAYER))), ValueError, "reads its sequence from both ends"),
]


def draw(
    net: Any = LAYER, prompt: Any = TOKENS, length: int = 2, temperature: float = 1.0, steps: str = "all"
) -> Any:
    model = gj.models.sequence_model(net, V, E, steps=steps)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return model.sample(params, jax.random.key(0), prompt, length, temperature)


@pytest.mark.parametrize(("do", "error", "match"), WRONG, ids=range(len(WRONG)))
def test_what_is_refused(do: Any, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        do()
