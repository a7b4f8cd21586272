"""Matrices of a step of few sequences: all of its time goes into reading them, so they lie as they are read.

The blocks of units that are computed together, a tile, have their columns side by side: `[tile][k][block][gate][lane]`.
A step reads one matrix after another from its first number to its last.
"""

from collections.abc import Callable

import numpy as np

from gru_jax.scans.engines.llvm import products
from gru_jax.scans.engines.llvm.code import Code, Value
from gru_jax.scans.engines.llvm.plan import Room
from gru_jax.scans.engines.llvm.products import Stream, Tiling
from gru_jax.scans.engines.llvm.step.net import Net


class Matrix:
    """A matrix with a column for each gate of each unit, and the products with it.

    Args:
      net: the network that it is part of.
      weights: where it takes its room.
      depth: its rows.
      units: H.
      gates: G; it has `G H` columns.

    Attributes:
      blocks: vectors that all units take up.
      tail: units in the last one, 0 where it is full.
    """

    def __init__(self, net: Net, weights: Room, depth: int, units: int, gates: int) -> None:
        self.lanes, self.rows, self.depth, self.units, self.gates = net.lanes, net.rows, depth, units, gates
        self.blocks, self.tail = -(-units // net.lanes), units % net.lanes
        self.at = weights.take(depth, self.blocks * net.lanes, gates)
        tiling = Tiling.of(net.sums, max(gates, 1), self.blocks, net.rows)
        # Of the same blocks whatever their height, for a matrix can be laid out in one way only.
        self.tiling = Tiling(tiling.heights, (min(tiling.widths),) * len(tiling.heights))

    def lay_out(self, weights: np.ndarray, matrix: np.ndarray) -> None:
        """Puts a matrix, `[K, G, H]`, where it is read, tile after tile."""
        blocks, at, block = in_blocks(matrix, self.lanes).transpose(2, 0, 1, 3), self.at, 0
        for width in self.tiling.widths[0]:
            while block + width <= self.blocks:
                tile = blocks[block : block + width].swapaxes(0, 1).ravel()
                weights[at : at + tile.size] = tile
                at, block = at + tile.size, block + width

    def cover(self, code: Code, weights: Value, tile: Callable[[int, int, Value, Value, Value], None]) -> None:
        """`tile(height, width, first row, first block, panel)` for all rows and blocks; the panel is its columns."""

        def with_panel(height: int, width: int, row: Value, block: Value) -> None:
            panel = code.at(weights, code.add(code.mul(block, self.depth * self.gates * self.lanes), self.at))
            tile(height, width, row, block, panel)

        self.tiling.cover(code, self.rows, (0, self.blocks), with_panel)

    def products(
        self, code: Code, left: tuple[Value, int], panel: Value, start: list[Value], height: int
    ) -> list[list[Value]]:
        """A tile's products: for each row, what is in `start` and added to, a vector for each gate of each block.

        Args:
          code: the function that is being written.
          left: where the first row of the left factor is, and how far it is to the next.
          panel: the columns.
          start: for each block its gates.
          height: how many rows.
        """
        if not self.gates:
            return [start] * height
        rows = [(left[0], i * left[1]) for i in range(height)]
        stream = Stream(panel, len(start) * self.lanes, tuple(j * self.lanes for j in range(len(start))))
        return products.accumulate(code, self.depth, rows, 1, stream, [start] * height)

    def store(
        self, code: Code, values: list[list[Value]], y: Value, row: Value, block: Value
    ) -> None:
        """Writes a tile of y, `[rows, H]`: for each row a vector for each block, and nothing behind the last unit."""
        width = len(values[0])

        def put(tail: int) -> None:
            for i, each in enumerate(values):
                for c, value in enumerate(each):
                    place = code.add(code.mul(code.add(row, i), self.units), code.mul(code.add(block, c), self.lanes))
                    code.store_first(tail if c == width - 1 else self.lanes, value, y, place)

        if not self.tail:
            put(self.lanes)
            return
        with code.builder.if_else(code.equal(code.add(block, width), self.blocks)) as (at_end, before):
            with at_end:
                put(self.tail)
            with before:
                put(self.lanes)


def in_blocks(array: np.ndarray, lanes: int) -> np.ndarray:
    """`[..., H]` to `[..., blocks, lanes]`, 0 where there are no units."""
    padding = -array.shape[-1] % lanes
    padded = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, padding)])
    return padded.reshape(*array.shape[:-1], -1, lanes)


def put(weights: np.ndarray, at: int, biases: np.ndarray, lanes: int) -> None:
    """Puts biases, `[G, H]`, where they are read, `[block][gate][lane]`."""
    blocks = in_blocks(biases, lanes).swapaxes(0, 1).ravel()
    weights[at : at + blocks.size] = blocks
