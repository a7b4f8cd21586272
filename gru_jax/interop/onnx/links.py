"""Which GRU nodes feed each other, with nothing between them but moved axes."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_jax import checks
from gru_jax.interop.onnx.constants import NotConstantError, Reader
from gru_jax.interop.onnx.nodes import DIRECTIONS, Node

LARGEST = 2**26
"""Numbers in the largest array that a link is tried on."""


def listed(nodes: Sequence[Node]) -> str:
    """The nodes for an error message."""
    shown = ", ".join(node.described() for node in nodes[:8])
    return shown + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")


def named(reader: Reader, nodes: list[Node], choice: Any) -> list[Node]:
    """The nodes that the caller asked for; raises ValueError unless they feed each other."""
    names = [choice] if isinstance(choice, str | int) else choice
    if isinstance(names, dict | set) or not isinstance(names, Sequence) or not names:
        raise TypeError(f"{reader.file.who}: node must be a name, a place, or a list of them; got {choice!r}")
    chosen = [_one(reader, nodes, name) for name in names]
    for below, above in itertools.pairwise(chosen):
        reason = obstacle(below, above, nodes)
        if reason is not None:
            raise ValueError(
                f"{reader.file.who}: the GRU node {above.label} is no layer right on top of {below.label}: {reason};"
                f" load them one by one"
            )
    return chosen


def stack(reader: Reader, nodes: list[Node]) -> list[Node]:
    """All GRU nodes of the model as one stack; raises ValueError when they are none."""
    fed = {above.place: below.place for above in nodes if (below := feeding(above, nodes)) is not None}
    feeds = {below: above for above, below in fed.items()}
    starts = [node.place for node in nodes if node.place not in fed]
    if len(starts) == 1 and len(feeds) == len(fed):
        chain = starts
        while chain[-1] in feeds:
            chain.append(feeds[chain[-1]])
        if len(chain) == len(nodes):
            return [nodes[place] for place in chain]
    raise ValueError(
        f"{reader.file.who} has {len(nodes)} GRU nodes that do not simply feed each other: {listed(nodes)}; pass"
        f" node= with one of these names, or a list of those that do"
    )


def feeding(above: Node, nodes: list[Node]) -> Node | None:
    """The node whose Y is X of this one, axes aside."""
    outputs = {node.y: node for node in nodes if node.y}
    stop = {name: None for node in nodes for name in node.proto.output if name}
    _, leaves = above.reader.before(above.input(0), stop)
    below = [outputs[leaf] for leaf in leaves if leaf in outputs]
    return below[0] if len(below) == 1 and obstacle(below[0], above, nodes) is None else None


def obstacle(below: Node, above: Node, nodes: list[Node]) -> str | None:
    """What keeps Y of one node from being X of another, axes aside; None when nothing does.

    Y is numbered through, and what arrives at X has to be the same numbers with the directions side by side: so it does
    not matter by which operators the axes were moved.
    """
    reader = above.reader
    reason = f"nothing leads from Y of {below.label} to its X"
    stop = {name: np.zeros(()) for node in nodes for name in node.proto.output if name}
    _, leaves = reader.before(above.input(0), stop)
    if not below.y or below.y not in leaves:
        return reason
    size, count = below.sizes()[1], DIRECTIONS[below.direction]
    for steps, batch in [(5, 3), *_static(reader)]:
        if steps * batch * count * size > LARGEST:
            continue
        # All numbers below a prime that float32 holds: no two orders of the axes look alike.
        y = (np.arange(steps * batch * count * size) % 16777213).astype(np.float32).reshape(steps, count, batch, size)
        expected = y.transpose(0, 2, 1, 3).reshape(steps, batch, count * size)
        given = {below.y: y.transpose(2, 0, 1, 3) if below.batch_first else y}
        for lead in ((steps, batch), (batch, steps)):
            # A shape may be taken from the model's input, which has the same steps and batch.
            inputs = {leaf: _like(reader, leaf, lead) for leaf in leaves if leaf in reader.inputs}
            try:
                arrived = reader.compute(above.input(0), {**given, **inputs})
            except (NotConstantError, ValueError) as error:
                reason = f"its X {error}" if isinstance(error, NotConstantError) else "what lies between does not fit"
                continue
            if arrived.ndim == 3 and above.batch_first:
                arrived = arrived.transpose(1, 0, 2)
            if arrived.shape == expected.shape and (arrived == expected).all():
                return None
            reason = f"Y of {below.label} does not arrive with its directions side by side"
    return reason


def static_steps(node: Node) -> set[int]:
    """How many steps the model's inputs can have by their shapes, when these are fixed."""
    return {steps for steps, _ in _static(node.reader)}


def _static(reader: Reader) -> list[tuple[int, int]]:
    """(T, B) that the shape of an input fixes, in both orders."""
    pairs = []
    for value in reader.inputs.values():
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(sizes) == 3 and min(sizes[:2]) > 0:
            pairs += [(sizes[0], sizes[1]), (sizes[1], sizes[0])]
    return pairs


def _like(reader: Reader, name: str, lead: tuple[int, int]) -> np.ndarray:
    """An input of the model with the given first sizes, holding nothing that could be taken for Y's numbers."""
    dims = reader.inputs[name].type.tensor_type.shape.dim
    features = dims[-1].dim_value if len(dims) == 3 else 0
    if not 0 < features * lead[0] * lead[1] <= LARGEST:
        features = 1
    return np.broadcast_to(np.float32(-1), (*lead, features))


def _one(reader: Reader, nodes: list[Node], name: Any) -> Node:
    if isinstance(name, int) and not isinstance(name, bool):
        found = [node for node in nodes if node.place == name]
    elif isinstance(name, str):
        found = [node for node in nodes if node.proto.name == name]
    else:
        raise TypeError(f"{reader.file.who}: a node is said by name or place; got {checks.described(name)}")
    if len(found) != 1:
        count = f"{len(found)} GRU nodes" if found else "no GRU node"
        raise ValueError(
            f"{reader.file.who} has {count} {name!r}; there are {listed(nodes)}; pass one of these names, or a place"
        )
    return found[0]
