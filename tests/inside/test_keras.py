"""`gru_jax.inside.keras` beside Keras' own layer: training, gradients, files, models turned where they stand."""

import doctest
import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop import keras_oracle
from tests.interop.keras_oracle import QUIETLY, close, theirs, weights_for

keras: Any = keras_oracle.keras()
ours: Any = import_module("gru_jax.inside.keras")  # which asks for Keras on its JAX backend
STOCK = keras.layers.GRU
pytestmark = QUIETLY

B, T, I, H = 4, 5, 3, 2
DRAWN = np.random.default_rng(0)
WORDS = DRAWN.integers(0, 9, (12, T))
WORDS[:, 2] = np.array([0, 3] * 6)  # holes in the mask
X = DRAWN.normal(size=(12, T, I)).astype("float32")
Y = DRAWN.normal(size=(12, 1)).astype("float32")
H0 = DRAWN.normal(size=(B, H)).astype("float32")
MASKS = {
    "right": np.arange(T) < np.array([5, 2, 0, 1])[:, None],
    "left": np.arange(T) >= np.array([0, 2, 4, 5])[:, None],
    "holes": np.array([[1, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 1, 1, 0, 1], [0, 0, 0, 1, 0]], bool),
}


@pytest.fixture(autouse=True)
def as_keras_wants_it():
    """JAX's own settings: the strict ones of these tests stop Keras itself."""
    with theirs():
        yield


@pytest.fixture
def scans(monkeypatch):
    """Counts how often the scan ran instead of Keras' loop."""
    count = [0]

    def counted(*args, **kwargs):
        count[0] += 1
        return scan(*args, **kwargs)

    scan = ours.by_scan.scan
    monkeypatch.setattr(ours.by_scan, "scan", counted)
    return count


def on_words(GRU, *, mask=False, wrap=None, compiled=None, **options):
    """Embedding, GRU, Dense; compiled."""
    keras.utils.set_random_seed(0)
    rnn = GRU(H, **options)
    rnn = rnn if wrap is None else wrap(rnn)
    model = keras.Sequential(
        [keras.Input((T,)), keras.layers.Embedding(9, I, mask_zero=mask), rnn, keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse", **(compiled or {}))
    return model


def fit(model, x=WORDS, epochs=2):
    """The losses of a few steps in the same order."""
    return model.fit(x, Y, batch_size=B, epochs=epochs, shuffle=False, verbose=0).history["loss"]


BOTH = {"wrap": lambda rnn: keras.layers.Bidirectional(rnn)}
PENALTIES = {"kernel_regularizer": "l2", "activity_regularizer": "l2", "recurrent_constraint": "unit_norm"}
FITS = {
    "plain": ({}, 1),
    "masked": ({"mask": True}, 1),
    "two directions": (BOTH, 2),
    "two masked": (BOTH | {"mask": True}, 2),
    "reset before": ({"reset_after": False}, 1),
    "backwards": ({"go_backwards": True}, 1),
    "dropout": ({"dropout": 0.4, "seed": 1}, 1),
    "recurrent dropout": ({"dropout": 0.4, "recurrent_dropout": 0.3}, 1),
    "a mask for each gate": ({"dropout": 0.4, "implementation": 1, "use_cudnn": False}, 1),
    "penalties": (PENALTIES, 1),
    "no biases": ({"use_bias": False, "recurrent_activation": "hard_sigmoid"}, 1),
    "eagerly": ({"compiled": {"run_eagerly": True}}, 1),
    "not compiled": ({"compiled": {"jit_compile": False}}, 1),
    "several steps": ({"compiled": {"steps_per_execution": 2}}, 1),
    "unrolled": ({"unroll": True}, 1),
}
QUICK_FITS = ("two masked",)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK_FITS else pytest.mark.slow) for kind in FITS]
)
def test_fit_has_the_losses_of_keras(kind, scans):
    options, layers = FITS[kind]
    stock, own = on_words(STOCK, **options), on_words(ours.GRU, **options)
    expected = fit(stock)
    close(fit(own), expected)
    assert scans[0] >= layers and expected[1] != expected[0]
    close(own.predict(WORDS, verbose=0), stock.predict(WORDS, verbose=0), 1e-5)
    close([w.value for w in own.weights], [w.value for w in stock.weights], 2e-5)


