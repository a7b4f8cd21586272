"""A plan as an ONNX graph."""

from typing import TYPE_CHECKING

import numpy as np

from gru_jax.between import Norm
from gru_jax.cells import GRUParams
from gru_jax.interop.neutral import full_biases, swapped
from gru_jax.interop.onnx import activations
from gru_jax.interop.onnx.graph import Builder
from gru_jax.interop.onnx.plan import Plan
from gru_jax.interop.onnx.ragged import Ragged
from gru_jax.types import Options

if TYPE_CHECKING:
    from onnx import ModelProto


def model(
    who: str, plan: Plan, *, h0: bool, lengths: bool, sequence_lens: bool, opset: int, producer: tuple[str, str]
) -> "ModelProto":
    """The model of a plan; see `export` for its inputs and outputs."""
    g = Builder(who)
    helper, types = g.onnx.helper, g.onnx.TensorProto
    layers, size = len(plan.layers), plan.cell.hidden_size
    h_shape = [layers * plan.directions, "batch", size]
    leading = ["time", "batch"] if plan.time_major else ["batch", "time"]
    inputs = [helper.make_tensor_value_info("x", types.FLOAT, [*leading, plan.input_size])]
    if h0:
        inputs.append(helper.make_tensor_value_info("h0", types.FLOAT, h_shape))
    if lengths:
        inputs.append(helper.make_tensor_value_info("lengths", types.INT32, ["batch"]))

    x = "x" if plan.time_major else g.node("Transpose", "x", perm=[1, 0, 2])
    starts = _starts(g, plan) if h0 else [_zeros(g, plan)] * layers
    # What stands in padding after a norm or a residual sum no GRU node knows of.
    adds = plan.residual or plan.norm is not None
    ragged = Ragged(g, x) if lengths and (adds or not sequence_lens) else None
    finals = []
    for index in range(layers):
        if ragged is None or sequence_lens:
            y, final = _layer(g, plan, index, x, starts[index], "lengths" if lengths else "")
        else:
            y, final = _ragged_layer(g, plan, index, x, starts[index], ragged)
        finals.append(final)
        if plan.norm is not None:
            y = normalized(g, plan.norm, plan.norms[index], index, y, opset)
        features = plan.input_size if index == 0 else plan.output_size
        if plan.residual and features == plan.output_size:
            if ragged is not None and plan.padding == "hold" and index == 0:
                x = ragged.held(x, features, backward=plan.reverse)
            y = g.node("Add", y, x)
        x = y
    if ragged is not None and adds and plan.padding == "zero":
        x = ragged.zeroed(x)
    g.output(x if plan.time_major else g.node("Transpose", x, perm=[1, 0, 2]), "y")
    g.output(finals[0] if layers == 1 else g.node("Concat", *finals, axis=0), "h_n")

    outputs = [
        helper.make_tensor_value_info("y", types.FLOAT, [*leading, plan.output_size]),
        helper.make_tensor_value_info("h_n", types.FLOAT, h_shape),
    ]
    graph = helper.make_graph(g.nodes, "gru", inputs, outputs, list(g.constants.values()))
    opsets = [helper.make_opsetid("", opset)]
    # The oldest version of the file format that has this opset: older runtimes read it too.
    version = helper.find_min_ir_version_for(opsets)
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=version, producer_name=producer[0], producer_version=producer[1]
    )


def _starts(g: Builder, plan: Plan) -> list[str]:
    """The states before the first step, one tensor `[D, B, H]` a layer."""
    count = len(plan.layers)
    if count == 1:
        return ["h0"]
    return g.node("Split", "h0", g.constant("each_layer", [plan.directions] * count), outputs=count, axis=0)


