"""A GRU's backward pass: chunk after chunk against the order of time, and in a chunk step after step.

With l_t the gradient of the state after step t, and f_t what the loss gives to it,

    d_n = l (1 - z) (1 - n^2),  d_q = d_n r,  d_r = d_n q r (1 - r),  d_z = l (h - n) z (1 - z)
    l_{t-1} = f_{t-1} + z l + [d_r d_z d_q] w_h^T

What is not needed from one step to the next, the gradients of the matrices and of the input, is computed for a chunk at
a time. The gates are read, or computed again for a chunk.
"""

from typing import Any

from llvmlite import ir

from gru_jax.scans.engines.llvm import activations, products, team
from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.gru_gradients import GradientKernel, N, Q, R, Z
from gru_jax.scans.engines.llvm.plan import Plan, Room
from gru_jax.scans.engines.llvm.products import Tiling

NAME = "gru_backward"

def write(plan: Plan) -> tuple[Program, int]:
    """The program, whose handler is NAME, and the float32 of scratch memory that it takes.

    Arguments: x, h0, w_x, w_h, without `keep` b_x and b_h as the cell has them, the flags if there are any, the states,
    with `keep` the gates, and the gradient of the states. Results: the gradients of x, h0, w_x and w_h, of all biases
    `[2, 3H]` (of the projected input, of the products), and scratch.
    """
    program = Program(plan.lanes)
    kernel = _Backward(program, plan)
    arguments = 4 + (0 if plan.keep or plan.bias == "none" else 2) + plan.masked + 2 + plan.keep
    team.handler(
        program, NAME, arguments=arguments, results=6, time_axis=plan.time_axis, parts=plan.threads,
        together=plan.together, work=kernel.part, finish=kernel.finish,
    )  # fmt: skip
    return program, kernel.scratch


