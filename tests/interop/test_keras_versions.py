"""Files as every Keras from 2.0 on writes them: what their version decides, and what has to be asked for."""

import io
import json
import zipfile

import jax
import numpy as np
import pytest

from gru_jax.interop import keras as ours
from gru_jax.interop import onnx
from gru_jax.interop.keras import files

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)
I, H = 3, 4
KERNEL, RECURRENT, SINGLE, DOUBLE = (
    RNG.normal(0, 0.7, shape).astype("float32") for shape in ((I, 3 * H), (H, 3 * H), (3 * H,), (2, 3 * H))
)
BEFORE, AFTER, NONE = [KERNEL, RECURRENT, SINGLE], [KERNEL, RECURRENT, DOUBLE], [KERNEL, RECURRENT]
X = RNG.normal(size=(2, 5, I)).astype("float32")
GATES = {
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "steep": lambda v: np.clip(v / 5 + 0.5, 0, 1),
    "flat": lambda v: np.clip(v / 6 + 0.5, 0, 1),
}


def states(weights, gate, after):
    """The last state, step by step as Keras' documentation has it."""
    kernel, recurrent, bias = [*weights, np.zeros(3 * H)][:3]
    b_x, b_h = bias if after and len(weights) == 3 else (bias, np.zeros(3 * H))
    f, h = GATES[gate], np.zeros((2, H))
    for x in X.swapaxes(0, 1):
        (u_z, u_r, u_n), (k_z, k_r, k_n) = np.split(x @ kernel + b_x, 3, -1), np.split(recurrent, 3, -1)
        c_z, c_r, c_n = np.split(b_h, 3)
        z, r = f(u_z + h @ k_z + c_z), f(u_r + h @ k_r + c_r)
        h = z * h + (1 - z) * np.tanh(u_n + (r * (h @ k_n + c_n) if after else (r * h) @ k_n))
    return h


def gru(name="g", class_name="GRU", **options):
    return {"class_name": class_name, "config": {"name": name, "units": H} | options}


def model(*layers):
    return {"class_name": "Model", "config": {"name": "m", "layers": list(layers)}}


def h5(path, version, config=None, **places):
    """An `.h5` file; `places` are groups and the arrays in them."""
    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["keras_version"] = version
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        for place, weights in places.items():
            for name, array in zip(("kernel", "recurrent_kernel", "bias"), weights, strict=False):
                file[f"{'model_weights/' if config else ''}{place.replace('__', '/')}/{name}:0"] = array
    return path


