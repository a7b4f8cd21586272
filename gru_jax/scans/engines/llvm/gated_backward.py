"""A gated cell's backward pass: chunk after chunk against the order of time, and in a chunk step after step.

What is not needed from one step to the next, the gradients of the matrices and of the input, is computed for a chunk at
a time. What the forward pass did not keep of a step is computed again for a chunk.
"""

import functools
from typing import Any

from gru_jax.scans.engines.llvm import team
from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.gated_step_back import StepBack
from gru_jax.scans.engines.llvm.plan import Plan, Room
from gru_jax.scans.engines.llvm.products import Tiling

NAME = "gated_backward"


def scratch(plan: Plan) -> int:
    """Float32 of scratch memory that the kernel takes."""
    return _Backward(Program(plan.lanes), plan).scratch


def write(plan: Plan) -> Program:
    """The program, whose handler is NAME.

    Arguments: those of the forward pass, biases only without `keep`; the states, with `keep` what was kept, and the
    gradients of the states. Results: the gradients of x, of the states before the first step, of w_x and w_h, of all
    biases `[2, G H]` (of the projected input, of the products), of the states after resets if there are any, scratch.
    """
    program = Program(plan.lanes)
    kernel = _Backward(program, plan)
    team.handler(
        program, NAME, arguments=len(kernel.arguments), results=len(kernel.results), time_axis=plan.time_axis,
        threads=plan.threads, parts=plan.parts, together=plan.together, work=kernel.part, finish=kernel.finish,
    )  # fmt: skip
    return program


