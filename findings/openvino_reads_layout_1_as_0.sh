#!/bin/sh
# OpenVINO 2026.4.1, a GRU node with layout=1, whose X is [B, T, I] and whose Y is [B, T, D, H].
#
# Guess: it is computed, or refused with a message, as onnxruntime 1.32 does on the CPU.
#
# Seen: the attribute is ignored without a word. X [3, 5, 3] is read as 3 steps of 5 sequences, and Y comes as
# [3, 1, 5, 4], where ONNX's has shape [3, 5, 1, 4].
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2
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

import openvino as ov

onnx.save(model(["x", "W", "R", "B"], {"x": ["B", "T", 3]}, layout=1), "gru.onnx")
given = x.transpose(1, 0, 2).copy()
core = ov.Core()
found = core.compile_model(core.read_model("gru.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": given})
y = found["Y"]
wanted = gru(x)[0].transpose(1, 0, 2)[:, :, None]
print(f"openvino {ov.__version__}: X {list(given.shape)} gives Y {list(y.shape)}; ONNX's has {list(wanted.shape)}")
as_0 = off(y, gru(given)[0][:, None]) if y.shape == (3, 1, 5, 4) else 9.0
print(f"Y is that of layout=0 on the same numbers to {as_0:.2g}")
raise SystemExit(0 if as_0 < 1e-5 and y.shape != wanted.shape else 1)
PYTHON
