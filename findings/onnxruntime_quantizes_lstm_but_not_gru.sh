#!/bin/sh
# onnxruntime 1.32.0, quantize_dynamic of recurrent layers (onnx 1.23.2).
#
# Guess: weights of LSTM, GRU and RNN nodes become int8, the file a quarter of its size; what is not served is named.
#
# Seen: an LSTM becomes a DynamicQuantizeLSTM, a quarter of the size. A GRU and an RNN stay as they are, float32 weights and
# all, although the call says nothing of it and ends as well; asked for by name (op_types_to_quantize=["GRU"]) it is the
# same. A product that follows is quantized: that is all that gets smaller.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import os

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

logging.disable(logging.WARNING)  # a hint to preprocess, the same for all three
rng = np.random.default_rng(0)
I, H = 128, 128


def model(op, gates):
    arrays = {"W": (1, gates * H, I), "R": (1, gates * H, H), "V": (H, 8)}
    draw = lambda shape: (0.1 * rng.normal(size=shape)).astype(np.float32)
    initializers = [numpy_helper.from_array(draw(shape), name) for name, shape in arrays.items()]
    extra = {"linear_before_reset": 1} if op == "GRU" else {}
    nodes = [
        helper.make_node(op, ["x", "W", "R"], ["", "h"], op, hidden_size=H, **extra),
        helper.make_node("MatMul", ["h", "V"], ["y"], "head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 2, I])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 8])
    graph = helper.make_graph(nodes, op, [x], [y], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    onnx.save(made, f"{op}.onnx")


seen = {}
for op, gates in {"LSTM": 4, "GRU": 3, "RNN": 1}.items():
    model(op, gates)
    for asked in (None, [op]):
        quantize_dynamic(f"{op}.onnx", "small.onnx", op_types_to_quantize=asked)
        onnxruntime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
        graph = onnx.load("small.onnx").graph
        floats = sum(numpy_helper.to_array(a).size for a in graph.initializer if a.data_type == TensorProto.FLOAT)
        share = os.path.getsize("small.onnx") / os.path.getsize(f"{op}.onnx")
        kinds = [node.op_type for node in graph.node]
        print(f"{op}, asked for {asked or 'all'}: {share:.2f} of the size, {floats} float32 numbers, {kinds}")
        seen[op, bool(asked)] = (op in kinds, floats > 2000, "MatMul" in kinds)
expected = {("LSTM", True): (False, False, True), ("LSTM", False): (False, False, False)}
expected |= {(op, asked): (True, True, asked) for op in ("GRU", "RNN") for asked in (True, False)}
as_seen = onnxruntime.__version__ == "1.32.0" and seen == expected
raise SystemExit(0 if as_seen else f"another behaviour: {seen}")
PYTHON
