"""Nodes and constants of an ONNX graph that is being written."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from gru_jax.interop.onnx.package import onnx

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto


class Builder:
    """Nodes and constants as they come, every tensor under a name that follows from its place."""

    def __init__(self, who: str) -> None:
        self.onnx = onnx(who)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> Any:
        """Adds a node; returns its output's name, or a list of them."""
        stem = f"{op.lower()}_{len(self.nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{index}" for index in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, name=stem, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, name: str, value: ArrayLike, dtype: DTypeLike = np.int64) -> str:
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
