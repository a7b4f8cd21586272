"""GRU nodes of files from everywhere, against onnxruntime on the same file, and bit for bit back into files."""

import itertools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj

from ..scans.cases import table

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from gru_jax.interop.onnx import Activation, export, load  # noqa: E402

from ..interop import onnx_models as models  # noqa: E402

X = {"x": ["T", "B", 3]}


def initializers(path):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def same_bits(one, other):
    first, second = (jax.tree.flatten(layer.functional()[1]) for layer in (one, other))
    assert first[1] == second[1]
    for a, b in zip(first[0], second[0], strict=True):
        assert (a.dtype, a.shape, np.asarray(a).tobytes()) == (b.dtype, b.shape, np.asarray(b).tobytes())


# Every form of activations once.
FEW_SEEDS = [*range(7), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(7, 12))]


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_files_and_layers_bit_for_bit(seed, tmp_path):
    rng = np.random.default_rng(seed)
    bias = ("full", "none")[seed % 2]
    plain = {"num_layers": 1 + seed % 3, "bidirectional": seed % 4 < 2, "reset": ("after", "before")[seed // 2 % 2]}
    if not plain["bidirectional"]:
        plain["reverse"] = seed % 3 == 0
    layer = models.random_layer(rng, 3, 4, bias=bias, **plain)
    path = export(layer, tmp_path / "one.onnx", h0=seed % 5 == 0, lengths=seed % 3 == 0)
    back = load(path)
    same_bits(layer, back)
    for option in (*plain, "bias", "activation", "gate_activation"):
        assert getattr(back.spec, option) == getattr(layer.spec, option)
    again = initializers(export(back, tmp_path / "two.onnx", h0=seed % 5 == 0, lengths=seed % 3 == 0))
    for name, array in initializers(path).items():
        assert array.tobytes() == again[name].tobytes(), name


def test_a_minimal_bias_comes_back_with_zeros(tmp_path):
    layer = models.random_layer(np.random.default_rng(0), 3, 4, bias="minimal")
    back = load(export(layer, tmp_path / "gru.onnx"))
    ours, theirs = layer.functional()[1], back.functional()[1]
    assert back.spec.bias == "full"
    np.testing.assert_array_equal(theirs.b_h, np.concatenate([np.zeros(8), ours.b_h]))


FORMS = [
    ("Sigmoid", "Tanh", (), ()),
    ("Sigmoid", "Tanh", (), ()),
    ("HardSigmoid", "Tanh", (), ()),
    ("hardsigmoid", "ELU", (0.3, 0.5), (0.4,)),
    ("Sigmoid", "LeakyRelu", (0.2,), ()),
    ("HardSigmoid", "Softsign", (0.25,), ()),
    ("Affine", "ScaledTanh", (0.1, 0.7), (0.5, 1.5)),
]


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_hand_built_nodes_as_other_exporters_make_them(seed, tmp_path):
    """Random options of the operator, old opsets among them."""
    rng = np.random.default_rng(seed)
    size_in, size = ((3, 4), (1, 1))[seed % 2]
    direction = ("forward", "reverse", "bidirectional")[seed % 3]
    count = 1 + (direction == "bidirectional")
    arrays = models.weights(rng, size_in, size, count)
    if rng.integers(3) == 0:
        del arrays["B"]
    attributes = {"direction": direction} if direction != "forward" or rng.integers(2) else {}
    if rng.integers(3):
        attributes["linear_before_reset"] = int(rng.integers(2))
    gate, candidate, alpha, beta = FORMS[seed % len(FORMS)]
    if seed % len(FORMS):
        attributes["activations"] = [gate, candidate] * count
        attributes |= {k: v * count for k, v in (("activation_alpha", alpha), ("activation_beta", beta)) if v}
    if seed % 4 == 0:
        attributes["clip"] = 0.5
    inputs = {"x": ["T", "B", size_in]}
    given = {"x": rng.normal(size=(4, 2, size_in)).astype(np.float32)}
    if rng.integers(2):
        attributes["lengths"], inputs["lengths"], given["lengths"] = "lengths", ["B"], np.array([3, 1], np.int32)
    if rng.integers(2):
        attributes["initial_h"], inputs["h0"] = "h0", [count, "B", size]
        given["h0"] = rng.normal(size=(count, 2, size)).astype(np.float32)
    node = models.gru_node(arrays, **attributes)
    built = models.model([node], arrays, inputs, ["Y", "Y_h"], opset=int(rng.integers(7, 23)))
    y, h_n = models.session(built).run(None, given)
    layer = load(models.saved(tmp_path, built), time_major=True)
    y_ours, h_ours = models.run(layer, given["x"], given.get("h0"), given.get("lengths"))
    models.close((y.transpose(0, 2, 1, 3).reshape(y_ours.shape), h_n), (y_ours, h_ours))

    again = initializers(export(layer, tmp_path / "again.onnx"))
    for name, array in arrays.items():
        assert array.tobytes() == again[f"{name}_0"].tobytes()
    back = load(tmp_path / "again.onnx")
    assert (back.spec.activation, back.spec.gate_activation) == (layer.spec.activation, layer.spec.gate_activation)


def test_clip_comes_as_an_activation_and_goes_back(tmp_path):
    arrays = models.weights(np.random.default_rng(0), 3, 4, 1)
    built = models.model([models.gru_node(arrays, clip=0.25)], arrays, X, ["Y"])
    layer = load(models.saved(tmp_path, built))
    assert layer.spec.activation == Activation("Tanh", clip=0.25)
    assert hash(layer.spec.gate_activation) == hash(Activation("Sigmoid", clip=0.25))
    node = next(one for one in onnx.load(export(layer, tmp_path / "b.onnx")).graph.node if one.op_type == "GRU")
    assert {a.name: a.f for a in node.attribute}["clip"] == 0.25


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_stays(dtype, tmp_path):
    arrays = models.weights(np.random.default_rng(0), 3, 4, 1, dtype)
    built = models.model([models.gru_node(arrays)], arrays, X, ["Y"], opset=22)
    w_x = load(models.saved(tmp_path, built)).functional()[1].w_x
    assert w_x.dtype == dtype
    assert np.asarray(w_x)[:, 8:].tobytes() == np.ascontiguousarray(arrays["W"][0, 8:].T).tobytes()


def test_double_precision_needs_it_in_jax(tmp_path):
    arrays = models.weights(np.random.default_rng(0), 3, 4, 1, np.float64)
    built = models.model([models.gru_node(arrays)], arrays, X, ["Y"], dtype=TensorProto.DOUBLE)
    with pytest.raises(TypeError, match="jax_enable_x64"):
        load(models.saved(tmp_path, built))


def constant(name, array, **kind):
    return helper.make_node("Constant", [], [name], **(kind or {"value": numpy_helper.from_array(np.asarray(array))}))


def test_weights_made_of_constants(tmp_path):
    """By Constant nodes, copies, casts, slices, joints, splits and moved axes, in the forms of old and new opsets."""
    arrays = models.weights(np.random.default_rng(0), 3, 4, 1)
    w, r, b = arrays["W"], arrays["R"], arrays["B"]
    expected = load(models.saved(tmp_path, models.model([models.gru_node(arrays)], arrays, X, ["Y"]))).functional()[1]
    for opset in (11, 17):
        axes = {"axes": [0]} if opset < 13 else {}
        more = [] if axes else ["zero"]
        nodes = [
            constant("zero", None, value_ints=[0]),
            constant("bounds", None, value_ints=[4, 12]),
            constant("last", np.array([12])),
            constant("four", None, value_ints=[4]),
            helper.make_node("Gather", ["stored_w", "order"], ["w_zrh"], axis=0),
            helper.make_node("Unsqueeze", ["w_zrh", *more], ["W"], **axes),
            helper.make_node("Slice", ["stored_r", "zero", "four", "one"], ["r_first"]),
            helper.make_node("Slice", ["stored_r", "four", "last", "one"], ["r_rest"]),
            helper.make_node("Concat", ["r_first", "r_rest"], ["r_joined"], axis=1),
            helper.make_node("Transpose", ["r_joined"], ["r_turned"], perm=[1, 0]),
            helper.make_node("Reshape", ["r_turned", "r_shape"], ["R"]),
            helper.make_node("Cast", ["stored_b"], ["b_cast"], to=TensorProto.FLOAT),
            helper.make_node("Identity", ["b_cast"], ["b_same"]),
            helper.make_node("Dropout", ["b_same"], ["B"]),
            models.gru_node(arrays),
        ]
        stored = {
            "stored_w": np.ascontiguousarray(w[0][::-1]),
            "order": np.arange(12)[::-1].copy(),
            "stored_r": np.ascontiguousarray(r[0].T),
            "one": np.array([1]),
            "r_shape": np.array([1, -1, 4]),
            "stored_b": b.astype(np.float64),
        }
        got = load(models.saved(tmp_path, models.model(nodes, stored, X, ["Y"], opset=opset))).functional()[1]
        for name, ours, theirs in zip(["w_x", "w_h", "b_x", "b_h"], got, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} at opset {opset}")


def two_nodes(between, rng, *, layout=0, directions=2, first=None, second=None):
    """Two GRU nodes with `between` (nodes from Y0 to x1) between them, and their arrays."""
    direction = {1: "forward", 2: "bidirectional"}[directions]
    low = models.weights(rng, 3, 4, directions)
    high = models.weights(rng, 4 * directions, 4, directions)
    layouts = {"layout": 1} if layout else {}
    nodes = [
        models.gru_node(low, "0", direction=direction, **layouts, **(first or {})),
        *between,
        models.gru_node(high, "1", "x1", direction=direction, **layouts, **(second or {})),
    ]
    return nodes, {f"{k}0": v for k, v in low.items()} | {f"{k}1": v for k, v in high.items()}


def make(*steps):
    """Nodes from Y0 to x1: (operator, attributes, further inputs) one after the other."""
    names = ["Y0", *(f"t{k}" for k in range(len(steps) - 1)), "x1"]
    return [
        helper.make_node(op, [before, *more], [after], name=f"{op}_{after}", **attributes)
        for (before, after), (op, attributes, *more) in zip(itertools.pairwise(names), steps, strict=True)
    ]


JOINTS = {
    "as torch": (2, 14, make(("Transpose", {"perm": [0, 2, 1, 3]}), ("Reshape", {}, "merge"))),
    "through batch first": (
        2,
        14,
        make(
            ("Transpose", {"perm": [2, 0, 1, 3]}),
            ("Reshape", {}, "merge"),
            ("Identity", {}),
            ("Dropout", {}),
            ("Transpose", {"perm": [1, 0, 2]}),
        ),
    ),
    "one direction, old Squeeze": (1, 11, make(("Squeeze", {"axes": [1]}))),
    "one direction, any Transpose": (1, 14, make(("Transpose", {"perm": [0, 2, 3, 1]}), ("Reshape", {}, "merge"))),
    "a shape of its own": (
        2,
        14,
        [
            *make(("Transpose", {"perm": [0, 2, 1, 3]}), ("Reshape", {}, "own"))[:1],
            helper.make_node("Shape", ["t0"], ["sizes"]),
            helper.make_node("Slice", ["sizes", "start", "two"], ["lead"]),
            helper.make_node("Concat", ["lead", "minus_one"], ["own"], axis=0),
            helper.make_node("Reshape", ["t0", "own"], ["x1"]),
        ],
    ),
    "the shape of x": (
        2,
        14,
        [
            helper.make_node("Transpose", ["Y0"], ["t0"], perm=[0, 2, 1, 3]),
            helper.make_node("Shape", ["x"], ["sizes"]),
            helper.make_node("Slice", ["sizes", "start", "two"], ["lead"]),
            helper.make_node("Concat", ["lead", "minus_one"], ["own"], axis=0),
            helper.make_node("Reshape", ["t0", "own"], ["x1"]),
        ],
    ),
}
SHAPES = {"merge": np.array([0, 0, -1]), "start": np.array([0]), "two": np.array([2]), "minus_one": np.array([-1])}


@pytest.mark.parametrize("how", JOINTS)
def test_nodes_that_feed_each_other_are_a_stack(how, tmp_path):
    directions, opset, between = JOINTS[how]
    rng = np.random.default_rng(len(how))
    nodes, arrays = two_nodes(between, rng, directions=directions)
    built = models.model(nodes, arrays | SHAPES, X, ["Y1"], opset=opset)
    path = models.saved(tmp_path, built)
    layer = load(path, time_major=True)
    assert (layer.spec.num_layers, layer.spec.bidirectional) == (2, directions == 2)
    x = rng.normal(size=(4, 2, 3)).astype(np.float32)
    y = models.session(built).run(None, {"x": x})[0].transpose(0, 2, 1, 3).reshape(4, 2, -1)
    models.close([models.run(layer, x)[0]], [y])
    assert load(path, node=["gru0", 1]).spec.num_layers == 2
    assert load(path, node="gru1").in_features == 4 * directions
    assert load(path, node=0).in_features == 3


def test_layout_1_is_the_same_layer(tmp_path):
    """onnxruntime refuses layout=1 on the CPU, so the same weights with layout=0 are what it is compared with."""
    rng = np.random.default_rng(3)
    last = make(("Reshape", {}, "merge"))
    nodes, arrays = two_nodes(last, rng, layout=1)
    one = load(models.saved(tmp_path, models.model(nodes, arrays | SHAPES, X, ["Y1"])))
    nodes[0].attribute.pop()
    for node in (nodes[0], nodes[-1]):
        kept = [a for a in node.attribute if a.name != "layout"]
        del node.attribute[:]
        node.attribute.extend(kept)
    nodes[1:2] = JOINTS["as torch"][2]
    other = load(models.saved(tmp_path, models.model(nodes, arrays | SHAPES, X, ["Y1"])))
    same_bits(one, other)


def test_shapes_fixed_by_the_exporter(tmp_path):
    nodes, arrays = two_nodes(JOINTS["as torch"][2], np.random.default_rng(0))
    arrays |= {"merge": np.array([7, 2, 8])}
    path = models.saved(tmp_path, models.model(nodes, arrays, {"x": [7, 2, 3]}, ["Y1"]))
    assert load(path).spec.num_layers == 2


APART = {
    "directions apart": make(("Reshape", {}, "merge")),
    "time and batch exchanged": make(("Transpose", {"perm": [2, 0, 1, 3]}), ("Reshape", {}, "merge")),
    "an activation": make(("Transpose", {"perm": [0, 2, 1, 3]}), ("Reshape", {}, "merge"), ("Relu", {})),
    "a skip": make(("Transpose", {"perm": [0, 2, 1, 3]}), ("Reshape", {}, "merge"), ("Add", {}, "x")),
    "a scale": make(("Transpose", {"perm": [0, 2, 1, 3]}), ("Reshape", {}, "merge"), ("Mul", {}, "half")),
    "the same input": [helper.make_node("Concat", ["x", "x", "x", "x", "x", "x", "x", "x"], ["x1"], axis=2)],
    "the final state": [helper.make_node("Reshape", ["Y_h0", "merge"], ["x1"])],
}


@pytest.mark.parametrize("how", APART)
def test_nodes_with_something_between_are_listed(how, tmp_path):
    nodes, arrays = two_nodes(APART[how], np.random.default_rng(0))
    arrays |= SHAPES | {"half": np.array(0.5, np.float32)}
    path = models.saved(tmp_path, models.model(nodes, arrays, X, ["Y1"]))
    listed = r"'gru0' \(3 to 4 features, bidirectional\), 'gru1' \(8 to 4"
    with pytest.raises(ValueError, match=f"2 GRU nodes that do not simply feed each other: {listed}"):
        load(path)
    with pytest.raises(ValueError, match=r"'gru1' is no layer right on top of 'gru0': .*; load them one by one"):
        load(path, node=["gru0", "gru1"])
    assert load(path, node="gru1").in_features == 8


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"linear_before_reset": 1}, "differ in reset"),
        ({"activations": ["Sigmoid", "Relu"] * 2}, "differ in activations"),
        ({"lengths": "lengths"}, "different sequence_lens"),
    ],
)
def test_layers_of_one_stack_share_their_options(second, message, tmp_path):
    nodes, arrays = two_nodes(JOINTS["as torch"][2], np.random.default_rng(0), second=second)
    path = models.saved(tmp_path, models.model(nodes, arrays | SHAPES, {**X, "lengths": ["B"]}, ["Y1"]))
    with pytest.raises(ValueError, match=f"{message}.*one by one"):
        load(path)
    assert load(path, node="gru1").spec.num_layers == 1


