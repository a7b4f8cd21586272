#!/bin/sh
# onnx 1.23.2, its ReferenceEvaluator on a GRU node with sequence_lens, with other activations, and with clip.
#
# Guess: the reference implementation computes what the operator's text says, or refuses what it does not have.
#
# Seen: all three are ignored without a word: Y with lengths is 0.76 off, with Relu as candidate 0.76; with clip=0.5 too it
# is the plain node's Y, to the last bit. The plain node is right to 1e-7.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
weights = {"W": rng.normal(size=(1, 12, 3)), "R": rng.normal(size=(1, 12, 4)), "B": rng.normal(size=(1, 24))}
weights = {name: (0.6 * value).astype(np.float32) for name, value in weights.items()}


def gru(x, steps=None, h=None, activation=np.tanh):
    """The operator's text, linear_before_reset=1, one direction: (Y [T, B, H], Y_h [B, H])."""
    w, r, b = weights["W"][0], weights["R"][0], weights["B"][0]
    h = np.zeros((x.shape[1], 4), np.float32) if h is None else h
    steps = np.full(x.shape[1], len(x)) if steps is None else steps
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    y = np.zeros((*x.shape[:2], 4), np.float32)
    for t, one in enumerate(x):
        a, c = one @ w.T + b[:12], h @ r.T + b[12:]
        z, reset = sigmoid(a[:, :4] + c[:, :4]), sigmoid(a[:, 4:8] + c[:, 4:8])
        new = (1 - z) * activation(a[:, 8:] + reset * c[:, 8:]) + z * h
        h = np.where((t < steps)[:, None], new, h)
        y[t] = np.where((t < steps)[:, None], new, 0)
    return y, h


def model(inputs, shapes, **attributes):
    node = helper.make_node("GRU", inputs, ["Y", "Y_h"], hidden_size=4, linear_before_reset=1, **attributes)
    types = {"lengths": TensorProto.INT32}
    given = [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()]
    sizes = {"Y": ["a", "b", "c", 4], "Y_h": ["d", "e", 4]}
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items()]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "one", given, made, stored)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(built, full_check=True)
    return built


def off(found, wanted):
    return float(np.abs(np.asarray(found).reshape(wanted.shape) - wanted).max())


x = rng.normal(size=(5, 3, 3)).astype(np.float32)
lengths = np.array([5, 2, 3], np.int32)

from onnx.reference import ReferenceEvaluator

plain = ReferenceEvaluator(model(["x", "W", "R", "B"], {"x": ["T", "B", 3]})).run(["Y"], {"x": x})[0]
print(f"onnx {onnx.__version__}, plain: Y is {off(plain, gru(x)[0]):.2g} off")
relu = gru(x, activation=lambda v: np.maximum(v, 0))[0]
cases = {
    "sequence_lens": (["x", "W", "R", "B", "lengths"], {}, gru(x, lengths)[0]),
    "Relu": (["x", "W", "R", "B"], {"activations": ["Sigmoid", "Relu"]}, relu),
    "clip": (["x", "W", "R", "B"], {"clip": 0.5}, None),
}
same = off(plain, gru(x)[0]) < 1e-5
for name, (inputs, attributes, wanted) in cases.items():
    shapes = {"x": ["T", "B", 3], "lengths": ["B"]} if "lengths" in inputs else {"x": ["T", "B", 3]}
    given = {"x": x, "lengths": lengths} if "lengths" in inputs else {"x": x}
    found = ReferenceEvaluator(model(inputs, shapes, **attributes)).run(["Y"], given)[0]
    same &= bool((found == plain).all()) and (wanted is None or off(found, wanted) > 0.1)
    far = "" if wanted is None else f", {off(found, wanted):.2g} off from the text"
    print(f"{name}: Y is the plain node's: {(found == plain).all()}{far}")
raise SystemExit(0 if same else 1)
PYTHON
