"""Files that are damaged, or made to harm: one clear error each, and nothing outside the model's folder is read."""

import os

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from gru_jax.interop.onnx import export, load  # noqa: E402

from ..interop import onnx_models as models  # noqa: E402

X = {"x": ["T", "B", 3]}
ARRAYS = models.weights(np.random.default_rng(0), 3, 4, 1)


@pytest.fixture
def path(tmp_path):
    return models.saved(tmp_path, models.model([models.gru_node(ARRAYS)], ARRAYS, X, ["Y"]))


def test_every_way_to_cut_a_file_short(path):
    whole = path.read_bytes()
    expected = np.asarray(load(path).functional()[1].w_h)
    for size in [0, 1, 2, *range(3, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"^onnx.load: {path}"):
            load(path)
    path.write_bytes(whole)
    np.testing.assert_array_equal(load(path).functional()[1].w_h, expected)


def test_flipped_bytes_never_give_a_foreign_error(path):
    """Whatever some bytes become, the file loads, or the error is ours."""
    small = models.weights(np.random.default_rng(0), 1, 1, 1)
    attributes = {"activations": ["HardSigmoid", "Elu"], "activation_alpha": [0.2, 0.3], "clip": 1.0}
    nodes = [
        helper.make_node("Unsqueeze", ["stored", "axes"], ["W"]),
        models.gru_node(small, direction="reverse", initial_h="h", **attributes),
    ]
    stored = {"stored": small["W"][0], "axes": np.array([0]), "h": np.zeros((1, 1, 1), np.float32)}
    stored |= {"R": small["R"], "B": small["B"]}
    onnx.save(models.model(nodes, stored, X, ["Y"]), path)
    load(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            load(path)
        except (ValueError, TypeError, OSError) as error:
            assert str(error).startswith(f"onnx.load: {path}"), error
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "content",
    [b"not a model", b"PK\x03\x04" + bytes(100), b"\x93NUMPY", b"{}", b"\x00" * 64, b"\x08\x08", b"\xff" * 1000],
    ids=repr,
)
def test_files_of_other_kinds(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no ONNX model, or part of one"):
        load(path)


def test_places_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^onnx.load: there is no file {tmp_path}/missing.onnx$"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(TypeError, match="path must be a path of a file; got 3"):
        load(3)


def test_models_without_a_gru(path):
    relu = helper.make_node("Relu", ["x"], ["Y"])
    onnx.save(models.model([relu], {}, X, ["Y"]), path)
    with pytest.raises(ValueError, match="has no GRU node at the top of its graph, but Relu"):
        load(path)
    onnx.save(models.model([], {}, X, ["x"]), path)
    with pytest.raises(ValueError, match="but no nodes"):
        load(path)
    foreign = models.gru_node(ARRAYS)
    foreign.domain = "elsewhere"
    onnx.save(models.model([foreign], ARRAYS, X, ["Y"]), path)
    with pytest.raises(ValueError, match="has no GRU node"):
        load(path)


def outside(path, change=None, **entries):
    """The model with W in a file of its own, in a place that `entries` say."""
    model = models.model([models.gru_node(ARRAYS)], ARRAYS, X, ["Y"])
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    entries = {"location": "weights.bin", "offset": 4, "length": len(data), **entries}
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    tensor.ClearField("raw_data")
    if change is not None:
        change(tensor)
    path.write_bytes(model.SerializeToString())
    return b"1234" + data


def test_weights_beside_the_model_are_read(path):
    (path.parent / "weights.bin").write_bytes(outside(path))
    layer = load(path)
    again = onnx.load(export(layer, path.parent / "again.onnx")).graph.initializer
    assert numpy_helper.to_array(next(one for one in again if one.name == "W_0")).tobytes() == ARRAYS["W"].tobytes()
    os.chdir(path.parent)
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "weights.bin").write_bytes(outside(path, location="sub/../sub/weights.bin"))
    assert load(path.name).in_features == 3


@pytest.mark.parametrize("how", ["above", "absolute", "link", "null", "empty", "the folder"])
def test_weights_elsewhere_are_not_read(how, path, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "weights.bin"
    locations = {
        "above": os.path.relpath(secret, path.parent),
        "absolute": str(secret),
        "link": "link.bin",
        "null": "a\0b",
        "empty": "",
        "the folder": ".",
    }
    secret.write_bytes(outside(path, location=locations[how]))
    (path.parent / "link.bin").symlink_to(secret)
    error = FileNotFoundError if how == "the folder" else ValueError
    message = "no such file beside" if how == "the folder" else "outside of the model's folder; that is not read"
    with pytest.raises(error, match=message):
        load(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 10**6}, "has 144 for it from byte 1000000 on"),
        ({"offset": -4}, "from byte -4 on"),
        ({"length": 8}, "takes 144 bytes; .* has 8 for it"),
        ({"length": 10**15}, "takes 144 bytes"),
        ({"offset": "many"}, "no readable place"),
    ],
)
def test_weights_beside_the_model_that_do_not_fit(entries, message, path):
    (path.parent / "weights.bin").write_bytes(outside(path, **entries))
    with pytest.raises(ValueError, match=message):
        load(path)
    (path.parent / "weights.bin").unlink()
    outside(path)
    with pytest.raises(FileNotFoundError, match=r"lies in 'weights.bin', and there is no such file beside the model"):
        load(path)


