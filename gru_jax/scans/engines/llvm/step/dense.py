"""An output layer as a part of a step."""


import numpy as np
from llvmlite import ir

from gru_jax.scans.engines.llvm import activations
from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.plan import Room
from gru_jax.scans.engines.llvm.step.between import each, reduced
from gru_jax.scans.engines.llvm.step.matrix import Matrix, put
from gru_jax.scans.engines.llvm.step.net import Dense, Net
from gru_jax.scans.engines.llvm.step.writer import Writer


class DenseWriter(Writer):
    """Writes an output layer."""

    def __init__(self, program: Program, net: Net, part: Dense, weights: Room, memory: Room) -> None:
        self.program, self.part, self.lanes, self.rows = program, part, net.lanes, net.rows
        self.w = Matrix(net, weights, part.features, part.width, 1)
        self.b = weights.take(self.w.blocks * net.lanes)

    def lay_out(self, weights: np.ndarray, *arrays: np.ndarray) -> None:
        """Puts w `[F, O]` and b `[O]` where they are read."""
        w, b = arrays
        self.w.lay_out(weights, w[:, None])
        put(weights, self.b, b[None], self.lanes)

    def step(self, code: Code, weights: Value, memory: Value, values: list[Value], to: Value) -> None:
        """Its step."""

        def tile(height: int, width: int, row: Value, block: Value, panel: Value) -> None:
            b = code.at(weights, code.add(code.mul(block, self.lanes), self.b))
            code.call(self._tile(height, width), values[self.part.source], to, panel, b, row, block)

        self.w.cover(code, weights, tile)
        if self.part.activation == "softmax":
            code.loop(0, self.rows, lambda r: self._softmax(code, code.at(to, code.mul(r, self.part.width))))

    def _tile(self, height: int, width: int) -> ir.Function:
        def tile(code: Code, x: Value, y: Value, panel: Value, b: Value, row: Value, block: Value) -> None:
            left = code.at(x, code.mul(row, self.part.features)), self.part.features
            start = [code.load(b, c * self.lanes) for c in range(width)]
            made = self.w.products(code, left, panel, start, height)
            if self.part.activation == "sigmoid":
                made = [[activations.sigmoid(code, value) for value in values] for values in made]
            self.w.store(code, made, y, row, block)

        return self.program.function(f"dense_{height}x{width}", [POINTER] * 4 + [I64] * 2, tile)

    def _softmax(self, code: Code, row: Value) -> None:
        """A row's exponentials over their sum; its largest number taken out first, for they are finite then."""
        width, b = self.part.width, code.builder
        smallest = code.spread(float("-inf"))
        largest = reduced(
            code, width, "maximum", smallest, lambda i, n: code.only_first(n, code.load_first(n, row, i), smallest)
        )

        def put_exponential(i: Value, n: int) -> None:
            code.store_first(n, activations.exp(code, b.fsub(code.load_first(n, row, i), largest)), row, i)

        each(code, width, put_exponential)
        total = reduced(code, width, "add", code.spread(0.0), lambda i, n: code.load_first(n, row, i))
        each(code, width, lambda i, n: code.store_first(n, b.fdiv(code.load_first(n, row, i), total), row, i))