def drawn(rng):
    """Options of a layer, a mask and a start, drawn at random."""
    flags = ("use_bias", "return_sequences", "return_state", "go_backwards", "reset_after", "zero_output_for_mask")
    activations = ("tanh", "relu", "swish", "linear", "hard_sigmoid", "leaky_relu", "softmax", "mish")
    options = {"activation": str(rng.choice(activations)), "unroll": bool(rng.random() < 0.2)}
    options |= {"recurrent_activation": str(rng.choice(["sigmoid", "hard_sigmoid"]))}
    options |= {flag: bool(rng.integers(2)) for flag in flags}
    mask = MASKS.get(str(rng.choice(["none", *MASKS])))
    return options, mask, [H0] if rng.integers(2) else None


def values_and_gradients(layer, **call):
    """Outputs, and gradients with respect to weights and input of a number that every output has a share in."""

    def loss(weights, x):
        outputs, _ = layer.stateless_call(weights, [v.value for v in layer.non_trainable_variables], x, **call)
        return sum((y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum() for y in jax.tree.leaves(outputs)), outputs

    weights = [v.value for v in layer.trainable_variables]
    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(weights, X[:B])
    return outputs, gradients


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(s, marks=pytest.mark.slow) for s in range(2, 40))])
def test_random_options_values_and_gradients(seed):
    options, mask, start = drawn(np.random.default_rng(seed))
    pair = STOCK(H, **options), ours.GRU(H, **options)
    for layer in pair:
        layer.build((B, T, I))
        layer.set_weights(weights_for(layer, seed))
    call = {"mask": None if mask is None else jnp.asarray(mask), "initial_state": start}
    expected, gradients = values_and_gradients(pair[0], **call)
    outputs, grads = values_and_gradients(pair[1], **call)
    close(jax.tree.leaves(outputs), jax.tree.leaves(expected))
    close(jax.tree.leaves(grads), jax.tree.leaves(gradients), 2e-5)


class Times(keras.layers.Layer):
    """An activation with a variable in it."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return x * self.factor


class Negated(keras.layers.GRUCell):
    """A cell of the user's."""

    def call(self, x, states, training=False):
        return super().call(-x, states, training)


def exchanged(GRU):
    layer = GRU(H, use_cudnn=False)
    layer.cell = Negated(H)
    return layer


LEFT_TO_KERAS = {
    "softmax": lambda GRU: GRU(H, "softmax"),
    "a function": lambda GRU: GRU(H, lambda x: 2 * x),
    "a layer": lambda GRU: GRU(H, keras.layers.LeakyReLU()),
    "a layer with a variable": lambda GRU: GRU(H, Times()),
    "cuDNN": lambda GRU: GRU(H, use_cudnn=True),
    "another cell": exchanged,
}


SELDOM = ("a function", "a layer")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SELDOM else ()) for kind in LEFT_TO_KERAS]
)
def test_what_the_scan_does_not_serve_is_left_to_keras(kind, scans):
    layer, stock = (LEFT_TO_KERAS[kind](GRU) for GRU in (ours.GRU, STOCK))
    for one in (layer, stock):
        one.build((B, T, I))
    layer.set_weights(stock.get_weights())
    close(layer(X[:B]), stock(X[:B]), 0)
    assert scans == [0]


def test_calls_that_are_left_to_keras(scans):
    layer, stock = ours.GRU(H, return_sequences=True, unroll=True), STOCK(H, return_sequences=True, unroll=True)
    for one in (layer, stock):
        one.build((B, T, I))
        one.set_weights(weights_for(one, 0))
    masked = {"mask": jnp.asarray(MASKS["left"]), "initial_state": [H0]}
    close(layer(X[:B], **masked), stock(X[:B], **masked), 0)  # 0 before the first step that counts
    whole = np.arange(B * T * I, dtype="int32").reshape(B, T, I)
    close(layer(whole), stock(whole), 0)
    both = {"initial_state": [H0, 2 * H0]}  # an LSTM's, of which Keras' GRU takes the first
    close(layer(X[:B], **both), stock(X[:B], **both), 0)
    assert scans == [0]
    assert layer(X[:B]).shape == (B, T, H) and scans == [1]


