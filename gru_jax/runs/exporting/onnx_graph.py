"""A whole network as an ONNX model: x, and lengths, to y, with any batch and any number of steps."""

from collections.abc import Mapping

import jax
import numpy as np

from gru_jax.interop.onnx import activations
from gru_jax.interop.onnx.building import merged, normalized
from gru_jax.interop.onnx.exporting import LARGEST
from gru_jax.interop.onnx.graph import Builder
from gru_jax.interop.onnx.package import onnx
from gru_jax.interop.onnx.ragged import Ragged
from gru_jax.runs.exporting.network import PEEPHOLES, ExportError, Network, NetworkLayer, Recurrence
from gru_jax.runs.exporting.request import Request
from gru_jax.types import Options

WHO = "export"
OPSET = 17
OPERATORS: dict[str, tuple[str, tuple[int, ...], Options]] = {
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "gru, reset before": ("GRU", (1, 0, 2), {"linear_before_reset": 0}),
    "lstm": ("LSTM", (0, 2, 1, 3), {}),
    PEEPHOLES: ("LSTM", (0, 2, 1, 3), {}),
    "tanh rnn": ("RNN", (0,), {}),
}
"""The operator of each kind, its gates in our order, and what else it is told."""


def files(request: Request) -> Mapping[str, bytes]:
    """The model as a file."""
    package = onnx(WHO)
    if (size := sum(leaf.nbytes for leaf in jax.tree.leaves(request.params))) > LARGEST:
        raise ExportError(f"export: the parameters take {size / 2**30:.1f} GiB and an ONNX file holds less than 2 GiB")
    network, helper, types = request.network, package.helper, package.TensorProto
    g = Builder(WHO)
    y = _graph(g, request)
    g.output(y, "y")
    shape = ["batch", "time"]
    if network.vocabulary is None:
        inputs = [helper.make_tensor_value_info("x", types.FLOAT, [*shape, network.features])]
    else:
        inputs = [helper.make_tensor_value_info("x", types.INT32, shape)]
    if request.lengths:
        inputs.append(helper.make_tensor_value_info("lengths", types.INT32, ["batch"]))
    leading = shape if network.steps == "all" else ["batch"]
    outputs = [helper.make_tensor_value_info("y", types.FLOAT, [*leading, network.b.size])]
    graph = helper.make_graph(g.nodes, "gru_jax", inputs, outputs, list(g.constants.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    version = helper.find_min_ir_version_for(opsets)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="gru_jax")
    helper.set_model_props(model, dict(request.about))
    package.checker.check_model(model, full_check=True)
    return {"": model.SerializeToString(deterministic=True)}


def outputs(made: Mapping[str, bytes], request: Request, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What onnxruntime makes of sequences."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its own errors are raised as well
    session = onnxruntime.InferenceSession(made[""], options, providers=["CPUExecutionProvider"])
    given = {"x": x} if lengths is None else {"x": x, "lengths": lengths.astype(np.int32)}
    return session.run(["y"], given)[0]


def _graph(g: Builder, request: Request) -> str:
    network, x = request.network, "x"
    if request.scaling is not None:
        off, deviation = (g.constant(name, array, np.float32) for name, array in request.scaling._asdict().items())
        x = g.node("Div", g.node("Sub", x, off), deviation)
    if network.embedding is not None:
        x = g.node("Gather", g.constant("embedding", network.embedding, np.float32), x, axis=0)
    elif network.vocabulary is not None:
        # Not OneHot: which types of numbers it takes depends on the runtime.
        each = g.constant("tokens", np.arange(network.vocabulary), np.int32)
        same = g.node("Equal", g.node("Unsqueeze", x, g.constant("third_axis", [2])), each)
        x = g.node("Cast", same, to=g.onnx.TensorProto.FLOAT)
    x = g.node("Transpose", x, perm=[1, 0, 2])
    ragged = Ragged(g, x) if request.lengths else None
    for index, layer in enumerate(network.layers):
        both = [_direction(g, index, place, layer, x, ragged) for place in range(len(layer.directions))]
        y = both[0]
        if len(both) == 2:
            y = g.node("Concat", *both, axis=2) if layer.merge == "concat" else merged(g, layer.merge, both)
        if layer.norm is not None and layer.scale is not None:
            y = normalized(g, layer.norm, layer.scale, index, y, OPSET)
        x = g.node("Add", y, x) if layer.residual else y
    if ragged is not None and any(layer.norm is not None or layer.residual for layer in network.layers):
        x = ragged.zeroed(x)
    found = _pooled(g, network, x, both, ragged)
    product = g.node("MatMul", found, g.constant("head_w", network.w, np.float32))
    y = g.node("Add", product, g.constant("head_b", network.b, np.float32))
    if network.activation != "linear":
        y = g.node("Softmax", y, axis=-1) if network.activation == "softmax" else g.node("Sigmoid", y)
    return g.node("Transpose", y, perm=[1, 0, 2]) if network.steps == "all" else y


def _direction(g: Builder, index: int, place: int, layer: NetworkLayer, x: str, ragged: Ragged | None) -> str:
    """What one direction puts out, `[T, B, H]`, 0 past each sequence's length."""
    backward, one = place == 1, layer.directions[place]
    x = ragged.to_the_end(x, layer.features) if ragged is not None and backward else x
    operator, order, attributes = OPERATORS[one.kind]
    moved = one.ordered(order)
    weights = [
        g.constant(f"{letter}_{index}_{place}", array[None], np.float32)
        for letter, array in (("W", moved.w_x.T), ("R", moved.w_h.T), ("B", np.concatenate([moved.b_x, moved.b_h])))
    ]
    direction = "reverse" if backward else "forward"
    if operator == "GRU":
        attributes = attributes | activations.attributes(_activations(one))
    start = _zeros(g, x, one.units)
    memory = [start] if operator == "LSTM" else []
    if one.peepholes is not None:
        memory.append(g.constant(f"P_{index}_{place}", one.peepholes[[0, 2, 1]].reshape(1, -1), np.float32))
    given = (x, *weights, "", start, *memory)
    y = g.node(operator, *given, direction=direction, hidden_size=one.units, **attributes)
    y = g.node("Squeeze", y, g.constant("second_axis", [1]))
    if ragged is None:
        return y
    return ragged.zeroed(ragged.to_the_start(y, one.units) if backward else y)


def _zeros(g: Builder, x: str, units: int) -> str:
    """States before the first step, `[1, B, H]`: not every runtime takes zeros where a node has none."""
    batch = g.node("Gather", g.node("Shape", x), g.constant("second_axis", [1]), axis=0)
    shape = g.node("Concat", g.constant("one_direction", [1]), batch, g.constant(f"units_{units}", [units]), axis=0)
    zero = g.onnx.numpy_helper.from_array(np.zeros(1, np.float32))
    return g.node("ConstantOfShape", shape, value=zero)


def _activations(one: Recurrence) -> list[activations.Activation]:
    try:
        return [activations.of(WHO, *each) for each in (("gate_activation", one.gate), ("activation", one.candidate))]
    except ValueError as error:
        raise ExportError(str(error)) from error


def _pooled(g: Builder, network: Network, x: str, both: list[str], ragged: Ragged | None) -> str:
    """What the output layer sees, `[B, F]` or `[T, B, F]`.

    Args:
        g: the graph.
        network: whose it is.
        x: what the last layer puts out, `[T, B, F]`.
        both: what its directions do.
        ragged: of sequences with lengths.
    """
    last, first_step = network.layers[-1], g.constant("first", 0)
    if network.steps == "all":
        return x
    if network.steps == "mean" and ragged is None:
        return g.node("ReduceMean", x, axes=[0], keepdims=0)
    if network.steps == "mean" and ragged is not None:
        total = g.node("ReduceSum", x, g.constant("time_axis", [0]), keepdims=0)
        steps = g.node("Cast", g.node("Max", ragged.ends, ragged.one), to=g.onnx.TensorProto.FLOAT)
        return g.node("Div", total, g.node("Unsqueeze", steps, g.constant("second_axis", [1])))

    def at_the_end(y: str, features: int) -> str:
        if ragged is not None:
            return ragged.at_the_end(y, features)
        return g.node("Gather", y, g.constant("last", -1), axis=0)

    if len(both) == 1:
        return at_the_end(x, last.width)
    ends = at_the_end(both[0], last.directions[0].units), g.node("Gather", both[1], first_step, axis=0)
    return g.node("Concat", *ends, axis=1)
