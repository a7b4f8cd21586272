"""`gru_jax.interop.keras` beside Keras 3 itself: values, gradients, options, configs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.interop import keras as ours
from gru_jax.interop.keras import activations

from ..interop.keras_oracle import QUIETLY, close, keras, theirs, weights_for

B, T, I, H = 3, 4, 3, 2
ACTIVATIONS = ["tanh", "relu", "swish", None, "hard_sigmoid", "leaky_relu", "softmax", "mish"]
MASKS = {
    "right": np.arange(T) < np.array([4, 2, 0])[:, None],
    "left": np.arange(T) >= np.array([0, 2, 3])[:, None],
    "holes": np.array([[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]], bool),
}
X = np.random.default_rng(0).normal(size=(B, T, I)).astype("float32")
H0 = np.random.default_rng(1).normal(size=(B, H)).astype("float32")


def draw(rng, *, units=H):
    """Options of a GRU, drawn at random."""
    flags = ("use_bias", "return_sequences", "return_state", "go_backwards", "reset_after")
    return {
        "units": units,
        "activation": rng.choice(np.array(ACTIVATIONS, object)),
        "recurrent_activation": rng.choice(np.array(["sigmoid", "hard_sigmoid", "sigmoid", "softmax"], object)),
        **{flag: bool(rng.integers(2)) for flag in flags},
    }


def mask_of(rng):
    """None or one of the masks."""
    return MASKS.get(rng.choice(["none", *MASKS]))


def pair(options, seed, shape=(None, None, I), bidirectional=None):
    """The same layer twice, theirs and ours, with the same random weights."""
    real = keras()
    with theirs():
        their = real.layers.GRU(**options)
        if bidirectional is not None:
            their = real.layers.Bidirectional(their, **bidirectional)
        their.build(shape)
    our = ours.layers.GRU(**options)
    if bidirectional is not None:
        our = ours.layers.Bidirectional(our, **bidirectional)
    our.build(shape)
    weights = weights_for(their, seed)
    with theirs():
        their.set_weights(weights)
    our.set_weights(weights)
    return their, our


def as_tuple(outputs):
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def weighted(outputs):
    """One number that every output's every element has its own share in."""
    total = 0.0
    for y in jax.tree.leaves(outputs):
        total = total + (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum()
    return total


def their_call(layer, *args, **kwargs):
    """Outputs and gradients of the weights."""

    def loss(variables):
        rest = [v.value for v in layer.non_trainable_variables]
        outputs, _ = layer.stateless_call(variables, rest, *args, **kwargs)
        return weighted(outputs), outputs

    return jax.jit(jax.value_and_grad(loss, has_aux=True))([v.value for v in layer.trainable_variables])


def our_call(layer, *args, **kwargs):
    """Outputs and gradients of the weights, in their order."""

    def loss(layer):
        outputs = layer(*args, **kwargs)
        return weighted(outputs), outputs

    (_, outputs), grads = nnx.value_and_grad(loss, has_aux=True)(layer)
    by_place = {tuple(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(grads)}
    cells = [path[:-1] for path in by_place if path[-1] == "kernel"]
    cells.sort(key=lambda path: "backward_layer" in path)
    names = ("kernel", "recurrent_kernel", "bias")
    return outputs, [by_place[(*cell, name)] for cell in cells for name in names if (*cell, name) in by_place]


def check_call(their, our, mask, start):
    """The same outputs and gradients."""
    with theirs():
        given = None if mask is None else jnp.asarray(mask)
        (_, expected), gradients = their_call(their, X, initial_state=start, mask=given)
    outputs, grads = our_call(our, X, initial_state=start, mask=mask)
    close(as_tuple(outputs), as_tuple(expected))
    close(grads, gradients, 2e-5)


@QUIETLY
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(s, marks=pytest.mark.slow) for s in range(2, 40))])
def test_random_options_values_and_gradients(seed) -> None:
    rng = np.random.default_rng(seed)
    options = draw(rng, units=1 if seed == 3 else H)
    their, our = pair(options, seed)
    start = [H0[:, : options["units"]]] if rng.integers(2) else None
    check_call(their, our, mask_of(rng), start)
    back = our.get_weights()
    assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(back, weights_for(their, seed), strict=True))
    with theirs():
        their.set_weights(back)
    assert len(their.weights) == len(back) and our.count_params() == their.count_params()