def test_a_stack_with_a_bias_in_one_layer_only(tmp_path):
    nodes, arrays = two_nodes(JOINTS["as torch"][2], np.random.default_rng(0))
    nodes[0].input[3] = ""
    built = models.model(nodes, arrays | SHAPES, X, ["Y1"])
    layer = load(models.saved(tmp_path, built), time_major=True)
    assert layer.spec.bias == "full"
    x = np.ones((2, 1, 3), np.float32)
    y = models.session(built).run(None, {"x": x})[0].transpose(0, 2, 1, 3).reshape(2, 1, -1)
    models.close([models.run(layer, x)[0]], [y])


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ("gru", ValueError, "no GRU node 'gru'; there are 'gru0' .*, 'gru1'"),
        (2, ValueError, "no GRU node 2"),
        (["gru0", "gru0"], ValueError, "no layer right on top of"),
        ([], TypeError, "node must be a name"),
        (1.5, TypeError, "node must be a name"),
        ([True], TypeError, "by name or place; got True"),
        ({"gru0": 1}, TypeError, "node must be a name"),
    ],
)
def test_choices_of_nodes_that_do_not_exist(choice, error, message, tmp_path):
    nodes, arrays = two_nodes(JOINTS["as torch"][2], np.random.default_rng(0))
    path = models.saved(tmp_path, models.model(nodes, arrays | SHAPES, X, ["Y1"]))
    with pytest.raises(error, match=message):
        load(path, node=choice)


