"""A plan as an ONNX graph."""

from typing import Any

import numpy as np

from gru_jax.cells import GRUParams
from gru_jax.interop.neutral import full_biases, swapped
from gru_jax.interop.onnx import activations
from gru_jax.interop.onnx.package import onnx
from gru_jax.interop.onnx.plan import Plan


class Builder:
    """Nodes and constants as they come, every tensor under a name that follows from its place."""

    def __init__(self, who: str) -> None:
        self.onnx = onnx(who)
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns its output's name, or a list of them."""
        stem = f"{op.lower()}_{len(self.nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{index}" for index in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, name=stem, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        """Adds a constant; returns its name."""
        # Little-endian bytes, whatever the machine: the same layer gives the same file.
        array = np.array(value, dtype)
        self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def output(self, tensor: str, name: str) -> None:
        """Renames a tensor to an output of the graph."""
        for node in self.nodes:
            for names in (node.input, node.output):
                renamed = [name if one == tensor else one for one in names]
                del names[:]
                names.extend(renamed)


def model(who: str, plan: Plan, *, h0: bool, lengths: bool, opset: int, producer: tuple[str, str]) -> Any:
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
    starts = _starts(g, plan) if h0 else [""] * layers
    finals = []
    for index, params in enumerate(plan.layers):
        y, final = _layer(g, plan, index, x, params, starts[index], lengths)
        finals.append(final)
        y = _joined(g, plan, y)
        if plan.norm is not None:
            y = _normalized(g, plan, index, y, opset)
        features = plan.input_size if index == 0 else plan.output_size
        x = g.node("Add", y, x) if plan.residual and features == plan.output_size else y
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
    starts = ["h0"]
    if count > 1:
        starts = g.node("Split", "h0", g.constant("each_layer", [plan.directions] * count), outputs=count, axis=0)
    return [_exchanged(g, plan, start, 0) for start in starts]


def _exchanged(g: Builder, plan: Plan, tensor: str, axis: int) -> str:
    """The two directions in the other order, where ours is not ONNX's."""
    return g.node("Gather", tensor, g.constant("exchange", [1, 0]), axis=axis) if plan.swapped else tensor


def _layer(
    g: Builder, plan: Plan, index: int, x: str, params: tuple[GRUParams, ...], start: str, lengths: bool
) -> tuple[str, str]:
    """One layer: y `[T, D, B, H]` and its final states `[D, B, H]`, the directions in our order."""
    cell, count = plan.cell, plan.directions
    if plan.swapped:
        params = params[::-1]
    direction = "bidirectional" if count == 2 else ("reverse" if plan.reverse else "forward")
    weights = [
        g.constant(f"{name}_{index}", np.stack([swapped(getattr(p, field)).T for p in params]), np.float32)
        for name, field in (("W", "w_x"), ("R", "w_h"))
    ]
    bias = ""
    if params[0].b_x is not None:
        both = [[swapped(b) for b in full_biases(p, cell.hidden_size)] for p in params]
        bias = g.constant(f"B_{index}", np.stack([np.concatenate(b) for b in both]), np.float32)
    gate, candidate = (
        activations.of("onnx.export", name, getattr(cell, name)) for name in ("gate_activation", "activation")
    )
    attributes: dict[str, Any] = activations.attributes([gate, candidate] * count)
    if gate.clip is not None:
        attributes["clip"] = gate.clip
    y, final = g.node(
        "GRU",
        *_without_trailing([x, *weights, bias, "lengths" if lengths else "", start]),
        outputs=2,
        direction=direction,
        hidden_size=cell.hidden_size,
        linear_before_reset=int(cell.reset == "after"),
        **attributes,
    )
    if lengths and start:
        # A sequence of length 0 ends where it started; in runtimes it ends in zeros.
        empty = g.node("Equal", "lengths", g.constant("no_steps", 0, np.int32))
        final = g.node("Where", g.node("Unsqueeze", empty, g.constant("last", [1])), start, final)
    if lengths and plan.padding == "hold":
        y = _held(g, direction, y, start, final)
    return _exchanged(g, plan, y, 1), _exchanged(g, plan, final, 0)


def _held(g: Builder, direction: str, y: str, start: str, final: str) -> str:
    """y `[T, D, B, H]` with the state after the length: forwards the final one, backwards still the first."""
    start = start or g.node("ConstantOfShape", g.node("Shape", final))
    runs_forward = {"forward": [True], "reverse": [False], "bidirectional": [True, False]}[direction]
    forward = g.constant("forward", np.reshape(runs_forward, (-1, 1, 1)), bool)
    held = g.node("Where", forward, final, start)
    steps = g.node("Gather", g.node("Shape", y), g.constant("first", 0), axis=0)
    time = g.node("Range", g.constant("first", 0), steps, g.constant("one", 1))
    time = g.node("Unsqueeze", time, g.constant("behind_time", [1, 2, 3]))
    ends = g.node("Unsqueeze", g.node("Cast", "lengths", to=g.onnx.TensorProto.INT64), g.constant("last", [1]))
    return g.node("Where", g.node("Less", time, ends), y, held)


def _joined(g: Builder, plan: Plan, y: str) -> str:
    """`[T, D, B, H]` to `[T, B, D H]`, or to the merge of the two directions, `[T, B, H]`."""
    if plan.directions == 1:
        return g.node("Squeeze", y, g.constant("direction", [1]))
    if plan.merge == "concat":
        side_by_side = g.node("Transpose", y, perm=[0, 2, 1, 3])
        return g.node("Reshape", side_by_side, g.constant("joined", [0, 0, plan.output_size]))
    both = [g.node("Gather", y, g.constant(name, k), axis=1) for k, name in enumerate(("first", "second"))]
    merged = g.node("Mul" if plan.merge == "mul" else "Add", *both)
    return g.node("Div", merged, g.constant("two", 2, np.float32)) if plan.merge == "mean" else merged


def _normalized(g: Builder, plan: Plan, index: int, y: str, opset: int) -> str:
    """Layer or RMS normalisation of `[T, B, F]` over F."""

    def mean(tensor: str) -> str:
        if opset < 18:
            return g.node("ReduceMean", tensor, axes=[-1], keepdims=1)
        return g.node("ReduceMean", tensor, g.constant("features", [-1]), keepdims=1)

    norm = plan.norms[index]
    if plan.norm == "layer":
        y = g.node("Sub", y, mean(y))
    square = g.node("Add", mean(g.node("Mul", y, y)), g.constant("epsilon", 1e-6, np.float32))
    y = g.node("Div", y, g.node("Sqrt", square))
    y = g.node("Mul", y, g.constant(f"scale_{index}", norm.scale, np.float32))
    return y if norm.bias is None else g.node("Add", y, g.constant(f"bias_{index}", norm.bias, np.float32))


def _without_trailing(names: list[str]) -> list[str]:
    while not names[-1]:
        names = names[:-1]
    return names