@QUIETLY
def test_one_step_and_masks_of_numbers() -> None:
    their, our = pair({"units": 1, "return_sequences": True}, 0)
    with theirs():
        one, masked = their(X[:, :1]), their(X, mask=jnp.asarray(MASKS["holes"]))
    close(our(X[:, :1]), one)
    close(our(X, mask=MASKS["holes"].astype("int32")), masked)
    close(our(X, mask=[MASKS["holes"].astype("float32")]), masked)
    # By place as in Keras: sequences, initial_state, mask, training.
    close(our(X, None, MASKS["holes"], False), masked)


@QUIETLY
def test_an_operation_of_keras_is_not_the_activation_of_its_name() -> None:
    real = keras()
    with theirs():
        close(activations.get("GRU", "activation", real.ops.gelu)(X), real.ops.gelu(X))
    assert activations.get("GRU", "activation", real.activations.gelu) == "gelu"
    assert np.abs(real.ops.gelu(X) - real.activations.gelu(X)).max() > 1e-5


MERGES = [("sum", 0), ("mul", 1), ("ave", 0), ("concat", 2), (None, 1)]
ALL_MERGES = [(merge, seed) for merge, _ in MERGES for seed in range(3)]


@QUIETLY
@pytest.mark.parametrize(
    ("merge", "seed"),
    [*MERGES[3:], *(pytest.param(*one, marks=pytest.mark.slow) for one in (*MERGES[:3], *ALL_MERGES))],
)
def test_bidirectional(merge, seed) -> None:
    rng = np.random.default_rng((seed, 7))
    options = draw(rng) | {"return_sequences": seed > 0, "return_state": seed == 2, "go_backwards": False}
    their, our = pair(options, seed, bidirectional={"merge_mode": merge})
    check_call(their, our, [None, MASKS["left"], MASKS["holes"]][seed], [H0, -H0] if seed else None)
    for own, other in zip(our.get_weights(), their.get_weights(), strict=True):
        assert (own == other).all()


@QUIETLY
def test_a_backward_layer_of_its_own() -> None:
    real = keras()
    options = {"return_sequences": True}
    with theirs():
        their = real.layers.Bidirectional(
            real.layers.GRU(2, **options),
            backward_layer=real.layers.GRU(3, "relu", go_backwards=True, reset_after=False, **options),
        )
        their.build((None, None, I))
        weights = weights_for(their, 0)
        their.set_weights(weights)
        expected = their(X)
    our = ours.Bidirectional(
        ours.GRU(2, **options),
        backward_layer=ours.GRU(3, "relu", go_backwards=True, reset_after=False, **options),
        weights=weights,
    )
    close(our(X), expected)
    pattern = ours.GRU(2)
    pattern.build((None, None, I))
    made = ours.Bidirectional(pattern)
    made.build((None, None, I))
    forward, backward = made.forward_layer.kernel[...], made.backward_layer.kernel[...]
    assert made.forward_layer is not pattern and made.backward_layer is not pattern
    assert not (forward == backward).any() and not (forward == pattern.kernel[...]).any()


@QUIETLY
@pytest.mark.parametrize("two", [False, True])
def test_stateful_over_several_calls(two) -> None:
    options = {"units": H, "stateful": True, "return_sequences": True}
    their, our = pair(options, 0, shape=(B, T, I), bidirectional={} if two else None)
    for call in range(3):
        with theirs():
            expected = their(X * (call + 1))
        close(our(X * (call + 1)), expected)
    close(our.states, [np.asarray(s) for s in their.states])
    our.reset_state()
    their.reset_states()
    with theirs():
        expected = their(X)
    close(our(X), expected)
    our.reset_states()
    assert all(not state.any() for state in our.states)
    with pytest.raises(ValueError, match=r"GRU: stateful, with a state for a batch of 3; got a batch of 2; call build"):
        our(X[:2])
    our.build((2, T, I))
    assert our(X[:2]).shape[0] == 2


