"""The products of a GRU's backward pass: with the transposed matrices, and those that give the gradients of matrices.

The gradients of a step's gates stand block by block, four vectors each: n, r and z are what reaches the projected
input, r, z and q what reaches the recurrent products; both are three vectors in a row.
"""

from llvmlite import ir

from gru_jax.scans.engines.llvm import products
from gru_jax.scans.engines.llvm.code import I1, I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.gru_kernel import Kernel
from gru_jax.scans.engines.llvm.plan import Plan, spread_rows
from gru_jax.scans.engines.llvm.products import Stream, Tiling

N, R, Z, Q = range(4)
"""Where each of them stands in a block."""


class GradientKernel(Kernel):
    """A kernel that has gradients of gates `[blocks, rows, d_row]` and states `[rows, h_row]` in its scratch memory.

    Attributes:
      slots: numbers of a block of such gradients.
      depth: numbers of three gates of all units, filled up.
      x_blocks: vectors that all features take up.
      d_row, h_row: from one row to the next.
      d_block: from one block to the next. A block's rows lie together, as they are read again and again for the
        gradient of a matrix.
    """

    def __init__(self, program: Program, plan: Plan) -> None:
        super().__init__(program, plan)
        self.slots = 4 * plan.lanes
        self.depth = plan.blocks * self.gates
        self.x_blocks = -(-plan.features // plan.lanes)
        self.d_row, self.h_row = self.slots, spread_rows(plan.width)
        self.d_block = spread_rows(plan.chunk * max(rows for _, rows in plan.rows()) * self.d_row)

    def clear(self, rows: int) -> ir.Function:
        """Zeros in some blocks of what is carried from step to step."""

        def clear(code: Code, to: Value, first: Value, stop: Value) -> None:
            def of_row(r: Value) -> None:
                at = lambda block: code.add(code.mul(r, self.h_row), code.mul(block, self.lanes))  # noqa: E731
                code.loop(first, stop, lambda block: code.store(code.spread(0.0), to, at(block)))

            code.loop(0, rows, of_row)

        return self.program.function(f"clear_{rows}", [POINTER, I64, I64], clear)

    def states_before(self, rows: int) -> ir.Function:
        """The state before each step of a chunk, `[size * rows, width]`."""

        def copy(
            code: Code, h0: Value, y: Value, to: Value, begin: Value, size: Value, y_row: Value, y_step: Value,
            first: Value, stop: Value,
        ) -> None:  # fmt: skip
            def of_step(s: Value) -> None:
                t = code.add(begin, s)
                there = code.at(to, code.mul(s, rows * self.h_row))
                at_start = code.equal(t, 0)
                source = code.at(y, code.mul(code.sub(t, 1), y_step))
                source = code.builder.select(at_start, h0, source)
                row = code.builder.select(at_start, I64(self.plan.units), y_row)
                self.copy_blocks(code, source, row, there, self.h_row, rows, (first, stop))

            code.loop(0, size, of_step)

        return self.program.function(f"before_{rows}", [POINTER] * 3 + [I64] * 6, copy)

    def transpose(self, depth: int, first_gate: int) -> ir.Function:
        """A matrix `[depth, 3H]` transposed, `[blocks of depth, blocks, 3, lanes, lanes of depth]`.

        The gates are in the order r, z, n, turned so that one of them comes first.
        """

        def transpose(code: Code, w: Value, to: Value, first: Value, stop: Value) -> None:
            plan, lanes = self.plan, self.lanes
            x_tail = depth % lanes
            last = -(-depth // lanes)

            def square(to_block: Value, block: Value, height: int, count: int) -> None:
                def of_gate(place: Value) -> None:
                    gate = code.builder.urem(code.add(place, first_gate), I64(3))
                    corner = code.add(code.mul(to_block, lanes * 3 * plan.units), code.mul(block, lanes))
                    corner = code.add(corner, code.mul(gate, plan.units))
                    rows = [code.load_first(count, w, code.add(corner, k * 3 * plan.units)) for k in range(height)]
                    rows += [code.spread(0.0)] * (lanes - height)
                    there = code.add(code.mul(to_block, self.depth * lanes), code.mul(block, self.gates * lanes))
                    there = code.add(there, code.mul(place, lanes * lanes))
                    for k, column in enumerate(code.transposed(rows)):
                        code.store(column, to, code.add(there, k * lanes))

                code.loop(0, 3, of_gate)

            def of_rows(to_block: Value) -> None:
                def of_block(block: Value) -> None:
                    def fill(count: int) -> None:
                        if not x_tail:
                            square(to_block, block, lanes, count)
                            return
                        with code.builder.if_else(code.equal(code.add(to_block, 1), last)) as (at_end, before):
                            with at_end:
                                square(to_block, block, x_tail, count)
                            with before:
                                square(to_block, block, lanes, count)

                    self.by_count(code, block, 1, fill)

                code.loop(0, self.blocks, of_block)

            code.loop(first, stop, of_rows)

        return self.program.function(f"transpose_{depth}_{first_gate}", [POINTER, POINTER, I64, I64], transpose)

    def through(
        self, code: Code, d: Value, panel: Value, height: int, width: int, slot: int, sums: list[list[Value]],
        blocks: Value,
    ) -> list[list[Value]]:  # fmt: skip
        """`sums` and the product of rows of d, three of four slots from one on, with a transposed matrix.

        The first `blocks` blocks of units are what is summed over.
        """
        offsets = tuple(j * self.depth * self.lanes for j in range(width))
        flat = [v for row in sums for v in row]

        def of_block(k: Value, *flat: Value) -> list[Value]:
            here = code.at(d, code.add(code.mul(k, self.d_block), slot * self.lanes))
            rows = [(here, i * self.d_row) for i in range(height)]
            stream = Stream(code.at(panel, code.mul(k, self.gates * self.lanes)), self.lanes, offsets)
            before = [list(flat[i * width : (i + 1) * width]) for i in range(height)]
            found = products.accumulate(code, self.gates, rows, 1, stream, before)
            return [v for row in found for v in row]

        flat = code.loop(0, blocks, of_block, flat)
        return [flat[i * width : (i + 1) * width] for i in range(height)]

    def matrix_gradient(
        self, code: Code, rows: Value, source: Value, source_row: int, depth: int, d: Value, sums: Value,
        so_far: Value, of: str, blocks: tuple[Value, Value],
    ) -> None:  # fmt: skip
        """`sums += source^T d`, `[depth, 3H]`; without `so_far` nothing has been summed yet."""
        slots = (R, Z, Q) if of == "h" else (R, Z, N)
        lanes, units = self.lanes, self.plan.units

        def write(height: int, width: int) -> ir.Function:
            def tile(
                code: Code, rows: Value, source: Value, d: Value, sums: Value, so_far: Value, block: Value
            ) -> None:  # fmt: skip
                each = [(i, j, g) for i in range(height) for j in range(width) for g in range(3)]
                column = code.mul(block, lanes)
                place = lambda i, j, g: code.add(column, i * 3 * units + g * units + j * lanes)  # noqa: E731
                in_block = lambda count, j: count if j == width - 1 else lanes  # noqa: E731

                wide = 3 * width
                offsets = tuple(j * self.d_block + slot * lanes for j in range(width) for slot in slots)
                stream = Stream(d, self.d_row, offsets)
                left = [(source, i) for i in range(height)]
                # From zero: rows that are added to the sum of all chunks one by one lose a digit for a hundred chunks.
                found = products.accumulate(
                    code, rows, left, source_row, stream, products.nothing(code, height, wide)
                )

                def before(count: int) -> list[Value]:
                    return [code.load_first(in_block(count, j), sums, place(i, j, g)) for i, j, g in each]

                earlier = code.choose(
                    so_far, lambda: self.chosen_by_count(code, block, width, before),
                    lambda: [code.spread(0.0) for _ in each],
                )  # fmt: skip

                def put(count: int) -> None:
                    for (i, j, g), old in zip(each, earlier, strict=True):
                        value = code.builder.fadd(old, found[i][3 * j + g])
                        code.store_first(in_block(count, j), value, sums, place(i, j, g))

                self.by_count(code, block, width, put)

            return self.program.function(f"d_w_{of}_{height}x{width}", [I64, *[POINTER] * 3, I1, I64], tile)

        def tile(height: int, width: int, row: Value, block: Value) -> None:
            code.call(
                write(height, width), rows, code.at(source, row), code.at(d, code.mul(block, self.d_block)),
                code.at(sums, code.mul(row, 3 * units)), so_far, block,
            )  # fmt: skip

        Tiling.of(self.plan.sums, 3, self.blocks, depth).cover(code, depth, blocks, tile)

    def bias_gradient(
        self, code: Code, rows: Value, d: Value, sums: Value, so_far: Value, blocks: tuple[Value, Value]
    ) -> None:
        def of_block(code: Code, rows: Value, d: Value, sums: Value, so_far: Value) -> None:
            slots = [k * self.lanes for k in range(4)]

            def of_row(m: Value, *found: Value) -> list[Value]:
                here = code.at(d, code.mul(m, self.d_row))
                return [code.builder.fadd(v, code.load(here, k)) for k, v in zip(slots, found, strict=True)]

            found = code.loop(0, rows, of_row, [code.spread(0.0) for _ in slots])
            earlier = code.choose(
                so_far, lambda: [code.load(sums, k) for k in slots], lambda: [code.spread(0.0) for _ in slots]
            )
            for k, old, value in zip(slots, earlier, found, strict=True):
                code.store(code.builder.fadd(old, value), sums, k)

        function = self.program.function("d_b", [I64, POINTER, POINTER, I1], of_block)
        at = lambda a, block, size: code.at(a, code.mul(block, size))  # noqa: E731
        each = lambda block: code.call(function, rows, at(d, block, self.d_block), at(sums, block, self.slots), so_far)  # noqa: E731
        code.loop(*blocks, each)

    def input_gradient(self, height: int, width: int, rows: int) -> ir.Function:
        """A tile of the gradient of x; its rows are steps of sequences."""

        def tile(
            code: Code, d: Value, panel: Value, d_x: Value, x_row: Value, x_step: Value, row: Value, block: Value
        ) -> None:
            zeros = products.nothing(code, height, width)
            found = self.through(code, d, panel, height, width, N, zeros, self.blocks)
            lane, tail = code.mul(block, self.lanes), self.plan.features % self.lanes

            def put(count: int) -> None:
                for i, values in enumerate(found):
                    m = code.add(row, i)
                    step = code.div(m, rows)
                    which = code.sub(m, code.mul(step, rows))
                    there = code.at(d_x, code.add(code.mul(step, x_step), code.add(code.mul(which, x_row), lane)))
                    for j, value in enumerate(values):
                        code.store_first(count if j == width - 1 else self.lanes, value, there, j * self.lanes)

            if not tail:
                put(self.lanes)
                return
            with code.builder.if_else(code.equal(code.add(block, width), self.x_blocks)) as (last, others):
                with last:
                    put(tail)
                with others:
                    put(self.lanes)

        args = [POINTER] * 3 + [I64] * 4
        return self.program.function(f"d_x_{height}x{width}_{rows}", args, tile)
