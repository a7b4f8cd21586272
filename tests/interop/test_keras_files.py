"""Weights and files: Keras to `gj.nnx.GRU` and back, real files of Keras, damaged and hostile ones."""

import base64
import io
import json
import marshal
import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.interop import keras as ours
from gru_jax.interop.keras import files, heaps

from ..interop.keras_oracle import QUIETLY, close, keras, theirs, weights_for

h5py = pytest.importorskip("h5py")
X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
ARRAYS = [np.random.default_rng(1).normal(size=s).astype("float32") for s in ((3, 12), (4, 12), (2, 12))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A Keras model of two GRUs and more, and the folder with its files."""
    real = keras()
    folder = tmp_path_factory.mktemp("keras")
    with theirs():
        inner = real.Sequential([real.Input((5, 4)), real.layers.GRU(2, reset_after=False, use_bias=True)], name="in")
        model = real.Sequential(
            [
                real.Input((5, 3)),
                real.layers.Lambda(lambda x: x * 2),
                real.layers.GRU(4, "relu", return_sequences=True, name="an unusual näme"),
                real.layers.Bidirectional(real.layers.GRU(2, return_sequences=True), merge_mode="ave", name="both"),
                real.layers.RNN(real.layers.GRUCell(4), return_sequences=True, name="wrapped"),
                real.layers.LSTM(4, return_sequences=True),
                inner,
                real.layers.Dense(1),
            ]
        )
        model.set_weights(weights_for(model, 0))
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        model.save(folder / "model.h5")
        one = real.Sequential([real.Input((5, 3)), real.layers.GRU(4, go_backwards=True, name="only")])
        one.save(folder / "one.keras")
        one.save_weights(folder / "one.weights.h5")
    return model, one, folder


def layers_of(model):
    """The GRU layers of the model by name."""
    found = {layer.name: layer for layer in model.layers}
    return {name: found[name] for name in ("an unusual näme", "both", "wrapped")} | {
        found["in"].layers[0].name: found["in"].layers[0]
    }


@QUIETLY
@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5", "model.h5"])
def test_real_files_read_equal(saved, file) -> None:
    model, _, folder = saved
    for name, layer in layers_of(model).items():
        extra = {"activation": "relu"} if "näme" in name and file == "model.weights.h5" else {}
        made = ours.load(folder / file, layer=name, **extra)
        x = np.random.default_rng(2).normal(size=(2, 5, made.in_features)).astype("float32")
        y, _ = made(x)
        if name == "both" and file == "model.weights.h5":
            y = y[..., :2] / 2 + y[..., 2:] / 2  # only a config knows how it merges
        with theirs():
            expected = layer(x)
        close(y if expected.ndim == 3 else y[:, -1], expected)
        spec = made.spec
        exported = ours.export(
            made,
            activation=spec.activation,
            recurrent_activation=spec.gate_activation,
            merge_mode="ave" if spec.merge == "mean" else spec.merge,
            reset_after=spec.reset == "after",
            go_backwards=spec.reverse,
        )
        flat = [a for part in exported for a in part] if isinstance(exported, tuple) else exported
        assert all((a == b).all() and a.shape == b.shape for a, b in zip(flat, layer.get_weights(), strict=True))
        front = ours.Bidirectional(ours.GRU(2), "ave") if name == "both" else None
        if front is None:
            activation = "relu" if "näme" in name else "tanh"
            front = ours.GRU(made.spec.hidden_features, activation, reset_after=made.spec.reset == "after")
        front.load_weights(folder / file, layer=name)
        assert all((a == b).all() for a, b in zip(front.get_weights(), layer.get_weights(), strict=True))


@QUIETLY
def test_one_layer_needs_no_name_and_several_are_listed(saved) -> None:
    _, one, folder = saved
    for file in ("one.keras", "one.weights.h5"):
        made = ours.load(str(folder / file))
        y, h = made(X)
        with theirs():
            expected = one.layers[0](X)
        if file == "one.keras":
            close(h, expected)
            close(y[:, 0], expected)
    with pytest.raises(ValueError, match=r"keras.load: .*model.keras holds 4 layers: .*'both at layers/bidirectional'"):
        ours.load(folder / "model.keras")
    with pytest.raises(ValueError, match=r"holds no layer 'gru9'; got the layers .*'an unusual näme at layers/gru'"):
        ours.load(folder / "model.keras", layer="gru9")
    with pytest.raises(ValueError, match=r"has 2 directions, this layer 1; use Bidirectional"):
        ours.GRU(2).load_weights(folder / "model.keras", layer="both")
    with pytest.raises(ValueError, match=r"was saved with activation='relu', this layer has 'tanh'"):
        ours.GRU(4).load_weights(folder / "model.keras", layer="an unusual näme")
    wrong = ours.GRU(5, go_backwards=True)
    with pytest.raises(ValueError, match=r"GRU: only at layers/gru has 4 units and reset_after=True, this layer 5"):
        wrong.load_weights(folder / "one.keras")
    assert not wrong.built
    with pytest.raises(ValueError, match=r"this layer 4 units and no biases; make a layer with the same options"):
        ours.GRU(4, use_bias=False).load_weights(folder / "one.weights.h5")


@QUIETLY
def test_layers_of_keras_are_loaded_directly() -> None:
    real = keras()
    with theirs():
        stack = [real.layers.Bidirectional(real.layers.GRU(3, "softsign", return_sequences=True)) for _ in range(2)]
        y = X
        for seed, layer in enumerate(stack):
            layer.build((None, None, y.shape[-1]))
            layer.set_weights(weights_for(layer, seed))
            y = layer(y)
    made = ours.load(stack)
    close(made(X)[0], y)
    assert made.spec.num_layers == 2 and made.spec.activation == "softsign"
    with theirs():
        custom = real.layers.GRU(2, lambda x: x / 2)
        custom.build((None, None, 3))
        expected = custom(X)
        lstm = real.layers.LSTM(2)
        lstm.build((None, None, 3))
        made = ours.load(custom)
    close(made(X)[1], expected)
    with pytest.raises(ValueError, match="of the class 'LSTM'"):
        ours.load(lstm)
    with pytest.raises(ValueError, match="not built yet"):
        ours.load(ours.GRU(2))


CASES = [("full", "after", True), ("minimal", "after", False), ("none", "after", False), ("full", "before", False)]
ALL_CASES = [(b, r, t) for b in ("full", "minimal", "none") for r in ("after", "before") for t in (False, True)]


@pytest.mark.parametrize(
    ("bias", "reset", "two"), [*CASES, *(pytest.param(*one, marks=pytest.mark.slow) for one in ALL_CASES)]
)
def test_export_and_load(bias, reset, two) -> None:
    layer = gj.nnx.GRU(3, 4, num_layers=2, bidirectional=two, bias=bias, reset=reset, init="torch", rngs=nnx.Rngs(0))
    exported = ours.export(layer, reset_after=reset == "after")
    again = ours.load(exported, reset_after=reset == "after")
    close(again(X)[0], layer(X)[0], 1e-6)
    if bias == "full" and reset == "after":
        leaves = zip(jax.tree.leaves(layer.functional()[1]), jax.tree.leaves(again.functional()[1]), strict=True)
        assert all((a == b).all() for a, b in leaves)
    first = exported[0]
    front = ours.GRU(4, return_sequences=True, reset_after=reset == "after", use_bias=bias != "none")
    front = ours.Bidirectional(front) if two else front
    front.build((None, None, 3))
    front.set_weights([*first[0], *first[1]] if two else first)
    exported_again = ours.export(front, reset_after=reset == "after")
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(exported_again), jax.tree.leaves(first), strict=True))
    close(front.to_layer()(X)[0], front(X), 1e-6)


def test_what_cannot_be_converted_is_refused() -> None:
    kernel, recurrent, bias = ARRAYS
    for given, options, message in [
        (3, {}, "needs a path, a GRU or Bidirectional layer"),
        ([kernel], {}, "needs a path"),
        ([kernel, recurrent[:, :8], bias], {}, r"the recurrent kernel has shape \[4, 8\], not \[units, 3 units\]"),
        ([kernel, recurrent, bias.T], {}, r"the bias has shape \[12, 2\], not \[2, 12\] or \[12\]"),
        ([kernel[:, :9], recurrent], {}, r"the kernel has shape \[3, 9\], not \[features, 12\]"),
        (ARRAYS, {"reset_after": False}, "which is that of reset_after=True"),
        (ARRAYS, {"layer": "x"}, "layer is the name of a layer in a file"),
        (ARRAYS, {"activation": "softmax"}, "works across units"),
        (ARRAYS, {"num_layers": 2}, "num_layers follows from what is loaded"),
        ([ARRAYS, [kernel, recurrent]], {}, "the layers differ in units or biases"),
        ([kernel.astype("int32"), recurrent, bias], {}, "kernel must be an array of floating-point numbers"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            ours.load(given, **options)
    with pytest.raises(ValueError, match=r"keras.export: keras.layers.GRU has one dense recurrent matrix"):
        ours.export(gj.nnx.GRU(3, 4, heads=2, rngs=nnx.Rngs(0)))
    front = ours.GRU(2, "swish", reset_after=False, go_backwards=True)
    front.build((None, None, 3))
    close(front.to_layer()(X)[1], front(X), 1e-6)
    uneven = ours.Bidirectional(ours.GRU(2), backward_layer=ours.GRU(2, "relu", go_backwards=True))
    uneven.build((None, None, 3))
    with pytest.raises(ValueError, match="needs directions of the same options"):
        uneven.to_layer()


def archive(path, config, weights=None, **members):
    """A `.keras` file of the given parts."""
    if weights is None:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for index, array in enumerate(ARRAYS):
                file[f"layers/gru/cell/vars/{index}"] = array
        weights = buffer.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", config if isinstance(config, str | bytes) else json.dumps(config))
        file.writestr("model.weights.h5", weights)
        for name, text in members.items():
            file.writestr(name.replace("UP", "../"), text)
    return path


def model_of(*layers):
    return {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}


def gru(**config):
    return {"class_name": "GRU", "registered_name": None, "config": {"name": "gru", "units": 4} | config}


CODE = base64.b64encode(marshal.dumps(compile("raise SystemExit('this code ran')", "evil", "exec"))).decode()
LAMBDA = {"class_name": "Lambda", "config": {"name": "l", "function": {"class_name": "__lambda__", "config": CODE}}}


def test_code_in_a_config_is_never_run(tmp_path) -> None:
    plain = archive(tmp_path / "a.keras", model_of(LAMBDA, gru()))
    assert ours.load(plain).spec.hidden_features == 4
    code = {"class_name": "__lambda__", "config": {"code": CODE}}
    for name, layer, message in [
        ("b", gru(activation=code), "activation is code of its own"),
        ("c", gru(activation={"class_name": "function", "config": "os.system"}), "activation is code of its own"),
        ("d", gru() | {"registered_name": "Mine>GRU"}, "whose code is not known here"),
        ("e", {"class_name": "Mine", "config": {"name": "gru"}}, "the model's config does not say|not known here"),
    ]:
        with pytest.raises(ValueError, match=message):
            ours.load(archive(tmp_path / f"{name}.keras", model_of(LAMBDA, layer)))
    own = archive(tmp_path / "f.keras", model_of(gru(activation=code)))
    assert ours.load(own, activation=jnp.tanh).spec.hidden_features == 4


def test_hostile_archives_are_refused(tmp_path) -> None:
    bomb = b"\0" * 2**25
    for name, args, members, message in [
        ("path", (model_of(gru()),), {"UPevil": "x"}, "a path out of the archive"),
        ("bomb", (model_of(gru()), bomb), {}, "would grow from"),
        ("json", (b"[" * 100_000,), {}, "the model's config is no JSON"),
        ("text", ("{",), {}, "the model's config is no JSON"),
        ("list", ("[1, {}, []]",), {}, "config does not say what it computes"),
        ("weights", (model_of(gru()), b"not hdf5"), {}, "is damaged, or no file of Keras"),
        ("deep", (json.dumps(deep(60)),), {}, "config does not say"),
        ("shape", (model_of(gru() | {"config": [1]}),), {}, "config is no dict|does not say"),
    ]:
        with pytest.raises(ValueError, match=message):
            ours.load(archive(tmp_path / f"{name}.keras", *args, **members))
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as file:
        file.writestr("metadata.json", "{}")
    with pytest.raises(ValueError, match=r"it has no member config\.json"):
        ours.load(tmp_path / "empty.keras")


def deep(depth):
    return gru() if not depth else model_of(deep(depth - 1))


def test_hostile_weights_files_are_refused(tmp_path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = ARRAYS[0]
    (tmp_path / "raw.bin").write_bytes(ARRAYS[0].tobytes())

    def made(name, first):
        with h5py.File(tmp_path / name, "w") as file:
            group = file.create_group("layers/gru/cell/vars")
            first(group)
            group["1"], group["2"] = ARRAYS[1], ARRAYS[2]
        return tmp_path / name

    layout = h5py.VirtualLayout((3, 12), "float32")
    layout[:] = h5py.VirtualSource(secret, "x", (3, 12))
    huge = {"shape": (2**24, 12), "dtype": "float32", "chunks": (2**16, 12), "compression": "gzip"}
    for name, first, message in [
        ("external link", lambda g: g.__setitem__("0", h5py.ExternalLink(str(secret), "x")), "is a link to somewhere"),
        ("soft link", lambda g: g.__setitem__("0", h5py.SoftLink("/layers")), "is a link to somewhere"),
        ("raw", lambda g: g.create_dataset("0", (3, 12), "float32", external=[(str(tmp_path / "raw.bin"), 0, 144)]),
         "has its numbers in another file"),
        ("virtual", lambda g: g.create_virtual_dataset("0", layout), "has its numbers in another file"),
        ("huge", lambda g: g.create_dataset("0", **huge), "would grow from 0 to 805306368 bytes"),
        ("text", lambda g: g.create_dataset("0", (3, 12), "S4"), "no floating-point numbers"),
        ("circle", lambda g: g.__setitem__("loop", g.parent), "is another name of something else"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ours.load(made(name, first))


def test_bfloat16_is_read_bit_by_bit(tmp_path) -> None:
    arrays = [a.astype(jnp.bfloat16) for a in ARRAYS]
    with h5py.File(tmp_path / "half.weights.h5", "w") as file:
        for index, array in enumerate(arrays):  # as Keras writes it
            data = file.create_dataset(f"layers/gru/cell/vars/{index}", data=array.view("V2"))
            data.attrs["dtype"] = "bfloat16"
    made = ours.load(tmp_path / "half.weights.h5")
    assert all((a == b).all() for a, b in zip(ours.export(made), arrays, strict=True))


def test_damaged_and_missing_files(saved, tmp_path) -> None:
    _, _, folder = saved
    whole = {name: (folder / name).read_bytes() for name in ("one.keras", "one.weights.h5")}
    for name, content in whole.items():
        for size in (0, 10, len(content) // 3, len(content) - 30):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(ValueError, match=r"damaged, or no file of Keras"):
                ours.load(tmp_path / name)
    (tmp_path / "other.h5").write_text("not a file of Keras")
    with pytest.raises(ValueError, match=r"other\.h5 \(19 bytes\) is damaged"):
        ours.load(tmp_path / "other.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ValueError, match="holds no GRU"):
        ours.load(tmp_path / "empty.h5")
    with pytest.raises(ValueError, match="is a directory"):
        ours.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ours.load(tmp_path / "nowhere.keras")
    layer = ours.GRU(4)
    with pytest.raises(ValueError, match="GRU: .* is damaged"):
        layer.load_weights(tmp_path / "other.h5")
    assert not layer.built


@pytest.mark.parametrize(("sizes", "is_whole"), [((3, 16), True), ((3, 24), False)])
def test_texts_that_do_not_fill_their_place(sizes, is_whole, tmp_path) -> None:
    """No HDF5 file: what stands behind the check would refuse it by itself."""
    first, last = (heaps.HEADER.pack(index, 1, 0, size) for index, size in zip((1, 0), sizes, strict=True))
    (tmp_path / "a.h5").write_bytes(heaps.START + (56).to_bytes(8, "little") + first + bytes(8) + last)
    said = "is damaged, or no file" if is_whole else r"a\.h5: the texts from byte 0 on are damaged"
    with pytest.raises(ValueError, match=said):
        ours.load(tmp_path / "a.h5")


def test_every_flipped_byte_is_read_or_refused_in_one_line(saved, tmp_path) -> None:
    _, _, folder = saved
    rng = np.random.default_rng(0)
    refused = 0
    for name in ("one.keras", "one.weights.h5"):
        content = np.frombuffer((folder / name).read_bytes(), np.uint8)
        for _ in range(60):
            broken = content.copy()
            places = rng.integers(min(len(broken), 4000), size=rng.choice([1, 5, 100]))
            broken[places] = rng.integers(256, size=len(places))
            (tmp_path / name).write_bytes(broken.tobytes())
            try:
                files.one("keras.load", tmp_path / name, None)
            except ValueError as error:
                assert str(error).startswith("keras.load: ") and "\n" not in str(error)
                refused += 1
    assert refused > 50


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(FileNotFoundError, match="keras.load: there is no file"):
        ours.load(tmp_path / "pipe.keras")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"activation": "relu"}, {"activation": "relu"}),
        ({"gate_activation": "hard_sigmoid"}, {"recurrent_activation": "hard_sigmoid"}),
        ({"bidirectional": True, "merge": "mean"}, {"merge_mode": "ave"}),
        ({"reset": "before", "bias": "none"}, {"reset_after": False}),
        ({"reverse": True}, {"go_backwards": True}),
    ],
    ids=str,
)
def test_options_that_arrays_do_not_hold_are_named_or_refused(options, named) -> None:
    layer = gj.nnx.GRU(3, 4, **options, rngs=nnx.Rngs(0))
    ((name, value),) = named.items()
    with pytest.raises(ValueError, match=f"has .*=.*would be lost; pass {name}="):
        ours.export(layer)
    said = {"merge_mode": {"merge": "mean"}, "go_backwards": {"reverse": True}}.get(name, named)
    close(ours.load(ours.export(layer, **named), **said)(X)[0], layer(X)[0], 1e-6)
