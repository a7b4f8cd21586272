"""Files for engines that ignore part of ONNX's GRU: what an export does without, and what a load must not overlook.

onnx's own evaluator stands for them: it ignores sequence_lens, as OpenVINO does while an axis is open.
"""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from gru_jax.interop.onnx import export, load  # noqa: E402

from ..interop import onnx_models as models  # noqa: E402

X = {"x": ["T", "B", 3]}
ARRAYS = models.weights(np.random.default_rng(0), 3, 4, 1)

RAGGED = [
    {"reverse": True, "reset": "before"},
    {"num_layers": 2, "bidirectional": True},
    {"bidirectional": True, "reverse": True, "padding": "hold", "time_major": True},
    {"num_layers": 2, "residual": True, "norm": "layer"},
    {"num_layers": 2, "residual": True, "norm": "rms", "padding": "hold"},
]
SELDOM = [
    {},
    {"bidirectional": True, "merge": "mean", "num_layers": 2, "bias": "none"},
    {"num_layers": 2, "residual": True, "reverse": True, "padding": "hold"},
    {"num_layers": 2, "norm": "rms", "bidirectional": True, "merge": "sum", "residual": True},
]


@pytest.mark.parametrize(
    "options, h0",
    [(one, index % 2 == 0) for index, one in enumerate(RAGGED)]
    + [pytest.param(one, index % 2 == 1, marks=pytest.mark.slow) for index, one in enumerate(RAGGED)]
    + [pytest.param(one, h0, marks=pytest.mark.slow) for one in SELDOM for h0 in (False, True)],
    ids=str,
)
def test_lengths_need_no_sequence_lens(options, h0, tmp_path):
    rng = np.random.default_rng(len(str(options)))
    features = 4 if options.get("residual") else 3  # so that the first sum has x itself in it
    layer = models.random_layer(rng, features, 4, **options)
    path = export(layer, tmp_path / "gru.onnx", lengths=True, h0=h0)
    grus = [node for node in onnx.load(path).graph.node if node.op_type == "GRU"]
    assert all(not node.input[4] and node.input[5] for node in grus)
    given = models.draw(rng, layer, 3, 5)
    if not h0:
        del given["h0"]
    given["x"] = np.where(past(given, layer), np.nan, given["x"])  # what stands at padding counts for nothing
    wanted = models.run(layer, **given)
    models.close(models.session(path).run(["y", "h_n"], given), wanted, 1e-6)
    models.close(ReferenceEvaluator(str(path)).run(["y", "h_n"], given), wanted, 1e-6)


def past(given, layer):
    steps = given["x"].shape[0 if layer.spec.time_major else 1]
    after = np.arange(steps) >= given["lengths"][:, None]
    return (after.T if layer.spec.time_major else after)[..., None]


def test_lengths_out_of_range_act_as_the_nearest(tmp_path):
    layer = models.random_layer(np.random.default_rng(0), 3, 4, bidirectional=True)
    session = models.session(export(layer, tmp_path / "gru.onnx", lengths=True))
    x = np.ones((3, 5, 3), np.float32)
    far, near = (session.run(None, {"x": x, "lengths": np.array(n, np.int32)}) for n in ([-2, 9, 3], [0, 5, 3]))
    models.close(far, near, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "norm": "layer"},
        pytest.param({"reverse": True, "padding": "hold"}, marks=pytest.mark.slow),
    ],
)
def test_the_compact_form_hands_lengths_to_the_node(options, tmp_path):
    rng = np.random.default_rng(1)
    layer = models.random_layer(rng, 3, 4, **options)
    path = export(layer, tmp_path / "gru.onnx", h0=True, lengths=True, sequence_lens=True)
    grus = [node for node in onnx.load(path).graph.node if node.op_type == "GRU"]
    assert [node.input[4] for node in grus] == ["lengths"] * layer.spec.num_layers
    given = models.draw(rng, layer, 3, 5)
    models.close(models.session(path).run(None, given), models.run(layer, **given), 1e-6)
    with pytest.raises(ValueError, match="sequence_lens=True says how lengths are written; got lengths=False"):
        export(layer, path, sequence_lens=True)


def test_a_file_without_states_has_zeros_for_them(tmp_path):
    """pnnx takes the bias for a missing initial_h."""
    layer = models.random_layer(np.random.default_rng(0), 3, 4, num_layers=2, bidirectional=True, time_major=True)
    graph = onnx.load(export(layer, tmp_path / "gru.onnx")).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    assert {makers[node.input[5]] for node in graph.node if node.op_type == "GRU"} == {"ConstantOfShape"}