def test_stored_initial_states_and_lengths_are_refused_unless_told(tmp_path):
    arrays = models.weights(np.random.default_rng(0), 3, 4, 1)
    many = helper.make_node("Expand", ["h", "shape"], ["h0"])
    zeros = helper.make_node("ConstantOfShape", ["shape"], ["h0"])
    stored = arrays | {"shape": np.array([1, 2, 4]), "lens": np.array([3, 1], np.int32)}
    for node, h, refused in (
        (many, np.ones((1, 1, 4), np.float32), True),
        (many, np.zeros((1, 1, 4), np.float32), False),
        (zeros, None, False),
    ):
        nodes = [node, models.gru_node(arrays, initial_h="h0")]
        path = models.saved(tmp_path, models.model(nodes, stored | ({} if h is None else {"h": h}), X, ["Y"]))
        if refused:
            with pytest.raises(ValueError, match="stored initial_h that is not zero.*ignore_initial_h=True"):
                load(path)
        assert load(path, ignore_initial_h=refused).in_features == 3
    path = models.saved(tmp_path, models.model([models.gru_node(arrays, lengths="lens")], stored, X, ["Y"]))
    with pytest.raises(ValueError, match=r"stored sequence_lens, \[1, 3\].*ignore_sequence_lens=True"):
        load(path)
    assert load(path, ignore_sequence_lens=True).in_features == 3
    full = stored | {"lens": np.array([5, 5], np.int32)}
    path = models.saved(
        tmp_path, models.model([models.gru_node(arrays, lengths="lens")], full, {"x": [5, 2, 3]}, ["Y"])
    )
    assert load(path).in_features == 3


