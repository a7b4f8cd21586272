"""A cell's step: its input projected, then the products of its state, in phases, and what becomes of both."""

import functools
from typing import Any

import numpy as np
from llvmlite import ir

from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.plan import Room, spread_rows
from gru_jax.scans.engines.llvm.step.matrix import Matrix, put
from gru_jax.scans.engines.llvm.step.net import Cell, Net
from gru_jax.scans.engines.llvm.step.writer import Writer
from gru_jax.scans.engines.llvm.vectors import Vectors


class CellWriter(Writer):
    """Writes a cell's step."""

    def __init__(self, program: Program, net: Net, part: Cell, weights: Room, memory: Room) -> None:
        self.program, self.part, self.lanes, self.rows = program, part, net.lanes, net.rows
        cell: Any = part.cell
        self.cell, self.every = cell, tuple(range(cell.gates))
        self.w_x = Matrix(net, weights, part.features, part.width, cell.gates)
        self.w_h = [Matrix(net, weights, part.width, part.width, len(gates)) for gates in cell.phases]
        padded = self.w_x.blocks * self.lanes
        self.b_u, self.b_q = weights.take(padded, cell.gates), weights.take(padded)
        self.h_row, self.u_row = spread_rows(padded), spread_rows(padded * cell.gates)
        own = Room()
        self.vectors = [own.take(self.rows, self.h_row) for _ in cell.states]
        self.u, self.after = own.take(self.rows, self.u_row), own.take(self.rows, self.h_row)
        # Between two phases.
        self.kept_row = padded * cell.kept_first if cell.second else 0
        self.operand, self.kept = own.take(self.rows, self.h_row), own.take(self.rows, self.kept_row)
        # All that its functions know is where things are in its own memory: those of equal cells are the same.
        self.memory = memory.take(own.size)

    @property
    def states(self) -> tuple[tuple[int, int], ...]:
        """Its state vectors, each where it begins and how far it is from one sequence to the next."""
        return tuple((self.memory + at, self.h_row) for at in self.vectors)

    def lay_out(self, weights: np.ndarray, *arrays: np.ndarray) -> None:
        """Puts w_x `[I, G H]`, w_h `[H, G H]`, b_u `[G H]` and b_q `[H]` where they are read."""
        w_x, w_h, b_u, b_q = (a.reshape(*a.shape[:-1], -1, self.part.width) for a in arrays)
        self.w_x.lay_out(weights, w_x)
        for matrix, gates in zip(self.w_h, self.cell.phases, strict=True):
            if gates:
                matrix.lay_out(weights, w_h[:, list(gates)])
        put(weights, self.b_u, b_u, self.lanes)
        put(weights, self.b_q, b_q, self.lanes)

    def step(self, code: Code, weights: Value, memory: Value, values: list[Value], to: Value) -> None:
        """Its step."""
        x, memory = values[self.part.source], code.at(memory, self.memory)
        h, after = (code.at(memory, at) for at in (self.vectors[0], self.after))

        def project(height: int, width: int, row: Value, block: Value, panel: Value) -> None:
            b_u = code.at(weights, code.add(code.mul(block, self.cell.gates * self.lanes), self.b_u))
            code.call(self._projection(height, width), memory, x, panel, b_u, row, block)

        def move(phase: int, height: int, width: int, row: Value, block: Value, panel: Value) -> None:
            b_q = code.at(weights, code.add(code.mul(block, self.lanes), self.b_q))
            code.call(self._moving(phase, height, width), memory, to, panel, b_q, row, block)

        self.w_x.cover(code, weights, project)
        for phase, matrix in enumerate(self.w_h):
            matrix.cover(code, weights, functools.partial(move, phase))
        code.loop(0, self.rows * self.h_row, lambda i: code.store(code.load(after, i), h, i), step=self.lanes)

    def _projection(self, height: int, width: int) -> ir.Function:
        """A tile of u."""
        gates, lanes = self.cell.gates, self.lanes

        def project(code: Code, memory: Value, x: Value, panel: Value, b_u: Value, row: Value, block: Value) -> None:
            left = code.at(x, code.mul(row, self.part.features)), self.part.features
            start = [code.load(b_u, j * lanes) for j in range(gates * width)]
            u = self._place(code, memory, self.u, self.u_row, row, block, gates)
            for i, each in enumerate(self.w_x.products(code, left, panel, start, height)):
                for j, value in enumerate(each):
                    code.store(value, u, i * self.u_row + j * lanes)

        return self.program.function(f"project_{height}x{width}", [POINTER] * 4 + [I64] * 2, project)

    def _moving(self, phase: int, height: int, width: int) -> ir.Function:
        """A tile of a phase: the products, and what becomes of them."""
        cell, lanes, gates = self.cell, self.lanes, self.cell.phases[phase]
        last, reads = phase == len(cell.phases) - 1, gates or self.every

        def move(code: Code, memory: Value, y: Value, panel: Value, b_q: Value, row: Value, block: Value) -> None:
            to = Vectors(code)
            place = functools.partial(self._place, code, memory, row=row, block=block)
            left = code.at(memory, code.add(code.mul(row, self.h_row), self.operand if phase else self.vectors[0]))
            # The candidate's product is the last one.
            start = [
                code.load(b_q, c * lanes) if last and g == gates[-1] else code.spread(0.0)
                for c in range(width) for g in gates
            ]  # fmt: skip
            sums = self.w_h[phase].products(code, (left, self.h_row), panel, start, height)
            states = [place(at, self.h_row, per_block=1) for at in self.vectors]
            after, operands = (place(at, self.h_row, per_block=1) for at in (self.after, self.operand))
            of_u = place(self.u, self.u_row, per_block=cell.gates)
            of_kept = place(self.kept, self.kept_row, per_block=cell.kept_first)
            made: list[list[Value]] = []
            for i in range(height):
                made.append([])
                for c in range(width):
                    here = i * self.h_row + c * lanes
                    kept = i * self.kept_row + c * cell.kept_first * lanes
                    u = [code.load(of_u, i * self.u_row + (c * cell.gates + g) * lanes) for g in reads]
                    q = sums[i][c * len(gates) : (c + 1) * len(gates)]
                    if last:
                        old = [code.load(state, here) for state in states]
                        first = [code.load(of_kept, kept + j * lanes) for j in range(cell.kept_first * cell.second)]
                        new, _ = cell.forward(to, u, q, old, first)
                        for at, value in zip((after, *states[1:]), new, strict=True):
                            code.store(value, at, here)
                        made[i].append(new[0])
                    else:
                        h = place(self.vectors[0], self.h_row, per_block=1)
                        operand, first = cell.operand(to, u, q, code.load(h, here))
                        code.store(operand, operands, here)
                        for j, value in enumerate(first):
                            code.store(value, of_kept, kept + j * lanes)
            if last:
                self.w_x.store(code, made, y, row, block)

        return self.program.function(f"phase{phase}_{height}x{width}", [POINTER] * 4 + [I64] * 2, move)

    def _place(
        self, code: Code, memory: Value, at: int, row_size: int, row: Value, block: Value, per_block: int
    ) -> Value:
        """Where a tile's part is of an array in its memory that has so many vectors for each block."""
        inside = code.mul(block, per_block * self.lanes)
        return code.at(memory, code.add(code.add(code.mul(row, row_size), inside), at))
