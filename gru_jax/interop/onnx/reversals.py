"""Whether what a GRU node reads was turned around before it, which a layer made of the node alone would not do."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_jax.interop.onnx.constants import NotConstantError
from gru_jax.interop.onnx.links import SIZES, like
from gru_jax.interop.onnx.nodes import Node

if TYPE_CHECKING:
    from onnx import NodeProto

MOVED = {"Cast", "Dropout", "Identity"}
"""Operators that leave every number in its place."""

KEPT = {
    *("Abs", "Add", "BatchNormalization", "Celu", "Clip", "Conv", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid"),
    *("HardSwish", "LayerNormalization", "LeakyRelu", "Log", "MatMul", "Max", "Min", "Mish", "Mul", "Neg", "PRelu"),
    *("Pow", "RMSNormalization", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Swish"),
    *("Tanh", "Where"),
}
"""Operators that change numbers, each step by itself or with its neighbours, and leave time where it is."""


def before(node: Node) -> "tuple[NodeProto, str] | None":
    """The operator that turns X around, and which of its axes: "time" or "another axis"; None when there is none.

    X is followed back through operators that only move numbers, where any axis that is turned counts, and on through
    those that keep time where it is, where time alone does.
    """
    left = [(node.input(0), 1 if node.batch_first else 0, 3, True)]
    seen = set()
    while left:
        tensor, time, rank, moved = left.pop()
        maker = node.reader.made_by(tensor)
        if tensor in seen or maker is None or not maker.input or maker.domain not in ("", "ai.onnx"):
            continue
        seen.add(tensor)
        axes = _turned(node, maker, rank)
        if time in axes or (axes and moved):
            return maker, "time" if time in axes else "another axis"
        left += _behind(node, maker, time, rank, moved)
    return None


def _turned(node: Node, maker: "NodeProto", rank: int) -> set[int]:
    """The axes that an operator turns around."""
    if maker.op_type == "Slice" and len(maker.input) > 4:
        steps, starts = (_constant(node, maker.input[place]) for place in (4, 1))
        if steps is None:
            return set()
        axes = _constant(node, maker.input[3]) if maker.input[3] else np.arange(len(steps))
        # Of an array with one step nothing is turned; where it starts says no more.
        return {int(a) % rank for a, step in zip(axes, steps, strict=False) if step < 0} if axes is not None else set()
    if maker.op_type == "ReverseSequence":
        return {_attribute(maker, "time_axis", 0) % rank}
    if maker.op_type in ("Gather", "GatherElements"):
        axis = _attribute(maker, "axis", 0) % rank
        places = _constant(node, maker.input[1])
        if places is not None and places.ndim and maker.op_type == "Gather":
            places = places.reshape(len(places), -1)
        elif places is not None and places.ndim > axis:
            places = np.moveaxis(places, axis, 0)
        if places is not None and len(places) > 1 and (np.diff(places, axis=0) < 0).all():
            return {axis}
    return set()


def _behind(node: Node, maker: "NodeProto", time: int, rank: int, moved: bool) -> list[tuple[str, int, int, bool]]:
    """The tensors that an operator makes its output of, and where time is in them."""
    first, op = maker.input[0], maker.op_type
    if op == "Transpose":
        order = list(_attribute(maker, "perm", None) or range(rank)[::-1])
        return [(first, order[time], rank, moved)] if len(order) == rank else []
    if op in ("Squeeze", "Unsqueeze"):
        axes = _axes(node, maker)
        if axes is None:
            return []
        if op == "Unsqueeze":
            gone = sorted(int(a) % rank for a in axes)
            return [(first, time - sum(a < time for a in gone), rank - len(gone), moved)]
        whole = rank + len(axes)
        kept = [a for a in range(whole) if a not in {int(one) % whole for one in axes}]
        return [(first, kept[time], whole, moved)]
    if op == "Reshape":
        # The first axes are kept by most, and tell by their sizes nothing more.
        return [(first, time, rank, moved)] if time < 2 else []
    if op in ("Slice", "Split", "Pad", "Expand", "GatherElements", "ReverseSequence"):
        return [(first, time, rank, moved)]
    if op == "Gather":
        data = node.reader.stored.get(first)
        # An embedding: rows of a stored table, chosen by numbers that have the axis of time.
        return [(maker.input[1], time, rank - 1, False)] if data is not None else [(first, time, rank, moved)]
    if op == "Concat":
        return [(one, time, rank, moved) for one in maker.input] if _attribute(maker, "axis", 0) % rank != time else []
    if op in MOVED:
        return [(first, time, rank, moved)]
    return [(one, time, rank, False) for one in maker.input if one] if op in KEPT else []


def _constant(node: Node, name: str) -> np.ndarray | None:
    """What a tensor holds, for an input of the model with so many steps and sequences; None when that is not known."""
    reader = node.reader
    _, leaves = reader.before(name, {})
    inputs = {leaf: like(reader, leaf, SIZES, SIZES[0]) for leaf in leaves if leaf in reader.inputs}
    try:
        return reader.compute(name, inputs)
    except (NotConstantError, ValueError):
        return None


def _axes(node: Node, maker: "NodeProto") -> np.ndarray | list[int] | None:
    if len(maker.input) > 1:
        return _constant(node, maker.input[1])
    return _attribute(maker, "axes", None)


def _attribute(maker: "NodeProto", name: str, default: int | None) -> Any:
    for one in maker.attribute:
        if one.name == name:
            return list(one.ints) if one.ints else one.i
    return default