def test_run_options_and_those_the_file_decides(tmp_path):
    layer = models.random_layer(np.random.default_rng(0), 3, 4, num_layers=2)
    path = export(layer, tmp_path / "gru.onnx")
    back = load(path, time_major=True, dropout=0.25, rngs=nnx.Rngs(0), padding="hold")
    assert (back.spec.time_major, back.spec.dropout, back.spec.padding) == (True, 0.25, "hold")
    for option in ("reverse", "hidden_features", "reset"):
        with pytest.raises(TypeError, match=f"{option} follows from what is loaded"):
            load(path, **{option: 1})
    with pytest.raises(TypeError, match="ignore_initial_h must be True or False"):
        load(path, ignore_initial_h=1)


def bad(**changes):
    """A model of one node with something wrong in it."""
    arrays = models.weights(np.random.default_rng(0), 3, 4, changes.pop("directions", 1))
    arrays |= changes.pop("arrays", {})
    return models.model([models.gru_node(arrays, **changes)], arrays, X, ["Y"])


WRONG = [
    (
        {"activations": ["Sigmoid", "Tanh", "Sigmoid", "Relu"], "direction": "bidirectional", "directions": 2},
        "other activations backward than forward, Sigmoid and Relu and Sigmoid and Tanh",
    ),
    ({"activations": ["Sigmoid", "Gelu"]}, "the activation 'Gelu'"),
    ({"activations": ["Sigmoid"]}, "1 activations; direction='forward' needs 2"),
    ({"activations": ["Sigmoid", "Affine"]}, "Affine has no default for alpha"),
    ({"activations": ["Sigmoid", "Elu"], "activation_alpha": [0.1, 0.2]}, "which belongs to which is open"),
    ({"clip": -1.0}, "clip must be above 0"),
    ({"direction": "sideways"}, "direction='sideways'"),
    ({"direction": 3}, "attribute direction of the wrong type; it must be STRING"),
    ({"hidden_size": 5}, r"W of shape \[1, 12, 3\], which does not fit direction='forward', hidden_size=5"),
    ({"direction": "bidirectional"}, r"W of shape \[1, 12, 3\], which does not fit"),
    ({"arrays": {"B": np.zeros((1, 12), np.float32)}}, r"B of shape \[1, 12\], which does not fit"),
    ({"arrays": {"R": np.zeros((12, 4), np.float32)}}, r"R of shape \[12, 4\] and type float32"),
    ({"arrays": {"R": np.zeros((1, 0, 0), np.float32)}}, "does not fit"),
    ({"arrays": {"B": np.zeros((1, 24), np.float64)}}, "W of float32 and B of float64"),
    ({"arrays": {"W": np.zeros((1, 12, 3), np.int8)}}, "W of shape .* and type int8"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_nodes_that_are_no_layer_here(changes, message, tmp_path):
    path = models.saved(tmp_path, bad(**dict(changes)))
    with pytest.raises(ValueError, match=f"(?s)^onnx.load: .*model.onnx: the GRU node 'gru'.*{message}"):
        load(path)


def test_weights_that_are_no_constants(tmp_path):
    arrays = models.weights(np.random.default_rng(0), 3, 4, 1)
    node = models.gru_node(arrays)
    for name in ("W", "R"):
        some = {k: v for k, v in arrays.items() if k != name}
        path = models.saved(tmp_path, models.model([node], some, {**X, name: None}, ["Y"]))
        with pytest.raises(ValueError, match=f"has {name} that is no constant of the model: it depends on the .*input"):
            load(path)
        path = models.saved(tmp_path, models.model([node], some, X, ["Y"]))
        with pytest.raises(ValueError, match="which nothing in the model makes"):
            load(path)
        tanh = helper.make_node("Tanh", ["stored"], [name], name="squash")
        path = models.saved(tmp_path, models.model([tanh, node], some | {"stored": arrays[name]}, X, ["Y"]))
        with pytest.raises(ValueError, match="comes from the node 'squash', a Tanh"):
            load(path)
    node.input[1] = ""
    with pytest.raises(ValueError, match="the GRU node 'gru' has no W"):
        load(models.saved(tmp_path, models.model([node], arrays, X, ["Y"])))


def torch_model(torch, batch_first, with_h0, **options):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(3, 4, batch_first=batch_first, **options)
            self.head = torch.nn.Linear(4 * (1 + options.get("bidirectional", False)), 2)

        def forward(self, x, h0=None):
            y, h_n = self.gru(x, h0) if with_h0 else self.gru(x)
            return y, h_n, self.head(y)

    torch.manual_seed(0)
    return Model().eval()


TORCH = [
    (True, {}),
    (False, {"num_layers": 3, "dropout": 0.5}),
    (True, {"num_layers": 2, "bidirectional": True}),
    (False, {"bidirectional": True, "bias": False}),
]


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn of their own deprecations
@pytest.mark.parametrize(
    "number, exporter",
    table(
        range(len(TORCH)), ("torchscript", "torchscript, not folded", "torch.export"),
        quick=lambda number, exporter: exporter == ("torchscript", "torch.export")[number % 2] and number != 1
        or (number, exporter) == (2, "torchscript, not folded"),
    ),
)  # fmt: skip
def test_models_that_torch_exports(exporter, number, tmp_path):
    batch_first, options = TORCH[number]
    torch = pytest.importorskip("torch")
    if exporter == "torch.export":
        pytest.importorskip("onnxscript")
    with_h0 = exporter != "torchscript"
    model = torch_model(torch, batch_first, with_h0, **options)
    layers = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    x, h0 = torch.randn(2, 5, 3), torch.randn(layers, 2 if batch_first else 5, 4)
    given = (x, h0) if with_h0 else (x,)
    path = os.fspath(tmp_path / "torch.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "torch.export":
            torch.onnx.export(model, given, path, dynamo=True, verbose=False)
        else:
            folded = {"do_constant_folding": exporter == "torchscript"}
            torch.onnx.export(model, given, path, dynamo=False, input_names=["x", "h0"][: len(given)], **folded)
    layer = load(path, time_major=not batch_first)
    y, h_n, _ = model(*given)
    ours = models.run(layer, x.numpy(), h0.numpy() if with_h0 else None)
    models.close(ours, (y.detach().numpy(), h_n.detach().numpy()))
    w_ih = model.gru.weight_ih_l0.detach().numpy()
    np.testing.assert_array_equal(jax.tree.leaves(layer.functional()[1])[0], w_ih.T)


def test_the_package_is_named_when_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    layer = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0))
    for call in (lambda: export(layer, tmp_path / "a"), lambda: load(tmp_path / "a")):
        with pytest.raises(ImportError, match=r"needs the package onnx; pip install 'gru-jax\[interop\]'"):
            call()
