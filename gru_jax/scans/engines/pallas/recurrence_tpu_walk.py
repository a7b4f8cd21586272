"""A walk through time on a TPU, with a function of its own for what is done at a step: see `recurrence_tpu`.

A tile of sequences and units goes through chunks of time. While one chunk is computed, the next is fetched and the last
written. What is carried stays in registers within a chunk, and in VMEM, the memory on the chip, from chunk to chunk.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gru_jax.scans.engines.pallas.gru_tpu_tiles import LANES, Interpret, index_bits, raised
from gru_jax.scans.engines.pallas.recurrence import Operands
from gru_jax.scans.engines.pallas.target import Ref, output
from gru_jax.types import Array, BoolArray, DType

Step = Callable[[list[Array], tuple[Array, ...]], tuple[tuple[Array, ...], Sequence[Array]]]
"""`(values, carry) -> (carry, what is written of this step)`, tiles all of them."""

UNITS, ELEMENTS = 2048, 8192
"""Units of a tile, and of its sequences times units, at most: 8 vector registers, or 32 where it has the most units."""

STREAMED = 6 * 2**20
"""Bytes of VMEM for what is fetched and written while a chunk is computed."""

MOST_STEPS, TOGETHER = 128, 8
"""Steps of a chunk, at most, and those that are written out, so that what does not depend on the state overlaps. In
Pallas's interpreter, where nothing does, it is 2."""


