"""The classifier: pooling that ignores masked steps, batching, gates."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.models.classifier import classifier

T, I, H, CLASSES = 6, 3, 4, 5


def make(directions: int = 1, pool: str = "last", layers: int = 1, **options: object):
    layer = gj.recurrent(gj.GRU(H))
    if directions == 2:
        layer = gj.bidirectional(layer)
    model = classifier(gj.stack(*[layer] * layers, **options), I, CLASSES, pool=pool)
    return model, model.init(jax.random.key(0))


CASES = list(itertools.product((1, 2), ("last", "mean")))


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_masked_steps_never_count(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    x = jax.random.normal(jax.random.key(1), (4, T, I))
    lengths = np.array([6, 4, 1, 3])
    mask = np.arange(T) < lengths[:, None]
    noise = jnp.where(mask[..., None], x, 1e3)
    by_lengths = model.apply(params, noise, lengths=lengths)
    np.testing.assert_allclose(model.apply(params, noise, mask=mask), by_lengths, atol=1e-6)
    for row, length in enumerate(lengths):
        alone = model.apply(params, x[row, :length])
        np.testing.assert_allclose(by_lengths[row], alone, atol=1e-6)


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_holes_and_left_padding(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    x = jax.random.normal(jax.random.key(1), (T, I))
    mask = np.array([False, True, True, False, True, False])
    np.testing.assert_allclose(
        model.apply(params, jnp.where(mask[:, None], x, 1e3), mask=mask),
        model.apply(params, x[mask]),
        atol=1e-6,
    )


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_empty_sequences_see_the_bias_alone(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    params = params._replace(b=jnp.arange(CLASSES, dtype=jnp.float32))
    logits = model.apply(params, jnp.ones((2, T, I)), lengths=np.array([0, 0]))
    np.testing.assert_array_equal(logits, np.stack([params.b, params.b]))


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_leading_batch_dimensions_are_arbitrary(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    x = jax.random.normal(jax.random.key(1), (2, 3, T, I))
    together = model.apply(params, x)
    assert together.shape == (2, 3, CLASSES)
    np.testing.assert_allclose(together[1, 2], model.apply(params, x[1, 2]), atol=1e-6)
    mapped = jax.vmap(lambda one: model.apply(params, one))(x.reshape(6, T, I))
    np.testing.assert_allclose(together.reshape(6, CLASSES), mapped, atol=1e-6)


def test_last_of_one_direction_is_the_last_output() -> None:
    model, params = make(1, "last", layers=2)
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    layer = gj.recurrent(gj.GRU(H))
    y, _ = gj.stack(layer, layer).apply(params.net, x)
    np.testing.assert_allclose(model.apply(params, x), y[:, -1] @ params.w, atol=1e-6)


def test_last_of_two_directions_is_both_final_states() -> None:
    model, params = make(2, "last", layers=2)
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    layer = gj.bidirectional(gj.recurrent(gj.GRU(H)))
    y, _ = gj.stack(layer, layer).apply(params.net, x)
    final = jnp.concatenate([y[:, -1, :H], y[:, 0, H:]], axis=-1)
    np.testing.assert_allclose(model.apply(params, x), final @ params.w, atol=1e-6)


@pytest.mark.parametrize("norm", [None, "layer", "rms"])
def test_residual_and_norm_reach_the_head(norm: str | None) -> None:
    plain, params = make(1, "last", layers=2, residual=False, norm=norm)
    residual, _ = make(1, "last", layers=2, residual=True, norm=norm)
    x = jax.random.normal(jax.random.key(1), (T, I))
    assert not np.allclose(plain.apply(params, x), residual.apply(params, x))


def test_gates_of_every_layer_and_direction() -> None:
    model, params = make(2, "last", layers=2)
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    logits, layers = model.apply(params, x, deterministic=True, return_gates=True)
    np.testing.assert_allclose(logits, model.apply(params, x), atol=1e-6)
    assert len(layers) == 2
    for layer in layers:
        for direction in layer:
            assert direction.r.shape == direction.z.shape == (2, T, H)
            assert 0 < float(direction.z.min()) and float(direction.z.max()) < 1


def test_unknown_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="pool must be 'last' or 'mean', got 'first'"):
        make(pool="first")
