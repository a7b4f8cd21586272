"""Which GRU nodes are one layer, and which feed each other, with nothing between them but moved axes."""

import itertools
from collections.abc import Sequence

import numpy as np

from gru_jax import checks
from gru_jax.interop.onnx.constants import NotConstantError, Reader
from gru_jax.interop.onnx.nodes import DIRECTIONS, Layer, Node

SIZES = (5, 3)
"""T and B that links are tried with."""

LARGEST = 2**26
"""Numbers in the largest array that a link is tried on."""


def listed(nodes: Sequence[Node]) -> str:
    """The nodes for an error message."""
    shown = ", ".join(node.described() for node in nodes[:8])
    return shown + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")


def named(reader: Reader, nodes: list[Node], choice: object) -> list[Layer]:
    """The nodes that the caller asked for, each a layer; raises ValueError unless they feed each other."""
    names = [choice] if isinstance(choice, str | int) else choice
    if isinstance(names, dict | set) or not isinstance(names, Sequence) or not names:
        raise TypeError(f"{reader.file.who}: node must be a name, a place, or a list of them; got {choice!r}")
    chosen = [_one(reader, nodes, name) for name in names]
    for below, above in itertools.pairwise(chosen):
        reason = obstacle((below,), (above,), nodes)
        if reason is not None:
            raise ValueError(
                f"{reader.file.who}: the GRU node {above.label} is no layer right on top of {below.label}: {reason};"
                f" load them one by one"
            )
    return [(node,) for node in chosen]


def stack(reader: Reader, nodes: list[Node]) -> list[Layer]:
    """All GRU nodes of the model as one stack; raises ValueError when they are none."""
    layers = _layers(nodes)
    fed = {}
    for place, above in enumerate(layers):
        below = [k for k, layer in enumerate(layers) if obstacle(layer, above, nodes) is None]
        if len(below) == 1:
            fed[place] = below[0]
    feeds = {below: above for above, below in fed.items()}
    starts = [place for place in range(len(layers)) if place not in fed]
    if len(starts) == 1 and len(feeds) == len(fed):
        chain = starts
        while chain[-1] in feeds:
            chain.append(feeds[chain[-1]])
        if len(chain) == len(layers):
            return [layers[place] for place in chain]
    raise ValueError(
        f"{reader.file.who} has {len(nodes)} GRU nodes that do not simply feed each other: {listed(nodes)}; pass"
        f" node= with one of these names, or a list of those that do"
    )


def _layers(nodes: list[Node]) -> list[Layer]:
    """The nodes, those joined that are the two directions of one layer."""
    backward: dict[int, list[Node]] = {}
    for one in nodes:
        if one.direction == "forward":
            backward[one.place] = [other for other in nodes if _other_direction(one, other, nodes)]
    pairs = {place: found[0] for place, found in backward.items() if len(found) == 1}
    taken = [one.place for one in pairs.values()]
    pairs = {place: one for place, one in pairs.items() if taken.count(one.place) == 1}
    joined = {one.place for one in pairs.values()}
    return [(one, pairs[one.place]) if one.place in pairs else (one,) for one in nodes if one.place not in joined]


def _other_direction(forward: Node, backward: Node, nodes: list[Node]) -> bool:
    """Whether the second node runs from the end over what the first runs over, with the same options.

    Sequences may move along time in between, to end at the last step: at full length they stay where they are.
    """
    if backward.direction != "reverse" or forward.options()[1:] != backward.options()[1:]:
        return False
    if forward.batch_first != backward.batch_first or forward.sizes() != backward.sizes():
        return False
    if forward.input(0) == backward.input(0):
        return True
    steps, batch = SIZES
    x = numbered(steps, batch, forward.sizes()[0])
    given = {forward.input(0): x.transpose(1, 0, 2) if forward.batch_first else x}
    stop = given | {name: x for node in nodes for name in node.proto.output if name}
    _, leaves = forward.reader.before(backward.input(0), stop)
    if forward.input(0) not in leaves:
        return False
    for lead in ((steps, batch), (batch, steps)):
        inputs = {leaf: like(forward.reader, leaf, lead, steps) for leaf in leaves if leaf in forward.reader.inputs}
        try:
            arrived = forward.reader.compute(backward.input(0), {**inputs, **given})
        except (NotConstantError, ValueError):
            continue
        if np.array_equal(arrived, given[forward.input(0)]):
            return True
    return False


def obstacle(below: Layer, above: Layer, nodes: list[Node]) -> str | None:
    """What keeps Y of one layer from being X of another, axes aside; None when nothing does.

    Y is numbered through, and what arrives at X has to be the same numbers with the directions side by side: so it does
    not matter by which operators the axes were moved.
    """
    reasons = [_obstacle(below, one, nodes) for one in above]
    return next((reason for reason in reasons if reason is not None), None)


def _obstacle(below: Layer, above: Node, nodes: list[Node]) -> str | None:
    reader = above.reader
    who = " and ".join(one.label for one in below)
    reason = f"nothing leads from Y of {who} to its X"
    stop = {name: np.zeros(()) for node in nodes for name in node.proto.output if name}
    _, leaves = reader.before(above.input(0), stop)
    if not all(one.y and one.y in leaves for one in below):
        return reason
    size, count = below[0].sizes()[1], sum(DIRECTIONS[one.direction] for one in below)
    for steps, batch in [SIZES, *_static(reader)]:
        if steps * batch * count * size > LARGEST:
            continue
        expected = numbered(steps, batch, count * size)
        y = expected.reshape(steps, batch, count, size).transpose(0, 2, 1, 3)
        each = np.split(y, len(below), axis=1)
        given = {
            one.y: part.transpose(2, 0, 1, 3) if one.batch_first else part
            for one, part in zip(below, each, strict=True)
        }
        for lead in ((steps, batch), (batch, steps)):
            # A shape may be taken from the model's input, which has the same steps and batch.
            inputs = {leaf: like(reader, leaf, lead, steps) for leaf in leaves if leaf in reader.inputs}
            try:
                arrived = reader.compute(above.input(0), {**inputs, **given})
            except (NotConstantError, ValueError) as error:
                reason = f"its X {error}" if isinstance(error, NotConstantError) else "what lies between does not fit"
                continue
            if arrived.ndim == 3 and above.batch_first:
                arrived = arrived.transpose(1, 0, 2)
            if np.array_equal(arrived, expected):
                return None
            reason = f"Y of {who} does not arrive with its directions side by side"
    return reason


def numbered(steps: int, batch: int, features: int) -> np.ndarray:
    """`[T, B, F]`, every number another."""
    # Below a prime that float32 holds: no two orders of the axes look alike.
    return (np.arange(steps * batch * features) % 16777213).astype(np.float32).reshape(steps, batch, features)


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


def like(reader: Reader, name: str, lead: tuple[int, int], steps: int) -> np.ndarray:
    """An input of the model: lengths of all steps, or the given first sizes with no number that Y could have."""
    kind = reader.inputs[name].type.tensor_type
    dims = kind.shape.dim
    if len(dims) == 1 and kind.elem_type in (reader.onnx.TensorProto.INT32, reader.onnx.TensorProto.INT64):
        dtype = reader.onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        return np.full(lead[0] if lead[1] == steps else lead[1], steps, dtype)
    features = dims[-1].dim_value if len(dims) == 3 else 0
    if not 0 < features * lead[0] * lead[1] <= LARGEST:
        features = 1
    return np.broadcast_to(np.float32(-1), (*lead, features))


def _one(reader: Reader, nodes: list[Node], name: object) -> Node:
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
