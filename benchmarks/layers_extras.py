"""The further subjects of `benchmarks.layers`: what is to cost no more than what it is made of.

A stack, a mask and the fronts beside the plain scans that they come to; the linear recurrence, which does as good as
no arithmetic, beside a copy of its arrays, and its gradient beside itself.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax as gj
from benchmarks import agreement, layers_report, peers, timing
from benchmarks.layer_shapes import Shape
from gru_jax import interop

OVERHEAD, COPY, GRADIENT = 1.05, 1.5, 3.0
"""The aims: how many times the peer's time ours may take."""

SHAPES = [Shape(100, 32, 64, 64), Shape(256, 32, 128, 256), Shape(1024, 1, 64, 128)]
RECURRENCES = [(4096, 16, 64), (16384, 8, 256)]
"""(T, B, H)."""


class Side(NamedTuple):
    """`outputs(weights, x, *rest) -> y` with what it takes after the weights and x."""

    outputs: Callable[..., Any]
    weights: Any
    rest: tuple[Any, ...] = ()


class Pair(NamedTuple):
    """Two candidates, and how many times as long as the second the first may take."""

    subject: str
    shape: dict[str, int]
    ours: peers.Candidate
    peer: str
    theirs: peers.Candidate
    aim: float | None


def run(kinds: list[str], budget_s: float, quick: bool) -> list[dict[str, Any]]:
    """The rows of all pairs, printed as they come; `quick` takes the first shape of each."""
    rows = []
    few = slice(1) if quick else slice(None)
    for pair in [*layer_pairs(kinds, SHAPES[few]), *linear_pairs(kinds, RECURRENCES[few])]:
        rows.append(measured(pair(), budget_s))
        print(layers_report.extra(rows[-1]), flush=True)
        jax.clear_caches()
    return rows


def measured(pair: Pair, budget_s: float) -> dict[str, Any]:
    """The pair's row, if the two agree where they compute the same."""
    found = [each.read(jax.block_until_ready(each.run())) for each in (pair.theirs, pair.ours)]
    agreement.check(*found, "float32", pair.subject)
    ours, theirs, ratio = timing.side_by_side(pair.ours.run, pair.theirs.run, budget_s)
    return {
        "subject": pair.subject,
        "group": "extras",
        "shape": pair.shape,
        "dtype": "float32",
        "ours_ms": ours.ms,
        "ours_spread_ms": ours.spread_ms,
        "peer": pair.peer,
        "peer_ms": theirs.ms,
        "peer_spread_ms": theirs.spread_ms,
        "floor_ms": None,
        "iterations": ours.rounds,
        "ours_compile_s": pair.ours.compile_s,
        "peer_compile_s": pair.theirs.compile_s,
        "ours_temp_MiB": pair.ours.temp_MiB,
        "peer_temp_MiB": pair.theirs.temp_MiB,
        "ratio": ratio,
        "aim": pair.aim,
    }


def layer_pairs(kinds: list[str], shapes: list[Shape]) -> Iterator[Callable[[], Pair]]:
    """Layers beside plain scans; each pair is made when it is called for."""
    for shape in shapes:
        for name, make in {"stack": stack, "mask": mask, "keras front": keras, "torch front": torch}.items():
            for kind in kinds:
                yield lambda name=name, make=make, kind=kind, shape=shape: layer_pair(name, make, kind, shape)


def layer_pair(name: str, make: Callable[[Shape], tuple[Side, Side]], kind: str, shape: Shape) -> Pair:
    """One of them, compiled."""
    x = jax.random.normal(jax.random.key(1), (shape.B, shape.T, shape.I))
    # What masks leave out is not computed by the plain scan alone.
    ours, plain = (jitted(kind, side, x, compared=make is not mask) for side in make(shape))
    return Pair(f"{name}, {kind}", shape._asdict(), ours, "plain layers", plain, OVERHEAD)


def jitted(kind: str, side: Side, x: Any, compared: bool) -> peers.Candidate:
    """The outputs, or the value and the gradients with respect to weights and input."""

    def loss(weights: Any, x: Any, *rest: Any) -> Any:
        return (side.outputs(weights, x, *rest) ** 2).sum()

    def read(found: Any) -> agreement.Arrays:
        if not compared:
            return {}
        return {"outputs": peers.numbers(found)} if kind == "forward" else {"gradient of x": peers.numbers(found[1][1])}

    function = side.outputs if kind == "forward" else jax.value_and_grad(loss, (0, 1))
    return peers.jitted(function, side.weights, x, *side.rest, read=read)


def stack(shape: Shape) -> tuple[Side, Side]:
    """Two layers of two directions beside four scans."""
    cell = gj.GRU(shape.H)
    net = gj.nnx.GRU(shape.I, shape.H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))

    def plain(params: Any, y: Any) -> Any:
        for forward, backward in params:
            directions = gj.scan(cell, forward, y)[0], gj.scan(cell, backward, y, reverse=True)[0]
            y = jnp.concatenate(directions, -1)
        return y

    return module(net, lambda net, x: net(x)[0]), Side(plain, net.functional()[1].layers)