def test_stateful_over_fit_and_predict():
    def run(GRU):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input(batch_shape=(B, T, I)), GRU(H, stateful=True), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        losses, first = fit(model, X), model.predict(X, batch_size=B, verbose=0)
        states = np.asarray(model.layers[0].states[0].value)
        model.layers[0].reset_state()
        return losses, first, states, model.predict(X, batch_size=B, verbose=0)

    close(run(ours.GRU), run(STOCK))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_as_near_to_full_as_keras_is(policy):
    def run(GRU, dtype):
        layer = GRU(8, dtype=dtype, return_sequences=True, seed=0)
        layer.build((None, T, I))
        layer.set_weights(weights_for(layer, 0))
        y = layer(X)
        assert all(v.dtype == "float32" for v in layer.variables[:3])
        return y

    exact, stock, own = run(STOCK, "float32"), run(STOCK, policy), run(ours.GRU, policy)
    assert own.dtype == stock.dtype == policy.removeprefix("mixed_")
    error = lambda y: float(abs(exact - y.astype("float32")).mean())  # noqa: E731
    assert error(own) <= 1.1 * error(stock)
    model = on_words(ours.GRU, dtype=policy)
    assert np.isfinite(fit(model)).all()


def test_saved_and_loaded(tmp_path):
    model = on_words(ours.GRU, **BOTH)
    fit(model)
    expected = model.predict(WORDS, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "of.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[1].forward_layer) is type(loaded.layers[1].backward_layer) is ours.GRU
    close(loaded.predict(WORDS, verbose=0), expected, 0)
    stock = on_words(STOCK, **BOTH)
    stock.load_weights(tmp_path / "of.weights.h5")
    close(stock.predict(WORDS, verbose=0), expected, 1e-5)
    close(fit(loaded), fit(model), 0)  # the optimizer's state was in the file


def test_a_file_of_keras_layer_becomes_ours(tmp_path):
    stock = on_words(STOCK, **BOTH)
    fit(stock)
    stock.save(tmp_path / "stock.keras")
    with ours.accelerated():
        loaded = keras.models.load_model(tmp_path / "stock.keras")
    assert type(loaded.layers[1].forward_layer) is type(loaded.layers[1].backward_layer) is ours.GRU
    close(loaded.predict(WORDS, verbose=0), stock.predict(WORDS, verbose=0), 1e-5)
    close(fit(loaded), fit(stock))


def test_the_config_is_that_of_keras():
    options = {"name": "a", "dropout": 0.1, "seed": 3, "go_backwards": True, "zero_output_for_mask": True}
    config = ours.GRU(4, "relu", **options).get_config()
    assert config == STOCK(4, "relu", **options).get_config()
    assert ours.GRU.from_config(config).get_config() == config


class Own(keras.Model):
    """Layers as attributes, in a list and in a dict, and a class of the user's that derives from Keras' GRU."""

    class Derived(STOCK):
        """Stays as it is."""

    def __init__(self):
        super().__init__()
        self.words = keras.layers.Embedding(9, I, mask_zero=True)
        self.several = [STOCK(H, return_sequences=True), {"a": STOCK(H, return_sequences=True)}]
        self.derived = self.Derived(H, return_sequences=True)
        self.inner = keras.Sequential([keras.layers.Bidirectional(STOCK(H)), keras.layers.Dense(1)])

    def call(self, x):
        x = self.words(x)
        return self.inner(self.derived(self.several[1]["a"](self.several[0](x))))


def shared():
    """A functional model in which one layer is called twice, and a model in a model."""
    rnn, word = STOCK(H, return_sequences=True), keras.Input((T,))
    x = keras.layers.Embedding(9, I)(word)
    inner = keras.Sequential([keras.Input((T, H)), STOCK(H), keras.layers.Dense(1)])
    return keras.Model(word, inner(rnn(rnn.cell.units * x[..., :H] + rnn(x[..., :H]))))


MODELS = {"subclassed": (Own, 4), "functional": (shared, 2)}


@pytest.mark.parametrize("kind", [pytest.param("subclassed"), pytest.param("functional", marks=pytest.mark.slow)])
def test_a_trained_model_is_accelerated_where_it_stands(kind, scans):
    make, count = MODELS[kind]
    pair = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = make()
        model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])
        fit(model)
        pair.append(model)
    stock, own = pair
    before, layers = own.predict(WORDS, verbose=0), own._flatten_layers()
    optimizer, weights = own.optimizer, own.get_weights()
    assert scans == [0] and ours.accelerate(own) is own
    assert own._flatten_layers() == layers and sum(type(layer) is ours.GRU for layer in layers) == count
    assert own.optimizer is optimizer and int(optimizer.iterations) == 6
    close(own.get_weights(), weights, 0)
    close(own.predict(WORDS, verbose=0), before, 1e-5)
    assert scans[0] >= count  # and not what was compiled before
    close(fit(own), fit(stock))
    ran = scans[0]
    assert ran > count and ours.unaccelerate(own) is own
    close(own.predict(WORDS, verbose=0), stock.predict(WORDS, verbose=0), 1e-5)
    assert scans[0] == ran and not any(isinstance(layer, ours.GRU) for layer in layers)


