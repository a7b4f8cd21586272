"""What stands between the cells of a step: norms and sums."""

from collections.abc import Callable

import numpy as np

from gru_jax.scans.engines.llvm.code import Code, Program, Value
from gru_jax.scans.engines.llvm.plan import Room
from gru_jax.scans.engines.llvm.step.net import Net, Norm, Sum
from gru_jax.scans.engines.llvm.step.writer import Writer


class NormWriter(Writer):
    """Writes a norm."""

    def __init__(self, program: Program, net: Net, part: Norm, weights: Room, memory: Room) -> None:
        self.part, self.rows = part, net.rows
        self.places = [weights.take(part.width) for _ in range(2 if part.kind == "layer" else 1)]

    def lay_out(self, weights: np.ndarray, *arrays: np.ndarray) -> None:
        """Puts scale `[H]`, and bias `[H]` of a layer norm, where they are read."""
        for at, array in zip(self.places, arrays, strict=True):
            weights[at : at + array.size] = array

    def step(self, code: Code, weights: Value, memory: Value, values: list[Value], to: Value) -> None:
        """`scale (x - mean) / sqrt(variance + epsilon) + bias`; without mean and bias for "rms"."""
        width, b = self.part.width, code.builder

        def mean(read: Callable[[Value, int], Value]) -> Value:
            return b.fmul(reduced(code, width, "add", code.spread(0.0), read), code.spread(1 / width))

        def of_row(r: Value) -> None:
            row, made = (code.at(a, code.mul(r, width)) for a in (values[self.part.source], to))
            middle = code.spread(0.0)
            if self.part.kind == "layer":
                middle = mean(lambda i, n: code.load_first(n, row, i))

            def centred(i: Value, n: int) -> Value:
                return code.only_first(n, b.fsub(code.load_first(n, row, i), middle), code.spread(0.0))

            def square(i: Value, n: int) -> Value:
                a = centred(i, n)
                return b.fmul(a, a)

            size = code.intrinsic("sqrt", b.fadd(mean(square), code.spread(self.part.epsilon)))
            factor = b.fdiv(code.spread(1.0), size)

            def put(i: Value, n: int) -> None:
                scale, *bias = (code.load_first(n, code.at(weights, at), i) for at in self.places)
                value = b.fmul(b.fmul(centred(i, n), factor), scale)
                code.store_first(n, b.fadd(value, *bias) if bias else value, made, i)

            each(code, width, put)

        code.loop(0, self.rows, of_row)


class SumWriter(Writer):
    """Writes a sum."""

    def __init__(self, program: Program, net: Net, part: Sum, weights: Room, memory: Room) -> None:
        self.part, self.rows = part, net.rows

    def step(self, code: Code, weights: Value, memory: Value, values: list[Value], to: Value) -> None:
        """The sum of two values."""
        one, other = values[self.part.source], values[self.part.other]

        def put(i: Value, n: int) -> None:
            added = code.builder.fadd(code.load_first(n, one, i), code.load_first(n, other, i))
            code.store_first(n, added, to, i)

        each(code, self.rows * self.part.width, put)


def each(code: Code, count: int, write: Callable[[Value, int], None]) -> None:
    """`write(i, n)` for all vectors of an array, n being the numbers of the one at i."""
    whole, rest = count // code.lanes * code.lanes, count % code.lanes
    if whole:
        code.loop(0, whole, lambda i: write(i, code.lanes), step=code.lanes)
    if rest:
        write(whole, rest)


def reduced(code: Code, count: int, how: str, start: Value, read: Callable[[Value, int], Value]) -> Value:
    """What is read of all vectors of an array joined, by "add" or "maximum", in all lanes.

    Args:
      code: the function that is being written.
      count: numbers of the array.
      how: they are joined.
      start: what joining changes nothing.
      read: `read(i, n)` of the vector at i, of which n numbers are of the array; the others must be as `start`.
    """
    join = code.builder.fadd if how == "add" else lambda a, b: code.intrinsic(how, a, b)
    found, whole, rest = start, count // code.lanes * code.lanes, count % code.lanes
    if whole:
        (found,) = code.loop(0, whole, lambda i, sofar: [join(sofar, read(i, code.lanes))], [found], step=code.lanes)
    return code.over_lanes(join, join(found, read(whole, rest)) if rest else found)
