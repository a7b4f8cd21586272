"""The recurrences of `recurrence.py` on a GPU, at the speed of memory, by Pallas through Triton.

A program is one warp, which walks through time for some units of one sequence. What bounds it is memory alone, and
memory is fast only while a GPU has enough loads on their way: some 30 KB on each of its multiprocessors. So a program
keeps what it reads for the next `ahead` steps on its way into registers: a step uses what was asked for that many steps
before and asks for what will be used as many later.

Where there are too few units and sequences for that, time is cut into chunks. Each is summed up as one step first, by a
walk that writes nothing but the product of its a and its end from zero; the recurrence over those, a small one, gives
the state that each chunk begins with; then all walk at once. What is read is read twice for it. A program waits for no
other.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.cells.base import accumulator
from gru_jax.scans.engines.pallas.recurrence import Coefficients, Operands
from gru_jax.scans.engines.pallas.recurrence_gpu_walk import Order, Plan, Step, walk
from gru_jax.types import Array

MULTIPROCESSORS = 132
"""Of an H100 or H200. With another number the kernel is as right, and may be slower."""

IN_FLIGHT = 22 * 1024
"""Bytes that a multiprocessor should be waiting for: a load takes some 0.7 us, and two thirds of 4.8 TB/s are loads."""

REGISTERS = 64
"""Of a thread's 255, how many what is on its way may take: the time to compile grows as their square."""

WARP = 32


