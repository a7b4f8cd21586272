"""The graph of a model as it is read: who makes a tensor, and what it holds when that follows from constants alone."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gru_jax.interop.onnx import files
from gru_jax.interop.onnx.files import File
from gru_jax.interop.onnx.package import onnx

if TYPE_CHECKING:
    from onnx import NodeProto

ARITHMETIC = {"Add", "Less", "Max", "Min", "Mod", "Mul", "Sub", "Where"}
"""Operators that compute shapes, and the places of steps."""

COMPUTED = ARITHMETIC | {
    *("Cast", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Range", "Reshape"),
    *("ReverseSequence", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
}
"""Operators that are computed here: they move numbers about, or say where to."""

MOVING = {
    *("Cast", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
    *("Transpose", "Unsqueeze"),
}
"""Operators whose output holds numbers of the first input and no others."""


SHARING = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose output takes no memory of its own."""


class NotConstantError(Exception):
    """A tensor does not follow from constants alone; the text says what it comes from."""


class Reader:
    """A model's graph.

    Args:
      file: what was read.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.graph = file.model.graph
        self.onnx = onnx(file.who)
        files.check_text(file)
        self.stored = {tensor.name: tensor for tensor in self.graph.initializer}
        self.inputs = {value.name: value for value in self.graph.input if value.name not in self.stored}
        self.maker = {name: place for place, node in enumerate(self.graph.node) for name in node.output if name}
        self.known: dict[str, np.ndarray] = {}
        self.opset = next((o.version for o in file.model.opset_import if o.domain in ("", "ai.onnx")), None)

    def made_by(self, name: str) -> "NodeProto | None":
        """The node that makes a tensor; None when no node does."""
        place = self.maker.get(name)
        return None if place is None else self.graph.node[place]

    def before(self, name: str, stop: Mapping[str, object]) -> "tuple[list[NodeProto], list[str]]":
        """The nodes, in order, that compute a tensor from those in `stop`, and all tensors that it starts from."""
        places: set[int] = set()
        leaves: set[str] = set()
        left = [name]
        while left:  # no recursion: a file may nest as deep as it likes
            one = left.pop()
            place = None if one in stop else self.maker.get(one)
            if place is None or self.graph.node[place].op_type == "Constant":
                leaves.add(one)
            elif place not in places:
                places.add(place)
                left.extend(inner for inner in self.graph.node[place].input if inner)
        return [self.graph.node[place] for place in sorted(places)], sorted(leaves)

    def constant(self, name: str) -> np.ndarray:
        """What a tensor holds; raises NotConstantError when that depends on the model's inputs."""
        if name not in self.known:
            self.known[name] = self.compute(name, {})
        return self.known[name]

    def compute(self, name: str, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """What a tensor holds for given values of some others.

        Raises:
          NotConstantError: when it depends on a tensor that is not given, or on an operator that is not computed here.
          ValueError: when its computation is damaged.
        """
        nodes, leaves = self.before(name, given)
        for node in nodes:
            if node.domain not in ("", "ai.onnx") or node.op_type not in {*COMPUTED, "Dropout"}:
                raise NotConstantError(f"comes from the node {node.name!r}, a {node.op_type}")
        values = {leaf: given[leaf] if leaf in given else self._leaf(leaf) for leaf in leaves}
        # Numbers are moved about, not made: much more of them than there were is an attack, at once or over many nodes.
        limit = 1024 + 4 * sum(value.size for value in values.values())
        left = 16 * limit
        for node in nodes:
            left -= self._run(node, values, min(limit, left))
        if name not in values:
            raise NotConstantError(f"depends on {name!r}, which its node does not make")
        return values[name]

    def zero(self, name: str) -> bool | None:
        """Whether a tensor holds zeros alone, whatever its shape; None when it depends on the model's inputs."""
        try:
            return not self.constant(name).any()
        except NotConstantError:
            pass  # its shape may still depend on them, and its numbers not
        seen: set[str] = set()
        left = [name]
        answers: list[bool | None] = []
        while left:
            one = left.pop()
            if one in seen:
                continue
            seen.add(one)
            node = self.made_by(one)
            if node is None or node.op_type == "Constant":
                answers.append(not self._leaf(one).any() if one not in self.inputs else None)
            elif node.op_type == "ConstantOfShape":
                values = [files.array(self.file, a.t) for a in node.attribute if a.name == "value"]
                answers.append(not any(value.any() for value in values))
            elif node.op_type == "Concat":
                left.extend(node.input)
            elif node.op_type in MOVING:
                left.extend(node.input[:1])
            else:
                answers.append(None)
        if False in answers:
            return False
        return None if None in answers else True

    def origin(self, name: str) -> str:
        """The tensor that a tensor is a mere copy of."""
        for _ in range(len(self.graph.node)):
            node = self.made_by(name)
            if node is None or node.op_type not in ("Identity", "Cast") or not node.input:
                break
            name = node.input[0]
        return name

    def _leaf(self, name: str) -> np.ndarray:
        if name in self.known:
            return self.known[name]
        if name in self.stored:
            value = files.array(self.file, self.stored[name])
        elif (node := self.made_by(name)) is not None and node.op_type == "Constant":
            value = self._of_constant(node)
        elif name in self.inputs:
            raise NotConstantError(f"depends on the model's input {name!r}")
        else:
            raise NotConstantError(f"depends on {name!r}, which nothing in the model makes")
        self.known[name] = value
        return value

    def _of_constant(self, node: "NodeProto") -> np.ndarray:
        for attribute in node.attribute:
            match attribute.name:
                case "value":
                    return files.array(self.file, attribute.t)
                case "value_float" | "value_floats":
                    many = np.array(attribute.floats, np.float32)
                    return many if attribute.name.endswith("s") else np.array(attribute.f, np.float32)
                case "value_int" | "value_ints":
                    many = np.array(attribute.ints, np.int64)
                    return many if attribute.name.endswith("s") else np.array(attribute.i, np.int64)
        raise NotConstantError(f"comes from the node {node.name!r}, a Constant without dense numbers")

    def _run(self, node: "NodeProto", values: dict[str, np.ndarray], limit: int) -> int:
        """Computes one node's outputs from its inputs; returns how many numbers it made."""
        fact = f"{self.file.who}: the node {node.name!r}, a {node.op_type}, cannot be computed"
        try:
            if node.op_type == "Dropout":
                values[node.output[0]] = values[node.input[0]]  # what it does outside of training
                return 0
            inputs = {name: values[name] for name in node.input if name}
            if _size(node, [values[name] for name in node.input if name]) > limit:
                raise ValueError("it makes far more numbers than the model holds")
            helper = self.onnx.helper
            graph = helper.make_graph(
                [node],
                "one",
                [self.onnx.ValueInfoProto(name=name) for name in inputs],
                [self.onnx.ValueInfoProto(name=name) for name in node.output if name],
            )
            opset = helper.make_opsetid("", self.opset or self.onnx.defs.onnx_opset_version())
            one = helper.make_model(graph, opset_imports=[opset])
            results = self.onnx.reference.ReferenceEvaluator(one).run(None, inputs)
            values.update(zip([name for name in node.output if name], results, strict=True))
        except Exception as error:  # of many kinds, for attributes, names and shapes that do not fit
            raise ValueError(f"{fact} ({files.line(error)})") from error
        return sum(np.size(result) for result in results if node.op_type not in SHARING)


def _size(node: "NodeProto", inputs: list[np.ndarray]) -> int:
    """An upper bound on the numbers that a node makes."""
    if node.op_type in ("Cast", "ReverseSequence"):
        return inputs[0].size
    if node.op_type == "Concat":
        return sum(value.size for value in inputs)
    if node.op_type == "Range":
        start, end, step = (float(value.reshape(())) for value in inputs)
        return max(0, math.ceil((end - start) / step))
    if node.op_type == "Expand":
        return math.prod(np.broadcast_shapes(inputs[0].shape, tuple(inputs[1].tolist())))
    if node.op_type == "GatherElements":
        return inputs[1].size
    if node.op_type in ARITHMETIC:
        return math.prod(np.broadcast_shapes(*(value.shape for value in inputs)))
    if node.op_type == "Gather":
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return inputs[0].size // max(1, inputs[0].shape[axis]) * inputs[1].size
    return 0