def _zeros(g: Builder, plan: Plan) -> str:
    """Zero states `[D, B, H]` of one layer.

    ONNX takes zeros where a node has no initial_h; pnnx takes the bias for it.
    """
    batch = g.node("Gather", g.node("Shape", "x"), g.constant("batch_axis", [1 if plan.time_major else 0]), axis=0)
    rows, units = g.constant("directions", [plan.directions]), g.constant("units", [plan.cell.hidden_size])
    # The value that it has by itself, written out: tract 0.23 takes that for a double.
    zero = g.onnx.numpy_helper.from_array(np.zeros(1, np.float32))
    return g.node("ConstantOfShape", g.node("Concat", rows, batch, units, axis=0), value=zero)


def _gru(
    g: Builder,
    plan: Plan,
    name: str,
    direction: str,
    params: tuple[GRUParams, ...],
    x: str,
    start: str,
    lengths: str = "",
) -> tuple[str, str]:
    """One node: Y `[T, D, B, H]` and Y_h `[D, B, H]`."""
    cell = plan.cell
    weights = [
        g.constant(f"{letter}_{name}", np.stack([swapped(getattr(p, field)).T for p in params]), np.float32)
        for letter, field in (("W", "w_x"), ("R", "w_h"))
    ]
    bias = ""
    if params[0].b_x is not None:
        both = [[swapped(b) for b in full_biases(p, cell.hidden_size)] for p in params]
        bias = g.constant(f"B_{name}", np.stack([np.concatenate(b) for b in both]), np.float32)
    gate, candidate = (
        activations.of("onnx.export", option, getattr(cell, option)) for option in ("gate_activation", "activation")
    )
    attributes: Options = activations.attributes([gate, candidate] * len(params))
    if gate.clip is not None:
        attributes["clip"] = gate.clip
    y, final = g.node(
        "GRU",
        *(x, *weights, bias, lengths, start),
        outputs=2,
        direction=direction,
        hidden_size=cell.hidden_size,
        linear_before_reset=int(cell.reset == "after"),
        **attributes,
    )
    return y, final


def _layer(g: Builder, plan: Plan, index: int, x: str, start: str, lengths: str) -> tuple[str, str]:
    """One layer by one node: y `[T, B, F]` and its final states `[D, B, H]`, the directions in our order."""
    params = plan.layers[index][::-1] if plan.swapped else plan.layers[index]
    direction = "bidirectional" if len(params) == 2 else ("reverse" if plan.reverse else "forward")
    start = _exchanged(g, plan, start, 0)
    y, final = _gru(g, plan, str(index), direction, params, x, start, lengths)
    if lengths:
        # A sequence of length 0 ends where it started; in runtimes it ends in zeros.
        empty = g.node("Equal", "lengths", g.constant("no_steps", 0, np.int32))
        final = g.node("Where", g.node("Unsqueeze", empty, g.constant("second_axis", [1])), start, final)
    if lengths and plan.padding == "hold":
        y = _held(g, direction, y, start, final)
    return _joined(g, plan, _exchanged(g, plan, y, 1)), _exchanged(g, plan, final, 0)


def _ragged_layer(g: Builder, plan: Plan, index: int, x: str, start: str, ragged: Ragged) -> tuple[str, str]:
    """`_layer` for sequences of different lengths without sequence_lens, one node for each direction."""
    count, params = plan.directions, plan.layers[index]
    features = plan.input_size if index == 0 else plan.output_size
    size = plan.cell.hidden_size
    starts = [start]
    if count == 2:
        starts = g.node("Split", start, g.constant("each_direction", [1, 1]), outputs=2, axis=0)
    outputs, finals = [], []
    for place, one in enumerate(params):
        backward = plan.reverse != (place == 1)
        direction = "reverse" if backward else "forward"
        name = str(index) if count == 1 else f"{index}_{direction}"
        begun = starts[place]
        given = ragged.to_the_end(x, features) if backward else x
        y, _ = _gru(g, plan, name, direction, (one,), given, begun)
        y = g.node("Squeeze", y, g.constant("second_axis", [1]))
        y = ragged.to_the_start(y, size) if backward else y
        final = ragged.final(y, size, begun, backward=backward)
        # Past its length a sequence holds the final state forwards; backwards, still the first one.
        rest = (begun if backward else final) if plan.padding == "hold" else g.constant("zero", 0, np.float32)
        outputs.append(g.node("Where", ragged.inside, y, rest))
        finals.append(final)
    if count == 1:
        return outputs[0], finals[0]
    y = g.node("Concat", *outputs, axis=2) if plan.merge == "concat" else merged(g, plan.merge, outputs)
    return y, g.node("Concat", *finals, axis=0)


