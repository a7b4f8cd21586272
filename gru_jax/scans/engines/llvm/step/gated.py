"""A gated cell's step, of few sequences: all of the time goes into reading its matrices, so they lie as they are read.

The blocks of units that are computed together, a tile, have their columns side by side: `[tile][k][block][gate][lane]`.
A step reads one matrix after another from its first number to its last.
"""

import functools
from typing import Any

import numpy as np

from gru_jax.scans.engines.llvm import products
from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.plan import Room, spread_rows
from gru_jax.scans.engines.llvm.products import Stream, Tiling
from gru_jax.scans.engines.llvm.step.between import Writer
from gru_jax.scans.engines.llvm.step.net import Cell, Net
from gru_jax.scans.engines.llvm.vectors import Vectors


class CellWriter(Writer):
    """Writes a cell's step."""

    def __init__(self, program: Program, net: Net, part: Cell, weights: Room, memory: Room) -> None:
        self.program, self.part = program, part
        self.cell: Any = part.cell
        self.lanes, self.rows = net.lanes, net.rows
        self.blocks, self.tail = -(-part.width // self.lanes), part.width % self.lanes
        self.every = tuple(range(self.cell.gates))
        padded = self.blocks * self.lanes
        self.b_u, self.b_q = weights.take(padded, self.cell.gates), weights.take(padded)
        self.w_x = weights.take(part.features, padded, self.cell.gates)
        self.w_h = [weights.take(part.width, padded, len(gates)) for gates in self.cell.phases]
        self.tiles = {len(gates): self._tiles(net.sums, len(gates)) for gates in (self.every, *self.cell.phases)}
        self.h_row, self.u_row = spread_rows(padded), spread_rows(padded * self.cell.gates)
        own = Room()
        self.vectors = [own.take(self.rows, self.h_row) for _ in self.cell.states]
        self.u, self.after = own.take(self.rows, self.u_row), own.take(self.rows, self.h_row)
        # Between two phases.
        self.kept_row = padded * self.cell.kept_first if self.cell.second else 0
        self.operand, self.kept = own.take(self.rows, self.h_row), own.take(self.rows, self.kept_row)
        # All that its functions know is where things are in its own memory: those of equal cells are the same.
        self.memory = memory.take(own.size)

    @property
    def states(self) -> tuple[tuple[int, int], ...]:
        """Its state vectors, each where it begins and how far it is from one sequence to the next."""
        return tuple((self.memory + at, self.h_row) for at in self.vectors)

    def lay_out(self, weights: np.ndarray, *arrays: np.ndarray) -> None:
        """Puts w_x `[I, G H]`, w_h `[H, G H]`, b_u `[G H]` and b_q `[H]` where they are read."""
        w_x, w_h, b_u, b_q = arrays
        self._put(weights, self.w_x, w_x, self.every)
        for at, gates in zip(self.w_h, self.cell.phases, strict=True):
            if gates:
                self._put(weights, at, w_h, gates)
        for at, bias, gates in ((self.b_u, b_u, self.every), (self.b_q, b_q, (0,))):
            blocks = self._in_blocks(bias[None], len(gates))[0]
            weights[at : at + blocks.size] = blocks.swapaxes(0, 1).ravel()

    def step(self, code: Code, weights: Value, memory: Value, values: list[Value], to: Value) -> None:
        """Its step."""
        part, gates = self.part, self.cell.gates * self.lanes
        memory = code.at(memory, self.memory)
        u, h, after = (code.at(memory, at) for at in (self.u, self.vectors[0], self.after))

        def project(height: int, width: int, row: Value, block: Value) -> None:
            code.call(
                self._projection(height, width), code.at(values[part.source], code.mul(row, part.features)),
                code.at(weights, code.add(code.mul(block, part.features * gates), self.w_x)),
                code.at(weights, code.add(code.mul(block, gates), self.b_u)),
                code.at(u, code.add(code.mul(row, self.u_row), code.mul(block, gates))),
            )  # fmt: skip

        def move(phase: int, height: int, width: int, row: Value, block: Value) -> None:
            wide = len(self.cell.phases[phase]) * self.lanes
            code.call(
                self._moving(phase, height, width), memory,
                code.at(weights, code.add(code.mul(block, part.width * wide), self.w_h[phase])),
                code.at(weights, code.add(code.mul(block, self.lanes), self.b_q)), to, row, block,
            )  # fmt: skip

        self.tiles[len(self.every)].cover(code, self.rows, (0, self.blocks), project)
        for phase, those in enumerate(self.cell.phases):
            self.tiles[len(those)].cover(code, self.rows, (0, self.blocks), functools.partial(move, phase))
        code.loop(0, self.rows * self.h_row, lambda i: code.store(code.load(after, i), h, i), step=self.lanes)

    def _projection(self, height: int, width: int) -> Any:
        """A tile of u."""

        def project(code: Code, x: Value, panel: Value, bias: Value, u: Value) -> None:
            count, features = self.cell.gates * width, self.part.features
            sums = [code.load(bias, j * self.lanes) for j in range(count)]
            rows = [(x, i * features) for i in range(height)]
            found = products.accumulate(code, features, rows, 1, self._stream(panel, count), [sums] * height)
            for i, row in enumerate(found):
                for j, value in enumerate(row):
                    code.store(value, u, i * self.u_row + j * self.lanes)

        return self.program.function(f"project_{height}x{width}", [POINTER] * 4, project)

    def _moving(self, phase: int, height: int, width: int) -> Any:
        """A tile of a phase: the products, and what becomes of them."""
        cell, lanes, gates = self.cell, self.lanes, self.cell.phases[phase]
        last, count = phase == len(cell.phases) - 1, len(gates) * width

        def move(code: Code, memory: Value, panel: Value, bias: Value, y: Value, row: Value, block: Value) -> None:
            lane, to = code.mul(block, lanes), Vectors(code)
            at_row = lambda at, size: code.at(memory, code.add(code.mul(row, size), at))  # noqa: E731
            left = at_row(self.operand if phase else self.vectors[0], self.h_row)
            # The candidate's product is the last one.
            start = [
                code.load(bias, c * lanes) if last and g == gates[-1] else code.spread(0.0)
                for c in range(width) for g in gates
            ]  # fmt: skip
            rows = [(left, i * self.h_row) for i in range(height)]
            sums = [start] * height
            if gates:
                sums = products.accumulate(code, self.part.width, rows, 1, self._stream(panel, count), sums)
            made = []
            for i in range(height):
                for c in range(width):
                    of_state = code.add(lane, i * self.h_row + c * lanes)
                    of_u = code.add(code.mul(lane, cell.gates), i * self.u_row + c * cell.gates * lanes)
                    of_kept = code.add(code.mul(lane, cell.kept_first), i * self.kept_row + c * cell.kept_first * lanes)
                    u = [code.load(at_row(self.u, self.u_row), code.add(of_u, g * lanes)) for g in gates or self.every]
                    q = sums[i][c * len(gates) : (c + 1) * len(gates)]
                    kept = at_row(self.kept, self.kept_row)
                    if last:
                        old = [code.load(at_row(at, self.h_row), of_state) for at in self.vectors]
                        known = range(cell.kept_first if cell.second else 0)
                        first = [code.load(kept, code.add(of_kept, j * lanes)) for j in known]
                        new, _ = cell.forward(to, u, q, old, first)
                        for at, value in zip((self.after, *self.vectors[1:]), new, strict=True):
                            code.store(value, at_row(at, self.h_row), of_state)
                        made.append((i, c, new[0]))
                    else:
                        operand, found = cell.operand(to, u, q, code.load(left, of_state))
                        code.store(operand, at_row(self.operand, self.h_row), of_state)
                        for j, value in enumerate(found):
                            code.store(value, kept, code.add(of_kept, j * lanes))

            def put(tail: int) -> None:
                for i, c, value in made:
                    place = code.add(code.mul(code.add(row, i), self.part.width), code.add(lane, c * lanes))
                    code.store_first(tail if c == width - 1 else lanes, value, y, place)

            if not self.tail:
                put(lanes)
                return
            with code.builder.if_else(code.equal(code.add(block, width), self.blocks)) as (at_end, before):
                with at_end:
                    put(self.tail)
                with before:
                    put(lanes)

        return self.program.function(f"phase{phase}_{height}x{width}", [POINTER] * 4 + [I64] * 2, move)

    def _stream(self, panel: Value, count: int) -> Stream:
        """The columns of a tile."""
        return Stream(panel, count * self.lanes, tuple(j * self.lanes for j in range(count)))

    def _tiles(self, sums: int, gates: int) -> Tiling:
        """Tiles of the same blocks whatever their height, for a matrix can be laid out in one way only."""
        tiling = Tiling.of(sums, max(gates, 1), self.blocks, self.rows)
        return Tiling(tiling.heights, (min(tiling.widths),) * len(tiling.heights))

    def _in_blocks(self, matrix: np.ndarray, gates: int) -> np.ndarray:
        """`[K, G H]` to `[K, G, blocks, lanes]`, 0 where there are no units."""
        matrix = matrix.reshape(len(matrix), gates, -1)
        padding = self.blocks * self.lanes - matrix.shape[-1]
        return np.pad(matrix, ((0, 0), (0, 0), (0, padding))).reshape(len(matrix), gates, self.blocks, self.lanes)

    def _put(self, weights: np.ndarray, at: int, matrix: np.ndarray, gates: tuple[int, ...]) -> None:
        """Lays out the columns of some gates, tile after tile."""
        blocks = self._in_blocks(matrix, self.cell.gates)[:, list(gates)].transpose(2, 0, 1, 3)
        block = 0
        for width in self.tiles[len(gates)].widths[0]:
            while block + width <= self.blocks:
                tile = blocks[block : block + width].swapaxes(0, 1).ravel()
                weights[at : at + tile.size] = tile
                at, block = at + tile.size, block + width
