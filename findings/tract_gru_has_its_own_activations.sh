#!/bin/sh
# tract 0.23.9, an ONNX GRU node with activations, or with clip.
#
# Guess: activations=["HardSigmoid", "Relu"] are computed, or refused with a message, as its RNN node refuses "Relu"; clip
# likewise.
#
# Seen: both attributes are ignored without a word. The numbers are those of a sigmoid and a tanh, without clipping, and
# with a Relu candidate the outputs are negative, which they cannot be.
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
shapes = {"W": (1, 12, 3), "R": (1, 12, 4), "B": (1, 24)}
weights = {name: (0.6 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
x = rng.normal(size=(5, 2, 3)).astype(np.float32)


def by_hand(gate, candidate, clip=np.inf):
    """The operator's text, linear_before_reset=1: Y [T, 1, B, H]."""
    w, r, b = (weights[name][0] for name in "WRB")
    h, y = np.zeros((2, 4), np.float32), []
    cut = lambda v: np.clip(v, -clip, clip)
    for one in x:
        a, c = one @ w.T + b[:12], h @ r.T + b[12:]
        z, reset = (gate(cut(a[:, at] + c[:, at])) for at in (slice(0, 4), slice(4, 8)))
        h = (1 - z) * candidate(cut(a[:, 8:] + reset * c[:, 8:])) + z * h
        y.append(h)
    return np.stack(y)[:, None]


def of_tract(**attributes):
    node = helper.make_node(
        "GRU", ["x", "W", "R", "B"], ["Y"], hidden_size=4, linear_before_reset=1, **attributes
    )
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    made = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [5, 1, 2, 4])]
    graph = helper.make_graph([node], "one", given, made, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "one.onnx")
    (y,) = tract.onnx().load("one.onnx").into_model().into_runnable().run([x])
    return y.to_numpy()


def off(a, b):
    return float(np.abs(a - b).max())


sigmoid = lambda v: 1 / (1 + np.exp(-v))
hard_sigmoid, relu = lambda v: np.clip(0.2 * v + 0.5, 0, 1), lambda v: np.maximum(v, 0)
usual = by_hand(sigmoid, np.tanh)
plain = of_tract()
asked = of_tract(activations=["HardSigmoid", "Relu"])
clipped = of_tract(clip=0.1)
print(f"without attributes {off(plain, usual):.1e} from sigmoid and tanh")
print(f"activations: {off(asked, usual):.1e} from sigmoid and tanh, {off(asked, by_hand(hard_sigmoid, relu)):.2f} from")
print(f"what was asked for; the least output is {asked.min():.2f}")
print(f"clip: {off(clipped, usual):.1e} from no clip, {off(clipped, by_hand(sigmoid, np.tanh, 0.1)):.2f} from clip=0.1")
assert off(plain, usual) < 1e-6 and off(asked, usual) < 1e-6 and asked.min() < 0, "it has changed"
assert off(asked, by_hand(hard_sigmoid, relu)) > 0.1, "it has changed"
assert off(clipped, usual) < 1e-6 and off(clipped, by_hand(sigmoid, np.tanh, 0.1)) > 0.1, "it has changed"
PYTHON