class _Backward(GradientKernel):
    def __init__(self, program: Program, plan: Plan) -> None:
        super().__init__(program, plan)
        rows = max(r for _, r in plan.rows())
        room, own = Room(), Room()
        # The sums of the gradients come first, so that `finish` finds them. Those of the matrices are where the results
        # are; only threads that share the sequences have their own, all but the first.
        apart = 0 if plan.together or plan.threads == 1 else 3 * plan.units
        self.d_w_x, self.d_w_h = room.take(plan.features, apart), room.take(plan.units, apart)
        self.d_b = room.take(plan.blocks, self.slots)
        self.w_x_t = room.take(self.x_blocks, self.depth, plan.lanes)
        self.w_h_t = room.take(plan.blocks, self.depth, plan.lanes)
        self.d = room.take(plan.blocks, self.d_block)
        self.old = room.take(plan.chunk * rows, self.h_row)
        self.carry = room.take(rows, self.h_row)
        if not plan.keep:
            self.w_x = room.take(plan.blocks, plan.features, self.gates)
            self.w_h = room.take(plan.blocks, plan.units, self.gates)
            self.b_u, self.b_q = room.take(plan.blocks, self.gates), room.take(plan.width)
            self.again = room.take(plan.chunk * rows, plan.blocks * self.slots)
        self.x = own.take(plan.chunk * rows, plan.features)
        self.shared, self.own = (room.size, own.size) if plan.together else (0, room.size + own.size)
        if not plan.together:
            self.x += room.size

    def over_time(
        self, code: Code, rows: int, job: Value, row0: Value, first: Value, stop: Value, part: Value, parts: Value,
        base: Value, own: Value,
    ) -> None:  # fmt: skip
        """Writes the work on so many rows."""
        plan, lanes = self.plan, self.lanes
        steps = code.load_word(job, team.STEPS)
        given = iter(range(team.ARGUMENTS, team.RESULTS))
        take = lambda there=True: code.load_word(job, next(given), POINTER) if there else None  # noqa: E731
        x, h0, w_x, w_h = (take() for _ in range(4))
        b_x, b_h = (take(not plan.keep and plan.bias != "none") for _ in range(2))
        use, y, gates, c = take(plan.masked), take(), take(plan.keep), take()
        d_x, d_h0, d_w_x, d_w_h, _, scratch = (code.load_word(job, team.RESULTS + i, POINTER) for i in range(6))
        shared, mine = code.at(scratch, base), code.at(scratch, own)
        blocks = (first, stop) if plan.together else (0, self.blocks)
        in_step = plan.together and plan.threads > 1
        wait = lambda: code.call(team.barrier(self.program), job, parts) if in_step else None  # noqa: E731
        if plan.together:
            x_blocks = tuple(code.div(code.mul(code.add(part, k), self.x_blocks), parts) for k in (0, 1))
        else:
            x_blocks = (0, self.x_blocks)
        if not plan.together and plan.threads > 1:
            by_caller = code.equal(part, 0)
            d_w_x = code.builder.select(by_caller, d_w_x, code.at(shared, self.d_w_x))
            d_w_h = code.builder.select(by_caller, d_w_h, code.at(shared, self.d_w_h))
        w_x_t, w_h_t = code.at(shared, self.w_x_t), code.at(shared, self.w_h_t)
        code.call(self.transpose(plan.features, 2), w_x, w_x_t, *x_blocks)
        code.call(self.transpose(plan.units, 0), w_h, w_h_t, *blocks)
        if not plan.keep:
            self.lay_out_biases(code, b_x, b_h, shared, blocks)
            for w, depth, offset in ((w_x, plan.features, self.w_x), (w_h, plan.units, self.w_h)):
                code.call(self.pack(depth), w, code.at(shared, offset), *blocks)
        d, old, carry, copy = (code.at(at, o) for at, o in (
            (shared, self.d), (shared, self.old), (shared, self.carry), (mine, self.x)
        ))  # fmt: skip
        code.call(self.clear(rows), carry, *blocks)
        wait()

        place = lambda a, row, at: code.at(a, code.add(code.mul(row, at[0]), at[2]))  # noqa: E731
        x_at, y_at, f_at = (plan.strides(code, steps, width) for width in (plan.features, plan.units, 1))
        x, d_x, y, c = place(x, row0, x_at), place(d_x, row0, x_at), place(y, row0, y_at), place(c, row0, y_at)
        h0, d_h0 = (code.at(a, code.mul(row0, plan.units)) for a in (h0, d_h0))
        if plan.masked:
            use = code.bytes(use, code.add(code.mul(row0, f_at[0]), f_at[2]))
        else:
            use, f_at = scratch, (0, 0, 0)
        gate_row = plan.blocks * self.slots
        if plan.keep:
            gates = code.at(gates, code.mul(row0, gate_row))

        step_tiles = Tiling.of(plan.sums, 1, plan.blocks, rows)
        number = code.div(code.add(steps, plan.chunk - 1), plan.chunk)

        def step_tile(kind: str, product: Value, reaching: Value, rest: Any) -> Any:
            def tile(height: int, width: int, row: Value, block: Value) -> None:
                lane = code.mul(block, lanes)
                code.call(
                    self._step(kind, height, width), code.at(product, code.mul(row, self.d_row)), reaching,
                    code.at(w_h_t, code.mul(lane, self.depth)), code.at(carry, code.mul(row, self.h_row)),
                    *rest(row), block,
                )  # fmt: skip

            return tile

        def of_chunk(j: Value) -> None:
            begin = code.mul(code.sub(code.sub(number, 1), j), plan.chunk)
            size = code.smaller(plan.chunk, code.sub(steps, begin))
            here = code.mul(size, rows)
            x_here, d_x_here = (code.at(a, code.mul(begin, x_at[1])) for a in (x, d_x))
            flags = code.bytes(use, code.mul(begin, f_at[1])), f_at[0], f_at[1]
            code.call(self.copy_input(rows), x_here, copy, size, x_at[0], x_at[1], *flags)
            code.call(self.states_before(rows), h0, y, old, begin, size, y_at[0], y_at[1], *blocks)
            wait()
            if plan.keep:
                g, g_step = code.at(gates, code.mul(begin, plan.batch * gate_row)), plan.batch * gate_row
            else:
                g, g_step = code.at(shared, self.again), rows * gate_row
                self._gates_again(code, here, rows, blocks, copy, old, shared, g)

            def step(i: Value) -> None:
                s = code.sub(code.sub(size, 1), i)
                t = code.add(begin, s)
                slot = code.at(d, code.mul(s, rows * self.d_row))
                later = code.add(s, 1)
                later = code.builder.select(code.equal(later, plan.chunk), I64(0), later)
                after = code.at(d, code.mul(later, rows * self.d_row))
                old_here = code.at(old, code.mul(s, rows * self.h_row))
                c_here, g_here = code.at(c, code.mul(t, y_at[1])), code.at(g, code.mul(s, g_step))
                use_here = code.bytes(use, code.mul(t, f_at[1]))

                def rest(row: Value) -> list[Value]:
                    return [
                        code.at(slot, code.mul(row, self.d_row)), code.at(old_here, code.mul(row, self.h_row)),
                        code.at(c_here, code.mul(row, y_at[0])), y_at[0], code.at(g_here, code.mul(row, gate_row)),
                        code.bytes(use_here, code.mul(row, f_at[0])), f_at[0],
                    ]  # fmt: skip

                # Nothing comes through the product from behind the last step.
                is_last = code.equal(t, code.sub(steps, 1))
                reaching = code.builder.select(is_last, I64(0), I64(self.blocks))
                step_tiles.cover(code, rows, blocks, step_tile("step", after, reaching, rest))
                wait()

            code.loop(0, size, step)
            so_far = code.less(0, j)
            for source, source_row, depth, sums, of in (
                (old, self.h_row, plan.units, d_w_h, "h"), (copy, plan.features, plan.features, d_w_x, "x")
            ):  # fmt: skip
                self.matrix_gradient(code, here, source, source_row, depth, d, sums, so_far, of, blocks)
            self.bias_gradient(code, here, d, code.at(shared, self.d_b), so_far, blocks)

            def input_tile(height: int, width: int, row: Value, block: Value) -> None:
                code.call(
                    self.input_gradient(height, width, rows), code.at(d, code.mul(row, self.d_row)),
                    code.at(w_x_t, code.mul(block, self.depth * lanes)), d_x_here, x_at[0], x_at[1], row, block,
                )  # fmt: skip

            Tiling.of(plan.sums, 1, self.x_blocks, rows, multiples=True).cover(code, here, x_blocks, input_tile)
            wait()

        code.loop(0, number, of_chunk)
        at_start = lambda row: [  # noqa: E731
            code.at(d_h0, code.mul(row, plan.units)), old, c, plan.units, gates if plan.keep else c, use, f_at[0],
        ]  # fmt: skip
        step_tiles.cover(code, rows, blocks, step_tile("start", d, self.blocks, at_start))

    def finish(self, code: Code, job: Value) -> None:
        """Adds up what the threads have summed, and writes the biases as they lie."""
        plan, lanes = self.plan, self.lanes
        d_w_x, d_w_h, d_b, scratch = (code.load_word(job, team.RESULTS + i, POINTER) for i in range(2, 6))
        sets = 1 if plan.together else plan.threads

        def total(first: Value, at: Value, count: int, others: range) -> Value:
            for k in others:
                first = code.builder.fadd(first, code.load_first(count, scratch, code.add(at, k * self.own)))
            return first

        for to, at, size in (
            (d_w_x, self.d_w_x, plan.features * 3 * plan.units), (d_w_h, self.d_w_h, plan.units * 3 * plan.units)
        ):  # fmt: skip
            def add(i: Value, to: Value = to, at: int = at, count: int = lanes) -> None:
                before = code.load_first(count, to, i)
                code.store_first(count, total(before, code.add(i, at), count, range(1, sets)), to, i)

            if sets > 1:
                code.loop(0, size, add, step=lanes)
                if size % lanes:
                    add(size // lanes * lanes, count=size % lanes)

        def of_biases(block: Value) -> None:
            def fill(count: int) -> None:
                for place, slot in enumerate((R, Z, N, R, Z, Q)):
                    at = code.add(code.mul(block, self.slots), self.d_b + slot * lanes)
                    value = total(code.load(scratch, at), at, lanes, range(1, sets))
                    code.store_first(count, value, d_b, code.add(code.mul(block, lanes), place * plan.units))

            self.by_count(code, block, 1, fill)

        code.loop(0, self.blocks, of_biases)

    def _gates_again(
        self, code: Code, number: Value, rows: int, blocks: tuple[Value, Value], x: Value, old: Value, shared: Value,
        to: Value,
    ) -> None:  # fmt: skip
        """Those of some steps, `number` being all rows of all of them."""
        plan = self.plan
        w_x, w_h, b_u, b_q = (code.at(shared, o) for o in (self.w_x, self.w_h, self.b_u, self.b_q))

        def tile(height: int, width: int, row: Value, block: Value) -> None:
            lane = code.mul(block, self.lanes)
            code.call(
                self._gates(height, width), code.at(x, code.mul(row, plan.features)),
                code.at(old, code.mul(row, self.h_row)), self.panel(code, w_x, plan.features, block),
                self.panel(code, w_h, plan.units, block), code.at(b_u, code.mul(lane, 3)), code.at(b_q, lane),
                code.at(to, code.add(code.mul(row, plan.blocks * self.slots), code.mul(lane, 4))),
            )  # fmt: skip

        Tiling.of(plan.sums, 4, plan.blocks, rows, multiples=True).cover(code, number, blocks, tile)

    def _gates(self, height: int, width: int) -> ir.Function:
        """A tile of gates: r, z, n and the product inside n."""

        def gates(code: Code, x: Value, h: Value, at_x: Value, at_h: Value, b_u: Value, b_q: Value, to: Value) -> None:
            plan, lanes = self.plan, self.lanes
            start = [code.load(b_u, j * lanes) for j in range(3 * width)]
            x_rows = [(x, i * plan.features) for i in range(height)]
            stream = self.stream(code, at_x, plan.features, width)
            from_x = products.accumulate(code, plan.features, x_rows, 1, stream, [list(start) for _ in x_rows])
            inside = [code.load(b_q, c * lanes) for c in range(width)]
            sums = [
                [v for c in range(width) for v in (row[3 * c], row[3 * c + 1], inside[c])] for row in from_x
            ]
            h_rows = [(h, i * self.h_row) for i in range(height)]
            sums = products.accumulate(code, plan.units, h_rows, 1, self.stream(code, at_h, plan.units, width), sums)
            for i in range(height):
                for c in range(width):
                    r, z = (activations.sigmoid(code, sums[i][3 * c + g]) for g in (0, 1))
                    q = sums[i][3 * c + 2]
                    n = activations.tanh(code, code.fma(r, q, from_x[i][3 * c + 2]))
                    for j, value in enumerate((r, z, n, q)):
                        code.store(value, to, i * plan.blocks * self.slots + (4 * c + j) * lanes)

        return self.program.function(f"gates_{height}x{width}", [POINTER] * 7, gates)

    def _step(self, kind: str, height: int, width: int) -> ir.Function:
        """A tile of a step back: what reaches the states before it, and from there the gradients of its gates.

        Before the first step, at the start, there are no gates.
        """

        def step(
            code: Code, d: Value, through: Value, panel: Value, carry: Value, to: Value, old: Value, c: Value,
            c_row: Value, gates: Value, use: Value, use_row: Value, block: Value,
        ) -> None:  # fmt: skip
            plan, lanes, b = self.plan, self.lanes, code.builder
            lane = code.mul(block, lanes)
            one = code.spread(1.0)
            zeros = products.nothing(code, height, width)
            reaching = self.through(code, d, panel, height, width, R, zeros, through)
            for i in range(height):
                for j in range(width):
                    place = code.add(lane, i * self.h_row + j * lanes)
                    reaching[i][j] = b.fadd(reaching[i][j], code.load(carry, place))
            if kind == "start":
                def put(count: int) -> None:
                    for i in range(height):
                        for j in range(width):
                            place = code.add(lane, i * plan.units + j * lanes)
                            code.store_first(count if j == width - 1 else lanes, reaching[i][j], to, place)

                self.by_count(code, block, width, put)
                return

            def given(count: int) -> list[Value]:
                rows = [code.at(c, code.add(code.mul(c_row, i), lane)) for i in range(height)]
                counts = [lanes] * (width - 1) + [count]
                return [code.load_first(n, row, j * lanes) for row in rows for j, n in enumerate(counts)]

            from_loss = self.chosen_by_count(code, block, width, given)
            units = self.units_of_last(code, block, width)
            for i in range(height):
                used = code.flag(use, code.mul(use_row, i)) if plan.masked else None
                for j in range(width):
                    place = code.add(code.mul(lane, 4), i * plan.blocks * self.slots + j * self.slots)
                    r, z, n, q = (code.load(gates, code.add(place, k * lanes)) for k in range(4))
                    h = code.load(old, code.add(lane, i * self.h_row + j * lanes))
                    adjoint = b.fadd(reaching[i][j], from_loss[i * width + j])
                    moving = adjoint if used is None else b.select(used, adjoint, code.spread(0.0))
                    d_n = b.fmul(b.fmul(moving, b.fsub(one, z)), code.fma(b.fneg(n), n, one))
                    d_q = b.fmul(d_n, r)
                    d_r = b.fmul(b.fmul(d_q, q), b.fsub(one, r))
                    d_z = b.fmul(b.fmul(moving, b.fsub(h, n)), b.fmul(z, b.fsub(one, z)))
                    kept = b.fmul(z, adjoint)
                    if used is not None:
                        kept = b.select(used, kept, adjoint)
                    code.store(kept, carry, code.add(lane, i * self.h_row + j * lanes))
                    there = code.add(code.mul(block, self.d_block), i * self.d_row + j * self.d_block)
                    for k, value in ((N, d_n), (R, d_r), (Z, d_z), (Q, d_q)):
                        # All lanes are summed over: where there is no unit, an infinite x or state times 0 is NaN.
                        if units is not None and j == width - 1:
                            value = b.select(units, value, code.spread(0.0))
                        code.store(value, to, code.add(there, k * lanes))

        args = [POINTER, I64] + [POINTER] * 5 + [I64] + [POINTER] * 2 + [I64] * 2
        return self.program.function(f"{kind}_{height}x{width}", args, step)
