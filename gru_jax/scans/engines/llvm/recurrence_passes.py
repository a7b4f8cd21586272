"""The linear recurrence `h_t = a_t h_{t-1} + b_t`, and its gradients, each in one pass over memory.

    l_t = c_t + a_{t+1} l_{t+1},   d_b = l,   d_a_t = l_t h_{t-1}
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from llvmlite import ir

from gru_jax.scans.engines.llvm import team
from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value

FORWARD, BACKWARD = "recurrence", "recurrence_gradient"

IN_REGISTERS = 8
"""Vectors of a state that are carried from step to step in registers; of more, in memory."""
COLUMNS = 2048
"""Numbers of a wide state that are carried at a time: with what is read and written beside them they fit into a core's
nearest cache."""


At = Callable[[int, bool], Value]
"""Where an array begins for one sequence: its number, and whether it has an axis of steps."""


class Plan(NamedTuple):
    """What the passes are written for; all but the number of steps.

    Attributes:
      lanes: float32 numbers of a vector.
      sequences: arrays are `[sequences, T, width]`.
      width: numbers of a state.
      reverse: whether time runs from the last index to the first.
      threads: how many may work at a time, each on some sequences or on some numbers of all.
      past_caches: whether results are so large that in the caches they would only take the place of what is still to be
        read; a state must then be whole vectors.
    """

    lanes: int
    sequences: int
    width: int
    reverse: bool
    threads: int
    past_caches: bool

    def parts(self) -> list[tuple[int, int, int, int]]:
        """For each thread the first sequence and the one after its last, and the same of the numbers of a state."""
        if self.sequences >= self.threads:
            ends = [self.sequences * k // self.threads for k in range(self.threads + 1)]
            return [(a, b, 0, self.width) for a, b in zip(ends, ends[1:], strict=False)]
        # Whole cache lines.
        ends = [min(self.width, -(-self.width * k // self.threads // 16) * 16) for k in range(self.threads + 1)]
        return [(0, self.sequences, a, b) for a, b in zip(ends, ends[1:], strict=False)]


def write_forward(plan: Plan) -> Program:
    """The program, whose handler is FORWARD. Arguments: a, b, h0 `[sequences, width]`; result: the states."""
    program = Program(plan.lanes)

    def columns(code: Code, ends: tuple[int, int], at: At, steps: Value, past_caches: bool) -> None:
        a, b, h0, h = at(0, True), at(1, True), at(2, False), at(3, True)

        def step(here: Value, place: int | Value, count: int, before: Value) -> Value:
            load = lambda pointer: code.load_first(count, code.at(pointer, here), place)  # noqa: E731
            now = code.fma(load(a), before, load(b))
            put(code, past_caches, count, now, code.at(h, here), place)
            return now

        if _vectors(plan, ends) <= IN_REGISTERS:
            _in_registers(code, plan, ends, steps, plan.reverse, h0, step)
            return
        # What is written past the caches is not to be read back in the next step.
        state = code.at(code.room(ends[1] - ends[0]), -ends[0]) if past_caches else None
        if past_caches:
            _over(code, ends, lambda place, n: code.store_first(n, code.load_first(n, h0, place), state, place))

        def of_step(t: Value) -> None:
            here = _place(code, plan, t, steps, plan.reverse)
            earlier = code.at(h, _place(code, plan, code.sub(t, 1), steps, plan.reverse))
            before = state if past_caches else code.builder.select(code.equal(t, 0), h0, earlier)

            def of_place(place: Value, count: int) -> None:
                now = step(here, place, count, code.load_first(count, before, place))
                if past_caches:
                    code.store_first(count, now, state, place)

            _over(code, ends, of_place)

        code.loop(0, steps, of_step)

    _handler(program, plan, FORWARD, arguments=3, results=(True,), columns=columns)
    return program


def write_backward(plan: Plan) -> Program:
    """The program, whose handler is BACKWARD. Arguments: a, h0, h, c; results: the gradients of a, b and h0."""
    program = Program(plan.lanes)

    def columns(code: Code, ends: tuple[int, int], at: At, steps: Value, past_caches: bool) -> None:
        a, h0, h, c, d_a, d_b, d_h0 = (at(i, i not in (1, 6)) for i in range(7))

        def step(t: Value, here: Value, place: int | Value, count: int, through: Value) -> Value:
            earlier = _place(code, plan, code.sub(t, 1), steps, plan.reverse)
            before = code.builder.select(code.equal(t, 0), h0, code.at(h, earlier))
            load = lambda pointer: code.load_first(count, code.at(pointer, here), place)  # noqa: E731
            adjoint = code.builder.fadd(load(c), through)
            # Over c, which has just been read and so is in the nearest cache, where a store past the caches would only
            # drive it out.
            code.store_first(count, adjoint, code.at(d_b, here), place)
            d = code.builder.fmul(adjoint, code.load_first(count, before, place))
            put(code, past_caches, count, d, code.at(d_a, here), place)
            return code.builder.fmul(load(a), adjoint)

        last = code.sub(steps, 1)
        if _vectors(plan, ends) <= IN_REGISTERS:
            now = lambda here, place, count, through, t: step(code.sub(last, t), here, place, count, through)  # noqa: E731
            _in_registers(code, plan, ends, steps, not plan.reverse, None, now, d_h0)
            return
        _over(code, ends, lambda place, count: code.store_first(count, code.spread(0.0), d_h0, place))

        def of_step(k: Value) -> None:
            t = code.sub(last, k)
            here = _place(code, plan, t, steps, plan.reverse)

            def of_place(place: Value, count: int) -> None:
                through = step(t, here, place, count, code.load_first(count, d_h0, place))
                code.store_first(count, through, d_h0, place)

            _over(code, ends, of_place)

        code.loop(0, steps, of_step)

    _handler(program, plan, BACKWARD, arguments=4, results=(True, True, False), columns=columns)
    return program


def _handler(
    program: Program, plan: Plan, name: str, *, arguments: int, results: tuple[bool, ...], columns: Callable[..., None]
) -> None:
    """A handler that goes through sequences and columns; `columns` writes what is done with some of one sequence.

    `results` says of each whether it has an axis of steps.
    """

    def word(i: int) -> int:
        return team.ARGUMENTS + i if i < arguments else team.RESULTS + i - arguments

    def some(size: int, past_caches: bool) -> ir.Function:
        """What is done with so many columns, wherever they begin: written once for all that are as many."""

        def write(code: Code, job: Value, first: Value, stop: Value, begin: Value) -> None:
            steps = code.load_word(job, team.STEPS)

            def of_sequence(s: Value) -> None:
                def at(i: int, of_steps: bool) -> Value:
                    row = code.mul(steps, plan.width) if of_steps else plan.width
                    return code.at(code.load_word(job, word(i), POINTER), code.add(code.mul(s, row), begin))

                columns(code, (0, size), at, steps, past_caches)

            code.loop(first, stop, of_sequence)
            if past_caches:
                code.finish_stores()

        return program.function(f"columns_{size}_{past_caches}", [POINTER, I64, I64, I64], write)

    def of_share(code: Code, job: Value, share: tuple[int, int, int, int], past_caches: bool) -> None:
        first, stop, left, right = share
        whole = left + (right - left) // COLUMNS * COLUMNS
        each = lambda begin, size: code.call(some(size, past_caches), job, first, stop, begin)  # noqa: E731
        if whole > left:
            code.loop(left, whole, lambda begin: each(begin, COLUMNS), step=COLUMNS)
        if right > whole:
            each(whole, right - whole)

    def work(code: Code, job: Value, part: Value, parts: Value) -> None:
        fits = aligned(code, job, [i for i, of_steps in enumerate(results) if of_steps])
        for k, share in enumerate(plan.parts()):
            with code.when(code.equal(part, k)):
                if not plan.past_caches:
                    of_share(code, job, share, False)
                    continue
                with code.builder.if_else(fits) as branches:
                    for branch, past_caches in zip(branches, (True, False), strict=True):
                        with branch:
                            of_share(code, job, share, past_caches)

    team.handler(
        program, name, arguments=arguments, results=len(results), time_axis=1, threads=plan.threads,
        together=False, work=work,
    )  # fmt: skip


def _vectors(plan: Plan, ends: tuple[int, int]) -> int:
    return -(-(ends[1] - ends[0]) // plan.lanes)


def _place(code: Code, plan: Plan, t: Value, steps: Value, reverse: bool) -> Value:
    """Where the t-th step lies that is taken."""
    return code.mul(code.sub(code.sub(steps, 1), t) if reverse else t, plan.width)


def aligned(code: Code, job: Value, results: Sequence[int]) -> Value:
    """Whether results lie at multiples of a vector's size: XLA's do, what it was lent by others may lie anywhere."""
    addresses = [code.load_word(job, team.RESULTS + i) for i in results]
    return code.equal(code.builder.and_(functools.reduce(code.builder.or_, addresses), I64(4 * code.lanes - 1)), 0)


def put(code: Code, past_caches: bool, count: int, value: Value, pointer: Value, place: int | Value) -> None:
    """Writes the first so many numbers of a vector."""
    if past_caches:
        code.store_past_caches(value, pointer, place)
    else:
        code.store_first(count, value, pointer, place)


def _over(code: Code, ends: tuple[int, int], write: Callable[[Value, int], object]) -> None:
    """`write(place, lanes)` for the vectors between two places, four at a time; the last has fewer lanes."""
    begin, end = ends
    lanes = code.lanes

    def several(place: Value) -> None:
        for k in range(4):
            write(code.add(place, k * lanes), lanes)

    four = begin + (end - begin) // (4 * lanes) * 4 * lanes
    if four > begin:
        code.loop(begin, four, several, step=4 * lanes)
    for place in range(four, end, lanes):
        write(place, min(lanes, end - place))


def _in_registers(
    code: Code, plan: Plan, ends: tuple[int, int], steps: Value, backwards: bool, start: Value,
    step: Callable[..., Value], to: Value = None,
) -> None:  # fmt: skip
    """All steps, each `step(here, place, lanes, before[, t])`, with a few vectors carried; the last go to `to`."""
    begin, end = ends
    each = [(place, min(code.lanes, end - place)) for place in range(begin, end, code.lanes)]
    zero = code.spread(0.0)
    before = [zero if start is None else code.load_first(count, start, place) for place, count in each]

    def of_step(t: Value, *before: Value) -> list[Value]:
        here = _place(code, plan, t, steps, backwards)
        more = () if start is not None else (t,)
        return [step(here, place, count, old, *more) for (place, count), old in zip(each, before, strict=True)]

    for value, (place, count) in zip(code.loop(0, steps, of_step, before), each, strict=True):
        if to is not None:
            code.store_first(count, value, to, place)