def newer(path, weights, config=None, version=None, name=None):
    """A `.weights.h5` file, or a `.keras` file where there is a config."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for index, array in enumerate(weights):
            file[f"layers/gru/cell/vars/{index}"] = array
        if name is not None:
            file.create_group("layers/gru/vars").attrs["name"] = name
    if config is None:
        path.write_bytes(buffer.getvalue())
        return path
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", buffer.getvalue())
        if version is not None:
            file.writestr("metadata.json", json.dumps({"keras_version": version}))
    return path


# What is in the file: version, options of the config (None: weights alone), weights; what load is told; gate, after.
HARD = {"recurrent_activation": "hard_sigmoid"}
FILES = {
    "2.0.6 says hard_sigmoid": ("2.0.6", HARD, BEFORE, {}, "steep", False),
    "2.15 too": ("2.15.0", HARD | {"reset_after": True}, AFTER, {}, "steep", True),
    "3's is flatter": ("3.4.1", HARD | {"reset_after": True}, AFTER, {}, "flat", True),
    "2.0.6 without reset_after": ("2.0.6", HARD | {"use_bias": False}, NONE, {}, "steep", False),
    "alone, 2.0.6": ("2.0.6", None, BEFORE, {}, "steep", False),
    "alone, 2.2.4": ("2.2.4", None, NONE, {}, "steep", False),
    "alone, 2.1.6-tf": ("2.1.6-tf", None, NONE, {}, "steep", False),
    "alone, 2.3.1": ("2.3.1", None, NONE, {}, "sigmoid", False),
    "alone, 2.3.0-tf": ("2.3.0-tf", None, NONE, {}, "sigmoid", True),
    "alone, 2.4.0": ("2.4.0", None, NONE, {}, "sigmoid", True),
    "alone, 3.4.1": ("3.4.1", None, AFTER, {}, "sigmoid", True),
    "alone, told": ("2.2.4", None, BEFORE, {"recurrent_activation": "sigmoid"}, "sigmoid", False),
    "alone, its hard_sigmoid": ("2.15.0", None, AFTER, {"recurrent_activation": "hard_sigmoid"}, "steep", True),
    "version told": (None, None, NONE, {"keras_version": "2.2.4"}, "steep", False),
    "options told": (
        "2.2.4-tf", None, NONE, {"recurrent_activation": "sigmoid", "reset_after": True}, "sigmoid", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", FILES.values(), ids=FILES)
def test_what_a_files_version_decides(row, tmp_path) -> None:
    version, options, weights, told, gate, after = row
    config = None if options is None else model(gru(**options))
    path = h5(tmp_path / "a.h5", version, config, g__g=weights)
    made = ours.load(path, **told)
    assert np.abs(made(X)[1] - states(weights, gate, after)).max() < 2e-6
    name = {"steep": "keras2_hard_sigmoid", "flat": "hard_sigmoid"}.get(gate, gate)
    front = ours.GRU(H, recurrent_activation=name, reset_after=after, use_bias=len(weights) == 3)
    front.load_weights(path, layer="g", **told)
    assert all((a == b).all() for a, b in zip(front.get_weights(), weights, strict=True))


ASKED = [
    (None, None, BEFORE, {}, r"nothing says which Keras wrote it; pass keras_version= .* or recurrent_activation="),
    ("2.2.4-tf", None, BEFORE, {}, r"TensorFlow 1\.13 to 2\.1.*; pass recurrent_activation="),
    ("2.2.4-tf", None, NONE, {"recurrent_activation": "sigmoid"}, r"decides reset_after .*; pass reset_after="),
    (None, HARD, BEFORE, {}, r"hard_sigmoid has one slope in Keras 2 .*; pass keras_version="),
    (None, {"recurrent_activation": "sigmoid"}, NONE, {}, r"decides reset_after .*config does not say it"),
    ("2.2.4", None, BEFORE, {"keras_version": "3.0"}, r"the file says that Keras 2\.2\.4 wrote it; leave it out"),
    ("2.2.4", None, BEFORE, {"keras_version": "new"}, r"must be a version of Keras, such as '2\.2\.4'"),
    ("1.2.2", None, BEFORE, {}, r"Keras 1\.2\.2 wrote it; open it with Keras 2"),
    ("2.2.4", None, BEFORE, {"gate_activation": "sigmoid"}, r"pass recurrent_activation="),
    ("2.2.4", HARD | {"units": 5}, BEFORE, {}, r"a\.h5: the layer 'g at .*' has 4 units and 1 biases, its config says"),
    ("2.2.4", HARD | {"reset_after": True}, BEFORE, {}, r"its config says reset_after=True"),
    ("2.4.0", {}, BEFORE, {}, r"its config does not say reset_after, which is True in Keras 2\.4\.0"),
    ("2.3.1", {}, AFTER, {}, r"its config does not say reset_after, which is False in Keras 2\.3\.1"),
]


@pytest.mark.parametrize(("version", "options", "weights", "told", "message"), ASKED)
def test_what_nothing_decides_is_asked_for(version, options, weights, told, message, tmp_path) -> None:
    path = h5(tmp_path / "a.h5", version, None if options is None else model(gru(**options)), g__g=weights)
    with pytest.raises((TypeError, ValueError), match=message):
        ours.load(path, **told)


def test_the_newer_format_does_not_say_its_version_unless_keras_3_named_the_layer(tmp_path) -> None:
    hard = {"recurrent_activation": "hard_sigmoid"}
    for name, expected in (("a", "flat"), (None, None)):
        path = newer(tmp_path / "a.weights.h5", AFTER, name=name)
        assert ours.load(path).spec.gate_activation == "sigmoid"
        front = ours.GRU(H, recurrent_activation="hard_sigmoid")
        if expected:
            assert ours.load(path, **hard).spec.gate_activation == "hard_sigmoid"
            front.load_weights(path)
            continue
        with pytest.raises(ValueError, match="hard_sigmoid has one slope .*; pass keras_version="):
            ours.load(path, **hard)
        with pytest.raises(ValueError, match="hard_sigmoid has one slope .*; pass keras_version="):
            front.load_weights(path)
        front.load_weights(path, keras_version="3.0")
        made = ours.load(path, **hard, keras_version="2.15.0")
        assert made.spec.gate_activation == onnx.Activation("HardSigmoid", 0.2, 0.5)
    config = model(gru("gru_7", recurrent_activation="hard_sigmoid", reset_after=True))
    for version, gate in (("2.15.0", onnx.Activation("HardSigmoid")), ("3.0.0", "hard_sigmoid")):
        path = newer(tmp_path / "a.keras", AFTER, config, version)
        assert ours.load(path, layer="gru_7").spec.gate_activation == gate
    with pytest.raises(ValueError, match="pass keras_version="):
        ours.load(newer(tmp_path / "a.keras", AFTER, config))


def test_the_front_does_not_take_weights_of_other_defaults_in_silence(tmp_path) -> None:
    path = h5(tmp_path / "a.h5", "2.2.4", g__g=BEFORE)
    for options, message in [
        ({}, r"Keras 2\.2\.4 had 'keras2_hard_sigmoid' by default; make this layer with recurrent_activation='keras2_"),
        ({"recurrent_activation": "hard_sigmoid"}, r"whose hard_sigmoid is clip\(x / 5 \+ 1/2, 0, 1\)"),
    ]:
        front = ours.GRU(H, reset_after=False, **options)
        with pytest.raises(ValueError, match=message):
            front.load_weights(path)
        assert not front.built
    ours.GRU(H, reset_after=False).load_weights(path, recurrent_activation="sigmoid")
    path = h5(tmp_path / "b.h5", "2.3.1", g__g=NONE)
    with pytest.raises(ValueError, match=r"has reset_after=True, .* make this layer with reset_after=False, or pass"):
        ours.GRU(H, use_bias=False).load_weights(path)
    ours.GRU(H, use_bias=False).load_weights(path, reset_after=True)
    path = h5(tmp_path / "c.h5", "2.3.1", model(gru(reset_after=False, use_bias=False)), g__g=NONE)
    with pytest.raises(ValueError, match="was saved with reset_after=False, this layer has True"):
        ours.GRU(H, use_bias=False).load_weights(path)
    cell = ours.GRUCell(H, use_bias=False, reset_after=False)
    cell.load_weights(path)
    assert (cell.kernel[...] == KERNEL).all()


def test_names_of_layers_inside_others(tmp_path) -> None:
    """Scopes as standalone Keras (no cell) and TensorFlow (a cell, numbered) write them; an optimizer's copies."""

    def both(name, inner, **options):
        return {"class_name": "Bidirectional", "config": {"name": name, "layer": gru(inner, **options)}}

    def timed(name, layer):
        return {"class_name": "TimeDistributed", "config": {"name": name, "layer": layer}}

    sigmoid = {"recurrent_activation": "sigmoid", "reset_after": False}
    inside = [gru("deep", **HARD), both("bi", "x", **sigmoid)]
    seq = {"class_name": "Sequential", "config": {"name": "seq", "layers": inside}}
    config = model(gru("forward_a", **sigmoid), gru("backward_a", go_backwards=True, **sigmoid), seq,
                   timed("td", gru("inner", **HARD)), timed("td_bi", both("b", "g", **HARD)))  # fmt: skip
    places = {
        "forward_a__forward_a": BEFORE,
        "backward_a__backward_a__gru_cell_1": BEFORE,
        "seq__deep_2": BEFORE,
        "seq__bi__forward_x": BEFORE,
        "seq__bi__backward_x": BEFORE,
        "td__td": BEFORE,
        "td_bi__td_bi__forward_g__gru_cell": BEFORE,
        "td_bi__td_bi__backward_g__gru_cell": BEFORE,
    }
    path = h5(tmp_path / "a.h5", "2.2.4", config, **places)
    with h5py.File(path, "a") as file:
        for name, array in zip(("kernel", "recurrent_kernel", "bias"), BEFORE, strict=True):
            file[f"optimizer_weights/Adam/m/gru/{name}:0"] = array
    steep = onnx.Activation("HardSigmoid")
    for name, gate, two in [
        ("forward_a", "sigmoid", False), ("backward_a", "sigmoid", False), ("deep", steep, False),
        ("bi", "sigmoid", True), ("inner", steep, False), ("td", steep, False), ("b", steep, True),
    ]:  # fmt: skip
        spec = ours.load(path, layer=name).spec
        assert (spec.gate_activation, spec.bidirectional, spec.reset) == (gate, two, "before"), name
        assert spec.reverse == (name == "backward_a") and spec.padding == "hold"
    with pytest.raises(ValueError, match="holds 6 layers"):
        ours.load(path)
    with pytest.raises(ValueError, match="holds 2 layers 'seq'"):
        ours.load(path, layer="seq")