@QUIETLY
@pytest.mark.parametrize(
    ("dropout", "recurrent", "after", "options"),
    [(0.4, 0.0, True, {}), (0.3, 0.5, True, {"use_bias": False}), (0.3, 0.3, False, {})],
)
def test_dropout_with_a_seed_draws_the_masks_of_keras(dropout, recurrent, after, options) -> None:
    options |= {"units": H, "dropout": dropout, "recurrent_dropout": recurrent, "seed": 11, "reset_after": after}
    their, our = pair(options | {"return_sequences": True}, 0)
    with theirs():
        expected = [their(X, training=True) for _ in range(2)]
    made = [our(X, training=True) for _ in range(2)]
    close(made, expected)
    assert not np.allclose(made[0], made[1])
    with theirs():
        expected = their(X)
    close(our(X), expected)  # and none without training


def test_dropout_is_one_mask_a_sequence_and_repeats_with_its_seed() -> None:
    def layer(**options):
        same = ours.initializers.Orthogonal(seed=0)
        made = ours.GRU(H, dropout=0.5, kernel_initializer="ones", recurrent_initializer=same, **options)
        made.build((None, None, 8))
        return made

    x = jnp.ones((2, 6, 8))
    assert (layer(seed=1)(x, training=True) == layer(seed=1)(x, training=True)).all()
    with_rngs = [layer(rngs=nnx.Rngs(0))(x, training=True) for _ in range(2)]
    assert (with_rngs[0] == with_rngs[1]).all()
    # One mask at every step: the dropped features have no gradient at any of them, the others at all.
    one = layer(seed=1)
    seen = nnx.grad(lambda layer, x: layer(x, training=True).sum(), argnums=1)(one, x) != 0
    assert (seen == seen[:, :1]).all() and 0 < seen.mean() < 1
    three = ours.GRU(3, dropout=0.5, implementation=1, seed=0)  # Keras fails here
    assert three(X, training=True).shape == (B, 3)


@QUIETLY
@pytest.mark.parametrize("name", [name for name in activations.NAMES if name != "keras2_hard_sigmoid"])
def test_activations_are_those_of_keras(name) -> None:
    real = keras()
    x = np.linspace(-4, 4, 48, dtype="float32").reshape(4, 12)
    with theirs():
        expected = np.asarray(real.activations.get(name)(jnp.asarray(x)))
    if name == "sparsemax":  # Keras' own on JAX leaves the simplex; the rest is the definition
        low, high = x.min(1, keepdims=True) - 1, x.max(1, keepdims=True)
        for _ in range(50):
            middle = (low + high) / 2
            above = np.maximum(x - middle, 0).sum(1, keepdims=True) > 1
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        expected = np.maximum(x - low, 0)
        assert np.allclose(expected.sum(1), 1, atol=1e-5)
    function = gj.cells.activations.get(activations.for_cell(activations.get("GRU", "activation", name)))
    close(function(jnp.asarray(x)), expected, 1e-6)
    assert activations.get("GRU", "activation", real.activations.get(name)) == activations.ALIASES.get(name, name)


INITIALIZERS = {
    "Zeros": {}, "Ones": {}, "Constant": {"value": 2.5}, "Identity": {},
    "RandomNormal": {"stddev": 0.2, "seed": 3}, "RandomUniform": {"maxval": 1.0, "seed": 3},
    "TruncatedNormal": {"mean": 1.0, "seed": 3}, "Orthogonal": {"gain": 2.0, "seed": 3},
    "VarianceScaling": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal", "seed": 3},
    **{name: {"seed": 5} for name in ("GlorotUniform", "GlorotNormal", "LecunNormal", "LecunUniform", "HeNormal",
                                      "HeUniform")},
}  # fmt: skip


@QUIETLY
@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_are_those_of_keras_to_the_number(name) -> None:
    real = keras()
    with theirs():
        their = getattr(real.initializers, name)(**INITIALIZERS[name])
        config = real.initializers.serialize(their)
        for shape in ((3, 6), (6, 3)):
            made = ours.initializers.get("GRU", "kernel_initializer", json.loads(json.dumps(config)))
            close(made(shape, "float32"), their(shape, "float32"), 2e-6)
    assert ours.initializers.get("GRU", "kernel_initializer", their) == made
    written = ours.GRU(2, kernel_initializer=made).get_config()["kernel_initializer"]
    assert written == config or (name == "Identity" and written["config"] == {"gain": 1.0})  # which Keras forgets


