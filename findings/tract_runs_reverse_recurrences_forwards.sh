#!/bin/sh
# tract 0.23.9, ONNX nodes GRU, LSTM and RNN with direction="reverse".
#
# Guess: they are run from the last step to the first, as its bidirectional ones are, or refused with a message.
#
# Seen: they are run from the first step to the last, without a word: the very numbers of direction="forward", in the
# outputs and in the last state. With direction="bidirectional" the second direction is right.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tract==0.23.9 onnx==1.23.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import tract
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
x = rng.normal(size=(5, 2, 3)).astype(np.float32)


def outputs(kind, x, direction, weights):
    node = helper.make_node(kind, ["x", "W", "R", "B"], ["Y", "Y_h"], hidden_size=4, direction=direction)
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    ways = len(weights["W"])
    sizes = {"Y": [len(x), ways, x.shape[1], 4], "Y_h": [ways, x.shape[1], 4]}
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    graph = helper.make_graph([node], "one", given, made, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, "one.onnx")
    loaded = tract.onnx().load("one.onnx").into_model().into_runnable()
    return [output.to_numpy() for output in loaded.run([x])]


def drawn(gates, directions):
    shapes = {"W": (directions, 4 * gates, 3), "R": (directions, 4 * gates, 4), "B": (directions, 8 * gates)}
    return {name: (0.6 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def off(a, b):
    return float(np.abs(a - b).max())


for kind, gates in (("GRU", 3), ("LSTM", 4), ("RNN", 1)):
    weights = drawn(gates, 1)
    forward, last = outputs(kind, x, "forward", weights)
    reverse, last_reverse = outputs(kind, x, "reverse", weights)
    # What reverse means: the same step over the turned sequence, with the outputs turned back.
    turned, last_turned = outputs(kind, x[::-1].copy(), "forward", weights)
    as_forward = max(off(reverse, forward), off(last_reverse, last))
    as_said = max(off(reverse, turned[::-1]), off(last_reverse, last_turned))
    twice = {name: np.concatenate([value, value]) for name, value in weights.items()}
    both, _ = outputs(kind, x, "bidirectional", twice)
    second = off(both[:, 1], turned[::-1, 0])
    print(f"{kind}: reverse is {as_forward:.1e} from forward, {as_said:.2f} from reverse; bidirectional {second:.1e}")
    assert as_forward < 1e-6 and as_said > 0.1 and second < 1e-6, "it has changed"
PYTHON