@pytest.mark.parametrize("layer", [None, "b", "b at b/b"])
def test_two_directions_of_standalone_keras_2(layer, tmp_path) -> None:
    path = h5(tmp_path / "a.h5", "2.3.1", b__b__forward_gru_1=BEFORE, b__b__backward_gru_1=BEFORE)
    made = ours.load(path, layer=layer)
    assert made.spec.bidirectional
    assert np.abs(made(X)[1][0] - states(BEFORE, "sigmoid", False)).max() < 2e-6


def test_cudnngru_is_converted(tmp_path) -> None:
    """Each gate's matrices transposed, the kernel in the order of numbers [units, features], one row of biases."""
    gates = [np.ascontiguousarray(part.T).reshape(I, H) for part in np.split(KERNEL, 3, -1)]
    stored = [np.concatenate(gates, -1), np.concatenate([p.T for p in np.split(RECURRENT, 3, -1)], -1), DOUBLE.ravel()]
    whole = h5(tmp_path / "a.h5", "2.2.4", model(gru("c", "CuDNNGRU", return_sequences=True)), c__c=stored)
    alone = h5(tmp_path / "b.h5", "2.2.4", c__c=stored)
    for given in (whole, alone, stored):
        made = ours.load(given)
        assert (made.spec.reset, made.spec.gate_activation) == ("after", "sigmoid")
        assert all((a == b).all() for a, b in zip(ours.export(made), AFTER, strict=True))
    front = ours.GRU(H)
    front.load_weights(alone)
    assert np.abs(front(X) - states(AFTER, "sigmoid", True)).max() < 2e-6