def _exchanged(g: Builder, plan: Plan, tensor: str, axis: int) -> str:
    """The two directions in the other order, where ours is not ONNX's."""
    return g.node("Gather", tensor, g.constant("exchange", [1, 0]), axis=axis) if plan.swapped else tensor


def _held(g: Builder, direction: str, y: str, start: str, final: str) -> str:
    """y `[T, D, B, H]` with the state after the length: forwards the final one, backwards still the first."""
    runs_forward = {"forward": [True], "reverse": [False], "bidirectional": [True, False]}[direction]
    forward = g.constant("forward", np.reshape(runs_forward, (-1, 1, 1)), bool)
    held = g.node("Where", forward, final, start)
    steps = g.node("Gather", g.node("Shape", y), g.constant("first", 0), axis=0)
    time = g.node("Range", g.constant("first", 0), steps, g.constant("one", 1))
    time = g.node("Unsqueeze", time, g.constant("behind_time", [1, 2, 3]))
    ends = g.node("Unsqueeze", g.node("Cast", "lengths", to=g.onnx.TensorProto.INT64), g.constant("second_axis", [1]))
    return g.node("Where", g.node("Less", time, ends), y, held)


def _joined(g: Builder, plan: Plan, y: str) -> str:
    """`[T, D, B, H]` to `[T, B, D H]`, or to the merge of the two directions, `[T, B, H]`."""
    if plan.directions == 1:
        return g.node("Squeeze", y, g.constant("second_axis", [1]))
    if plan.merge == "concat":
        side_by_side = g.node("Transpose", y, perm=[0, 2, 1, 3])
        return g.node("Reshape", side_by_side, g.constant("joined", [0, 0, plan.output_size]))
    both = [g.node("Gather", y, g.constant(name, k), axis=1) for k, name in enumerate(("first", "one"))]
    return merged(g, plan.merge, both)


def merged(g: Builder, merge: str, both: list[str]) -> str:
    """The two directions, `[T, B, H]` each, as one by a merge that is none of "concat"."""
    joined = g.node("Mul" if merge == "mul" else "Add", *both)
    return g.node("Div", joined, g.constant("two", 2, np.float32)) if merge == "mean" else joined


def normalized(g: Builder, kind: str, norm: Norm, index: int, y: str, opset: int) -> str:
    """Layer or RMS normalisation of `[T, B, F]` over F; `index` tells those of one graph apart."""

    def mean(tensor: str) -> str:
        if opset < 18:
            return g.node("ReduceMean", tensor, axes=[-1], keepdims=1)
        return g.node("ReduceMean", tensor, g.constant("features", [-1]), keepdims=1)

    if kind == "layer" and opset >= 17:
        scale = g.constant(f"scale_{index}", norm.scale, np.float32)
        bias = g.constant(f"bias_{index}", norm.bias, np.float32)  # type: ignore[arg-type]  # there is one
        return g.node("LayerNormalization", y, scale, bias, axis=-1, epsilon=1e-6)
    if kind == "layer":
        y = g.node("Sub", y, mean(y))
    square = g.node("Add", mean(g.node("Mul", y, y)), g.constant("epsilon", 1e-6, np.float32))
    y = g.node("Div", y, g.node("Sqrt", square))
    y = g.node("Mul", y, g.constant(f"scale_{index}", norm.scale, np.float32))
    return y if norm.bias is None else g.node("Add", y, g.constant(f"bias_{index}", norm.bias, np.float32))
