"""A gated cell's forward pass: the input of a chunk of steps projected, then the steps one after the other.

Inside, numbers of gates stand block by block: the vectors of all gates of the same units side by side.
"""

import functools
from collections.abc import Callable, Sequence

from llvmlite import ir

from gru_jax.scans.engines.llvm import products, team
from gru_jax.scans.engines.llvm.code import POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.gated_kernel import Kernel
from gru_jax.scans.engines.llvm.plan import RESET, USED, Plan, Room, spread_rows
from gru_jax.scans.engines.llvm.products import Tiling
from gru_jax.scans.engines.llvm.vectors import Vectors

NAME = "gated_forward"


def scratch(plan: Plan) -> int:
    """Float32 of scratch memory that the kernel takes."""
    return _Forward(Program(plan.lanes), plan).scratch


def write(plan: Plan) -> Program:
    """The program, whose handler is NAME.

    Arguments: x, the states before the first step `[B, H]`, w_x `[I, G H]`, w_h `[H, G H]`, the biases that there are,
    the factors of dropout `[B, H]` if there is any, flags if there are any, and the states after resets if there are
    any. Results: the states of all steps, with `keep` what is kept `[T, B, blocks, kept, lanes]`, scratch.
    """
    program = Program(plan.lanes)
    kernel = _Forward(program, plan)
    team.handler(
        program, NAME, arguments=len(kernel.arguments), results=plan.states + plan.keep + 1, time_axis=plan.time_axis,
        threads=plan.threads, parts=plan.parts, together=plan.together, work=kernel.part,
    )  # fmt: skip
    return program