HUGE = 2**40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.dims.__setitem__(1, HUGE), "does not hold the"),
        (lambda t: t.dims.__setitem__(1, -12), "has the shape"),
        (lambda t: setattr(t, "data_type", 999), "has the unknown type 999"),
        (lambda t: setattr(t, "data_type", TensorProto.STRING), "'W'"),
        (lambda t: setattr(t, "raw_data", b"123"), "does not hold the 36 numbers"),
        (lambda t: t.ClearField("raw_data"), "does not hold the 36 numbers"),
    ],
)
def test_damaged_tensors(change, message, path):
    model = models.model([models.gru_node(ARRAYS)], ARRAYS, X, ["Y"])
    change(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=f"^onnx.load: .*{message}"):
        load(path)


def test_external_weights_of_a_huge_shape(path):
    (path.parent / "weights.bin").write_bytes(outside(path, lambda t: t.dims.__setitem__(1, HUGE)))
    with pytest.raises(ValueError, match=r"takes \d+ bytes"):
        load(path)


def test_graphs_made_to_exhaust(path):
    """Doubling constants, circles, and chains deeper than any recursion are answered in little time and memory."""
    some = {k: v for k, v in ARRAYS.items() if k != "W"}
    gru = models.gru_node(ARRAYS)
    doubling = [helper.make_node("Concat", [f"w{k}", f"w{k}"], [f"w{k + 1}"], axis=1) for k in range(60)]
    doubling.append(helper.make_node("Identity", ["w60"], ["W"]))
    onnx.save(models.model([*doubling, gru], some | {"w0": ARRAYS["W"]}, X, ["Y"]), path)
    with pytest.raises(ValueError, match="more numbers than the model holds"):
        load(path)

    copying = [helper.make_node("Cast", [f"c{k}"], [f"c{k + 1}"], to=TensorProto.FLOAT) for k in range(300)]
    copying.append(helper.make_node("Identity", ["c300"], ["W"]))
    onnx.save(models.model([*copying, gru], some | {"c0": ARRAYS["W"]}, X, ["Y"]), path)
    assert load(path).in_features == 3  # small copies harm nobody
    large = np.zeros((1, 12, 10**4), np.float32)
    onnx.save(models.model([*copying, gru], some | {"c0": large}, X, ["Y"]), path)
    with pytest.raises(ValueError, match="more numbers than the model holds"):
        load(path)

    outer = [helper.make_node("Mul", ["row", "column"], ["W"])]
    long = {"row": np.ones((1, 1, 10**5), np.float32), "column": np.ones((1, 10**5, 1), np.float32)}
    onnx.save(models.model([*outer, gru], some | long, X, ["Y"]), path)
    with pytest.raises(ValueError, match="more numbers than the model holds"):
        load(path)

    circle = [helper.make_node("Identity", ["a"], ["W"]), helper.make_node("Identity", ["W"], ["a"])]
    onnx.save(models.model([*circle, gru], some, X, ["Y"]), path)
    with pytest.raises(ValueError, match="cannot be computed"):
        load(path)

    deep = [helper.make_node("Identity", [f"h{k}"], [f"h{k + 1}"]) for k in range(5000)]
    gru = models.gru_node(ARRAYS, initial_h="h5000")
    onnx.save(models.model([*deep, gru], ARRAYS, {**X, "h0": [1, "B", 4]}, ["Y"]), path)
    assert load(path).in_features == 3


def test_a_gru_that_feeds_itself(path):
    arrays = models.weights(np.random.default_rng(0), 4, 4, 1)
    back = helper.make_node("Squeeze", ["Y", "axes"], ["y"])
    nodes = [back, models.gru_node(arrays, x="y")]
    onnx.save(models.model(nodes, arrays | {"axes": np.array([1])}, {}, ["Y"]), path)
    with pytest.raises(ValueError, match="GRU nodes that do not simply feed each other"):
        load(path)
