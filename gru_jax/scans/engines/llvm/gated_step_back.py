"""What a gated cell's backward pass does in a step, tile by tile, and what a forward pass did not keep for it."""

import functools
from collections.abc import Callable

from gru_jax.scans.engines.llvm import products
from gru_jax.scans.engines.llvm.code import I64, Code, Value
from gru_jax.scans.engines.llvm.gated_gradients import GradientKernel
from gru_jax.scans.engines.llvm.plan import RESET, USED
from gru_jax.scans.engines.llvm.products import Tiling
from gru_jax.scans.engines.llvm.vectors import Vectors

Tile = list[list[Value]]
"""Vectors of some rows, of some blocks each."""


class StepBack(GradientKernel):
    """A kernel that goes a step back.

    Attributes:
      old: where the states before each step of a chunk are in the scratch memory, a place for each vector of a state.
      seen: likewise those that products are of.
      operand: likewise what the second product is of.
      again: what is kept of a chunk's steps, where it is computed again.
    """

    old: list[int]
    seen: int
    operand: int
    again: int

    def step(self, height: int, width: int, code: Code, block: Value, through: Value, **at: Value) -> None:
        """A tile of a step back: what reaches the states after it, and from there the gradients of its gates."""
        plan, lanes, b, to = self.plan, self.lanes, code.builder, Vectors(code)
        states, lane = range(plan.states), code.mul(block, self.lanes)
        reached = self._reached(code, height, width, block, through, at)
        for i in range(height) if plan.resets else ():
            self._stop_at_reset(code, code.bit(RESET, at["later"], code.mul(at["f_row"], i)), i, lane, reached, at)

        def given(count: int) -> list[Value]:
            counts = [lanes] * (width - 1) + [count]
            places = [code.add(code.mul(at["c_row"], i), lane) for i in range(height)]
            return [
                code.load_first(n, code.at(at[f"c_{k}"], row), j * lanes)
                for k in states for row in places for j, n in enumerate(counts)
            ]  # fmt: skip

        from_loss = iter(self.chosen_by_count(code, block, width, given))
        adjoints = [[[b.fadd(value, next(from_loss)) for value in row] for row in tile] for tile in reached]
        units = self.units_of_last(code, block, width)
        for i in range(height):
            used = code.bit(USED, at["flags"], code.mul(at["f_row"], i)) if plan.masked else None
            for j in range(width):
                place = self._of_state(code, lane, i, j)
                adjoint = [tile[i][j] for tile in adjoints]
                moving = adjoint if used is None else [b.select(used, a, code.spread(0.0)) for a in adjoint]
                old = [code.load(at[f"old_{k}"], place) for k in states]
                d, passed = self.cell.backward(to, self._kept(code, block, i, j, at), old, moving)
                for k, (value, whole) in enumerate(zip(passed, adjoint, strict=True)):
                    code.store(value if used is None else b.select(used, value, whole), at[f"carry_{k}"], place)
                self._put(code, d, block, i, j, units if j == width - 1 else None, at)

    def step_of_operand(self, height: int, width: int, code: Code, block: Value, **at: Value) -> None:
        """A tile of what comes through the second product of a step, from the candidate's gradient."""
        plan, b, to, lane = self.plan, code.builder, Vectors(code), code.mul(block, self.lanes)
        slot = self.cell.slot_of_q(self.cell.gates - 1)
        reached = self.through(code, at["to"], at["panel"], height, width, slot, 1, self.seen_by(code, block, width))
        units = self.units_of_last(code, block, width)
        for i in range(height):
            used = code.bit(USED, at["flags"], code.mul(at["f_row"], i)) if plan.masked else None
            for j in range(width):
                place = self._of_state(code, lane, i, j)
                kept, seen = self._kept(code, block, i, j, at), code.load(at["seen"], place)
                operand, d, passed = self.cell.backward_operand(to, kept, seen, reached[i][j])
                code.store(operand, at["operand"], place)
                if plan.dropout:
                    passed = b.fmul(passed, code.load(at["drop"], place))
                if used is not None:
                    *d, passed = (None if a is None else b.select(used, a, code.spread(0.0)) for a in (*d, passed))
                code.store(b.fadd(code.load(at["carry"], place), passed), at["carry"], place)
                self._put(code, d, block, i, j, units if j == width - 1 else None, at)

    def start(self, height: int, width: int, code: Code, block: Value, through: Value, **at: Value) -> None:
        """A tile of what reaches the states before the first step, and of what has reached those after resets."""
        plan, lane = self.plan, code.mul(block, self.lanes)
        found = {f"d_h0_{k}": tile for k, tile in enumerate(self._reached(code, height, width, block, through, at))}
        for k in range(plan.states) if plan.resets else ():
            load = lambda i, j, k=k: code.load(at[f"sum_{k}"], self._of_state(code, lane, i, j))  # noqa: E731
            found[f"d_reset_to_{k}"] = [[load(i, j) for j in range(width)] for i in range(height)]

        def put(count: int) -> None:
            for name, tile in found.items():
                for i, values in enumerate(tile):
                    for j, value in enumerate(values):
                        place = code.add(lane, i * plan.units + j * self.lanes)
                        code.store_first(count if j == width - 1 else self.lanes, value, at[name], place)

        self.by_count(code, block, width, put)

    def compute_again(
        self, code: Code, number: Value, rows: int, blocks: tuple[Value, Value], x: Value, shared: Value,
        weights: tuple[Value, list[Value]], wait: Callable[[], object],
    ) -> None:  # fmt: skip
        """What is kept of some steps, `number` being all rows of all of them."""
        plan, cell, (w_x, w_h) = self.plan, self.cell, weights

        def tile(phase: int, height: int, width: int, row: Value, block: Value) -> None:
            gates, lane = cell.phases[phase], code.mul(block, self.lanes)
            of_rows = lambda at: code.at(shared, code.add(code.mul(row, self.h_row), at))  # noqa: E731
            now = {"a": of_rows(self.operand if phase else self.seen), "block": block}
            now["at_h"] = self.panel(code, w_h[phase], plan.units, block, gates)
            to = code.add(code.mul(row, plan.blocks * self.kept), code.mul(block, self.kept))
            now["to"] = code.at(shared, code.add(to, self.again))
            if phase == 0:
                now |= {"x": code.at(x, code.mul(row, plan.features))}
                now["at_x"] = self.panel(code, w_x, plan.features, block, self.every)
                now["b_u"] = code.at(shared, code.add(code.mul(lane, cell.gates), self.b_u))
                if cell.inside:
                    now["b_q"] = code.at(shared, code.add(lane, self.b_q))
                if cell.second:
                    now["operand"] = of_rows(self.operand)
            write = functools.partial(self._again, phase, height, width)
            self.call(code, f"again_{phase}_{height}x{width}", write, **now)

        for phase in range(len(cell.phases)):
            sums = 1 if phase else cell.slots
            tiles = Tiling.of(plan.sums, sums, plan.blocks, rows, multiples=True)
            tiles.cover(code, number, blocks, functools.partial(tile, phase))
            if phase < len(cell.phases) - 1:
                wait()

    def _again(self, phase: int, height: int, width: int, code: Code, block: Value, **at: Value) -> None:
        """A tile of it: the sums of both products, but for what is inside of the candidate, go into one."""
        plan, cell, lanes, to = self.plan, self.cell, self.lanes, Vectors(code)
        gates, G, first = cell.phases[phase], cell.gates, cell.kept_first
        place = lambda i, c, j: (i * plan.blocks + c) * self.kept + j * lanes  # noqa: E731
        if phase == 0:
            start = [code.load(at["b_u"], j * lanes) for j in range(G * width)]
            x_rows = [(at["x"], i * plan.features) for i in range(height)]
            stream = self.stream(code, at["at_x"], plan.features, width, self.every)
            from_x = products.accumulate(code, plan.features, x_rows, 1, stream, [list(start) for _ in x_rows])
        else:
            from_x = [[code.load(at["to"], place(i, c, first)) for c in range(width)] for i in range(height)]
        wide = len(from_x[0]) // width
        inside = [code.load(at["b_q"], c * lanes) for c in range(width)] if cell.inside else []

        def begins(row: list[Value], c: int) -> list[Value]:
            values = row[wide * c : wide * c + len(gates)]
            return [*values[:-1], inside[c]] if cell.inside else values

        sums = [[value for c in range(width) for value in begins(row, c)] for row in from_x]
        sums = self.recurrent(code, block, height, width, at["a"], at["at_h"], gates, sums)
        nothing = to.number(-0.0)  # which changes no sum
        for i in range(height):
            for c in range(width):
                q = sums[i][len(gates) * c : len(gates) * (c + 1)]
                u = [nothing] * len(gates)
                if cell.inside:
                    u[-1] = from_x[i][wide * (c + 1) - 1]
                if cell.second and phase == 0:
                    seen = code.load(at["a"], self._of_state(code, code.mul(block, lanes), i, c))
                    operand, kept = cell.operand(to, u, q, seen)
                    code.store(operand, at["operand"], self._of_state(code, code.mul(block, lanes), i, c))
                    kept = [*kept, from_x[i][wide * (c + 1) - 1]]
                    done = 0
                else:
                    done = first if phase else 0
                    before = [code.load(at["to"], place(i, c, j)) for j in range(done)]
                    kept = cell.forward(to, u, q, [nothing] * plan.states, before)[1]
                for j, value in enumerate(kept, done):
                    code.store(value, at["to"], place(i, c, j))

    def _reached(
        self, code: Code, height: int, width: int, block: Value, through: Value, at: dict[str, Value]
    ) -> list[Tile]:
        """What reaches states: past products and, if there is a step behind, `through` them; a tile for each part."""
        b, gates, lane = code.builder, self.cell.phases[0], code.mul(block, self.lanes)
        slot = self.cell.slot_of_q(gates[0])
        first, stop = self.seen_by(code, block, width)
        stop = b.select(b.icmp_signed("!=", through, I64(0)), code.number(stop), code.number(first))
        product = self.through(code, at["d"], at["panel"], height, width, slot, len(gates), (first, stop))

        def of(k: int, i: int, j: int) -> Value:
            place = self._of_state(code, lane, i, j)
            passed = code.load(at[f"carry_{k}"], place)
            if k:
                return passed
            value = product[i][j]
            if self.plan.dropout:
                value = b.fmul(value, code.load(at["drop"], place))
            return b.fadd(value, passed)

        return [[[of(k, i, j) for j in range(width)] for i in range(height)] for k in range(self.plan.states)]

    def _stop_at_reset(
        self, code: Code, is_set: Value, i: int, lane: Value, reached: list[Tile], at: dict[str, Value]
    ) -> None:
        """Where states were set to others, what has reached them goes to those."""
        with code.when(is_set):
            for k, tile in enumerate(reached):
                for j, value in enumerate(tile[i]):
                    place = self._of_state(code, lane, i, j)
                    so_far = code.load(at[f"sum_{k}"], place)
                    code.store(code.builder.fadd(so_far, value), at[f"sum_{k}"], place)
        for tile in reached:
            tile[i] = [code.builder.select(is_set, code.spread(0.0), value) for value in tile[i]]

    def _of_state(self, code: Code, lane: Value, i: int, j: int) -> Value:
        return code.add(lane, i * self.h_row + j * self.lanes)

    def _kept(self, code: Code, block: Value, i: int, j: int, at: dict[str, Value]) -> list[Value]:
        place = code.add(code.mul(block, self.kept), (i * self.plan.blocks + j) * self.kept)
        return [code.load(at["kept"], code.add(place, k * self.lanes)) for k in range(self.cell.kept)]

    def _put(
        self, code: Code, d: list[Value], block: Value, i: int, j: int, units: Value | None, at: dict[str, Value]
    ) -> None:
        """Writes gradients of gates into their slots, but for those that are not known yet."""
        place = code.add(code.mul(block, self.d_block), i * self.slots + j * self.d_block)
        for k, value in enumerate(d):
            if value is None:
                continue
            # All lanes are summed over: where there is no unit, an infinite x or state times 0 is NaN.
            if units is not None:
                value = code.builder.select(units, value, code.spread(0.0))
            code.store(value, at["to"], code.add(place, k * self.lanes))
