"""A GRU's forward pass: the input of a chunk of steps projected, then the steps one after the other.

    r, z = sigmoid(u_r + h w_r), sigmoid(u_z + h w_z)
    n = tanh(u_n + r (h w_n + b_n)),  h' = n + z (h - n),  u = x w_x + b

Inside, numbers of gates stand block by block: the vectors of r, z and n of the same units side by side.
"""

import functools
from collections.abc import Sequence

from llvmlite import ir

from gru_jax.scans.engines.llvm import activations, products, team
from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.gru_kernel import Kernel
from gru_jax.scans.engines.llvm.plan import Plan, Room, spread_rows
from gru_jax.scans.engines.llvm.products import Tiling

NAME = "gru_forward"


def write(plan: Plan) -> tuple[Program, int]:
    """The program, whose handler is NAME, and the float32 of scratch memory that it takes.

    Arguments: x, h0 `[B, H]`, w_x `[I, 3H]`, w_h `[H, 3H]`, then b_x and b_h as the cell has them, then the flags.
    Results: the states, with `keep` the gates `[T, B, blocks, 4, lanes]` (r, z, n and the product inside n), scratch.
    """
    program = Program(plan.lanes)
    kernel = _Forward(program, plan)
    arguments = 4 + (plan.bias != "none") * 2 + plan.masked
    team.handler(
        program, NAME, arguments=arguments, results=2 + plan.keep, time_axis=plan.time_axis, parts=plan.threads,
        together=plan.together, work=kernel.part,
    )  # fmt: skip
    return program, kernel.scratch