def plan(B: int, T: int, H: int, sizes: Sequence[int]) -> Plan:
    """How B sequences of T steps and H units are walked through.

    `ahead` is as many steps as bring IN_FLIGHT bytes on their way, as far as registers allow. A lane takes one unit,
    since lanes are what there is too little of; it takes as many as 16 bytes hold where that leaves 8 warps to each
    multiprocessor. Two walks read everything twice, so time is cut only where one would have less than half of
    IN_FLIGHT on its way; then into as many chunks as it takes, but none so short that it spends its time on the first
    loads, which nothing hides. Steps that are left over are written out once more: among nearly equal numbers we take
    those that leave none.

    Args:
      B: number of sequences.
      T: number of steps.
      H: number of units.
      sizes: of the numbers that a unit's step reads, bytes each.
    """
    wanted = MULTIPROCESSORS * IN_FLIGHT / (B * H * sum(sizes))
    registers = sum(max(1, size // 4) for size in sizes)
    most = max(4, min(32, REGISTERS // registers))
    chunks = 1
    if wanted > 2 * most:
        chunks = max(1, min(math.ceil(wanted / most), T // (4 * most)))
        chunks = next((k for k in range(chunks, 2 * chunks) if T % k == 0), chunks)
    length = T // chunks
    ahead = min(length, max(4, min(most, math.ceil(wanted / chunks))))
    ahead = min(range(ahead - ahead // 4, ahead + 1), key=lambda steps: (length % steps, -steps))
    wide = 16 // max(sizes)
    while wide > 1 and (
        wide * ahead * registers > REGISTERS or chunks * B * (H // (WARP * wide)) < 8 * MULTIPROCESSORS
    ):
        wide //= 2
    return Plan(WARP * wide, ahead, chunks)


def states(
    coefficients: Coefficients,
    operands: Operands,
    h0: Array,
    *,
    reverse: bool,
    batch_leads: bool,
    extras: int = 0,
    interpret: bool = False,
    planned: Plan | None = None,
) -> tuple[Array, ...]:
    """`recurrence.states` on a GPU; `planned` takes the place of `plan`."""
    layout = _Layout.of(operands, h0, reverse, batch_leads, interpret)
    seen, full = layout.ready(operands), accumulator(h0.dtype)
    order = Order(layout.T, reverse, batch_leads=layout.batch_leads)

    def step(values: list[Array], carry: tuple[Array, ...]) -> tuple[tuple[Array, ...], list[Array]]:
        a, b, *more = coefficients(*values)
        h = a * carry[0] + b
        return (h,), [h, *more]

    def summed(values: list[Array], carry: tuple[Array, ...]) -> tuple[tuple[Array, ...], list[Array]]:
        a, b, *_ = coefficients(*values)
        return _one_more(a, b, carry), []

    chosen = planned or layout.plan(seen)
    first = _starts(summed, seen, h0.reshape(layout.sizes).astype(full), layout, order, chosen)
    made = [(1, h0.dtype)] * (1 + extras)
    written, _ = walk(step, seen, (first,), made, layout.sizes, order, chosen, full, interpret=interpret)
    return tuple(each.reshape(layout.shape) for each in written)


def gradients(
    coefficients: Coefficients,
    operands: Operands,
    h0: Array,
    h: Array,
    cotangent: Array,
    *,
    reverse: bool,
    batch_leads: bool,
    interpret: bool = False,
    planned: Plan | None = None,
) -> tuple[Operands, Array]:
    """`recurrence.gradients` on a GPU; `planned` takes the place of `plan`."""
    layout = _Layout.of(operands, h0, reverse, batch_leads, interpret)
    full = accumulator(h0.dtype)
    order = Order(layout.T, reverse, backwards=True, batch_leads=layout.batch_leads)
    with_c = layout.ready(operands._replace(streams=(cotangent, *operands.streams)))
    with_h = layout.ready(operands._replace(streams=(cotangent, *operands.streams), lagged=((h, h0), *operands.lagged)))
    parts = [stream.shape[2] for stream in with_c.streams[1:]]
    streams = sum(parts)
    # What moves, of what `coefficients` takes: neither what is lagged nor flags do.
    still = range(streams, streams + len(operands.lagged) + len(operands.flags))

    def step(values: list[Array], carry: tuple[Array, ...]) -> tuple[tuple[Array, ...], list[Array]]:
        c, before = values[0], values[1 + streams]
        given = [*values[1 : 1 + streams], *values[2 + streams :]]
        moving = [i for i in range(len(given)) if i not in still]

        def moved(*now: Array) -> tuple[Array, Array]:
            seen = dict(zip(moving, now, strict=True))
            a, b, *_ = coefficients(*(seen.get(i, value) for i, value in enumerate(given)))
            return a, b

        (a, _), pull = jax.vjp(moved, *(given[i] for i in moving))
        adjoint = c + carry[0]
        found = pull((adjoint * before, adjoint))
        sums = (total + new for total, new in zip(carry[1:], found[streams:], strict=True))
        return (a * adjoint, *sums), found[:streams]

    def summed(values: list[Array], carry: tuple[Array, ...]) -> tuple[tuple[Array, ...], list[Array]]:
        a, *_ = coefficients(*values[1:])
        return _one_more(a, a * values[0], carry), []

    chosen = planned or layout.plan(with_h)
    nothing = jnp.zeros(layout.sizes, full)
    first = _starts(summed, with_c, nothing, layout, order, chosen)
    initial: list[Array | float] = [first, *[0.0] * (len(operands.rows) + len(operands.columns))]
    made = [(count, stream.dtype) for count, stream in zip(parts, operands.streams, strict=True)]
    written, ends = walk(
        step, with_h, initial, made, layout.sizes, order, chosen, full, ends=True, interpret=interpret
    )
    sums = iter(end.sum(0) for end in ends[1:])
    rows = tuple(next(sums).reshape(row.shape).astype(row.dtype) for row in operands.rows)
    columns = tuple(next(sums).sum(0).astype(column.dtype) for column in operands.columns)
    pulled = tuple(new.reshape(old.shape) for new, old in zip(written, operands.streams, strict=True))
    return Operands(pulled, rows=rows, columns=columns), ends[0][-1].reshape(h0.shape).astype(h0.dtype)


class _Layout(NamedTuple):
    """How the arrays lie: `[T, B, H]` with nothing that tells sequences and units apart is walked as `[T, 1, B H]`."""

    T: int
    shape: tuple[int, ...]
    sizes: tuple[int, int]
    batch_leads: bool
    interpret: bool

    @classmethod
    def of(cls, operands: Operands, h0: Array, reverse: bool, batch_leads: bool, interpret: bool) -> "_Layout":
        stream = (*operands.streams, *(array for array, _ in operands.lagged))[0]
        T, (B, H) = stream.shape[1 if batch_leads else 0], h0.shape
        apart = batch_leads or operands.flags or operands.columns or any(s.ndim > 3 for s in operands.streams)
        shape = (B, T, H) if batch_leads else (T, B, H)
        return cls(T, shape, (B, H) if apart else (1, B * H), batch_leads, interpret)

    def ready(self, operands: Operands) -> Operands:
        """The operands as `walk` takes them."""
        B, H = self.sizes
        leading = (B, self.T) if self.batch_leads else (self.T, B)
        return Operands(
            tuple(stream.reshape(*leading, -1, H) for stream in operands.streams),
            tuple((array.reshape(*leading, 1, H), first.reshape(B, H)) for array, first in operands.lagged),
            tuple(flag.astype(jnp.int8) for flag in operands.flags),
            tuple(row.reshape(B, H) for row in operands.rows),
            operands.columns,
        )

    def plan(self, seen: Operands) -> Plan:
        """Of a walk that sees these."""
        streams = [stream.dtype.itemsize for stream in seen.streams for _ in range(stream.shape[2])]
        made = plan(self.sizes[0], self.T, self.sizes[1], [*streams, *(a.dtype.itemsize for a, _ in seen.lagged)])
        # Written-out steps are what the interpreter spends its time on, and nothing is on its way there.
        return made._replace(ahead=min(made.ahead, 2)) if self.interpret else made


def _starts(
    summed: Step, seen: Operands, h0: Array, layout: _Layout, order: Order, chosen: Plan
) -> Array:
    """The carry that each chunk begins with, `[chunks, B, H]` in order of the walk."""
    if chosen.chunks == 1:
        return h0[None]
    sizes, interpret = layout.sizes, layout.interpret
    _, parts = walk(summed, seen, (1.0, 0.0), (), sizes, order, chosen, h0.dtype, ends=True, interpret=interpret)
    chain = Operands(tuple(part[:, :, None] for part in parts))

    def step(values: list[Array], carry: tuple[Array, ...]) -> tuple[tuple[Array, ...], list[Array]]:
        h = values[0] * carry[0] + values[1]
        return (h,), [h]

    one_by_one = Plan(chosen.lanes, min(chosen.ahead, chosen.chunks))
    made, in_turn = [(1, h0.dtype)], Order(chosen.chunks)
    (after,), _ = walk(step, chain, (h0[None],), made, sizes, in_turn, one_by_one, h0.dtype, interpret=interpret)
    return jnp.concatenate([h0[None], after[:-1, :, 0]])


def _one_more(a: Array, b: Array, carry: tuple[Array, ...]) -> tuple[Array, Array]:
    """Steps that are summed up as (factor, end), and one more."""
    largest = float(jnp.finfo(a.dtype).max)
    factor = a * carry[0]
    # A product of factors above 1 overflows before the states do, or where there are none: it must not make them NaN.
    over = (jnp.abs(factor) > largest) & (jnp.abs(a) <= largest)
    factor = jnp.where(over, jnp.where(factor > 0, largest, -largest).astype(a.dtype), factor)
    return factor, a * carry[1] + b