def test_functions_of_keras_2_are_not_taken_for_those_of_keras_3() -> None:
    def hard_sigmoid(x):
        raise AssertionError("the function of TensorFlow is known by its name")

    for module, name in [("tf_keras.src.activations", "keras2_hard_sigmoid"),
                         ("tensorflow.python.keras.activations", "keras2_hard_sigmoid"),
                         ("keras.src.activations.activations", "hard_sigmoid")]:  # fmt: skip
        hard_sigmoid.__module__ = module
        assert ours.GRU(H, recurrent_activation=hard_sigmoid).recurrent_activation == name


def test_one_thing_under_many_names_is_refused_before_it_is_read(tmp_path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layer = file.create_group("layers/gru/cell/vars")
        for index, shape in enumerate(((2**10, 3 * 2**10), (2**10, 3 * 2**10))):
            layer.create_dataset(str(index), shape, "float32", compression="gzip", chunks=(1, 3))
        for index in range(400):
            file[f"layers/gru_{index}"] = file["layers/gru"]
    with pytest.raises(ValueError, match=r"a\.h5: layers/gru_0.* is another name of something else in it; refused"):
        ours.load(tmp_path / "a.h5")


# Every value of a config, replaced by one of another kind.
WRONG = [None, [{}], {"class_name": 3}]


def test_any_damaged_config_is_refused_with_the_files_name(tmp_path) -> None:
    inner = gru(**HARD, reset_after=True)
    both = {"class_name": "Bidirectional", "config": {"name": "b", "merge_mode": "sum", "layer": inner}}
    cell = {"class_name": "RNN", "config": {"name": "r", "cell": gru("c", "GRUCell")}}
    good = model(inner, both, cell, {"class_name": "TimeDistributed", "config": {"name": "t", "layer": inner}})
    path, refused = newer(tmp_path / "a.keras", AFTER, good, "3.0.0"), 0
    weights = zipfile.ZipFile(path).read("model.weights.h5")
    for keys in places_in(good):
        for wrong in WRONG:
            broken = json.loads(json.dumps(good))
            holder = broken
            for key in keys[:-1]:
                holder = holder[key]
            holder[keys[-1]] = wrong
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("config.json", json.dumps(broken))
                file.writestr("model.weights.h5", weights)
            try:
                files.one("keras.load", path, "g")
            except ValueError as error:
                assert str(path) in str(error) and "\n" not in str(error)
                refused += 1
    assert refused > 15


def places_in(thing, *keys):
    """The keys on the way to every value inside."""
    items = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for key, inner in items:
        yield (*keys, key)
        yield from places_in(inner, *keys, key)


def test_fresh_layers_share_a_program_and_keep_their_names() -> None:
    from flax import nnx

    traced = []
    run = nnx.jit(lambda layer, x: (traced.append(1), layer(x))[1])
    layers = [ours.GRU(H) for _ in range(2)] + [ours.Bidirectional(ours.GRU(H)) for _ in range(2)]
    names = [layer.name for layer in layers]
    inner = [layer.forward_layer.name for layer in layers[2:]]
    for layer in layers:
        layer.build((None, None, I))
        run(layer, X)
    assert len(traced) == 2
    assert [layer.name for layer in layers] == names and len(set(names)) == 4
    assert [layer.forward_layer.name for layer in layers[2:]] == inner and inner[0].startswith("forward_gru")
    assert ours.GRU(H, name="mine").name == nnx.clone(ours.GRU(H, name="mine")).name == "mine"


def test_the_front_can_be_read_like_a_keras_layer() -> None:
    gru = ours.GRU(H, kernel_regularizer="l2", return_sequences=True, return_state=True, dropout=0.1, implementation=0)
    assert (gru.kernel_regularizer, gru.bias_constraint) == (ours.regularizers.L2(), None)
    assert gru.cell.recurrent_initializer == gru.recurrent_initializer == ours.initializers.Orthogonal()
    assert gru.implementation == 1 and gru.input_spec.ndim == 3 and gru.cell.input_spec is None
    assert gru.supports_masking and not gru.cell.supports_masking
    assert gru.supports_jit and gru.quantization_mode is None and gru.metrics == gru.metrics_variables == []
    gru.build((None, None, I))
    assert gru.variables[:3] == gru.weights and gru.trainable_variables == gru.weights
    assert [v.shape for v in gru.non_trainable_variables] == [(2,)]
    gru.trainable = False
    assert gru.trainable_variables == [] and len(gru.non_trainable_variables) == len(gru.variables) == 4
    assert gru.compute_output_shape((None, 5, I)) == ((None, 5, H), (None, H))
    mask = np.ones((2, 5), bool)
    assert gru.compute_mask(X, [mask])[0] is mask and gru.compute_mask(X, mask)[1] is None
    for mode, shape in (("concat", (2, 5, 2 * H)), ("sum", (2, 5, H)), (None, ((2, 5, H), (2, 5, H)))):
        both = ours.Bidirectional(ours.GRU(H, return_sequences=True), mode)
        assert both.compute_output_shape(X.shape) == shape
        assert jax.tree.map(lambda y: y.shape, both(X)) == shape
        assert both.compute_mask(X, mask) is mask if mode else both.compute_mask(X, mask) == (mask, mask)
