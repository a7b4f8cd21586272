"""A walk through time on a GPU, with a function of its own for what is done at a step: see `recurrence_gpu`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.typing import ArrayLike

from gru_jax.scans.engines.pallas.recurrence import Operands
from gru_jax.scans.engines.pallas.target import Ref, output
from gru_jax.types import Array, BoolArray, DType, Tree

Step = Callable[[list[Array], tuple[Array, ...]], tuple[tuple[Array, ...], Sequence[Array]]]
"""`(values, carry) -> (carry, what is written of this step)`, tiles all of them."""
Fetched = tuple[list[Array], list[Array], list[Array]]
"""What is read of a step: of the streams, of the lagged arrays, and of the flags."""


class Plan(NamedTuple):
    """How a walk is cut into programs.

    Attributes:
      lanes: units of a program; a power of two.
      ahead: steps between a load and its use.
      chunks: of time; no more than there are steps.
    """

    lanes: int
    ahead: int
    chunks: int = 1


class Order(NamedTuple):
    """The order of the steps.

    Attributes:
      T: number of steps.
      reverse: whether the recurrence runs from the last index to the first.
      backwards: whether the walk goes against the recurrence.
      batch_leads: whether what is of each step is `[B, T, ...]`.
    """

    T: int
    reverse: bool = False
    backwards: bool = False
    batch_leads: bool = False

    def time(self, position: Array) -> Array:
        """The index of a position of the walk."""
        return position if self.reverse == self.backwards else self.T - 1 - position

    def time_before(self, position: Array, edge: bool) -> Array:
        """The index of what is before it in the recurrence; at an edge of the walk, some index where nothing is."""
        before = position + 1 if self.backwards else position - 1
        return self.time(jnp.clip(before, 0, self.T - 1) if edge else before)


def walk(
    step: Step,
    operands: Operands,
    initial: Sequence[Array | float],
    results: Sequence[tuple[int, DType]],
    sizes: tuple[int, int],
    order: Order,
    plan: Plan,
    full: DType,
    *,
    ends: bool = False,
    interpret: bool = False,
) -> tuple[list[Array], list[Array]]:
    """All steps, in programs side by side.

    Args:
      step: what is done at each.
      operands: what it sees; streams have their parts, flags are whole numbers.
      initial: the carry that each chunk begins with, `[chunks, B, H]` in order of the walk, or a number.
      results: number of parts and dtype of each array that is written.
      sizes: (B, H).
      order: of the steps.
      plan: how the walk is cut.
      full: dtype of values and carry.
      ends: whether the carry after each chunk is wanted.
      interpret: whether Pallas's interpreter is to run it.

    Returns:
      The results, `[T, B, parts, H]` or `[B, T, parts, H]`, and the carry after each chunk, each `[chunks, B, H]`.
    """
    (B, H), lanes = sizes, plan.lanes
    length, longer = divmod(order.T, plan.chunks)
    ahead = min(plan.ahead, length)
    groups, rest = divmod(length, ahead)
    # The interpreter wants all indices of a store in the dtype that it gives the constant ones.
    whole = jax.dtypes.canonicalize_dtype(int)
    at_start = [each for each in initial if not isinstance(each, float)]

    def kernel(seen: Operands, begin: list[Ref], *written: Ref) -> None:
        k, first_lane = pl.program_id(0), pl.program_id(2) * lanes
        inside = None if H % lanes == 0 else first_lane + lax.iota(jnp.int32, lanes) < H
        start = k * length + jnp.minimum(k, longer)

        def load(ref: Ref, *index: ArrayLike) -> Array:
            place: Ref = ref.at[(*index, slice(None))]
            return plgpu.load(place, mask=inside, other=None if inside is None else jnp.zeros((), ref.dtype))

        def fetch(position: Array, edge: bool = False) -> Fetched:
            time = order.time(position)
            streams = [load(ref, time, np.int32(part)) for ref in seen.streams for part in range(ref.shape[1])]
            lagged = [load(ref, order.time_before(position, edge), np.int32(0)) for ref, _ in seen.lagged]
            if edge and lagged:
                first = jnp.broadcast_to(position == (order.T - 1 if order.backwards else 0), (lanes,))
                lagged = [jnp.where(first, *each) for each in zip(firsts, lagged, strict=True)]
            flags: list[Ref] = [ref.at[time] for ref in seen.flags]
            return streams, lagged, [plgpu.load(flag) for flag in flags]

        def values(raw: Fetched) -> list[Array]:
            streams, lagged, flags = raw
            marks = [jnp.broadcast_to(flag != 0, (lanes,)) for flag in flags]
            return [*(each.astype(full) for each in (*streams, *lagged)), *marks, *same]

        def one(
            position: Array, raw: Fetched, carry: tuple[Array, ...], there: BoolArray | None = None
        ) -> tuple[Array, ...]:
            after, made = step(values(raw), carry)
            mask = inside if there is None else there if inside is None else inside & there
            outputs = iter(made)
            for ref in written[: len(results)]:
                for part in range(ref.shape[1]):
                    place = ref.at[order.time(position).astype(whole), whole.type(part), :]
                    plgpu.store(place, next(outputs).astype(ref.dtype), mask=mask)
            return after

        def group(g: Array, state: tuple[tuple[Array, ...], list[Fetched]]) -> Tree:
            carry, raw = state
            now, following, fetched = start + g * ahead, start + jnp.minimum((g + 1) * ahead, length - ahead), []
            for i in range(ahead):
                carry = one(now + i, raw[i], carry)
                fetched.append(fetch(following + i, order.backwards and i == ahead - 1))
            return carry, fetched

        same = [load(ref).astype(full) for ref in (*seen.rows, *seen.columns)]
        given = iter(begin)
        carry = tuple(
            jnp.full((lanes,), each, full) if isinstance(each, float) else load(next(given)) for each in initial
        )
        firsts = [load(ref) for _, ref in seen.lagged]
        raw = [fetch(start + i, i in (0, ahead - 1)) for i in range(ahead)]
        carry, raw = lax.fori_loop(np.int32(0), np.int32(groups), group, (carry, raw))
        for i, each in enumerate(raw[ahead - rest :] if rest else ()):
            carry = one(start + groups * ahead + i, each, carry)
        if longer:
            there, position = k < longer, jnp.minimum(start + length, order.T - 1)
            marked = jnp.broadcast_to(there, (lanes,))
            after = one(position, fetch(position, edge=True), carry, marked)
            carry = jax.tree.map(lambda new, old: jnp.where(marked, new, old), after, carry)
        for ref, end in zip(written[len(results) :], carry, strict=False):
            plgpu.store(ref.at[:], end, mask=inside)

    def of_steps(count: int) -> pl.BlockSpec:
        if order.batch_leads:
            return pl.BlockSpec((None, order.T, count, lanes), lambda k, b, j: (b, 0, 0, j))
        return pl.BlockSpec((order.T, None, count, lanes), lambda k, b, j: (0, b, 0, j))

    per_flag = (
        pl.BlockSpec((None, order.T), lambda k, b, j: (b, 0))
        if order.batch_leads
        else pl.BlockSpec((order.T, None), lambda k, b, j: (0, b))
    )
    per_row = pl.BlockSpec((None, lanes), lambda k, b, j: (b, j))
    per_chunk = pl.BlockSpec((None, None, lanes), lambda k, b, j: (k, b, j))
    specs: tuple[Any, ...] = (
        tuple(of_steps(stream.shape[2]) for stream in operands.streams),
        tuple((of_steps(1), per_row) for _ in operands.lagged),
        tuple(per_flag for _ in operands.flags),
        tuple(per_row for _ in operands.rows),
        tuple(pl.BlockSpec((lanes,), lambda k, b, j: (j,)) for _ in operands.columns),
    )
    leading = (B, order.T) if order.batch_leads else (order.T, B)
    arrays = jax.tree.leaves((operands, at_start))
    shapes = [output((*leading, count, H), dtype, *arrays) for count, dtype in results]
    carries = [output((plan.chunks, B, H), full, *arrays)] * (len(initial) if ends else 0)
    made = pl.pallas_call(
        kernel,
        grid=(plan.chunks, B, -(-H // lanes)),
        in_specs=(Operands(*specs), [per_chunk] * len(at_start)),
        out_specs=[*(of_steps(count) for count, _ in results), *(per_chunk for _ in carries)],
        out_shape=[*shapes, *carries],
        compiler_params=plgpu.CompilerParams(num_warps=1, num_stages=1),
        interpret=interpret,
    )(operands, at_start)
    return made[: len(results)], made[len(results) :]