class _Forward(Kernel):
    def __init__(self, program: Program, plan: Plan) -> None:
        super().__init__(program, plan)
        rows = max(r for _, r in plan.rows())
        room, own = Room(), Room()
        self.w_x = room.take(plan.blocks, plan.features, self.gates) if plan.packed else 0
        self.w_h = room.take(plan.blocks, plan.units, self.gates) if plan.packed else 0
        self.b_u, self.b_q = room.take(plan.blocks, self.gates), room.take(plan.width)
        self.u_row = spread_rows(plan.blocks * self.gates)
        self.u = room.take(plan.chunk * rows, self.u_row)
        self.h_row = spread_rows(plan.width)
        self.h = room.take(2, rows, self.h_row)
        self.x = own.take(plan.chunk * rows, plan.features)
        # Threads that share the units share all but the copy of x; else each has everything for itself.
        self.shared, self.own = (room.size, own.size) if plan.together else (0, room.size + own.size)
        if not plan.together:
            self.x += room.size

    def over_time(
        self, code: Code, rows: int, job: Value, row0: Value, first: Value, stop: Value, part: Value, parts: Value,
        base: Value, own: Value,
    ) -> None:  # fmt: skip
        plan = self.plan
        steps = code.load_word(job, team.STEPS)
        given = iter(range(team.ARGUMENTS, team.RESULTS))
        take = lambda there=True: code.load_word(job, next(given), POINTER) if there else None  # noqa: E731
        x, h0, w_x, w_h = (take() for _ in range(4))
        b_x, b_h = (take(plan.bias != "none") for _ in range(2))
        use = take(plan.masked)
        made = [code.load_word(job, team.RESULTS + i, POINTER) for i in range(2 + plan.keep)]
        y, scratch = made[0], made[-1]
        gates = made[1] if plan.keep else scratch
        shared, mine = code.at(scratch, base), code.at(scratch, own)
        blocks = (first, stop) if plan.together else (0, self.blocks)

        self.lay_out_biases(code, b_x, b_h, shared, blocks)
        if plan.packed:
            for w, depth, offset in ((w_x, plan.features, self.w_x), (w_h, plan.units, self.w_h)):
                code.call(self.pack(depth), w, code.at(shared, offset), *blocks)
            w_x, w_h = code.at(shared, self.w_x), code.at(shared, self.w_h)
        h, other = code.at(shared, self.h), code.at(shared, self.h + rows * self.h_row)
        start = code.at(h0, code.mul(row0, plan.units))
        self.copy_blocks(code, start, plan.units, h, self.h_row, rows, blocks)
        wait = lambda: code.call(team.barrier(self.program), job, parts) if plan.together and plan.threads > 1 else None  # noqa: E731
        wait()

        x_row, x_step, x_first = plan.strides(code, steps, plan.features)
        y_row, y_step, y_first = plan.strides(code, steps, plan.units)
        f_row, f_step, f_first = plan.strides(code, steps, 1)
        place = lambda a, row, row_size, first: code.at(a, code.add(code.mul(row, row_size), first))  # noqa: E731
        x, y = place(x, row0, x_row, x_first), place(y, row0, y_row, y_first)
        if plan.masked:
            use = code.bytes(use, code.add(code.mul(row0, f_row), f_first))
        else:
            use, f_row, f_step = scratch, 0, 0
        gate_row = plan.blocks * 4 * plan.lanes
        gates = code.at(gates, code.mul(row0, gate_row))
        copy, u, b_u, b_q = (code.at(at, o) for at, o in (
            (mine, self.x), (shared, self.u), (shared, self.b_u), (shared, self.b_q)
        ))  # fmt: skip

        chunk_tiles = Tiling.of(plan.sums, 3, plan.blocks, rows, multiples=True)
        step_tiles = Tiling.of(plan.sums, 3, plan.blocks, rows)

        def of_chunk(k: Value, h: Value, other: Value) -> list[Value]:
            begin = code.mul(k, plan.chunk)
            size = code.smaller(plan.chunk, code.sub(steps, begin))
            at_x = code.at(x, code.mul(begin, x_step))
            flags = code.bytes(use, code.mul(begin, f_step)), f_row, f_step
            code.call(self.copy_input(rows), at_x, copy, size, x_row, x_step, *flags)

            def project(height: int, width: int, row: Value, block: Value) -> None:
                to = code.at(u, code.add(code.mul(row, self.u_row), code.mul(block, self.gates)))
                code.call(
                    self._projection(height, width), code.at(copy, code.mul(row, plan.features)),
                    self.panel(code, w_x, plan.features, block), code.at(b_u, code.mul(block, self.gates)), to,
                )  # fmt: skip

            chunk_tiles.cover(code, code.mul(size, rows), blocks, project)

            def step(s: Value, h: Value, other: Value) -> list[Value]:
                t = code.add(begin, s)
                at_y = code.at(y, code.mul(t, y_step))
                at_use = code.bytes(use, code.mul(t, f_step))
                at_gates = code.at(gates, code.mul(t, plan.batch * gate_row)) if plan.keep else gates

                def tile(height: int, width: int, row: Value, block: Value) -> None:
                    lane = code.mul(block, plan.lanes)
                    u_here = code.add(code.mul(code.add(code.mul(s, rows), row), self.u_row), code.mul(lane, 3))
                    code.call(
                        self._step(height, width), code.at(h, code.mul(row, self.h_row)),
                        self.panel(code, w_h, plan.units, block), code.at(u, u_here), code.at(b_q, lane),
                        code.at(other, code.mul(row, self.h_row)), code.at(at_y, code.mul(row, y_row)), y_row,
                        code.at(at_gates, code.mul(row, gate_row)),
                        code.bytes(at_use, code.mul(row, f_row)),
                        f_row, block,
                    )  # fmt: skip

                step_tiles.cover(code, rows, blocks, tile)
                wait()
                return [other, h]

            return code.loop(0, size, step, [h, other])

        number = code.div(code.add(steps, plan.chunk - 1), plan.chunk)
        code.loop(0, number, of_chunk, [h, other])

    def _projection(self, height: int, width: int) -> ir.Function:
        """A tile of u."""

        def project(code: Code, x: Value, panel: Value, bias: Value, u: Value) -> None:
            features = self.plan.features
            sums = [code.load(bias, j * self.lanes) for j in range(3 * width)]
            rows = [(x, i * features) for i in range(height)]
            stream = self.stream(code, panel, features, width)
            found = products.accumulate(code, features, rows, 1, stream, [list(sums) for _ in rows])
            for i, row in enumerate(found):
                for j, value in enumerate(row):
                    code.store(value, u, i * self.u_row + j * self.lanes)

        return self.program.function(f"project_{height}x{width}", [POINTER] * 4, project)

    def _step(self, height: int, width: int) -> ir.Function:
        """A tile of a step: some rows, some blocks of units. Where no row is used, nothing is computed."""

        def step(
            code: Code, h: Value, panel: Value, u: Value, b_q: Value, after: Value, y: Value, y_row: Value,
            gates: Value, use: Value, use_row: Value, block: Value,
        ) -> None:  # fmt: skip
            plan, lanes, b = self.plan, self.lanes, code.builder
            lane = code.mul(block, lanes)
            each = [(i, c) for i in range(height) for c in range(width)]
            at_state = lambda i, c: code.add(lane, i * self.h_row + c * lanes)  # noqa: E731
            old = [code.load(h, at_state(i, c)) for i, c in each]
            used = [code.flag(use, code.mul(use_row, i)) for i in range(height)] if plan.masked else []

            def keep(i: int, c: int, values: Sequence[Value]) -> None:
                place = code.add(code.mul(lane, 4), (i * plan.blocks + c) * 4 * lanes)
                for j, value in enumerate(values if plan.keep else ()):
                    code.store(value, gates, code.add(place, j * lanes))

            def moved() -> list[Value]:
                zero = code.spread(0.0)
                start = [v for c in range(width) for v in (zero, zero, code.load(b_q, c * lanes))]
                rows = [(h, i * self.h_row) for i in range(height)]
                stream = self.stream(code, panel, plan.units, width)
                sums = products.accumulate(code, plan.units, rows, 1, stream, [list(start) for _ in rows])
                found = []
                for (i, c), before in zip(each, old, strict=True):
                    u_r, u_z, u_n = (code.load(u, i * self.u_row + (3 * c + g) * lanes) for g in range(3))
                    s_r, s_z, q = sums[i][3 * c : 3 * c + 3]
                    r = activations.sigmoid(code, b.fadd(u_r, s_r))
                    z = activations.sigmoid(code, b.fadd(u_z, s_z))
                    n = activations.tanh(code, code.fma(r, q, u_n))
                    new = code.fma(z, b.fsub(before, n), n)
                    new = code.rounded_to_bfloat16(new) if plan.bfloat16 else new
                    keep(i, c, (r, z, n, q))
                    found.append(b.select(used[i], new, before) if used else new)
                return found

            def held() -> list[Value]:
                for i, c in each:
                    keep(i, c, [code.spread(0.0)] * 4)
                return old

            new = code.choose(functools.reduce(b.or_, used), moved, held) if used else moved()
            for (i, c), value in zip(each, new, strict=True):
                code.store(value, after, at_state(i, c))

            def put(count: int) -> None:
                for (i, c), value in zip(each, new, strict=True):
                    place = code.add(code.add(code.mul(y_row, i), lane), c * lanes)
                    code.store_first(count if c == width - 1 else lanes, value, y, place)

            self.by_count(code, block, width, put)

        args = [POINTER] * 6 + [I64] + [POINTER] * 2 + [I64] * 2
        return self.program.function(f"step_{height}x{width}", args, step)