def test_what_cannot_be_accelerated():
    with pytest.raises(TypeError, match=r"accelerate: model must be a Keras model or layer; got 3"):
        ours.accelerate(3)
    with pytest.raises(ValueError, match=r"no GRU or LSTM of keras.layers in 'd'; got 1 layers of other kinds"):
        ours.accelerate(keras.layers.Dense(1, name="d"))
    again = ours.GRU(2)
    assert ours.accelerate(again) is again and type(again) is ours.GRU


def test_made_inside_of_accelerated():
    before = keras.layers.GRU.__new__
    with ours.accelerated():
        with ours.accelerated():
            first = keras.layers.GRU(2)
        with pytest.raises(ZeroDivisionError), ours.accelerated():
            raise ZeroDivisionError
        two = keras.layers.TimeDistributed(keras.layers.Bidirectional(STOCK(2)))
        assert type(Own.Derived(2)) is Own.Derived
        assert type(keras.layers.LSTM(2)) is ours.LSTM and type(keras.layers.SimpleRNN(2)) is keras.layers.SimpleRNN
    assert {type(first), type(two.layer.forward_layer), type(two.layer.backward_layer)} == {ours.GRU}
    assert keras.layers.GRU.__new__ is before and type(keras.layers.GRU(2)) is STOCK
    assert type(keras.layers.LSTM(2)) is keras.layers.LSTM
    assert first(X).shape == (12, 2) and two(X[:, None]).shape == (12, 1, 4)


@pytest.mark.slow
def test_a_batch_split_over_devices():
    def run(GRU):
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices("cpu")[:B]))
        try:
            model = on_words(GRU, mask=True)
            return fit(model), model.predict(WORDS, verbose=0, batch_size=B)
        finally:
            keras.distribution.set_distribution(None)

    close(run(ours.GRU), run(STOCK))


def test_layers_around_it_that_vectorise():
    layer, stock = (keras.layers.TimeDistributed(GRU(H)) for GRU in (ours.GRU, STOCK))
    x = np.stack([X, -X], 1)
    for one in (layer, stock):
        one.build(x.shape)
    layer.set_weights(stock.get_weights())
    close(layer(x), stock(x))


def imported(backend):
    """What importing the module says where Keras has another backend."""
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"KERAS_BACKEND": backend, "KERAS_HOME": "/nowhere"}
    command = [sys.executable, "-W", "ignore", "-c", "import gru_jax; gru_jax.inside.keras"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr


def refused_with_the_fix(said, backend):
    fact, _, fix = said.partition("; set ")
    return (
        fact.startswith("gru_jax.inside.keras: needs Keras on its JAX backend; ") and backend in fact
        and fix.startswith("the environment variable KERAS_BACKEND=jax before keras is first imported")
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "tensorflow"])
def test_another_backend_is_refused_on_import(backend):
    assert refused_with_the_fix(imported(backend).splitlines()[-1].removeprefix("ImportError: "), backend)


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(ImportError) as error:
        import_module("gru_jax.inside.keras.backend").check()
    assert refused_with_the_fix(str(error.value), "numpy")


@pytest.mark.parametrize("name", ["gru", "lstm", "models"])
def test_examples_in_docstrings(name):
    found = doctest.testmod(import_module(f"gru_jax.inside.keras.{name}"))
    assert found.attempted and not found.failed