class _Backward(StepBack):
    def __init__(self, program: Program, plan: Plan) -> None:
        super().__init__(program, plan)
        cell, each = self.cell, lambda name: [f"{name}_{k}" for k in range(plan.states)]
        self.arguments = [*plan.arguments, *each("y"), *["kept"] * plan.keep, *each("c")]
        self.results = ["d_x", *each("d_h0"), "d_w_x", "d_w_h", "d_b", *each("d_reset_to") * plan.resets, "scratch"]
        rows = max(r for _, r in plan.rows())
        room, own = Room(), Room()
        # The sums of the gradients come first, so that `finish` finds them. Those of the matrices are where the results
        # are; only parts of the sequences have their own, all but the first.
        apart = 0 if plan.together or plan.parts == 1 else cell.gates * plan.units
        self.d_w_x, self.d_w_h = room.take(plan.features, apart), room.take(plan.units, apart)
        self.d_b = room.take(plan.blocks, self.slots)
        self.w_x_t = room.take(self.x_blocks, self.depth, plan.lanes)
        self.w_h_t = room.take(plan.blocks, self.depth, plan.lanes)
        self.d = room.take(plan.blocks, self.d_block)
        of_chunk, of_step = plan.chunk * rows * self.h_row, rows * self.h_row
        self.old = [room.take(of_chunk) for _ in range(plan.states)]
        # The state as products have it, and what the second product is of.
        self.seen = room.take(of_chunk) if plan.dropout else self.old[0]
        self.operand = room.take(of_chunk) if cell.second else 0
        self.carry = [room.take(of_step) for _ in range(plan.states)]
        self.drop = room.take(of_step) if plan.dropout else 0
        self.d_reset_to = [room.take(of_step) for _ in range(plan.states)] if plan.resets else []
        if not plan.keep:
            self.room_for_weights(room)
            self.b_u, self.b_q = room.take(plan.blocks, self.gates), room.take(plan.width)
            self.again = room.take(plan.chunk * rows, plan.blocks * self.kept)
        self.x = own.take(plan.chunk * rows, plan.features)
        self.shared, self.own = (room.size, own.size) if plan.together else (0, room.size + own.size)
        if not plan.together:
            self.x += room.size

    def over_time(
        self, code: Code, rows: int, job: Value, row0: Value, first: Value, stop: Value, part: Value, parts: Value,
        base: Value, own: Value,
    ) -> None:  # fmt: skip
        """Writes the work on so many rows."""
        plan, cell, lanes, states = self.plan, self.cell, self.lanes, range(self.plan.states)
        steps, reverse = code.load_word(job, team.STEPS), code.load_word(job, team.REVERSE)
        given = {name: code.load_word(job, team.ARGUMENTS + i, POINTER) for i, name in enumerate(self.arguments)}
        made = {name: code.load_word(job, team.RESULTS + i, POINTER) for i, name in enumerate(self.results)}
        scratch, d_w_x, d_w_h = made["scratch"], made["d_w_x"], made["d_w_h"]
        shared, mine = code.at(scratch, base), code.at(scratch, own)
        blocks = (first, stop) if plan.together else (0, self.blocks)
        in_step = plan.together and plan.threads > 1
        wait = lambda: code.call(team.barrier(self.program), job, parts) if in_step else None  # noqa: E731
        if plan.together:
            x_blocks = tuple(code.div(code.mul(code.add(part, k), self.x_blocks), parts) for k in (0, 1))
        else:
            x_blocks = (0, self.x_blocks)
        if not plan.together and plan.parts > 1:
            is_first = code.equal(part, 0)
            d_w_x = code.builder.select(is_first, d_w_x, code.at(shared, self.d_w_x))
            d_w_h = code.builder.select(is_first, d_w_h, code.at(shared, self.d_w_h))
        w_x_t, w_h_t = code.at(shared, self.w_x_t), code.at(shared, self.w_h_t)
        code.call(self.transpose(plan.features, cell.gates - 1 if cell.inside else 0), given["w_x"], w_x_t, *x_blocks)
        code.call(self.transpose(plan.units, 0), given["w_h"], w_h_t, *blocks)
        weights: Any = ()
        if not plan.keep:
            self.lay_out_biases(code, given.get("b_x"), given.get("b_h"), shared, blocks)
            weights = self.lay_out_weights(code, given["w_x"], given["w_h"], shared, blocks)
        d, seen, operand, copy = (code.at(at, o) for at, o in (
            (shared, self.d), (shared, self.seen), (shared, self.operand), (mine, self.x)
        ))  # fmt: skip
        old, carry = ([code.at(shared, at) for at in each] for each in (self.old, self.carry))
        d_reset_to = [code.at(shared, at) for at in self.d_reset_to]
        for to in (*carry, *d_reset_to):
            code.call(self.clear(rows), to, *blocks)
        of_rows = lambda name: code.at(given[name], code.mul(row0, plan.units))  # noqa: E731
        drop = of_rows("drop") if plan.dropout else scratch
        if plan.dropout:
            self.copy_blocks(code, drop, plan.units, code.at(shared, self.drop), rows, blocks)
        wait()

        place = lambda a, row, at: code.at(a, code.add(code.mul(row, at[0]), at[2]))  # noqa: E731
        x_at, y_at, f_at = (plan.strides(code, steps, width, reverse) for width in (plan.features, plan.units, 1))
        x, d_x = (place(a, row0, x_at) for a in (given["x"], made["d_x"]))
        ys, cs = ([place(given[f"{name}_{k}"], row0, y_at) for k in states] for name in "yc")
        f_at = f_at if plan.flagged else (0, 0, 0)
        flags = code.bytes(given["flags"], code.add(code.mul(row0, f_at[0]), f_at[2])) if plan.flagged else scratch
        kept_row = plan.blocks * self.kept
        kept = code.at(given["kept"], code.mul(row0, kept_row)) if plan.keep else code.at(shared, self.again)

        step_tiles = Tiling.of(plan.sums, 1, plan.blocks, rows)
        number = code.div(code.add(steps, plan.chunk - 1), plan.chunk)
        at_row = lambda a, row: code.at(a, code.mul(row, self.h_row))  # noqa: E731

        def reaching(row: Value, block: Value, after: Value, count: Value) -> dict[str, Value]:
            """What reaches the states before some step: through products, and past them."""
            lane = code.mul(block, lanes)
            found = {
                "d": code.at(after, code.mul(row, self.slots)), "through": count,
                "panel": code.at(w_h_t, code.mul(lane, self.depth)), "block": block,
            }  # fmt: skip
            found |= {f"carry_{k}": at_row(carry[k], row) for k in states}
            return found | ({"drop": at_row(code.at(shared, self.drop), row)} if plan.dropout else {})

        def of_chunk(j: Value) -> None:
            begin = code.mul(code.sub(code.sub(number, 1), j), plan.chunk)
            size = code.smaller(plan.chunk, code.sub(steps, begin))
            here = code.mul(size, rows)
            x_here, d_x_here = (code.at(a, code.mul(begin, x_at[1])) for a in (x, d_x))
            flags_here = code.bytes(flags, code.mul(begin, f_at[1])), f_at[0], f_at[1]
            code.call(self.copy_input(rows), x_here, copy, size, x_at[0], x_at[1], *flags_here)
            for k in states:
                others = of_rows(f"reset_to_{k}") if plan.resets else scratch
                around = (others, drop, flags, begin, size, *y_at[:2], *f_at[:2], *blocks)
                code.call(self.states_before(rows), of_rows(f"h0_{k}"), ys[k], old[k], *around)
                if k == 0 and plan.dropout:
                    code.call(self.states_before(rows, seen=True), of_rows("h0_0"), ys[0], seen, *around)
            wait()
            if plan.keep:
                g, g_step = code.at(kept, code.mul(begin, plan.batch * kept_row)), plan.batch * kept_row
            else:
                g, g_step = kept, rows * kept_row
                self.compute_again(code, here, rows, blocks, copy, shared, weights, wait)

            def step(i: Value) -> None:
                s = code.sub(code.sub(size, 1), i)
                t = code.add(begin, s)
                slot = code.at(d, code.mul(s, rows * self.slots))
                later = code.add(s, 1)
                later = code.builder.select(code.equal(later, plan.chunk), I64(0), later)
                after = code.at(d, code.mul(later, rows * self.slots))
                in_chunk = lambda a, row: code.at(a, code.mul(code.add(code.mul(s, rows), row), self.h_row))  # noqa: E731
                g_here = code.at(g, code.mul(s, g_step))
                is_last = code.equal(t, code.sub(steps, 1))

                def of_step(row: Value) -> dict[str, Value]:
                    found = {"to": code.at(slot, code.mul(row, self.slots))}
                    found["kept"] = code.at(g_here, code.mul(row, kept_row))
                    if plan.flagged:
                        at_flags = code.bytes(flags, code.mul(t, f_at[1]))
                        found |= {"flags": code.bytes(at_flags, code.mul(row, f_at[0])), "f_row": f_at[0]}
                    return found

                def back(height: int, width: int, row: Value, block: Value) -> None:
                    # Nothing comes through the product from behind the last step.
                    now = reaching(row, block, after, code.builder.select(is_last, I64(0), I64(1)))
                    now |= of_step(row) | {"c_row": y_at[0]}
                    now |= {f"old_{k}": in_chunk(old[k], row) for k in states}
                    c_here = code.add(code.mul(t, y_at[1]), code.mul(row, y_at[0]))
                    now |= {f"c_{k}": code.at(c, c_here) for k, c in enumerate(cs)}
                    if plan.resets:
                        next_flags = code.mul(code.smaller(code.add(t, 1), code.sub(steps, 1)), f_at[1])
                        now["later"] = code.bytes(code.bytes(flags, next_flags), code.mul(row, f_at[0]))
                        now |= {f"sum_{k}": at_row(a, row) for k, a in enumerate(d_reset_to)}
                    write = functools.partial(self.step, height, width)
                    self.call(code, f"step_{height}x{width}", write, **now)

                def back_operand(height: int, width: int, row: Value, block: Value) -> None:
                    lane = code.mul(block, lanes)
                    of_last = code.add(code.mul(lane, self.depth), (cell.gates - 1) * lanes * lanes)
                    panel = code.at(w_h_t, of_last)
                    now = of_step(row) | {"panel": panel, "block": block, "carry": at_row(carry[0], row)}
                    now |= {"seen": in_chunk(seen, row), "operand": in_chunk(operand, row)}
                    if plan.dropout:
                        now["drop"] = at_row(code.at(shared, self.drop), row)
                    write = functools.partial(self.step_of_operand, height, width)
                    self.call(code, f"operand_{height}x{width}", write, **now)

                step_tiles.cover(code, rows, blocks, back)
                wait()
                if cell.second:
                    step_tiles.cover(code, rows, blocks, back_operand)
                    wait()

            code.loop(0, size, step)
            so_far = code.less(0, j)
            matrices = [
                (source, self.h_row, plan.units, d_w_h, {g: cell.slot_of_q(g) for g in gates})
                for source, gates in zip((seen, operand), cell.phases, strict=False)
            ]
            matrices.append((copy, plan.features, plan.features, d_w_x, {g: cell.slot_of_u(g) for g in self.every}))
            for source, source_row, depth, sums, slots in matrices:
                of_h = sums is d_w_h
                self.matrix_gradient(code, here, source, source_row, depth, d, sums, so_far, slots, blocks, of_h)
            self.bias_gradient(code, here, d, code.at(shared, self.d_b), so_far, blocks)

            def input_tile(height: int, width: int, row: Value, block: Value) -> None:
                code.call(
                    self.input_gradient(height, width, rows), code.at(d, code.mul(row, self.slots)),
                    code.at(w_x_t, code.mul(block, self.depth * lanes)), d_x_here, x_at[0], x_at[1], row, block,
                )  # fmt: skip

            Tiling.of(plan.sums, 1, self.x_blocks, rows, multiples=True).cover(code, here, x_blocks, input_tile)
            wait()

        code.loop(0, number, of_chunk)

        def to_start(height: int, width: int, row: Value, block: Value) -> None:
            now = reaching(row, block, d, 1)
            now |= {f"d_h0_{k}": code.at(made[f"d_h0_{k}"], code.mul(code.add(row0, row), plan.units)) for k in states}
            for k, a in enumerate(d_reset_to):
                now[f"sum_{k}"] = at_row(a, row)
                now[f"d_reset_to_{k}"] = code.at(made[f"d_reset_to_{k}"], code.mul(code.add(row0, row), plan.units))
            self.call(code, f"start_{height}x{width}", functools.partial(self.start, height, width), **now)

        step_tiles.cover(code, rows, blocks, to_start)

    def finish(self, code: Code, job: Value) -> None:
        """Adds up what the parts have summed, in their order whoever did them, and writes the biases as they lie."""
        plan, cell, lanes = self.plan, self.cell, self.lanes
        made = {name: code.load_word(job, team.RESULTS + i, POINTER) for i, name in enumerate(self.results)}
        sets, width = 1 if plan.together else plan.parts, cell.gates * plan.units

        def total(first: Value, at: Value, count: int, others: range) -> Value:
            for k in others:
                more = code.load_first(count, made["scratch"], code.add(at, k * self.own))
                first = code.builder.fadd(first, more)
            return first

        for name, at, size in (
            ("d_w_x", self.d_w_x, plan.features * width), ("d_w_h", self.d_w_h, plan.units * width)
        ):  # fmt: skip
            def add(i: Value, to: Value = made[name], at: int = at, count: int = lanes) -> None:
                before = code.load_first(count, to, i)
                code.store_first(count, total(before, code.add(i, at), count, range(1, sets)), to, i)

            if sets > 1:
                code.loop(0, size, add, step=lanes)
                if size % lanes:
                    add(size // lanes * lanes, count=size % lanes)

        slots = [slot(gate) for slot in (cell.slot_of_u, cell.slot_of_q) for gate in self.every]

        def of_biases(block: Value) -> None:
            def fill(count: int) -> None:
                for place, slot in enumerate(slots):
                    at = code.add(code.mul(block, self.slots), self.d_b + slot * lanes)
                    value = total(code.load(made["scratch"], at), at, lanes, range(1, sets))
                    lane = code.add(code.mul(block, lanes), place * plan.units)
                    code.store_first(count, value, made["d_b"], lane)

            self.by_count(code, block, 1, fill)

        code.loop(0, self.blocks, of_biases)