def test_two_nodes_of_one_layer_come_back_as_one(tmp_path):
    rng = np.random.default_rng(2)
    for options in ({"num_layers": 3, "bidirectional": True}, {"bidirectional": True, "bias": "none"}):
        layer = models.random_layer(rng, 3, 4, **options)
        path = export(layer, tmp_path / "gru.onnx", lengths=True)
        back = load(path)
        assert (back.spec.num_layers, back.spec.bidirectional) == (layer.spec.num_layers, True)
        given = models.draw(rng, layer, 2, 4)
        del given["h0"]
        models.close(models.run(back, **given), models.run(layer, **given), 0)
    assert load(path, node=1).spec.reverse
    assert not load(path, node=1).spec.bidirectional


def reversal(*, axis=0, start=-1, end=-(2**62), constant=False, axes=True, after=(), x="x"):
    """Slice with a negative step on one axis, from `x` to `xr`, and what stands behind it."""
    stored = {"starts": [start], "ends": [end], "axes": [axis], "steps": [-1]}
    if not axes:
        stored = {"starts": [0] * axis + [start], "ends": [2**62] * axis + [end], "steps": [1] * axis + [-1]}
    made = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))
        for name, value in stored.items()
    ]
    given = ["starts", "ends", "axes" if axes else "", "steps"]
    last = "t0" if after else "xr"
    nodes = [helper.make_node("Slice", [x, *given], [last], name="turn"), *after]
    return [*made, *nodes] if constant else nodes, {} if constant else {k: np.array(v) for k, v in stored.items()}


def node(op, *inputs, out="xr", **attributes):
    return helper.make_node(op, list(inputs), [out], name="turn", **attributes)


BATCH_FIRST = {"x": ["B", "T", 3]}
MOVE = [helper.make_node("Transpose", ["t0"], ["xr"], perm=[1, 0, 2])]
DOWN = np.arange(5)[::-1].copy()
TURNED = {
    "initializers": (*reversal(), X, "time"),
    "constants, negative axis, its own ends": (*reversal(axis=-3, start=6, end=-9, constant=True), X, "time"),
    "no axes": (*reversal(axes=False), X, "time"),
    "batch first": (*reversal(axis=1, after=MOVE), BATCH_FIRST, "time"),
    "the batch": (*reversal(axis=0, after=MOVE), BATCH_FIRST, "another axis"),
    "the features": (*reversal(axis=2), X, "another axis"),
    "ReverseSequence": (
        [node("ReverseSequence", "x", "lengths", time_axis=0, batch_axis=1)], {}, X | {"lengths": ["B"]}, "time"
    ),
    "Gather": ([node("Gather", "x", "down", axis=0)], {"down": DOWN}, X, "time"),
    "Range": (
        [
            helper.make_node("Shape", ["x"], ["sizes"]),
            helper.make_node("Gather", ["sizes", "zero"], ["steps"]),
            helper.make_node("Add", ["steps", "back"], ["last"]),
            helper.make_node("Range", ["last", "back", "back"], ["down"]),
            node("Gather", "x", "down"),
        ],
        {"zero": np.array(0), "back": np.array(-1)},
        X,
        "time",
    ),
    "before a product": (
        *(lambda nodes, stored: (nodes, stored | {"eye": np.eye(3, dtype=np.float32)}))(
            *reversal(after=[helper.make_node("MatMul", ["t0", "eye"], ["xr"])])
        ),
        X,
        "time",
    ),
}


@pytest.mark.parametrize("how", TURNED)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_reversal_outside_of_the_node_is_not_dropped(how, direction, tmp_path):
    nodes, stored, inputs, axis = TURNED[how]
    gru = models.gru_node(ARRAYS, x="xr", direction=direction)
    built = models.model([*nodes, gru], ARRAYS | stored, inputs, ["Y", "Y_h"], opset=17)
    path = models.saved(tmp_path, built)
    own = direction == "reverse"
    message = f"the GRU node 'gru' reads x turned around along {axis}, by the .* 'turn' .*pass reverse={own}, and turn"
    with pytest.raises(ValueError, match=message):
        load(path)
    assert load(path, reverse=own).spec.reverse == own
    if axis == "time" and how not in ("Range", "ReverseSequence"):  # onnxruntime 1.32 runs neither of the two
        x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
        given = {"x": x.swapaxes(0, 1).copy() if inputs is BATCH_FIRST else x}
        y, h_n = models.session(built).run(None, given)
        models.close((y[::-1, 0], h_n), models.run(load(path, reverse=not own, time_major=True), x))


