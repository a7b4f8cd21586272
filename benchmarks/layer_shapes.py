"""The shapes of `benchmarks.layers`, in named groups: T steps, B sequences, I features, H units."""

import argparse
import itertools
from collections.abc import Callable
from typing import NamedTuple

from gru_jax.tuning.measure import Shape

KINDS = ("forward", "training")
LARGEST_GFLOP = 10
"""The grid leaves out shapes whose training step takes more."""
PATIENCE = 10_000
"""Above so many steps only ours and the floor run."""
LONG = (1500, 750, 375, 187)
"""DeepBench's steps."""


class Case(NamedTuple):
    """A shape, what is measured at it, and the group it stands in."""

    shape: Shape
    group: str
    kinds: tuple[str, ...] = KINDS


def design(device: str) -> list[Case]:
    """Six sizes between a small and a wide layer, and four odd ones around them."""
    sizes = [
        (100, 32, 64, 64), (256, 32, 128, 256), (1024, 1, 64, 128), (100, 64, 512, 512), (2000, 16, 32, 64),
        (64, 128, 1024, 1024), (784, 64, 1, 128), (60, 20, 40, 300), (100, 8, 32, 128), (50, 128, 64, 64),
    ]
    return [Case(Shape(*size), "design") for size in sizes]


def grid(device: str) -> list[Case]:
    """Every batch with every length and width, as far as a training step stays short."""
    sizes = itertools.product((1, 8, 64), (16, 128, 1024), (32, 128, 512))
    shapes = [Shape(T, B, H, H) for B, T, H in sizes]
    return [Case(shape, "grid") for shape in shapes if gflop(shape) <= LARGEST_GFLOP]


def streaming(device: str) -> list[Case]:
    """One step at a time."""
    sizes = [(1, 1, 64, 128), (1, 1, 512, 512), (1, 32, 128, 256)]
    return [Case(Shape(*size), "streaming", ("forward",)) for size in sizes]


def deepbench(device: str) -> list[Case]:
    """The GRUs of Baidu's DeepBench (code/kernels/rnn_problems.h), scaled down on CPU.

    There they are (hidden, batch, steps), with as many features as hidden units. On CPU a width is an eighth, at least
    64, a length a fifth, and only the longest and the shortest of each width are run.
    """
    lengths = {2816: LONG, 2048: LONG, 1536: LONG, 2560: LONG, 512: (1,)}
    cases = []
    for batches, batches_of_1024, kinds in (((32,), (32, 64), KINDS), ((1, 2, 4), (1, 2, 4), ("forward",))):
        wanted = [(T, B, H) for H, found in lengths.items() for B in batches for T in found]
        wanted += [(1500, B, 1024) for B in batches_of_1024]
        if device == "cpu":
            wanted = [(max(1, T // 5), B, max(64, H // 8)) for T, B, H in wanted if T not in LONG[1:-1]]
        cases += [Case(Shape(T, B, H, H), "deepbench", kinds) for T, B, H in wanted]
    return cases


def time(device: str) -> list[Case]:
    """Ever longer sequences."""
    return [Case(Shape(10**power, 1, 16, 32), "time") for power in range(2, 7)]


def batch(device: str) -> list[Case]:
    """Ever larger batches."""
    return [Case(Shape(64, 2**power, 128, 128), "batch") for power in range(9)]


def hidden(device: str) -> list[Case]:
    """Ever wider layers."""
    return [Case(Shape(64, 16, 2**power, 2**power), "hidden") for power in range(4, 11)]


GROUPS: dict[str, Callable[[str], list[Case]]] = {
    function.__name__: function for function in (design, grid, streaming, deepbench, time, batch, hidden)
}
DEFAULT = ("design", "streaming", "grid")

QUICK = [
    *(Case(Shape(*size), "quick") for size in [
        (100, 8, 32, 128), (60, 20, 40, 300), (100, 32, 64, 64), (50, 128, 64, 64), (1024, 1, 64, 128), (128, 1, 32, 32)
    ]),
    *(Case(Shape(*size), "quick", ("forward",)) for size in [(1, 1, 64, 128), (1, 32, 128, 256)]),
]
"""What runs in three minutes."""


def gflop(shape: Shape) -> float:
    """Of a training step: the two products of every step, once forward and twice backward."""
    T, B, I, H = shape
    return 3 * 2 * T * B * (I + H) * 3 * H / 1e9


def group_or_shape(text: str) -> str | Shape:
    """What stands after --shapes: the name of a group, or T,B,I,H."""
    if text in GROUPS:
        return text
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(GROUPS)}, or four whole numbers T,B,I,H from 1, such as 100,32,64,64;"
            f" got {text!r}"
        )
    return Shape(*map(int, sizes))


def cases(wanted: list[str | Shape], device: str) -> list[Case]:
    """The cases of groups and single shapes, each shape once for each kind."""
    found: dict[Shape, Case] = {}
    for one in wanted:
        for case in GROUPS[one](device) if isinstance(one, str) else [Case(one, "given")]:
            before = found.get(case.shape, case)
            kinds = tuple(kind for kind in KINDS if kind in (*before.kinds, *case.kinds))
            found[case.shape] = Case(case.shape, before.group, kinds)
    return list(found.values())
