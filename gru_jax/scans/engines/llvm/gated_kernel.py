"""What a gated cell's passes share: who does which part, and how matrices, states and input are laid out."""

from collections.abc import Callable

from llvmlite import ir

from gru_jax.scans.engines.llvm import products
from gru_jax.scans.engines.llvm.code import I1, I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.plan import RESET, USED, Plan, Room, spread_rows
from gru_jax.scans.engines.llvm.products import Stream


class Kernel:
    """A kernel that is being written for a plan; `over_time` writes what a thread does with some rows and blocks.

    Attributes:
      gates: numbers of a block of units of all gates.
      slots: those of a block of gradients of gates.
      kept: those of a block of what is kept of a step.
      h_row: from one row of states to the next in the scratch memory.
      b_u, b_q: where the biases of the projected input, and those inside the candidate, are in the scratch memory.
      shared: float32 of scratch memory that all threads share.
      own: float32 that each part has for itself.
    """

    b_u: int
    b_q: int
    shared: int
    own: int

    def __init__(self, program: Program, plan: Plan) -> None:
        self.program, self.plan, self.cell = program, plan, plan.cell
        self.lanes, self.blocks = plan.lanes, plan.blocks
        self.gates, self.slots, self.kept = (
            n * plan.lanes for n in (plan.cell.gates, plan.cell.slots, plan.cell.kept)
        )
        self.h_row = spread_rows(plan.width)
        self.every = tuple(range(plan.cell.gates))

    @property
    def scratch(self) -> int:
        """Float32 of scratch memory in all."""
        return self.shared + self.plan.parts * self.own

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

    def call(self, code: Code, name: str, write: Callable[..., None], **given: Value) -> None:
        """Calls the function of this name, which `write(code, **given)` writes at the first call."""
        given = {key: code.number(value) for key, value in given.items()}
        body = lambda code, *args: write(code, **dict(zip(given, args, strict=True)))  # noqa: E731
        code.call(self.program.function(name, [a.type for a in given.values()], body), *given.values())

    def room_for_weights(self, room: Room) -> None:
        """Places for the matrices laid out anew, those of the state for each phase."""
        plan = self.plan
        self.w_x = room.take(plan.blocks, plan.features, self.gates)
        self.w_h = [room.take(plan.blocks, plan.units, len(gates) * plan.lanes) for gates in plan.cell.phases]

    def lay_out_weights(
        self, code: Code, w_x: Value, w_h: Value, shared: Value, blocks: tuple[Value, Value]
    ) -> tuple[Value, list[Value]]:
        """The matrices as products read them: laid out anew, or as they are."""
        phases = self.cell.phases
        if not self.plan.packed:
            return w_x, [w_h] * len(phases)
        there_x, there_h = code.at(shared, self.w_x), [code.at(shared, at) for at in self.w_h]
        code.call(self._pack(self.plan.features, self.every), w_x, there_x, *blocks)
        for gates, there in zip(phases, there_h, strict=True):
            code.call(self._pack(self.plan.units, gates), w_h, there, *blocks)
        return there_x, there_h

    def panel(self, code: Code, w: Value, depth: int, block: Value, gates: tuple[int, ...]) -> Value:
        """The columns of a block in a matrix, laid out anew or as it is."""
        return code.at(w, code.mul(block, depth * len(gates) * self.lanes if self.plan.packed else self.lanes))

    def stream(self, code: Code, panel: Value, depth: int, width: int, gates: tuple[int, ...]) -> Stream:
        """The columns of some gates of so many blocks, as a product reads them."""
        lanes, each = self.lanes, len(gates) * self.lanes
        if self.plan.packed:
            offsets = tuple(c * depth * each + g * lanes for c in range(width) for g in range(len(gates)))
            return Stream(panel, each, offsets)
        offsets = tuple(c * lanes + self.plan.place(g) * self.plan.units for c in range(width) for g in gates)
        return Stream(panel, self.cell.gates * self.plan.units, offsets)

    def recurrent(
        self, code: Code, block: Value, height: int, width: int, h: Value, panel: Value, gates: tuple[int, ...],
        sums: list[list[Value]],
    ) -> list[list[Value]]:  # fmt: skip
        """`sums` and the products of rows of states with those columns of the recurrent matrix."""
        first, stop = self.plan.within(code, block, width)
        stream = self.stream(code, panel, self.plan.units, width, gates)
        if first != 0 or not isinstance(first, int):
            h = code.at(h, first)
            stream = stream._replace(pointer=code.at(panel, code.mul(first, stream.step)))
        rows = [(h, i * self.h_row) for i in range(height)]
        return products.accumulate(code, code.sub(stop, first), rows, 1, stream, sums)

    def lay_out_biases(self, code: Code, b_x: Value, b_h: Value, shared: Value, blocks: tuple[Value, Value]) -> None:
        """b_u: those of the projected input with what is added to it later; b_q: those inside the candidate."""
        plan, last = self.plan, self.cell.gates - 1

        def of_block(code: Code, b_u: Value, b_q: Value, block: Value, **biases: Value) -> None:
            lane = code.mul(block, plan.lanes)

            def fill(count: int) -> None:
                def load(name: str, place: int) -> Value:
                    return code.load_first(count, biases[name], code.add(lane, place * plan.units))

                def of_product(gate: int) -> Value | None:
                    if plan.bias == "full":
                        return load("b_h", plan.place(gate))
                    return load("b_h", 0) if plan.bias == "minimal" and gate == last else None

                for gate in self.every:
                    value: Value = code.spread(0.0) if plan.bias == "none" else load("b_x", plan.place(gate))
                    apart = self.cell.inside and gate == last
                    if not apart and (more := of_product(gate)) is not None:
                        value = code.builder.fadd(value, more)
                    code.store(value, b_u, code.add(code.mul(lane, self.cell.gates), gate * plan.lanes))
                if self.cell.inside:
                    inside = of_product(last)
                    code.store(code.spread(0.0) if inside is None else inside, b_q, lane)

            self.by_count(code, block, 1, fill)

        given = {name: b for name, b in (("b_x", b_x), ("b_h", b_h)) if b is not None}
        given |= {"b_u": code.at(shared, self.b_u), "b_q": code.at(shared, self.b_q)}
        code.loop(*blocks, lambda block: self.call(code, "biases", of_block, block=block, **given))

    def by_count(self, code: Code, block: Value, width: int, write: Callable[[int], None]) -> None:
        """`write(lanes of the last block)` for some blocks: all of them, or in the last of all fewer."""
        if not self.plan.tail:
            write(self.lanes)
            return
        with code.builder.if_else(code.equal(code.add(block, width), self.blocks)) as (last, others):
            with last:
                write(self.plan.tail)
            with others:
                write(self.lanes)

    def chosen_by_count(self, code: Code, block: Value, width: int, read: Callable[[int], list[Value]]) -> list[Value]:
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

    def _pack(self, depth: int, gates: tuple[int, ...]) -> ir.Function:
        """Lays columns of a matrix of so many rows out anew: `[blocks, depth, gates, lanes]`, 0 where no units are."""

        def pack(code: Code, w: Value, to: Value, first: Value, stop: Value) -> None:
            plan, lanes = self.plan, self.plan.lanes
            width = self.cell.gates * plan.units

            def of_block(block: Value) -> None:
                def put(k: Value, gate: int, value: Value) -> None:
                    row = code.add(code.mul(block, depth), k)
                    code.store(value, to, code.add(code.mul(row, len(gates) * lanes), gates.index(gate) * lanes))

                def column(gate: int) -> Value:
                    return code.add(code.mul(block, lanes), plan.place(gate) * plan.units)

                def fill(count: int) -> None:
                    def of_row(k: Value) -> None:
                        for gate in gates:
                            put(k, gate, code.load_first(count, w, code.add(code.mul(k, width), column(gate))))

                    code.loop(0, depth, of_row)

                def turn(count: int) -> None:
                    def of_rows(k: Value, size: int = lanes) -> None:
                        for gate in gates:
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

        name = f"pack_{depth}_{'_'.join(map(str, gates))}"
        return self.program.function(name, [POINTER, POINTER, I64, I64], pack)

    def copy_blocks(
        self, code: Code, source: Value, source_row: Value, to: Value, rows: int, blocks: tuple[Value, Value],
        factor: Value = None, instead: tuple[Value, Value, Value] | None = None,
    ) -> None:  # fmt: skip
        """Rows of states to rows that are filled up with zeros.

        Args:
          code: the function that is being written.
          source: the first row.
          source_row: from one row to the next.
          to: where the first goes.
          rows: how many.
          blocks: the first block that is copied and the one after the last.
          factor: rows `[rows, units]` that they are multiplied by, or None.
          instead: rows `[rows, units]`, and where flags are and the distance of rows' flags: where a state is set to
            another, that is copied.
        """
        units = self.plan.units

        def of_block(block: Value) -> None:
            def fill(count: int) -> None:
                def of_row(r: Value) -> None:
                    lane = code.mul(block, self.lanes)
                    row = code.at(source, code.mul(r, source_row))
                    if instead is not None:
                        others, flags, f_row = instead
                        is_set = code.bit(RESET, flags, code.mul(r, f_row))
                        row = code.builder.select(is_set, code.at(others, code.mul(r, units)), row)
                    value = code.load_first(count, row, lane)
                    if factor is not None:
                        times = code.load_first(count, factor, code.add(code.mul(r, units), lane))
                        value = code.builder.fmul(value, times)
                    code.store(value, to, code.add(code.mul(r, self.h_row), lane))

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
                        used = code.bit(USED, use, code.add(code.mul(s, f_step), code.mul(r, f_row)))

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
