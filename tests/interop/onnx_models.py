"""Random layers as ONNX runs them, and GRU nodes built by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import gru_jax as gj
from gru_jax.layers.spec import GRUSpec

from . import draws

ort.set_default_logger_severity(4)  # its own errors are raised as well


def session(model: Any) -> ort.InferenceSession:
    """A session of one thread, from a file's path or a model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    given = model.SerializeToString() if hasattr(model, "SerializeToString") else str(model)
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def random_layer(rng: np.random.Generator, input_size: int, hidden_size: int, **options: Any) -> gj.nnx.GRU:
    """A layer with random numbers in every parameter, biases and norms included."""
    spec = GRUSpec(hidden_size, **options)
    shapes = jax.eval_shape(lambda: spec.layer.init(jax.random.key(0), input_size))
    params = jax.tree.map(lambda p: jnp.asarray(0.6 * rng.normal(size=p.shape), p.dtype), shapes)
    return gj.nnx.GRU(input_size, hidden_size, params=params, **options)


def states(layer: gj.nnx.GRU, h0: np.ndarray | None) -> Any:
    """h0 `[L*D, B, H]` in the structure that the layer takes."""
    if h0 is None:
        return None
    each = [jnp.asarray(h) for h in h0]
    if layer.spec.bidirectional:
        each = [(a, b) for a, b in zip(each[::2], each[1::2], strict=True)]
    alone = layer.spec.num_layers == 1 and layer.spec.norm is None and not layer.spec.residual
    return each[0] if alone else tuple(each)


def run(layer: gj.nnx.GRU, x: np.ndarray, h0: np.ndarray | None = None, lengths: np.ndarray | None = None) -> Any:
    """Our y, and our final states as `[L*D, B, H]`."""
    named = layer.spec.to_names(layer.functional()[1])
    given = (jnp.asarray(x), states(layer, h0), None if lengths is None else jnp.asarray(lengths))
    y, h_n = draws.program(layer.spec)(named, *given)
    return np.asarray(y), np.stack(jax.tree.leaves(h_n))


def draw(rng: np.random.Generator, layer: gj.nnx.GRU, batch: int, steps: int) -> dict[str, np.ndarray]:
    """x, h0 and lengths (0 and all steps among them) for a layer."""
    lead = (steps, batch) if layer.spec.time_major else (batch, steps)
    count = layer.spec.num_layers * (1 + layer.spec.bidirectional)
    lengths = rng.integers(0, steps + 1, batch)
    lengths[:2] = (0, steps)[: len(lengths[:2])]
    return {
        "x": rng.normal(size=(*lead, layer.in_features)).astype(np.float32),
        "h0": rng.normal(size=(count, batch, layer.spec.hidden_features)).astype(np.float32),
        "lengths": lengths.astype(np.int32),
    }


def close(got: Any, expected: Any, bound: float = 1e-5) -> None:
    """Shapes are equal and numbers are, up to the bound."""
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=bound, atol=bound)


def weights(rng: np.random.Generator, input_size: int, size: int, directions: int, dtype: Any = np.float32) -> Any:
    """Random W, R and B of a GRU node."""
    shapes = {"W": (directions, 3 * size, input_size), "R": (directions, 3 * size, size), "B": (directions, 6 * size)}
    return {name: (0.6 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def gru_node(arrays: dict[str, Any], tag: str = "", x: str = "x", **attributes: Any) -> Any:
    """A GRU node on the tensor `x` with the given weights' names, without lengths and initial states."""
    names = [f"{name}{tag}" if name in arrays else "" for name in ("W", "R", "B")]
    inputs = [x, *names, attributes.pop("lengths", ""), attributes.pop("initial_h", "")]
    attributes = {"hidden_size": arrays["R"].shape[-1], **attributes}
    return helper.make_node("GRU", inputs, [f"Y{tag}", f"Y_h{tag}"], name=f"gru{tag}", **attributes)


def model(
    nodes: list[Any],
    arrays: dict[str, np.ndarray],
    inputs: dict[str, list[Any]],
    outputs: list[str],
    opset: int = 14,
    dtype: int = TensorProto.FLOAT,
) -> Any:
    """A model of these nodes; an input "lengths" is int32."""
    graph = helper.make_graph(
        nodes,
        "hand",
        [
            helper.make_tensor_value_info(name, TensorProto.INT32 if name == "lengths" else dtype, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(folder: Any, built: Any) -> Any:
    """The path of a file that holds a model."""
    path = folder / "model.onnx"
    onnx.save(built, path)
    return path