class _Forward(Kernel):
    def __init__(self, program: Program, plan: Plan) -> None:
        super().__init__(program, plan)
        self.arguments = plan.arguments
        rows = max(r for _, r in plan.rows())
        room, own = Room(), Room()
        if plan.packed:
            self.room_for_weights(room)
        self.b_u, self.b_q = room.take(plan.blocks, self.gates), room.take(plan.width)
        self.u_row = spread_rows(plan.blocks * self.gates)
        self.u = room.take(plan.chunk * rows, self.u_row)
        # What products are of, twice, for a tile reads all of it while others write what comes after.
        self.h = room.take(2, rows, self.h_row)
        # States that are not in there, each read and written by one tile alone.
        self.apart = [k for k in range(plan.states) if k or plan.dropout]
        each = rows * self.h_row
        self.states = {k: room.take(each) for k in self.apart}
        self.drop = room.take(each) if plan.dropout else 0
        self.reset_to = [room.take(each) for _ in range(plan.states)] if plan.resets else []
        self.operand = room.take(each) if self.cell.second else 0
        self.between = room.take(rows, plan.blocks * self.kept) if self.cell.second and not plan.keep else 0
        self.x = own.take(plan.chunk * rows, plan.features)
        # Threads that share the units share all but the copy of x; else each has everything for itself.
        self.shared, self.own = (room.size, own.size) if plan.together else (0, room.size + own.size)
        if not plan.together:
            self.x += room.size

    def over_time(
        self, code: Code, rows: int, job: Value, row0: Value, first: Value, stop: Value, part: Value, parts: Value,
        base: Value, own: Value,
    ) -> None:  # fmt: skip
        plan, cell, states = self.plan, self.cell, range(self.plan.states)
        steps, reverse = code.load_word(job, team.STEPS), code.load_word(job, team.REVERSE)
        given = {name: code.load_word(job, team.ARGUMENTS + i, POINTER) for i, name in enumerate(self.arguments)}
        made = [code.load_word(job, team.RESULTS + i, POINTER) for i in range(plan.states + plan.keep + 1)]
        scratch = made[-1]
        shared, mine = code.at(scratch, base), code.at(scratch, own)
        blocks = (first, stop) if plan.together else (0, self.blocks)

        self.lay_out_biases(code, given.get("b_x"), given.get("b_h"), shared, blocks)
        w_x, w_h = self.lay_out_weights(code, given["w_x"], given["w_h"], shared, blocks)
        h, other = code.at(shared, self.h), code.at(shared, self.h + rows * self.h_row)
        of_rows = lambda name: code.at(given[name], code.mul(row0, plan.units))  # noqa: E731
        copy_rows = lambda name, to, **how: self.copy_blocks(code, of_rows(name), plan.units, to, rows, blocks, **how)  # noqa: E731
        copy_rows("h0_0", h, factor=of_rows("drop") if plan.dropout else None)
        there = {f"h0_{k}": self.states[k] for k in self.apart} | {
            f"reset_to_{k}": at for k, at in enumerate(self.reset_to)
        }
        for name, at in (there | ({"drop": self.drop} if plan.dropout else {})).items():
            copy_rows(name, code.at(shared, at))
        wait = lambda: code.call(team.barrier(self.program), job, parts) if plan.together and plan.threads > 1 else None  # noqa: E731
        wait()

        x_row, x_step, x_first = plan.strides(code, steps, plan.features, reverse)
        y_row, y_step, y_first = plan.strides(code, steps, plan.units, reverse)
        f_row, f_step, f_first = plan.strides(code, steps, 1, reverse) if plan.flagged else (0, 0, 0)
        place = lambda a, row, row_size, first: code.at(a, code.add(code.mul(row, row_size), first))  # noqa: E731
        x, ys = place(given["x"], row0, x_row, x_first), [place(made[k], row0, y_row, y_first) for k in states]
        flags = code.bytes(given["flags"], code.add(code.mul(row0, f_row), f_first)) if plan.flagged else scratch
        kept_row = plan.blocks * self.kept
        kept = code.at(made[plan.states], code.mul(row0, kept_row)) if plan.keep else code.at(shared, self.between)
        copy, u, b_u, b_q = (code.at(at, o) for at, o in (
            (mine, self.x), (shared, self.u), (shared, self.b_u), (shared, self.b_q)
        ))  # fmt: skip

        chunk_tiles = Tiling.of(plan.sums, cell.gates, plan.blocks, rows, multiples=True)
        step_tiles = [Tiling.of(plan.sums, len(gates), plan.blocks, rows) for gates in cell.phases]

        def of_chunk(k: Value, h: Value, other: Value) -> list[Value]:
            begin = code.mul(k, plan.chunk)
            size = code.smaller(plan.chunk, code.sub(steps, begin))
            at_x = code.at(x, code.mul(begin, x_step))
            here = code.bytes(flags, code.mul(begin, f_step)), f_row, f_step
            code.call(self.copy_input(rows), at_x, copy, size, x_row, x_step, *here)

            def project(height: int, width: int, row: Value, block: Value) -> None:
                to = code.at(u, code.add(code.mul(row, self.u_row), code.mul(block, self.gates)))
                code.call(
                    self._projection(height, width), code.at(copy, code.mul(row, plan.features)),
                    self.panel(code, w_x, plan.features, block, self.every), code.at(b_u, code.mul(block, self.gates)),
                    to,
                )  # fmt: skip

            chunk_tiles.cover(code, code.mul(size, rows), blocks, project)

            def step(s: Value, h: Value, other: Value) -> list[Value]:
                t = code.add(begin, s)
                at_flags = code.bytes(flags, code.mul(t, f_step))
                # Behind the last step there is none before which a state could be set to another.
                later = code.smaller(code.add(t, 1), code.sub(steps, 1))
                at_kept = code.at(kept, code.mul(t, plan.batch * kept_row)) if plan.keep else kept
                at_y = [code.at(y, code.mul(t, y_step)) for y in ys]

                def of_phase(phase: int, height: int, width: int, row: Value, block: Value) -> None:
                    gates, lane = cell.phases[phase], code.mul(block, plan.lanes)
                    at_row = lambda a: code.at(a, code.mul(row, self.h_row))  # noqa: E731
                    now = {
                        "a": at_row(h if phase == 0 else code.at(shared, self.operand)),
                        "panel": self.panel(code, w_h[phase], plan.units, block, gates),
                        "u": code.at(u, code.add(
                            code.mul(code.add(code.mul(s, rows), row), self.u_row), code.mul(lane, cell.gates)
                        )),
                        "block": block,
                    }  # fmt: skip
                    if plan.keep or cell.second:
                        now["kept"] = code.at(at_kept, code.mul(row, kept_row))
                    if plan.flagged:
                        now |= {"flags": code.bytes(at_flags, code.mul(row, f_row)), "f_row": f_row}
                    if phase < len(cell.phases) - 1:
                        now["operand"] = at_row(code.at(shared, self.operand))
                    else:
                        now |= {"h": at_row(h), "after": at_row(other), "y_row": y_row}
                        now |= {f"y_{k}": code.at(y, code.mul(row, y_row)) for k, y in enumerate(at_y)}
                        now |= {f"state_{k}": at_row(code.at(shared, self.states[k])) for k in self.apart}
                        if cell.inside:
                            now["b_q"] = code.at(b_q, lane)
                        if plan.dropout:
                            now["drop"] = at_row(code.at(shared, self.drop))
                        if plan.resets:
                            at_later = code.bytes(flags, code.mul(later, f_step))
                            now["later"] = code.bytes(at_later, code.mul(row, f_row))
                            for k, at in enumerate(self.reset_to):
                                now[f"reset_to_{k}"] = at_row(code.at(shared, at))
                    name = f"step_{phase}_{height}x{width}"
                    self.call(code, name, functools.partial(self._step, phase, height, width), **now)

                for phase, tiles in enumerate(step_tiles):
                    tiles.cover(code, rows, blocks, functools.partial(of_phase, phase))
                    wait()
                return [other, h]

            return code.loop(0, size, step, [h, other])

        number = code.div(code.add(steps, plan.chunk - 1), plan.chunk)
        code.loop(0, number, of_chunk, [h, other])

    def _projection(self, height: int, width: int) -> ir.Function:
        """A tile of u."""

        def project(code: Code, x: Value, panel: Value, bias: Value, u: Value) -> None:
            features = self.plan.features
            sums = [code.load(bias, j * self.lanes) for j in range(self.cell.gates * width)]
            rows = [(x, i * features) for i in range(height)]
            stream = self.stream(code, panel, features, width, self.every)
            found = products.accumulate(code, features, rows, 1, stream, [list(sums) for _ in rows])
            for i, row in enumerate(found):
                for j, value in enumerate(row):
                    code.store(value, u, i * self.u_row + j * self.lanes)

        return self.program.function(f"project_{height}x{width}", [POINTER] * 4, project)

    def _step(self, phase: int, height: int, width: int, code: Code, block: Value, **at: Value) -> None:
        """A tile of a step's phase: some rows, some blocks of units. Where no row is used, nothing is computed."""
        plan, cell, lanes, b, to = self.plan, self.cell, self.lanes, code.builder, Vectors(code)
        gates, last = cell.phases[phase], phase == len(cell.phases) - 1
        lane = code.mul(block, lanes)
        each = [(i, c) for i in range(height) for c in range(width)]
        of_state = lambda i, c: code.add(lane, i * self.h_row + c * lanes)  # noqa: E731
        load = lambda name: [code.load(at[name], of_state(i, c)) for i, c in each]  # noqa: E731
        used = [code.bit(USED, at["flags"], code.mul(at["f_row"], i)) for i in range(height)] if plan.masked else []
        # Read before any of it is written.
        old = [load(f"state_{k}" if k in self.apart else "h") for k in range(plan.states)] if last else []
        done = range(cell.kept_first) if cell.second and last else range(0)

        def of_kept(i: int, c: int, j: int) -> Value:
            return code.add(code.mul(block, self.kept), i * plan.blocks * self.kept + c * self.kept + j * lanes)

        def keep(i: int, c: int, values: Sequence[Value]) -> None:
            if plan.keep or (cell.second and not last):
                for j, value in enumerate(values, len(done)):
                    code.store(value, at["kept"], of_kept(i, c, j))

        def moved() -> list[Value]:
            zero = code.spread(0.0)
            inside = [code.load(at["b_q"], c * lanes) if cell.inside else zero for c in range(width)]
            start = [value for c in range(width) for value in (*[zero] * (len(gates) - 1), inside[c])]
            sums = self.recurrent(code, block, height, width, at["a"], at["panel"], gates, [list(start)] * height)
            found: list[list[Value]] = []
            for n, (i, c) in enumerate(each):
                u = [code.load(at["u"], i * self.u_row + (cell.gates * c + g) * lanes) for g in gates]
                q = sums[i][len(gates) * c : len(gates) * (c + 1)]
                if last:
                    first = [code.load(at["kept"], of_kept(i, c, j)) for j in done]
                    new, kept = cell.forward(to, u, q, [state[n] for state in old], first)
                    new = [code.rounded_to_bfloat16(a) for a in new] if plan.bfloat16 else new
                    if used:
                        new = [b.select(used[i], a, state[n]) for a, state in zip(new, old, strict=True)]
                else:
                    operand, kept = cell.operand(to, u, q, code.load(at["a"], of_state(i, c)))
                    new = [operand]
                keep(i, c, kept)
                found.append(new)
            return [value for state in zip(*found, strict=True) for value in state]

        def held() -> list[Value]:
            for i, c in each:
                keep(i, c, [code.spread(0.0)] * (cell.kept - len(done) if last else cell.kept_first))
            return [value for state in old for value in state] if last else [code.spread(0.0)] * len(each)

        flat = code.choose(functools.reduce(b.or_, used), moved, held) if used else moved()
        found = [flat[k : k + len(each)] for k in range(0, len(flat), len(each))]
        if not last:
            for (i, c), value in zip(each, found[0], strict=True):
                code.store(value, at["operand"], of_state(i, c))
            return
        self._hand_on(code, found, each, of_state, at)

        def put(count: int) -> None:
            for k, values in enumerate(found):
                for (i, c), value in zip(each, values, strict=True):
                    place = code.add(code.add(code.mul(at["y_row"], i), lane), c * lanes)
                    code.store_first(count if c == width - 1 else lanes, value, at[f"y_{k}"], place)

        self.by_count(code, block, width, put)

    def _hand_on(
        self, code: Code, found: list[list[Value]], each: Sequence[tuple[int, int]],
        of_state: Callable[[int, int], Value], at: dict[str, Value],
    ) -> None:  # fmt: skip
        """Stores what the next step sets out from: the states, or what they are set to before it."""
        for k, values in enumerate(found):
            for (i, c), value in zip(each, values, strict=True):
                if self.plan.resets:
                    is_set = code.bit(RESET, at["later"], code.mul(at["f_row"], i))
                    value = code.builder.select(is_set, code.load(at[f"reset_to_{k}"], of_state(i, c)), value)
                if k in self.apart:
                    code.store(value, at[f"state_{k}"], of_state(i, c))
                if k == 0:
                    if self.plan.dropout:
                        value = code.builder.fmul(value, code.load(at["drop"], of_state(i, c)))
                    code.store(value, at["after"], of_state(i, c))
