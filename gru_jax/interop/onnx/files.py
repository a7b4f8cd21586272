"""Model files and the arrays in them, read with suspicion: a file may be damaged, or made to harm."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gru_jax import checks
from gru_jax.interop.onnx.package import onnx

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto


class File(NamedTuple):
    """A model file that was read; the arrays that lie outside of it are not, until they are needed."""

    who: str
    path: Path
    model: "ModelProto"


def read(who: str, path: object) -> File:
    """The model in a file.

    Raises:
      TypeError: when `path` is none.
      OSError: when there is no file or it cannot be read.
      ValueError: when it holds no ONNX model.
    """
    package = onnx(who)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{who}: path must be a path of a file; got {checks.described(path)}")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{who}: {path} is a folder; pass the path of a file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{who}: there is no file {path}")
    who = f"{who}: {path}"
    try:
        model = package.load_model_from_string(path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # protobuf's own error, and others for what is no message at all
        raise ValueError(f"{who} holds no ONNX model, or part of one ({line(error)})") from error
    if not model.ir_version or not model.HasField("graph"):
        raise ValueError(f"{who} holds no ONNX model, or part of one (there is no graph in it)")
    return File(who, path, model)


def check_text(file: File) -> None:
    """Raises ValueError unless all names in the graph are text: those that are not come as bytes."""
    graph = file.model.graph
    named = [*graph.initializer, *graph.input, *graph.node, *(a for node in graph.node for a in node.attribute)]
    texts = [
        *(one.name for one in named),
        *(text for node in graph.node for text in (node.op_type, node.domain, *node.input, *node.output)),
        *(text for tensor in graph.initializer for entry in tensor.external_data for text in (entry.key, entry.value)),
        *(opset.domain for opset in file.model.opset_import),
    ]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{file.who} is damaged: a name in it is no text")


def array(file: File, tensor: "TensorProto") -> np.ndarray:
    """The numbers of a tensor of the model; raises ValueError when they are damaged or lie out of reach."""
    package = onnx(file.who)
    name = f"the tensor {tensor.name!r}"
    shape = tuple(tensor.dims)
    try:
        dtype = np.dtype(package.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file.who}: {name} has the unknown type {tensor.data_type}") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"{file.who}: {name} has the shape {list(shape)}")
    if tensor.data_location == package.TensorProto.EXTERNAL:
        return _outside(file, name, tensor, shape, dtype)
    try:
        return np.asarray(package.numpy_helper.to_array(tensor))
    except Exception as error:  # of many kinds, for too few numbers, or for numbers in the wrong field
        raise ValueError(
            f"{file.who}: {name} does not hold the {math.prod(shape)} numbers of its shape ({line(error)})"
        ) from error


def _outside(file: File, name: str, tensor: "TensorProto", shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The numbers of a tensor that lie in a file of their own, which has to be in the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = file.path.parent.resolve()
    try:
        data = (folder / location).resolve()
        inside = bool(location) and not Path(location).is_absolute() and data.is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a null character, a circle of links
        inside = False
    if not inside:
        raise ValueError(
            f"{file.who}: {name} lies in {location!r}, outside of the model's folder; that is not read"
        )
    if not data.is_file():
        raise FileNotFoundError(f"{file.who}: {name} lies in {location!r}, and there is no such file beside the model")
    size = data.stat().st_size
    count = math.prod(shape) * dtype.itemsize
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or count)
    except ValueError as error:
        raise ValueError(f"{file.who}: {name} has no readable place in {location!r} ({line(error)})") from error
    if length != count or offset < 0 or offset + length > size:
        raise ValueError(
            f"{file.who}: {name} of shape {list(shape)} takes {count} bytes; {location!r}, of {size} bytes, has"
            f" {length} for it from byte {offset} on"
        )
    with open(data, "rb") as source:
        source.seek(offset)
        content = source.read(length)
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def line(error: Exception) -> str:
    """The first line of an error, or its kind when it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
