"""What a GRU's forward and backward kernel share: who does which part, and how matrices and input are laid out."""

from typing import Any

from llvmlite import ir

from gru_jax.scans.engines.llvm.code import I1, I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.plan import Plan
from gru_jax.scans.engines.llvm.products import Stream


class Kernel:
    """A kernel that is being written for a plan; `over_time` writes what a thread does with some rows and blocks.

    Attributes:
      b_u, b_q: where the biases of the projected input, and those inside n, are in the scratch memory.
      shared: float32 of scratch memory that all threads share.
      own: float32 that each has for itself.
    """

    b_u: int
    b_q: int
    shared: int
    own: int

    def __init__(self, program: Program, plan: Plan) -> None:
        self.program, self.plan = program, plan
        self.lanes, self.blocks = plan.lanes, plan.blocks
        self.gates = 3 * plan.lanes

    @property
    def scratch(self) -> int:
        """Float32 of scratch memory in all."""
        return self.shared + self.plan.threads * self.own

    def over_time(self, code: Code, rows: int, *args: Value) -> None:
        """Writes the work on so many rows.

        The arguments are the job, the first row, the first block and the one after the last, which of how many threads
        that work in step this is, and where in the scratch memory its part of what is shared begins, and of its own.
        """
        raise NotImplementedError

    def part(self, code: Code, job: Value, part: Value, parts: Value) -> None:
        """What a thread does."""
        plan = self.plan
        own = code.add(code.mul(part, self.own), self.shared)
        if plan.together:
            first, stop = (code.div(code.mul(code.add(part, k), self.blocks), parts) for k in (0, 1))
            code.call(self._run(plan.batch), job, 0, first, stop, part, parts, 0, own)
            return
        done, row = 0, 0
        for number, rows in plan.rows():
            mine = code.sub(part, done)
            here = code.builder.and_(code.less(-1, mine), code.less(mine, number))
            with code.when(here):
                first = code.add(code.mul(mine, rows), row)
                code.call(self._run(rows), job, first, 0, self.blocks, part, 1, own, own)
            done, row = done + number, row + number * rows

    def _run(self, rows: int) -> ir.Function:
        def run(code: Code, *args: Value) -> None:
            self.over_time(code, rows, *args)

        return self.program.function(f"run_{rows}", [POINTER, *[I64] * 7], run)

    def panel(self, code: Code, w: Value, depth: int, block: Value) -> Value:
        """The columns of a block in a matrix, laid out anew or as it is."""
        return code.at(w, code.mul(block, depth * self.gates if self.plan.packed else self.lanes))

    def stream(self, code: Code, panel: Value, depth: int, width: int) -> Stream:
        gates = range(3)
        if self.plan.packed:
            offsets = tuple(c * depth * self.gates + g * self.lanes for c in range(width) for g in gates)
            return Stream(panel, self.gates, offsets)
        place = self.plan.weights.place
        offsets = tuple(c * self.lanes + place(g) * self.plan.units for c in range(width) for g in gates)
        return Stream(panel, 3 * self.plan.units, offsets)

    def lay_out_biases(self, code: Code, b_x: Value, b_h: Value, shared: Value, blocks: tuple[Value, Value]) -> None:
        """b_u: those of the projected input with what is added to r and z later; b_q: those inside n."""
        plan = self.plan

        def of_block(code: Code, b_x: Value, b_h: Value, b_u: Value, b_q: Value, block: Value) -> None:
            lane = code.mul(block, plan.lanes)

            def fill(count: int) -> None:
                load = lambda b, place: code.load_first(count, b, code.add(lane, place * plan.units))  # noqa: E731
                for gate in range(3):
                    place = plan.weights.place(gate)
                    value: Any = code.spread(0.0) if plan.bias == "none" else load(b_x, place)
                    if plan.bias == "full" and gate < 2:
                        value = code.builder.fadd(value, load(b_h, place))
                    code.store(value, b_u, code.add(code.mul(lane, 3), gate * plan.lanes))
                at = {"full": plan.weights.place(2), "minimal": 0}.get(plan.bias)
                code.store(code.spread(0.0) if at is None else load(b_h, at), b_q, lane)

            self.by_count(code, block, 1, fill)

        function = self.program.function("biases", [POINTER] * 4 + [I64], of_block)
        b_u, b_q = code.at(shared, self.b_u), code.at(shared, self.b_q)
        given = [b_u if b is None else b for b in (b_x, b_h)]
        code.loop(*blocks, lambda block: code.call(function, *given, b_u, b_q, block))

    def by_count(self, code: Code, block: Value, width: int, write: Any) -> None:
        """`write(lanes of the last block)` for some blocks: all of them, or in the last of all fewer."""
        if not self.plan.tail:
            write(self.lanes)
            return
        with code.builder.if_else(code.equal(code.add(block, width), self.blocks)) as (last, others):
            with last:
                write(self.plan.tail)
            with others:
                write(self.lanes)

    def chosen_by_count(self, code: Code, block: Value, width: int, read: Any) -> list[Value]:
        """The same with what `read` gives back."""
        if not self.plan.tail:
            return read(self.lanes)
        is_last = code.equal(code.add(block, width), self.blocks)
        return code.choose(is_last, lambda: read(self.plan.tail), lambda: read(self.lanes))

    def units_of_last(self, code: Code, block: Value, width: int) -> Value | None:
        """Which lanes of the last of some blocks hold units; None where all of them do, whatever the block."""
        if not self.plan.tail:
            return None
        lanes = lambda count: [ir.Constant(ir.VectorType(I1, self.lanes), [i < count for i in range(self.lanes)])]  # noqa: E731
        return self.chosen_by_count(code, block, width, lanes)[0]

    def pack(self, depth: int) -> ir.Function:
        """Lays a matrix of depth times 3H out anew: `[blocks, depth, 3, lanes]`, 0 where there are no units."""

        def pack(code: Code, w: Value, to: Value, first: Value, stop: Value) -> None:
            plan, lanes = self.plan, self.plan.lanes

            def of_block(block: Value) -> None:
                def put(k: Value, gate: int, value: Value) -> None:
                    row = code.add(code.mul(block, depth), k)
                    code.store(value, to, code.add(code.mul(row, self.gates), gate * lanes))

                def column(gate: int) -> Value:
                    return code.add(code.mul(block, lanes), plan.weights.place(gate) * plan.units)

                def fill(count: int) -> None:
                    def of_row(k: Value) -> None:
                        for gate in range(3):
                            value = code.load_first(count, w, code.add(code.mul(k, 3 * plan.units), column(gate)))
                            put(k, gate, value)

                    code.loop(0, depth, of_row)

                def turn(count: int) -> None:
                    def of_rows(k: Value, size: int = lanes) -> None:
                        for gate in range(3):
                            unit = lambda i, gate=gate: code.mul(code.add(column(gate), i), depth)  # noqa: E731
                            rows = [code.load_first(size, w, code.add(unit(i), k)) for i in range(count)]
                            rows += [code.spread(0.0)] * (lanes - count)
                            for i, value in enumerate(code.transposed(rows)[:size]):
                                put(code.add(k, i), gate, value)

                    whole = depth // lanes * lanes
                    code.loop(0, whole, of_rows, step=lanes)
                    if depth > whole:
                        of_rows(whole, depth - whole)

                self.by_count(code, block, 1, turn if plan.weights.transposed else fill)

            code.loop(first, stop, of_block)

        return self.program.function(f"pack_{depth}", [POINTER, POINTER, I64, I64], pack)

    def copy_blocks(
        self, code: Code, source: Value, source_row: int, to: Value, to_row: int, rows: int,
        blocks: tuple[Value, Value],
    ) -> None:  # fmt: skip
        """Rows of states to rows that are filled up with zeros."""

        def of_block(block: Value) -> None:
            def fill(count: int) -> None:
                def of_row(r: Value) -> None:
                    lane = code.mul(block, self.lanes)
                    value = code.load_first(count, source, code.add(code.mul(r, source_row), lane))
                    code.store(value, to, code.add(code.mul(r, to_row), lane))

                code.loop(0, rows, of_row)

            self.by_count(code, block, 1, fill)

        code.loop(*blocks, of_block)

    def copy_input(self, rows: int) -> ir.Function:
        """The input of some steps, of all rows, side by side: `[size * rows, I]`; 0 at steps that are not used."""

        def copy(
            code: Code, x: Value, to: Value, size: Value, x_row: Value, x_step: Value, use: Value, f_row: Value,
            f_step: Value,
        ) -> None:  # fmt: skip
            features, lanes = self.plan.features, self.lanes
            whole, rest = features // lanes * lanes, features % lanes

            def of_step(s: Value) -> None:
                def of_row(r: Value) -> None:
                    source = code.at(x, code.add(code.mul(s, x_step), code.mul(r, x_row)))
                    there = code.at(to, code.mul(code.add(code.mul(s, rows), r), features))
                    used = None
                    if self.plan.masked:
                        used = code.flag(use, code.add(code.mul(s, f_step), code.mul(r, f_row)))

                    def move(i: Value, count: int = lanes) -> None:
                        value = code.load_first(count, source, i)
                        if used is not None:
                            value = code.builder.select(used, value, code.spread(0.0))
                        code.store_first(count, value, there, i)

                    if whole:
                        code.loop(0, whole, move, step=lanes)
                    if rest:
                        move(whole, rest)

                code.loop(0, rows, of_row)

            code.loop(0, size, of_step)

        return self.program.function(f"copy_{rows}", [POINTER] * 2 + [I64] * 3 + [POINTER, I64, I64], copy)
