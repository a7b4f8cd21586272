"""`RNN`, `StackedRNNCells` and `TimeDistributed` of `gru_jax.interop.keras` beside Keras 3 itself."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.interop import keras as ours
from tests.interop.keras_oracle import QUIETLY, close, keras, theirs, weights_for
from tests.interop.test_keras import H0, MASKS, B, I, T, X, as_tuple, check_call

SIZES = (3, 2)


def rnn(library, sizes=SIZES, cell=None, **options):
    """The same layer of either library."""
    layers = library.layers
    cells = [layers.GRUCell(units, **(cell or {})) for units in sizes]
    return layers.RNN(cells[0] if len(cells) == 1 else cells, **options)


def pair(make, shape=(None, None, I)):
    """The same layer twice, theirs and ours, with the same random weights."""
    real = keras()
    with theirs():
        their = make(real)
        their.build(shape)
    our = make(ours)
    our.build(shape)
    weights = weights_for(their, 0)
    with theirs():
        their.set_weights(weights)
    our.set_weights(weights)
    return their, our


STARTS = [np.ones((B, size), "float32") * size for size in SIZES]
CASES = {
    "masked": ({"return_sequences": True, "return_state": True}, "holes", [[start] for start in STARTS]),
    "backwards": ({"go_backwards": True, "return_sequences": True, "zero_output_for_mask": True}, "left", None),
    "reset before": ({"cell": {"reset_after": False}, "return_state": True, "unroll": True}, None, None),
    "one": ({"sizes": (2,), "return_state": True}, "right", [H0]),
}


@QUIETLY
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "masked" else pytest.mark.slow) for kind in CASES]
)
def test_values_and_gradients(kind):
    options, mask, start = CASES[kind]
    check_call(*pair(lambda library: rnn(library, **options)), MASKS.get(mask), start)


@QUIETLY
def test_states_come_back_in_the_structure_that_they_were_passed_in():
    their, our = pair(lambda library: rnn(library, return_state=True))
    for start in (None, STARTS):
        with theirs():
            expected = their(X, initial_state=start)
        found = our(X, initial_state=start)
        assert [isinstance(state, list) for state in found] == [isinstance(state, list) for state in expected]
        close(as_tuple(found), as_tuple(expected))
    sizes = ((B, 3), (B, 2))
    assert our.compute_output_shape((B, T, I)) == their.compute_output_shape((B, T, I)) == ((B, 2), *sizes)
    assert [(one.shape, one.dtype) for one in our.compute_output_spec(X)] == [(s, "float32") for s in ((B, 2), *sizes)]
    assert our.compute_mask(X, None) == [None] * 3 and our.state_size == [3, 2]


@QUIETLY
def test_dropout_draws_as_keras_does():
    cell = {"dropout": 0.5, "recurrent_dropout": 0.5, "seed": 3}
    their, our = pair(lambda library: rnn(library, cell=cell))
    with theirs():
        expected = their(X, training=True)
    close(our(X, training=True), expected)


@QUIETLY
def test_stateful_over_calls():
    their, our = pair(lambda library: rnn(library, stateful=True), (B, T, I))
    for call in range(2):
        with theirs():
            expected = their(X * (call + 1))
        close(our(X * (call + 1)), expected)
    close([state for [state] in our.states], [np.asarray(state) for [state] in their.states])
    our.reset_state()
    assert not any(state.any() for [state] in our.states)


@QUIETLY
def test_one_step_of_stacked_cells():
    their, our = pair(lambda library: rnn(library).cell, (B, I))
    with theirs():
        expected, after = their(X[:, 0], STARTS)
    output, states = our(X[:, 0], STARTS)
    close((output, *states), (expected, *(jnp.asarray(state) for state in after)))
    assert our.state_size == list(their.state_size) and our.output_size == their.output_size == 2


@QUIETLY
@pytest.mark.parametrize("inner", ["GRU", pytest.param("two directions", marks=pytest.mark.slow)])
def test_a_layer_for_every_slice(inner):
    def make(library):
        layer = library.layers.GRU(2, return_sequences=inner != "GRU", dropout=0.5, seed=1)
        return library.layers.TimeDistributed(layer if inner == "GRU" else library.layers.Bidirectional(layer))

    their, our = pair(make, (B, 2, T, I))
    x, mask = np.stack([X, -X], 1), np.stack([MASKS["holes"], MASKS["left"]], 1)
    for training in (True, False):  # in this order, for Keras' seed moves on in every call
        with theirs():
            expected = their(x, mask=jnp.asarray(mask), training=training)
        found = our(x, mask=mask, training=training)
        if not training or inner == "GRU":  # a Bidirectional's directions have seeds of their own
            close(found, expected)
    assert our.compute_output_shape(x.shape) == their.compute_output_shape(x.shape) == found.shape


def makers(library):
    layers = library.layers
    yield rnn(library, name="a", go_backwards=True, cell={"name": "c", "seed": 1})
    yield rnn(library, (2,), name="b", cell={"name": "c"})
    yield layers.StackedRNNCells([layers.GRUCell(2, name="c")], name="d")
    yield layers.TimeDistributed(layers.GRU(2, name="e"), name="f")


@QUIETLY
def test_configs_are_those_of_keras():
    stacked = 0
    with theirs():
        pairs = list(zip(makers(keras()), makers(ours), strict=True))
    for their, our in pairs:
        config = our.get_config()
        expected = json.loads(json.dumps(their.get_config()))
        named = expected.get("cell", {}).get("config", {})
        if "cells" in named:  # numbered by each library for itself
            config["cell"]["config"]["name"] = named["name"]
            stacked += 1
        for one in (expected, named, expected.get("layer", {})):
            one.pop("build_config", None)
        assert json.loads(json.dumps(config)) == without_builds(expected)
        assert type(our).from_config(their.get_config()).get_config() == config
    assert stacked == 1


def without_builds(config):
    """Keras adds the shape a layer was built with, which ours does not."""
    if isinstance(config, dict):
        return {key: without_builds(value) for key, value in config.items() if key != "build_config"}
    return [without_builds(value) for value in config] if isinstance(config, list) else config


def test_what_does_not_fit_is_said():
    cell = ours.GRUCell(2)
    with pytest.raises(TypeError, match="RNN: cell must be a GRUCell or StackedRNNCells of gru_jax"):
        ours.RNN(ours.GRU(2))
    with pytest.raises(TypeError, match=r"StackedRNNCells: cells must be a list of GRUCell .*; got list of 0"):
        ours.RNN([])
    with pytest.raises(ValueError, match="RNN: initial_state must be a list of 2 states, one for each cell; got"):
        ours.RNN([cell, ours.GRUCell(2)])(X, initial_state=[H0])
    with pytest.raises(TypeError, match="TimeDistributed: layer must be a GRU, RNN or Bidirectional"):
        ours.TimeDistributed(cell)
    with pytest.raises(ValueError, match="TimeDistributed: layer must have one output; got GRU with several"):
        ours.TimeDistributed(ours.GRU(2, return_state=True))
    with pytest.raises(ValueError, match=r"TimeDistributed: inputs must have 4 dimensions"):
        ours.TimeDistributed(ours.GRU(2))(X)