def mask(shape: Shape) -> tuple[Side, Side]:
    """Sequences of which the shortest has half the steps, beside whole ones."""
    cell = gj.GRU(shape.H, init="torch")
    params = cell.init(jax.random.key(0), shape.I)
    lengths = jnp.linspace(-(-shape.T // 2), shape.T, shape.B).astype(int)

    def masked(params: Any, x: Any, lengths: Any) -> Any:
        return gj.scan(cell, params, x, lengths=lengths)[0]

    return Side(masked, params, (lengths,)), scan(cell, params)


def keras(shape: Shape) -> tuple[Side, Side]:
    """The front for Keras' code beside the scan that it comes to."""
    gru = interop.keras.GRU(shape.H, return_sequences=True, rngs=nnx.Rngs(0))
    gru.build((shape.B, shape.T, shape.I))
    return module(gru, lambda gru, x: gru(x)), scan(gj.GRU(shape.H), gru.to_layer().functional()[1])


def torch(shape: Shape) -> tuple[Side, Side]:
    """The front for torch's code beside the scan that it comes to."""
    gru = interop.torch.GRU(shape.I, shape.H, batch_first=True, rngs=nnx.Rngs(0))
    return module(gru, lambda gru, x: gru(x)[0]), scan(gj.GRU(shape.H), gru.to_layer().functional()[1])


def module(made: Any, call: Callable[[Any, Any], Any]) -> Side:
    """A Flax module, as functions of its parameters."""
    graph, weights, rest = nnx.split(made, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(weights)
    return Side(lambda leaves, x: call(nnx.merge(graph, jax.tree.unflatten(tree, leaves), rest), x), leaves)


def scan(cell: gj.GRU, params: gj.GRUParams) -> Side:
    """A plain scan."""
    return Side(lambda params, x: gj.scan(cell, params, x)[0], params)


def linear_pairs(kinds: list[str], sizes: list[tuple[int, int, int]]) -> Iterator[Callable[[], Pair]]:
    """minGRU's recurrence beside copies, and gradients, of it and of the whole cell, beside forward passes."""
    for T, B, H in sizes:
        shape = {"T": T, "B": B, "H": H}
        if "forward" in kinds:
            for copy in COPIES:
                yield lambda shape=shape, copy=copy: copy_pair(shape, copy)
        if "training" in kinds:
            for beside in ("forward", "copy"):
                yield lambda shape=shape, beside=beside: gradient_pair(shape, beside)
            yield lambda shape=shape: cell_pair(shape)


COPIES = {"copy": (lambda a, b, h: a + b, COPY), "copy of all three": (lambda a, b, h: (-a, -b, -h), None)}
"""What reads a and b and writes as much as h; and what reads and writes all three. A bare copy XLA would leave out."""


def forward(a: Any, b: Any) -> Any:
    """The recurrence."""
    return gj.linear_scan(a, b, time_major=True)


def coefficients(shape: dict[str, int]) -> tuple[jax.Array, jax.Array]:
    """a in (0, 1) and b, `[T, B, H]`."""
    a, b = (jax.random.normal(jax.random.key(seed), tuple(shape.values())) for seed in (0, 1))
    return jax.nn.sigmoid(a), b


def copy_pair(shape: dict[str, int], copy: str) -> Pair:
    """The recurrence beside a copy."""
    a, b = coefficients(shape)
    function, aim = COPIES[copy]
    # The third array is handed over to the first copy too: an argument that is not used costs nothing.
    return Pair("linear, forward", shape, peers.jitted(forward, a, b), copy, peers.jitted(function, a, b, b + a), aim)


def gradient_pair(shape: dict[str, int], beside: str) -> Pair:
    """What half the sum of the squares of the states gives to a and b, forwards and backwards, beside the states alone.

    Or beside a copy: as many of them as the forward pass is allowed, three times.
    """
    a, b = coefficients(shape)
    gradient = peers.jitted(jax.grad(lambda a, b: 0.5 * (forward(a, b) ** 2).sum(), (0, 1)), a, b)
    if beside == "forward":
        return Pair("linear, gradient", shape, gradient, beside, peers.jitted(forward, a, b), GRADIENT)
    copy = peers.jitted(COPIES["copy"][0], a, b, b + a)
    return Pair("linear, gradient", shape, gradient, beside, copy, GRADIENT * COPY)


def cell_pair(shape: dict[str, int]) -> Pair:
    """MinGRU as a cell, of as many features as units: its gradient as above, with its projection, beside its states."""
    cell = gj.MinGRU(shape["H"])
    params = cell.init(jax.random.key(0), shape["H"])
    x = jax.random.normal(jax.random.key(1), tuple(shape.values()))

    def states(params: Any, x: Any) -> Any:
        return gj.scan(cell, params, x, time_major=True)[0]

    gradient = peers.jitted(jax.grad(lambda params, x: 0.5 * (states(params, x) ** 2).sum(), (0, 1)), params, x)
    return Pair("minGRU, gradient", shape, gradient, "forward", peers.jitted(states, params, x), GRADIENT)