def test_initializers_of_every_kind() -> None:
    def kernel(initializer, **options):
        layer = ours.GRU(2, kernel_initializer=initializer, **options)
        layer.build((None, None, 3))
        return layer.kernel[...]

    given = np.arange(18, dtype="float32").reshape(3, 6)
    assert (kernel(given) == given).all()
    assert (kernel(lambda shape, dtype: jnp.full(shape, 2, dtype)) == 2).all()
    assert (kernel(jax.nn.initializers.ones) == 1).all()
    assert (kernel(ours.initializers.Ones) == 1).all()
    assert (kernel({"class_name": "Constant", "config": {"value": 3}}) == 3).all()
    assert (kernel("he_normal", rngs=nnx.Rngs(0)) == kernel("he_normal", rngs=nnx.Rngs(0))).all()
    assert not (kernel("he_normal") == kernel("he_normal")).any()


def test_options_are_checked() -> None:
    for options, error, message in [
        ({"units": 0}, ValueError, "GRU: units must be at least 1; got 0"),
        ({"units": "a"}, TypeError, "GRU: units must be a whole number; got 'a'"),
        ({"units": 2.5}, TypeError, "GRU: units must be a whole number; got 2.5"),
        ({"dropout": 3.0}, ValueError, "GRU: dropout is the share"),
        ({"recurrent_dropout": 1.0}, ValueError, "GRU: recurrent_dropout is the share"),
        ({"activation": "tanhh"}, ValueError, "did you mean 'tanh'"),
        ({"activation": {"class_name": "function", "config": "evil"}}, ValueError, "which is not run"),
        ({"kernel_initializer": "glorot"}, ValueError, "did you mean 'glorot_"),
        ({"kernel_initializer": None}, TypeError, "kernel_initializer must be an initializer"),
        ({"kernel_regularizer": 3}, TypeError, "must be the name of a regularizer"),
        ({"bias_constraint": {"class_name": "Mine", "config": {}}}, ValueError, "which is not run"),
        ({"kernel_constraint": {"class_name": "MaxNorm", "config": {"a": 1}}}, ValueError, "does not fit MaxNorm"),
        ({"return_sequences": 1}, TypeError, "return_sequences must be True or False"),
        ({"use_cudnn": "yes"}, ValueError, "use_cudnn must be one of 'auto', True, False"),
        ({"dtype": "int8"}, ValueError, "dtype must be one of 'float16'"),
        ({"dtype": "float64"}, ValueError, "needs 64-bit floats"),
        ({"seed": "a"}, TypeError, "seed must be a whole number"),
        ({"name": "a/b"}, ValueError, "name must be a string"),
        ({"input_shape": (None, 4, 3)}, ValueError, r"input_shape must be \(time, features\), without the batch"),
        ({"rngs": 3}, TypeError, "rngs must be nnx.Rngs"),
    ]:
        with pytest.raises(error, match=message):
            ours.GRU(**({"units": 2} | options))
    for layer, merge, backward, message in [
        (3, "concat", None, "layer must be a GRU of gru_jax.interop.keras; got 3"),
        (ours.GRU(2), "max", None, "merge_mode must be one of 'sum', 'mul', 'ave', 'concat', None; got 'max'"),
        (ours.GRU(2), "concat", ours.GRU(2), "must differ in go_backwards; got False for both"),
        (ours.GRU(2), "concat", ours.GRU(2, stateful=True, go_backwards=True), "must agree in stateful"),
        (ours.GRU(2), "sum", ours.GRU(3, go_backwards=True), "needs outputs of one size; got 2 units"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            ours.Bidirectional(layer, merge, backward_layer=backward)


def test_calls_are_checked() -> None:
    layer, bi, stateful = ours.GRU(H), ours.Bidirectional(ours.GRU(H)), ours.GRU(H, stateful=True)
    layer.build((None, None, I))
    with pytest.raises(ValueError, match="already|known batch size"):
        stateful.build((None, T, I))
    for call, message in [
        (lambda: layer(X[0]), r"sequences must have 3 dimensions, \[batch, time, features\]; got shape \[4, 3\]"),
        (lambda: layer(X[..., :2]), "sequences has 2 features but the kernel was made for 3"),
        (lambda: layer("words"), "sequences must be an array of numbers"),
        (lambda: layer(X * 1j), "must be real numbers"),
        (lambda: layer(X, H0[:2]), r"initial_state must have shape \[3, 2\]; got \[2, 2\]"),
        (lambda: layer(X, [H0, H0]), "one array, or a list of one; got a list of 2"),
        (lambda: layer(X, mask=MASKS["left"][:2]), r"mask must have shape \[3, 4\]; got \[2, 4\]"),
        (lambda: layer(X, training="yes"), "training must be True, False or None"),
        (lambda: bi(X, initial_state=[H0]), "a list of two states"),
        (lambda: bi(X, initial_state=[H0] * 3), "a list of two states"),
        (lambda: ours.GRU(2, use_cudnn=True)(X), "use_cudnn=True cannot be honoured.* on the cpu backend"),
        (lambda: ours.GRU(2, use_cudnn=True, method="newton")(X), "use_cudnn=True says how .* method='newton'"),
        (lambda: ours.GRU(2, use_cudnn=True, unroll=True)(X), "use_cudnn=True says how the layer runs.* unroll=True"),
        (lambda: ours.GRU(2).set_weights([]), "not built yet"),
        (lambda: ours.GRU(2).count_params(), "not built yet"),
        (lambda: layer.set_weights([X]), "the layer has 3 weights; got 1"),
        (lambda: layer.set_weights([X, X, X]), r"weights\[0\] must have shape \[3, 6\]; got \[3, 4, 3\]"),
        (lambda: ours.GRU(2).build((None, None, None)), "with a known number of features"),
        (lambda: bi.reset_state(), "needs a layer with stateful=True"),
        (lambda: jax.jit(ours.GRU(2))(X), r"first call stands inside a JAX transformation.*call build\(\(3, 4, 3\)\)"),
        (lambda: nnx.grad(lambda m: m(X).sum())(ours.GRU(2)), "first call stands inside a JAX transformation"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    with pytest.raises(ValueError, match="a call changes this layer"):
        closed = ours.GRU(2, activity_regularizer="l2")
        closed.build((None, None, I))
        jax.jit(lambda x: closed(x))(X)


def test_weights_at_once_with_an_input_shape() -> None:
    assert [w.shape for w in ours.GRU(H, input_shape=(None, I)).get_weights()] == [(3, 6), (2, 6), (2, 6)]
    assert len(ours.Bidirectional(ours.GRU(H, input_shape=(T, I)), input_shape=(T, I)).get_weights()) == 6


def test_under_jit_vmap_and_stacked_with_other_modules() -> None:
    layer = ours.GRU(H, return_sequences=True)
    expected = layer(X)
    close(jax.jit(lambda x: layer(x))(X), expected, 1e-6)
    close(nnx.jit(lambda layer, x: layer(x))(layer, X), expected, 1e-6)
    close(jax.vmap(lambda x: layer(x[None])[0])(jnp.asarray(X)), expected, 1e-6)
    close(layer(X.astype("float64")), expected, 1e-6)
    assert layer((X * 3).astype("int32")).dtype == jnp.float32
    assert layer(X[:0]).shape == (0, T, H) and layer(X[:, :0]).shape == (B, 0, H)


@QUIETLY
def test_mixed_precision_and_float64() -> None:
    their, our = pair({"units": H, "dtype": "mixed_bfloat16", "return_state": True}, 0)
    with theirs():
        expected = their(X)
    assert [y.dtype for y in our(X)] == [jnp.bfloat16] * 2 and our.kernel[...].dtype == jnp.float32
    close(tuple(y.astype("float32") for y in our(X)), tuple(np.asarray(y, "float32") for y in expected), 2e-2)
    with jax.enable_x64(True):
        wide = ours.GRU(H, dtype="float64")
        assert wide(X).dtype == jnp.float64
    assert (our.dtype, our.compute_dtype) == ("float32", "bfloat16")


@QUIETLY
def test_the_cell() -> None:
    real = keras()
    with theirs():
        their = real.layers.GRUCell(H, recurrent_dropout=0.5, dropout=0.2, seed=2, reset_after=False)
        their.build((None, I))
        weights = weights_for(their, 0)
        their.set_weights(weights)
        expected = [their(X[:, 0], [H0], training=t) for t in (True, False)]
    our = ours.GRUCell(H, recurrent_dropout=0.5, dropout=0.2, seed=2, reset_after=False)
    our.build((None, I))
    our.set_weights(weights)
    close([our(X[:, 0], [H0], training=t) for t in (True, False)], expected)
    assert our.get_config() == their.get_config() | {"name": our.name}
    output, state = our(X[:, 0], H0)
    assert output.shape == state.shape == (B, H)
    assert [s.shape for s in our.get_initial_state(5)] == [(5, H)]
    with pytest.raises(ValueError, match=r"GRUCell: states must have shape \[3, 2\]"):
        our(X[:, 0], H0[:1])


@QUIETLY
def test_configs_are_those_of_keras_and_go_both_ways() -> None:
    real = keras()
    options = {
        "units": 4, "activation": "swish", "kernel_regularizer": ("L2", {"l2": 0.3}), "bias_constraint": "max_norm",
        "kernel_initializer": ("HeNormal", {"seed": 3}), "activity_regularizer": "l2", "dtype": "mixed_bfloat16",
        "dropout": 0.1, "seed": 3, "return_sequences": True, "reset_after": False, "name": "mine", "use_bias": False,
        "trainable": False,
    }  # fmt: skip
    modules = {"kernel_regularizer": "regularizers", "kernel_initializer": "initializers"}

    def made(keras_module):
        resolved = {
            key: getattr(getattr(keras_module, modules[key]), value[0])(**value[1]) if key in modules else value
            for key, value in options.items()
        }
        return keras_module.layers.GRU(**resolved)

    with theirs():
        their = made(real)
        our = made(ours)
        assert our.get_config() == their.get_config()
        assert real.layers.GRU.from_config(our.get_config()).get_config() == our.get_config()
        assert ours.GRU.from_config(json.loads(json.dumps(their.get_config()))).get_config() == our.get_config()
        two_their, two_our = real.layers.Bidirectional(their, "ave"), ours.Bidirectional(our, "ave")
        assert two_our.get_config() == two_their.get_config() | {"name": two_our.name}
        again = ours.Bidirectional.from_config(json.loads(json.dumps(two_their.get_config())))
        assert again.get_config() == two_their.get_config()
    with pytest.raises(ValueError, match="layer must be a GRU; the config has 'LSTM'"):
        ours.Bidirectional.from_config({"layer": {"class_name": "LSTM", "config": {}}})


@QUIETLY
def test_penalties_are_those_of_keras_and_so_are_the_gradients() -> None:
    options = {
        "units": H, "return_state": True, "kernel_regularizer": "l1", "recurrent_regularizer": "OrthogonalRegularizer",
        "bias_regularizer": {"class_name": "L1L2", "config": {"l1": 0.1, "l2": 0.2}}, "activity_regularizer": "l2",
    }  # fmt: skip
    their, our = pair(options, 0)
    assert len(our.losses) == 5  # those of outputs are 0 before a call
    with theirs():
        their(X)
        expected = [np.asarray(loss) for loss in their.losses]
        variables = [v.value for v in their.trainable_variables]

        def loss(variables):
            rest = [v.value for v in their.non_trainable_variables]
            y, _, losses = their.stateless_call(variables, rest, X, return_losses=True)
            # Of a layer alone it leaves out the outputs' penalties; within a model they count.
            return (y[0] ** 2).mean() + sum(losses) + sum(their.activity_regularizer(out) / B for out in y)

        gradients = jax.jit(jax.grad(loss))(variables)

    def our_loss(layer):
        y, _ = layer(X)
        return (y**2).mean() + sum(layer.losses)

    value, grads = nnx.jit(nnx.value_and_grad(our_loss))(our)
    close([grads["cell"][name][...] for name in ("kernel", "recurrent_kernel", "bias")], gradients, 2e-5)
    close(our.losses, expected, 1e-6)  # the activity's came out of the gradient as numbers
    assert value > sum(float(loss) for loss in our.losses)
    close(our_loss(our), value, 1e-6)
    both = ours.Bidirectional(our)
    both.build((None, None, I))
    assert len(both.losses) == 2 * 5
    frozen = ours.GRU(H, kernel_regularizer="l2", trainable=False)
    frozen.build((None, None, I))
    assert frozen.losses == []
    assert ours.regularizers.get("GRU", "kernel_regularizer", "l1_l2")(jnp.ones(2)) == pytest.approx(0.04)


@QUIETLY
@pytest.mark.parametrize(
    ("name", "config"),
    [("MaxNorm", {"max_value": 0.5}), ("MaxNorm", {"max_value": 0.5, "axis": [0, 1]}), ("NonNeg", {}),
     ("UnitNorm", {"axis": 1}), ("MinMaxNorm", {"min_value": 0.7, "max_value": 0.9, "rate": 0.6})],
)  # fmt: skip
def test_constraints_project_as_keras_after_the_update(name, config) -> None:
    real = keras()
    with theirs():
        constraint = getattr(real.constraints, name)(**config)
        optimizer = real.optimizers.SGD(0.1)
    their, our = pair({"units": H}, 0)
    their.cell.kernel.constraint = their.cell.recurrent_kernel.constraint = constraint
    # Found in a larger model by where they stand; the readout has none.
    kept = {"kernel_constraint": constraint, "recurrent_constraint": {"class_name": name, "config": config}}
    constrained = ours.GRU(H, **kept)
    constrained.build((None, None, I))
    constrained.set_weights(our.get_weights())

    class Model(nnx.Module):
        def __init__(self):
            self.layers = nnx.List([nnx.Linear(I, I, rngs=nnx.Rngs(0)), constrained])

    model = Model()
    with theirs():
        optimizer.build(their.trainable_variables)
        optimizer.apply([jnp.cos(v.value) for v in their.trainable_variables])  # any gradients do
        tx = optax.chain(optax.sgd(0.1), ours.constraints_of(model))
        ours_optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        grads = jax.tree.map(jnp.cos, nnx.state(model, nnx.Param))
        before = model.layers[0].kernel[...]
        expected = before - 0.1 * jnp.cos(before)
        ours_optimizer.update(model, grads)
    close(constrained.get_weights(), their.get_weights(), 2e-6)
    close(model.layers[0].kernel[...], expected, 1e-6)
    constrained.set_weights(weights_for(their, 3))
    constrained.apply_constraints()
    with theirs():
        close(constrained.kernel[...], constraint(weights_for(their, 3)[0]), 1e-6)
        close(constrained.bias[...], weights_for(their, 3)[2], 0)
    with pytest.raises(ValueError, match="not built yet"):
        ours.constraints_of(ours.GRU(2, **kept))
    with pytest.raises(TypeError, match=r"must be an nnx\.Module"):
        ours.constraints_of(3)


def test_trainable() -> None:
    layer = ours.GRU(H, trainable=False)
    layer.build((None, None, I))
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 3
    assert not jax.tree.leaves(nnx.state(layer, nnx.Param))
    layer.trainable = True
    assert len(layer.trainable_weights) == len(jax.tree.leaves(nnx.state(layer, nnx.Param))) == 3


def test_what_differs_from_keras_on_purpose() -> None:
    """Keras' own faults that are not copied; docs/guide/from-keras.md lists them."""
    mask = np.array([[0, 1, 1, 0]] * B, bool)
    options = {"rngs": nnx.Rngs(0), "bias_initializer": "ones"}
    looped = ours.GRU(H, return_sequences=True, zero_output_for_mask=True, **options)
    y = looped(X, initial_state=H0, mask=mask)
    unrolled = ours.GRU(H, return_sequences=True, zero_output_for_mask=True, unroll=True, **options)
    unrolled.build((None, None, I))
    unrolled.set_weights(looped.get_weights())
    assert not y[:, 0].any() and not y[:, 3].any()
    np.testing.assert_allclose(unrolled(X, initial_state=H0, mask=mask), y, atol=1e-6)
    loops = [str(jax.make_jaxpr(layer)(jnp.asarray(X))).count("unroll=1\n") for layer in (looped, unrolled)]
    assert loops[0] > loops[1]
    last = ours.GRU(H, zero_output_for_mask=True)
    last.build((None, None, I))
    last.set_weights(looped.get_weights())
    assert (last(X, initial_state=H0, mask=mask) == y[:, 2]).all()
    kept = ours.Bidirectional(ours.GRU(H, return_state=True, stateful=True))
    assert len(kept(X, mask=mask)) == 3
