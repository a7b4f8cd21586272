#!/bin/sh
# pnnx and ncnn 1.0.20261020, an ONNX GRU node that has a bias B and leaves initial_h out.
#
# Guess: the state before the first step is zero, as ONNX says.
#
# Seen: pnnx hands B to ncnn as the initial state and drops it as a bias (Y 0.76 off; Y_h comes in B's size, 24 instead of
# 4). With initial_h written out as zeros the same node is right to 1e-7.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pnnx==20261020 ncnn==1.0.20261020 onnx==1.23.2 torch==2.13.0
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

import subprocess
import sys
from pathlib import Path

import ncnn

x, seen = x[:, :1], {}
stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
stored += [numpy_helper.from_array(np.array([1]), "one"), numpy_helper.from_array(np.zeros((1, 1, 4), np.float32), "h0")]
wanted = gru(x)
for name, more in {"left_out": [], "zeros": ["", "h0"]}.items():
    nodes = [
        helper.make_node("Transpose", ["x"], ["x_t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["x_t", "W", "R", "B", *more], ["Y", "Y_h"], hidden_size=4, linear_before_reset=1),
        helper.make_node("Squeeze", ["Y", "one"], ["y_t"]),
        helper.make_node("Transpose", ["y_t"], ["y"], perm=[1, 0, 2]),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 3])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", 4])]
    made.append(helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, [1, "B", 4]))
    graph = helper.make_graph(nodes, "one", given, made, stored)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(built, full_check=True)
    onnx.save(built, f"{name}.onnx")
    tool = Path(sys.executable).with_name("pnnx")
    command = [tool, f"{name}.onnx", "inputshape=[1,5,3]", "fp16=0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    net = ncnn.Net()
    if net.load_param(f"{name}.ncnn.param") or net.load_model(f"{name}.ncnn.bin"):
        raise SystemExit("ncnn does not load what pnnx wrote")
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(np.ascontiguousarray(x[:, 0])).clone())
    y, final = (np.array(extractor.extract(out)[1]) for out in ("out0", "out1"))
    seen[name] = (off(y, wanted[0]), final.size)
    print(f"ncnn {ncnn.__version__}, initial_h {name}: Y is {seen[name][0]:.2g} off, Y_h has {final.size} numbers of 4")
right = seen["left_out"][0] > 0.1 and seen["left_out"][1] == 24 and seen["zeros"][0] < 1e-5 and seen["zeros"][1] == 4
raise SystemExit(0 if right else 1)
PYTHON