class Walk(NamedTuple):
    """How a kernel walks through time.

    Attributes:
      T, B, H: steps, sequences and units.
      rows, units: of a tile.
      chunk: steps of a chunk.
      reverse: whether the recurrence runs from the last index to the first.
      backwards: whether the walk goes against the recurrence.
    """

    T: int
    B: int
    H: int
    rows: int
    units: int
    chunk: int
    reverse: bool
    backwards: bool

    @classmethod
    def of(cls, sizes: tuple[int, int, int], moved: int, reverse: bool, backwards: bool) -> "Walk":
        """For sizes (T, B, H) and so many arrays of them that are fetched or written."""
        T, B, H = sizes
        units = min(H, UNITS)
        most = max(16, ELEMENTS // _up(units, LANES) // 16 * 16)
        rows = min(B, most)
        # Twice: what is computed on, and what is in flight.
        of_step = 2 * 4 * moved * _up(rows, 8) * _up(units, LANES)
        chunk = min(T, MOST_STEPS, max(TOGETHER, STREAMED // of_step // TOGETHER * TOGETHER))
        return cls(T, B, H, rows, units, chunk, reverse, backwards)

    @property
    def chunks(self) -> int:
        return -(-self.T // self.chunk)

    @property
    def from_end(self) -> bool:
        """Whether the walk goes from the last index to the first."""
        return self.reverse != self.backwards

    def run(
        self,
        step: Step,
        operands: Operands,
        begin: Sequence[Array],
        made: Sequence[tuple[int, DType]],
        interpret: Interpret,
    ) -> tuple[list[Array], list[Array]]:
        """All steps.

        Args:
          step: what is done at each.
          operands: what it sees: streams `[T, B, P H]`, their parts side by side, lagged arrays and flags with time
            leading, too.
          begin: what is carried at first, each `[B, H]` in the dtype that sums have.
          made: number of parts and dtype of each array that is written.
          interpret: whether Pallas's interpreter runs the kernel.

        Returns:
          The arrays, `[T, B, P H]`, and what is carried in the end.
        """
        tile = pl.BlockSpec((self.rows, self.units), lambda b, j, i: (b, j))
        column = pl.BlockSpec((1, self.units), lambda b, j, i: (0, j))
        flag = pl.BlockSpec((None, self.rows, self.chunk), lambda b, j, i: (self._chunk(i), b, 0))
        edge = pl.BlockSpec((1, self.rows, self.units), lambda b, j, i: (self._before(self._chunk(i)), b, j))
        whole = tuple(array for array, _ in operands.lagged)
        seen = Operands(
            operands.streams,
            operands.lagged,
            tuple(map(self._cut, operands.flags)),
            operands.rows,
            tuple(array[None] for array in operands.columns),
        )
        specs: tuple[Any, ...] = (
            tuple(self._steps(array.shape[2] // self.H) for array in seen.streams),
            tuple((self._steps(1), tile) for _ in seen.lagged),
            tuple(flag for _ in seen.flags),
            tuple(tile for _ in seen.rows),
            tuple(column for _ in seen.columns),
        )
        arrays = jax.tree.leaves((operands, begin))
        shapes = [output((self.T, self.B, parts * self.H), dtype, *arrays) for parts, dtype in made]
        call = pl.pallas_call(
            lambda *refs: self._kernel(step, len(made), 2 if interpret else TOGETHER, *refs),
            grid=(-(-self.B // self.rows), -(-self.H // self.units), self.chunks),
            in_specs=(Operands(*specs), tuple(edge for _ in whole), tuple(tile for _ in begin)),
            # What is carried are outputs that stay in VMEM until their tile is done.
            out_specs=[*(self._steps(parts) for parts, _ in made), *(tile for _ in begin)],
            out_shape=[*shapes, *(output(array.shape, array.dtype, *arrays) for array in begin)],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=self._room(seen, made)
            ),
            interpret=interpret,
            name="recurrence_gradients" if self.backwards else "recurrence_states",
        )
        with index_bits(begin[0].dtype):
            found = call(seen, whole, tuple(begin))
        return found[: len(made)], found[len(made) :]

    def _kernel(
        self, step: Step, made: int, together: int, seen: Operands, edges: tuple[Ref, ...], begin: tuple[Ref, ...],
        *out: Ref,
    ) -> None:
        written, carried = out[:made], out[made:]
        place = pl.program_id(2)
        chunk = self._chunk(place)
        like = begin[0]
        full, units = like.dtype, like.shape[1]

        @pl.when(place == 0)
        def _() -> None:
            for ref, first in zip(carried, begin, strict=True):
                ref[...] = first[...]

        at_edge = chunk == (self.chunks - 1 if self.reverse else 0)
        befores = [
            jnp.where(at_edge, first[...].astype(full), edge[0].astype(full))
            for (_, first), edge in zip(seen.lagged, edges, strict=True)
        ]
        fixed = [jnp.broadcast_to(ref[...].astype(full), like.shape) for ref in (*seen.rows, *seen.columns)]
        # What lies beyond T in the last chunk is no step.
        steps: Array | np.int32 = np.int32(self.chunk)
        groups: Array | np.int32 = np.int32(self.chunk // together)
        if self.T % self.chunk:
            steps = jnp.minimum(steps, np.int32(self.T) - chunk * np.int32(self.chunk))
            groups = lax.div(steps, np.int32(together))

        def one(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            t = steps - 1 - i if self.from_end else i
            before = t + 1 if self.reverse else t - 1
            there = before < steps if self.reverse else before >= 0
            inside = jnp.clip(before, 0, self.chunk - 1)
            values = [
                ref[t, :, part * units : (part + 1) * units].astype(full)
                for ref in seen.streams
                for part in range(ref.shape[2] // units)
            ]
            lagged = [
                jnp.where(there, ref[inside].astype(full), edge)
                for (ref, _), edge in zip(seen.lagged, befores, strict=True)
            ]
            flags = [raised(ref, t, like) for ref in seen.flags]
            carry, found = step([*values, *lagged, *flags, *fixed], carry)
            each = iter(found)
            for ref in written:
                for part in range(ref.shape[2] // units):
                    ref[t, :, part * units : (part + 1) * units] = next(each).astype(ref.dtype)
            return carry

        def several(group: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            for i in range(together):
                carry = one(group * together + i, carry)
            return carry

        carry = lax.fori_loop(np.int32(0), groups, several, tuple(ref[...] for ref in carried))
        if self.T % self.chunk or self.chunk % together:
            carry = lax.fori_loop(groups * together, steps, one, carry)
        for ref, end in zip(carried, carry, strict=True):
            ref[...] = end

    def _steps(self, parts: int) -> pl.BlockSpec:
        """A chunk of `[T, B, P H]`; with more parts than one, the units of a tile are all there are."""
        return pl.BlockSpec((self.chunk, self.rows, parts * self.units), lambda b, j, i: (self._chunk(i), b, j))

    def _chunk(self, place: Array) -> Array:
        """The chunk at a place of the walk."""
        return self.chunks - 1 - place if self.from_end else place

    def _before(self, chunk: Array) -> Array:
        """The index of the step before a chunk, in order of the recurrence, or some index where there is none."""
        if self.reverse:
            return jnp.minimum((chunk + 1) * self.chunk, self.T - 1)
        return jnp.maximum(chunk * self.chunk - 1, 0)

    def _cut(self, flag: BoolArray) -> Array:
        """`[T, B]` to `[chunks, B, chunk]`: a row a sequence, as the state has it."""
        missing = self.chunks * self.chunk - self.T
        cut = jnp.pad(flag.astype(jnp.float32), ((0, missing), (0, 0)))
        return jnp.swapaxes(cut.reshape(self.chunks, self.chunk, self.B), 1, 2)

    def _room(self, seen: Operands, made: Sequence[tuple[int, DType]]) -> int:
        """Bytes of VMEM for all of it."""
        parts = sum(array.shape[2] // self.H for array in seen.streams) + len(seen.lagged)
        moved = (parts + sum(count for count, _ in made)) * self.chunk + 64
        return max(16 * 2**20, 2 * 2 * 4 * moved * _up(self.rows, 16) * _up(self.units, LANES))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
