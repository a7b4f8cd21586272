"""Matrix products in tiles that stay in registers: the one loop that all products of a kernel are made of."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gru_jax.scans.engines.llvm.code import Code, Value
from gru_jax.scans.engines.llvm.plan import TALLEST


class Stream(NamedTuple):
    """Vectors of the right factor, one for each k: `pointer + k * step + offset`, all in float32.

    Attributes:
      pointer: where k = 0 is.
      step: from one k to the next.
      offsets: of the vectors that are taken at each k.
    """

    pointer: Value
    step: Value
    offsets: tuple[int, ...]


def accumulate(
    code: Code, count: Value, rows: Sequence[tuple[Value, int]], k_step: Value, stream: Stream, sums: list[list[Value]],
    unroll: int = 4,
) -> list[list[Value]]:  # fmt: skip
    """`sums[i][j] += sum over k of a_i[k] * b_j[k]`, a number times a vector, k from 0 to count.

    Args:
      code: the function that is being written.
      count: how many k.
      rows: a pointer and an offset for each row i of the left factor, which is read number by number.
      k_step: from one k to the next in it.
      stream: the right factor.
      sums: what is added to, a list of vectors for each row.
      unroll: how many k are written out.

    Returns:
      The sums.
    """
    wide = len(stream.offsets)

    def some(number: int) -> Callable[..., list[Value]]:
        def body(k: Value, *flat: Value) -> list[Value]:
            found = list(flat)
            a_k, b_k = code.mul(k, k_step), code.mul(k, stream.step)
            rows_here = {id(p): code.at(p, a_k) for p, _ in rows}
            b_here = code.at(stream.pointer, b_k)
            for u in range(number):
                vectors = [code.load(b_here, code.add(code.mul(stream.step, u), o)) for o in stream.offsets]
                for i, (pointer, offset) in enumerate(rows):
                    where = code.add(code.mul(k_step, u), offset)
                    a = code.spread(code.load_number(rows_here[id(pointer)], where))
                    for j, b in enumerate(vectors):
                        found[i * wide + j] = code.fma(a, b, found[i * wide + j])
            return found

        return body

    flat = [v for row in sums for v in row]
    start: Value = 0
    if not isinstance(count, int) or count >= unroll:
        flat = code.loop(0, count, some(unroll), flat, step=unroll)
        start = code.rest(0, count, unroll)
    if not isinstance(count, int) or count % unroll:
        flat = code.loop(start, count, some(1), flat)
    return [flat[i * wide : (i + 1) * wide] for i in range(len(sums))]


def nothing(code: Code, rows: int, vectors: int) -> list[list[Value]]:
    """Sums of nothing."""
    return [[code.spread(0.0)] * vectors for _ in range(rows)]


class Tiling(NamedTuple):
    """How rows and blocks are covered by tiles.

    Attributes:
      heights: rows of a tile, the largest first; those that are left over go to the next.
      widths: for each height, blocks of a tile, likewise.
    """

    heights: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, vectors: int, per_block: int, blocks: int, rows: int, *, multiples: bool = False) -> "Tiling":
        """Tiles of about so many vectors of sums.

        Args:
          vectors: how many registers there are for sums.
          per_block: how many sums a row has in a block.
          blocks: of all that is to be covered, at most.
          rows: of all that is to be covered.
          multiples: whether any multiple of so many rows may be, too.
        """
        most = min(max(1, vectors // per_block), TALLEST)
        if multiples:
            # What a tile's height leaves over is a multiple of what both can be divided by.
            common = math.gcd(rows, most)
            heights = (most, *(common * k for k in (4, 2, 1) if common * k < most))
        else:
            tiles = -(-rows // most)
            tall = -(-rows // tiles)
            heights = (tall, rows % tall) if rows % tall else (tall,)
        widths = []
        for h in heights:
            w = max(1, min(blocks, vectors // (per_block * h)))
            each = [w]
            while each[-1] > 1:
                each.append(-(-each[-1] // 2) if each[-1] > 2 else 1)
            widths.append(tuple(each))
        return cls(heights, tuple(widths))

    def cover(
        self, code: Code, rows: Value, blocks: tuple[Value, Value], tile: Callable[[int, int, Value, Value], None]
    ) -> None:
        """`tile(height, width, first row, first block)` for tiles that cover all rows and the blocks of a range."""
        row: Value = 0
        for height, widths in zip(self.heights, self.widths, strict=True):
            end = code.rest(row, rows, height)
            if isinstance(row, int) and isinstance(end, int) and row == end:
                continue
            block, stop = blocks
            for width in widths:
                if isinstance(block, int) and isinstance(stop, int) and block + width > stop:
                    continue
                of_rows = functools.partial(_rows, code, row, end, height, functools.partial(tile, height, width))
                code.loop(block, stop, of_rows, step=width)
                block = code.rest(block, stop, width)
            row = end


def _rows(code: Code, row: Value, end: Value, height: int, tile: Callable[[Value, Value], None], block: Value) -> None:
    """The tiles of a block."""
    code.loop(row, end, lambda r: tile(r, block), step=height)