def test_slices_that_turn_nothing_are_no_reversal(tmp_path):
    forward, stored = reversal()
    for steps, axes in (([1], [0]), ([2], [0]), ([1], [2])):
        stored |= {"starts": np.array([0]), "ends": np.array([3]), "steps": np.array(steps), "axes": np.array(axes)}
        built = models.model([*forward, models.gru_node(ARRAYS, x="xr")], ARRAYS | stored, X, ["Y"])
        assert not load(models.saved(tmp_path, built)).spec.reverse
    # Around what only computes with other axes: channels that are turned before a convolution are no business of time.
    turned, stored = reversal(axis=2, after=[helper.make_node("MatMul", ["t0", "eye"], ["xr"])])
    arrays = ARRAYS | stored | {"eye": np.eye(3, dtype=np.float32)}
    built = models.model([*turned, models.gru_node(ARRAYS, x="xr")], arrays, X, ["Y"])
    assert not load(models.saved(tmp_path, built)).spec.reverse


def test_a_reversal_between_two_nodes(tmp_path):
    low, high = (models.weights(np.random.default_rng(k), size, 4, 1) for k, size in ((0, 3), (1, 4)))
    squeeze = helper.make_node("Squeeze", ["Y0", "one"], ["t"])
    turn, stored = reversal(x="t")
    nodes = [models.gru_node(low, "0"), squeeze, *turn, models.gru_node(high, "1", "xr")]
    arrays = {f"{k}0": v for k, v in low.items()} | {f"{k}1": v for k, v in high.items()} | stored
    path = models.saved(tmp_path, models.model(nodes, arrays | {"one": np.array([1])}, X, ["Y1"]))
    with pytest.raises(ValueError, match="2 GRU nodes that do not simply feed each other"):
        load(path)
    with pytest.raises(ValueError, match="'gru1' reads x turned around along time, by the Slice 'turn'"):
        load(path, node="gru1")
    assert load(path, node="gru0").spec.reverse is False
    assert load(path, node="gru1", reverse=True).spec.reverse


@pytest.mark.parametrize("resets", [(0,), (1, 0)])
def test_a_file_of_a_faulty_exporter_is_told(resets, tmp_path):
    """torch.nn.GRU has no reset before the product, whatever a file of torch's says."""
    nodes = [models.gru_node(ARRAYS, str(k), linear_before_reset=reset) for k, reset in enumerate(resets)]
    arrays = {f"{name}{k}": value for name, value in ARRAYS.items() for k in range(len(resets))}
    built = models.model(nodes, arrays, X, ["Y0"])
    path = models.saved(tmp_path, built)
    last = len(resets) - 1
    assert load(path, node=last).spec.reset == "before"  # another producer may mean it
    built.producer_name = "pytorch"
    with pytest.warns(UserWarning, match=f"'gru{last}' has linear_before_reset=0.*torch.nn.GRU computes reset='after'"):
        layer = load(models.saved(tmp_path, built), node=last)
    assert layer.spec.reset == "before"
    if last:
        assert load(path, node=0).spec.reset == "after"


def test_nodes_that_lack_what_they_need_are_named(tmp_path):
    """Each node of a valid file in turn without inputs, without outputs, or with another's."""
    nodes, stored = reversal(after=[helper.make_node("Dropout", ["t0"], ["xr"])])
    unsqueeze = helper.make_node("Unsqueeze", ["w", "axis"], ["W"], name="wide")
    same = [helper.make_node("Identity", ["h"], ["h0"]), helper.make_node("Cast", ["lens"], ["lengths"], to=6)]
    gru = models.gru_node(ARRAYS, x="xr", initial_h="h0", lengths="lengths")
    some = {k: v for k, v in ARRAYS.items() if k != "W"} | stored
    arrays = some | {"w": ARRAYS["W"][0], "axis": np.array([0]), "h": np.zeros((1, 1, 4), np.float32)}
    built = models.model([*nodes, unsqueeze, *same, gru], arrays | {"lens": np.array([2], np.int64)}, X, ["Y"])
    told = {"ignore_sequence_lens": True, "reverse": False}
    assert load(models.saved(tmp_path, built), **told).in_features == 3
    for place in range(len(built.graph.node)):
        for field in ("input", "output"):
            for change in ([], ["nothing"], ["W"], ["x"], [""]):
                damaged = onnx.ModelProto.FromString(built.SerializeToString())
                names = getattr(damaged.graph.node[place], field)
                del names[:]
                names.extend(change)
                path = models.saved(tmp_path, damaged)
                try:
                    load(path, **told)
                except (ValueError, TypeError) as error:
                    assert str(error).startswith("onnx.load: "), error
                    assert "\n" not in str(error)

