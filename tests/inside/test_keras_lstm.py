"""`gru_jax.inside.keras.LSTM` beside Keras' own layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inside.test_keras import (
    H0,
    MASKS,
    WORDS,
    B,
    H,
    I,
    T,
    X,
    as_keras_wants_it,
    fit,
    on_words,
    ours,
    scans,
    values_and_gradients,
)  # fmt: skip
from tests.interop import keras_oracle
from tests.interop.keras_oracle import QUIETLY, close, weights_for

__all__ = ["as_keras_wants_it", "scans"]  # fixtures

keras: Any = keras_oracle.keras()
STOCK = keras.layers.LSTM
pytestmark = QUIETLY

C0 = np.flip(H0, 0).copy()
CALLS = {
    "plain": ({}, None, None),
    "holes": ({"return_sequences": True}, "holes", [H0, C0]),
    "zeros": ({"zero_output_for_mask": True, "return_state": True, "activation": "relu"}, "right", [H0, C0]),
    "backwards": ({"go_backwards": True, "return_sequences": True, "return_state": True}, "left", None),
    "no biases": ({"use_bias": False, "recurrent_activation": "hard_sigmoid", "activation": "elu"}, None, [H0, C0]),
    "unit forget bias off": ({"unit_forget_bias": False, "unroll": True}, None, None),
}


# Two states, at masked steps; turned in time; other activations.
QUICK_CALLS = ("zeros", "backwards", "no biases")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK_CALLS else pytest.mark.slow) for kind in CALLS]
)
def test_values_and_gradients(kind, scans):
    options, mask, start = CALLS[kind]
    pair = STOCK(H, **options), ours.LSTM(H, **options)
    for layer in pair:
        layer.build((B, T, I))
        layer.set_weights(weights_for(layer, 0))
    call = {"mask": None if mask is None else jnp.asarray(MASKS[mask]), "initial_state": start}
    expected, gradients = values_and_gradients(pair[0], **call)
    assert scans == [0]
    outputs, grads = values_and_gradients(pair[1], **call)
    assert scans[0]
    close(jax.tree.leaves(outputs), jax.tree.leaves(expected))
    close(jax.tree.leaves(grads), jax.tree.leaves(gradients), 2e-5)


FITS = {
    "masked, two directions": ({"mask": True, "wrap": keras.layers.Bidirectional}, 2),
    "dropout": ({"dropout": 0.4, "seed": 1}, 1),
}


@pytest.mark.parametrize("kind", ["masked, two directions", pytest.param("dropout", marks=pytest.mark.slow)])
def test_fit_has_the_losses_of_keras(kind, scans):
    options, layers = FITS[kind]
    stock, own = on_words(STOCK, **options), on_words(ours.LSTM, **options)
    expected = fit(stock)
    close(fit(own), expected)
    assert scans[0] >= layers and expected[1] != expected[0]
    close(own.predict(WORDS, verbose=0), stock.predict(WORDS, verbose=0), 1e-5)


OF_GATES = {"dropout": 0.3, "implementation": 1, "use_cudnn": False}
LEFT = [{"recurrent_dropout": 0.3}, {"activation": "softmax"}, pytest.param(OF_GATES, marks=pytest.mark.slow)]


@pytest.mark.parametrize("options", LEFT)
def test_what_the_scan_does_not_serve_is_left_to_keras(options, scans):
    layer, stock = (LSTM(H, seed=1, **options) for LSTM in (ours.LSTM, STOCK))
    for one in (layer, stock):
        one.build((B, T, I))
        one.set_weights(weights_for(one, 0))
    training = "activation" not in options
    close(layer(X[:B], training=training), stock(X[:B], training=training), 0)
    assert scans == [0]


def test_a_model_is_accelerated_saved_and_turned_back(tmp_path, scans):
    stock, own = on_words(STOCK), on_words(STOCK)
    for model in (stock, own):
        fit(model)
    ours.accelerate(own)
    close(fit(own), fit(stock))
    assert type(own.layers[1]) is ours.LSTM and scans[0]
    own.save(tmp_path / "ours.keras")
    loaded = keras.models.load_model(tmp_path / "ours.keras")
    assert type(loaded.layers[1]) is ours.LSTM and loaded.layers[1].get_config() == own.layers[1].get_config()
    close(loaded.predict(WORDS, verbose=0), own.predict(WORDS, verbose=0), 0)
    assert type(ours.unaccelerate(own).layers[1]) is STOCK


def test_stateful():
    layers = [LSTM(H, stateful=True) for LSTM in (ours.LSTM, STOCK)]
    for layer in layers:
        layer.build((B, T, I))
        layer.set_weights(weights_for(layer, 0))
    found = [[layer(X[:B]), layer(X[:B]), *(state.value for state in layer.states)] for layer in layers]
    close(*found)
