"""minGRU and minLSTM over time from their projected input: the states, and the gradients, each in one pass over memory.

    h_t = a h_{t-1} + (1 - a) n,        minGRU: a = sigmoid(-u_z),  minLSTM: a = f / (f + i) of sigmoids f and i
    l_t = c_t + a_{t+1} l_{t+1},        d_a = l_t (h_{t-1} - n_t),  d_n = l_t (1 - a)

A step with a reset has another state for h_{t-1}, which then gets the gradient that would have gone on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from gru_jax.scans.engines.llvm import activations, recurrence_passes, team
from gru_jax.scans.engines.llvm.code import I64, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.plan import RESET, USED

FORWARD, BACKWARD = "minimal", "minimal_gradient"
SIDE_BY_SIDE = 4
"""Vectors that are computed at the same time: an exponential alone would wait for itself."""


class Plan(NamedTuple):
    """What the passes are written for; all but the number of steps.

    Attributes:
      lanes: float32 numbers of a vector.
      parts: 2 for minGRU, of a projected input z and n; 3 for minLSTM, f, i and n.
      positive: whether n is made positive first, with form="log".
      batch: B.
      units: H.
      batch_leads: whether u is `[B, T, parts, H]`, else `[T, B, parts, H]`.
      reverse: whether time runs from the last index to the first.
      masked: whether there are flags that say which steps to use.
      resets: whether flags say also which steps have another state before them.
      threads: how many may work at a time, each on some sequences or on some units of all.
      past_caches: as for `recurrence_passes.Plan`.
    """

    lanes: int
    parts: int
    positive: bool
    batch: int
    units: int
    batch_leads: bool
    reverse: bool
    masked: bool
    resets: bool
    threads: int
    past_caches: bool

    @property
    def flags(self) -> int:
        """How many arguments there are of flags and of a state after resets."""
        return 2 if self.resets else int(self.masked)

    def shares(self) -> list[tuple[int, int, int, int]]:
        """For each thread the first sequence and the one after its last, and the same of units."""
        whole = recurrence_passes.Plan(self.lanes, self.batch, self.units, self.reverse, self.threads, False)
        return whole.parts()


def write_forward(plan: Plan) -> Program:
    """The program, whose handler is FORWARD.

    Arguments: u, h0 `[B, H]`, flags if there are any, and the state after a reset `[B, H]` if there are such. Results:
    the states, and the last one `[B, H]`.
    """
    program = Program(plan.lanes)
    arguments = 2 + plan.flags

    def write(code: Code, job: Value, rows: tuple[Value, Value], ends: tuple[int, int], past_caches: bool) -> None:
        argument, result = _reader(code, job, arguments)
        u, h0, h, state = argument(0), argument(1), result(0), result(1)
        _each_row(code, plan, rows, lambda r: _copied(code, plan, ends, code.at(h0, r), code.at(state, r)))

        def step(row: Value, place: Value, _: Value) -> None:
            of_h, of_u, of_state = _places(plan, code, row, place)

            def moved(vectors: Sequence[tuple[Value, int]], before: Value) -> None:
                old = [code.load_first(n, code.at(before, of_state), at) for at, n in vectors]
                read = [_read(code, plan, code.at(u, of_u), at, n) for at, n in vectors]
                for (at, n), earlier, parts in zip(vectors, old, read, strict=True):
                    a, share, *_ = coefficients(code, plan, parts)
                    candidate = candidate_of(code, plan, parts[-1])[0]
                    now = code.fma(a, earlier, code.builder.fmul(share, candidate))
                    code.store_first(n, now, code.at(state, of_state), at)
                    recurrence_passes.put(code, past_caches, n, now, code.at(h, of_h), at)

            def held(vectors: Sequence[tuple[Value, int]]) -> None:
                for at, n in vectors:
                    now = code.load_first(n, code.at(state, of_state), at)
                    recurrence_passes.put(code, past_caches, n, now, code.at(h, of_h), at)

            _by_flags(code, plan, argument, place, ends, moved, held, state)

        _over_time(code, plan, rows, job, step, backwards=False)

    _handler(program, plan, FORWARD, arguments, 2, (0,), write)
    return program


def write_backward(plan: Plan) -> Program:
    """The program, whose handler is BACKWARD.

    Arguments: those of the forward pass, the states, and their gradients. Results: the gradients of u, of h0 and, if
    there are resets, of the state after them.
    """
    program = Program(plan.lanes)
    arguments, results = 4 + plan.flags, 2 + plan.resets

    def write(code: Code, job: Value, rows: tuple[Value, Value], ends: tuple[int, int], past_caches: bool) -> None:
        argument, result = _reader(code, job, arguments)
        u, h0, h, c = argument(0), argument(1), argument(arguments - 2), argument(arguments - 1)
        d_u, carry, b = result(0), result(1), code.builder
        for sums in (carry, result(2)) if plan.resets else (carry,):
            zeros = lambda r, sums=sums: _copied(code, plan, ends, None, code.at(sums, r))  # noqa: E731
            _each_row(code, plan, rows, zeros)

        def step(row: Value, place: Value, earlier: Value) -> None:
            of_h, of_u, of_state = _places(plan, code, row, place)
            at_start = code.less(earlier, 0)
            before = b.select(at_start, code.at(h0, of_state), code.at(h, code.mul(earlier, plan.units)))

            def write_gradients(at: Value, n: int, values: Sequence[Value]) -> None:
                for k, value in enumerate(values):
                    there = code.at(d_u, code.add(of_u, k * plan.units))
                    recurrence_passes.put(code, past_caches, n, value, there, at)

            def reached(at: Value, n: int) -> Value:
                through = code.load_first(n, code.at(carry, of_state), at)
                return b.fadd(code.load_first(n, code.at(c, of_h), at), through)

            def moved(vectors: Sequence[tuple[Value, int]], set_to: Value | None) -> None:
                adjoint = [reached(at, n) for at, n in vectors]
                there = before if set_to is None else code.at(set_to, of_state)
                old = [code.load_first(n, there, at) for at, n in vectors]
                read = [_read(code, plan, code.at(u, of_u), at, n) for at, n in vectors]
                for (at, n), l, earlier_h, parts in zip(vectors, adjoint, old, read, strict=True):
                    a, share, *slopes = coefficients(code, plan, parts)
                    candidate, slope = candidate_of(code, plan, parts[-1])
                    d_ahead = b.fmul(b.fmul(l, b.fsub(earlier_h, candidate)), b.fmul(a, share))
                    d_n = b.fmul(l, share)
                    gates = [b.fmul(d_ahead, s) for s in slopes]
                    write_gradients(at, n, [*gates, d_n if slope is None else b.fmul(d_n, slope)])
                    through = b.fmul(a, l)
                    if set_to is not None:
                        d_set = code.at(result(2), of_state)
                        code.store_first(n, b.fadd(code.load_first(n, d_set, at), through), d_set, at)
                        through = code.spread(0.0)
                    code.store_first(n, through, code.at(carry, of_state), at)

            def held(vectors: Sequence[tuple[Value, int]]) -> None:
                for at, n in vectors:
                    code.store_first(n, reached(at, n), code.at(carry, of_state), at)
                    write_gradients(at, n, [code.spread(0.0)] * plan.parts)

            _by_flags(code, plan, argument, place, ends, moved, held, None)

        _over_time(code, plan, rows, job, step, backwards=True)

    _handler(program, plan, BACKWARD, arguments, results, (0,), write)
    return program


def coefficients(code: Code, plan: Any, parts: Sequence[Value]) -> list[Value]:
    """a, 1 - a, and for each gate the derivative of log a - log (1 - a) with respect to it; of plan the `parts`."""
    b = code.builder
    if plan.parts == 2:
        share, a = activations.both_sigmoids(code, parts[0])
        return [a, share, code.spread(-1.0)]
    # f / (f + i) with e^f (1 + e^i) over both, and the largest of what is added taken out: a finite one, for which no
    # gate that is 1 has to be more open than that.
    f, i = (activations.at_most(code, x, activations.LARGEST) for x in parts[:2])
    both = b.fadd(f, i)
    largest = code.intrinsic("maximum", code.intrinsic("maximum", f, i), both)
    e_f, e_i, e_both = (activations.exp(code, b.fsub(x, largest)) for x in (f, i, both))
    forget, take = b.fadd(e_f, e_both), b.fadd(e_i, e_both)
    inverse = b.fdiv(code.spread(1.0), b.fadd(forget, take))
    slopes = activations.sigmoid(code, b.fneg(f)), b.fneg(activations.sigmoid(code, b.fneg(i)))
    return [b.fmul(forget, inverse), b.fmul(take, inverse), *slopes]


def candidate_of(code: Code, plan: Any, n: Value) -> tuple[Value, Value | None]:
    """The candidate, and its derivative where that is not 1; of plan whether it is `positive`."""
    if not plan.positive:
        return n, None
    b = code.builder
    positive = b.fcmp_ordered(">=", n, code.spread(0.0))
    small, rest = activations.both_sigmoids(code, n)
    value = b.select(positive, b.fadd(n, code.spread(0.5)), small)
    return value, b.select(positive, code.spread(1.0), b.fmul(small, rest))


def _handler(
    program: Program, plan: Plan, name: str, arguments: int, results: int, of_steps: Sequence[int],
    write: Callable[..., None],
) -> None:  # fmt: skip
    """A handler whose threads do what `write` writes for some rows and units."""

    def some(ends: tuple[int, int], past_caches: bool) -> ir.Function:
        def body(code: Code, job: Value, first: Value, stop: Value) -> None:
            write(code, job, (first, stop), ends, past_caches)
            if past_caches:
                code.finish_stores()

        return program.function(f"units_{ends[0]}_{ends[1]}_{past_caches}", [POINTER, I64, I64], body)

    def work(code: Code, job: Value, part: Value, parts: Value) -> None:
        fits = recurrence_passes.aligned(code, job, of_steps)
        for k, (first, stop, left, right) in enumerate(plan.shares()):
            with code.when(code.equal(part, k)):
                if not plan.past_caches:
                    code.call(some((left, right), False), job, first, stop)
                    continue
                with code.builder.if_else(fits) as branches:
                    for branch, past_caches in zip(branches, (True, False), strict=True):
                        with branch:
                            code.call(some((left, right), past_caches), job, first, stop)

    team.handler(
        program, name, arguments=arguments, results=results, time_axis=1 if plan.batch_leads else 0,
        threads=plan.threads, together=False, work=work,
    )  # fmt: skip


def _reader(code: Code, job: Value, arguments: int) -> tuple[Callable[[int], Value], Callable[[int], Value]]:
    """Pointers to arguments and to results."""
    return (
        lambda i: code.load_word(job, team.ARGUMENTS + i, POINTER),
        lambda i: code.load_word(job, team.RESULTS + i, POINTER),
    )


def _each_row(code: Code, plan: Plan, rows: tuple[Value, Value], write: Callable[[Value], None]) -> None:
    """`write(where its state is)` for each sequence."""
    code.loop(*rows, lambda r: write(code.mul(r, plan.units)))


def _copied(code: Code, plan: Plan, ends: tuple[int, int], source: Value | None, to: Value) -> None:
    """Some units of a state, or zeros."""

    def copy(vectors: Sequence[tuple[Value, int]]) -> None:
        for at, n in vectors:
            code.store_first(n, code.spread(0.0) if source is None else code.load_first(n, source, at), to, at)

    _over_units(code, ends, copy)


def _over_time(
    code: Code, plan: Plan, rows: tuple[Value, Value], job: Value, step: Callable[[Value, Value, Value], None],
    *, backwards: bool,
) -> None:  # fmt: skip
    """`step(row, place of it and the step, place of the step before)` in turn; the last is below 0 at the start."""
    steps = code.load_word(job, team.STEPS)
    last = code.sub(steps, 1)

    def place(row: Value, t: Value) -> Value:
        t = code.sub(last, t) if plan.reverse else t
        return code.add(code.mul(row, steps), t) if plan.batch_leads else code.add(code.mul(t, plan.batch), row)

    def at(row: Value, k: Value) -> None:
        t = code.sub(last, k) if backwards else k
        earlier = code.builder.select(code.equal(t, 0), I64(-1), place(row, code.sub(t, 1)))
        step(row, place(row, t), earlier)

    if plan.batch_leads:
        code.loop(*rows, lambda row: code.loop(0, steps, lambda k: at(row, k)))
    else:
        code.loop(0, steps, lambda k: code.loop(*rows, lambda row: at(row, k)))


def _places(plan: Plan, code: Code, row: Value, place: Value) -> tuple[Value, Value, Value]:
    """Where in arrays of states, in u and in an array of one state a row is."""
    return code.mul(place, plan.units), code.mul(place, plan.parts * plan.units), code.mul(row, plan.units)


def _read(code: Code, plan: Plan, u: Value, at: Value, count: int) -> list[Value]:
    return [code.load_first(count, u, code.add(at, k * plan.units)) for k in range(plan.parts)]


def _by_flags(
    code: Code, plan: Plan, argument: Callable[[int], Value], place: Value, ends: tuple[int, int],
    moved: Callable[..., None], held: Callable[..., None], usual: Value | None,
) -> None:  # fmt: skip
    """For all units `moved(..., usual)` where a step is used, with the state of a reset if it has one, else `held`."""

    def used() -> None:
        if not plan.resets:
            _over_units(code, ends, lambda vectors: moved(vectors, usual))
            return
        with code.builder.if_else(code.bit(RESET, argument(2), place)) as (reset, not_reset):
            with reset:
                _over_units(code, ends, lambda vectors: moved(vectors, argument(3)))
            with not_reset:
                _over_units(code, ends, lambda vectors: moved(vectors, usual))

    if not plan.masked:
        used()
        return
    with code.builder.if_else(code.bit(USED, argument(2), place)) as (branch, other):
        with branch:
            used()
        with other:
            _over_units(code, ends, held)


def _over_units(
    code: Code, ends: tuple[int, int], write: Callable[[Sequence[tuple[Value, int]]], None]
) -> None:
    """`write([(place, lanes), ...])` for the vectors between two places, some side by side; the last has fewer."""
    begin, end = ends
    lanes = code.lanes
    together = SIDE_BY_SIDE * lanes
    whole = begin + (end - begin) // together * together
    if whole > begin:
        side_by_side = lambda at: write([(code.add(at, k * lanes), lanes) for k in range(SIDE_BY_SIDE)])  # noqa: E731
        code.loop(begin, whole, side_by_side, step=together)
    rest = [(at, min(lanes, end - at)) for at in range(whole, end, lanes)]
    if rest:
        write(rest)
