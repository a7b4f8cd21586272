"""The products of a gated cell's backward pass: with transposed matrices, and those that give gradients of matrices.

The gradients of a step's gates stand block by block, a vector for each slot of the cell.
"""

from llvmlite import ir

from gru_jax.scans.engines.llvm import products
from gru_jax.scans.engines.llvm.code import I1, I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.gated_kernel import Kernel
from gru_jax.scans.engines.llvm.plan import Plan, spread_rows
from gru_jax.scans.engines.llvm.products import Stream, Tiling


class GradientKernel(Kernel):
    """A kernel that has gradients of gates `[blocks, rows, slots]` and states `[rows, h_row]` in its scratch memory.

    Attributes:
      depth: numbers of all gates of all units, filled up.
      x_blocks: vectors that all features take up.
      d_block: gradients from one block to the next. A block's rows lie together, as they are read again and again for
        the gradient of a matrix.
    """

    def __init__(self, program: Program, plan: Plan) -> None:
        super().__init__(program, plan)
        self.depth = plan.blocks * self.gates
        self.x_blocks = -(-plan.features // plan.lanes)
        self.d_block = spread_rows(plan.chunk * max(rows for _, rows in plan.rows()) * self.slots)

    def clear(self, rows: int) -> ir.Function:
        """Zeros in some blocks of rows of states."""

        def clear(code: Code, to: Value, first: Value, stop: Value) -> None:
            def of_row(r: Value) -> None:
                at = lambda block: code.add(code.mul(r, self.h_row), code.mul(block, self.lanes))  # noqa: E731
                code.loop(first, stop, lambda block: code.store(code.spread(0.0), to, at(block)))

            code.loop(0, rows, of_row)

        return self.program.function(f"clear_{rows}", [POINTER, I64, I64], clear)

    def states_before(self, rows: int, seen: bool = False) -> ir.Function:
        """The state before each step of a chunk, `[size * rows, width]`; with `seen` as the products have it."""
        resets, dropout = self.plan.resets, self.plan.dropout and seen

        def copy(
            code: Code, h0: Value, y: Value, to: Value, others: Value, drop: Value, flags: Value, begin: Value,
            size: Value, y_row: Value, y_step: Value, f_row: Value, f_step: Value, first: Value, stop: Value,
        ) -> None:  # fmt: skip
            def of_step(s: Value) -> None:
                t = code.add(begin, s)
                there = code.at(to, code.mul(s, rows * self.h_row))
                at_start = code.equal(t, 0)
                source = code.at(y, code.mul(code.sub(t, 1), y_step))
                source = code.builder.select(at_start, h0, source)
                row = code.builder.select(at_start, I64(self.plan.units), y_row)
                at_flags = code.bytes(flags, code.mul(t, f_step))
                self.copy_blocks(
                    code, source, row, there, rows, (first, stop), factor=drop if dropout else None,
                    instead=(others, at_flags, f_row) if resets else None,
                )  # fmt: skip

            code.loop(0, size, of_step)

        return self.program.function(f"before_{rows}_{dropout}", [POINTER] * 6 + [I64] * 8, copy)

    def transpose(self, depth: int, first_gate: int) -> ir.Function:
        """A matrix `[depth, G H]` transposed, `[blocks of depth, blocks, G, lanes, lanes of depth]`.

        The gates are in their order, turned so that one of them comes first.
        """

        def transpose(code: Code, w: Value, to: Value, first: Value, stop: Value) -> None:
            plan, lanes, gates = self.plan, self.lanes, self.cell.gates
            x_tail = depth % lanes
            last = -(-depth // lanes)

            def square(to_block: Value, block: Value, height: int, count: int) -> None:
                def of_gate(place: Value) -> None:
                    gate = code.builder.urem(code.add(place, first_gate), I64(gates))
                    corner = code.add(code.mul(to_block, lanes * gates * plan.units), code.mul(block, lanes))
                    corner = code.add(corner, code.mul(gate, plan.units))
                    rows = [code.load_first(count, w, code.add(corner, k * gates * plan.units)) for k in range(height)]
                    rows += [code.spread(0.0)] * (lanes - height)
                    there = code.add(code.mul(to_block, self.depth * lanes), code.mul(block, self.gates * lanes))
                    there = code.add(there, code.mul(place, lanes * lanes))
                    for k, column in enumerate(code.transposed(rows)):
                        code.store(column, to, code.add(there, k * lanes))

                code.loop(0, gates, of_gate)

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

    def seen_by(self, code: Code, block: Value, width: int) -> tuple[Value, Value]:
        """The blocks of units, from one to before another, that see some of the state in the recurrent matrix."""
        first, stop = self.plan.within(code, block, width)
        return code.div(first, self.lanes), code.div(code.add(stop, self.lanes - 1), self.lanes)

    def through(
        self, code: Code, d: Value, panel: Value, height: int, width: int, slot: int, gates: int,
        blocks: tuple[Value, Value],
    ) -> list[list[Value]]:  # fmt: skip
        """The product of rows of d, of so many slots from one on, with as many gates of a transposed matrix.

        What is summed over are the units of blocks from one to before another.
        """
        offsets = tuple(j * self.depth * self.lanes for j in range(width))
        flat = [v for row in products.nothing(code, height, width) for v in row]

        def of_block(k: Value, *flat: Value) -> list[Value]:
            here = code.at(d, code.add(code.mul(k, self.d_block), slot * self.lanes))
            rows = [(here, i * self.slots) for i in range(height)]
            stream = Stream(code.at(panel, code.mul(k, self.gates * self.lanes)), self.lanes, offsets)
            before = [list(flat[i * width : (i + 1) * width]) for i in range(height)]
            found = products.accumulate(code, gates * self.lanes, rows, 1, stream, before)
            return [v for row in found for v in row]

        flat = code.loop(*blocks, of_block, flat)
        return [flat[i * width : (i + 1) * width] for i in range(height)]

    def matrix_gradient(
        self, code: Code, rows: Value, source: Value, source_row: int, depth: int, d: Value, sums: Value,
        so_far: Value, slots: dict[int, int], blocks: tuple[Value, Value], recurrent: bool,
    ) -> None:  # fmt: skip
        """`sums += source^T d`, `[depth, G H]`, for gates in their slots; without `so_far` nothing is summed yet."""
        lanes, units, every = self.lanes, self.plan.units, self.cell.gates

        def write(height: int, width: int) -> ir.Function:
            def tile(
                code: Code, rows: Value, source: Value, d: Value, sums: Value, so_far: Value, block: Value
            ) -> None:  # fmt: skip
                each = [(i, j, g) for i in range(height) for j in range(width) for g in slots]
                column = code.mul(block, lanes)
                place = lambda i, j, g: code.add(column, i * every * units + g * units + j * lanes)  # noqa: E731
                in_block = lambda count, j: count if j == width - 1 else lanes  # noqa: E731

                wide = len(slots) * width
                offsets = tuple(j * self.d_block + slot * lanes for j in range(width) for slot in slots.values())
                stream = Stream(d, self.slots, offsets)
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
                    sums_here = [value for row in found for value in row]
                    for (i, j, g), old, more in zip(each, earlier, sums_here, strict=True):
                        value = code.builder.fadd(old, more)
                        code.store_first(in_block(count, j), value, sums, place(i, j, g))

                self.by_count(code, block, width, put)

            name = f"d_w_{source_row}_{'_'.join(map(str, [*slots, *slots.values()]))}_{height}x{width}"
            return self.program.function(name, [I64, *[POINTER] * 3, I1, I64], tile)

        def tile(height: int, width: int, row: Value, block: Value) -> None:
            def whole() -> None:
                code.call(
                    write(height, width), rows, code.at(source, row), code.at(d, code.mul(block, self.d_block)),
                    code.at(sums, code.mul(row, every * units)), so_far, block,
                )  # fmt: skip

            if not recurrent or self.plan.head == units:
                whole()
                return
            # Elsewhere the matrix is no parameter, and its gradient is left as it was found.
            first, stop = self.plan.within(code, block, width)
            with code.when(code.builder.and_(code.less(row, stop), code.less(first, code.add(row, height)))):
                whole()

        Tiling.of(self.plan.sums, len(slots), self.blocks, depth).cover(code, depth, blocks, tile)

    def bias_gradient(
        self, code: Code, rows: Value, d: Value, sums: Value, so_far: Value, blocks: tuple[Value, Value]
    ) -> None:
        """The sums of all slots over rows, likewise."""

        def of_block(code: Code, rows: Value, d: Value, sums: Value, so_far: Value) -> None:
            slots = [k * self.lanes for k in range(self.cell.slots)]

            def of_row(m: Value, *found: Value) -> list[Value]:
                here = code.at(d, code.mul(m, self.slots))
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
            found = self.through(code, d, panel, height, width, 0, self.cell.gates, (0, self.blocks))
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
