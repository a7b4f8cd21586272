#!/bin/sh
# onnxruntime 1.32.0 and onnx 1.23.2, the candidate's activation ThresholdedRelu in a GRU node without activation_alpha.
#
# Guess: alpha is 1, for ONNX says of activation_alpha that its defaults are those of the operators, and the operator
# ThresholdedRelu has 1.0.
#
# Seen: the operator by itself takes 1, the GRU takes 0 (Y 0.65 off from 1, 2e-7 from 0). With activation_alpha=[1.0]
# written out the GRU is right. LeakyRelu, likewise, has the operator's 0.01 in both.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2
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

import onnxruntime

print("default of the operator ThresholdedRelu:", onnx.defs.get_schema("ThresholdedRelu").attributes["alpha"].default_value.f)


def run(**attributes):
    built = model(["x", "W", "R", "B"], {"x": ["T", "B", 3]}, **attributes)
    return onnxruntime.InferenceSession(built.SerializeToString()).run(["Y"], {"x": x})[0]


above = lambda alpha: gru(x, activation=lambda v: np.where(v > alpha, v, 0))[0]
leaky = gru(x, activation=lambda v: np.where(v > 0, v, 0.01 * v))[0]
missing, stated = (run(activations=["Sigmoid", "ThresholdedRelu"], **a) for a in ({}, {"activation_alpha": [1.0]}))
seen = {
    "without alpha, from alpha=1": off(missing, above(1)),
    "without alpha, from alpha=0": off(missing, above(0)),
    "alpha=1 written, from alpha=1": off(stated, above(1)),
    "LeakyRelu without alpha, from 0.01": off(run(activations=["Sigmoid", "LeakyRelu"]), leaky),
}
for what, value in seen.items():
    print(f"onnxruntime {onnxruntime.__version__}, {what}: Y is {value:.2g} off")
first, *rest = seen.values()
raise SystemExit(0 if first > 0.1 and max(rest) < 1e-5 else 1)
PYTHON
