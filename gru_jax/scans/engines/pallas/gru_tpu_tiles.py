"""How the TPU kernels of a GRU go over units, batch and time.

The grid runs over blocks of units, tiles of the batch and chunks of time, the chunks one after the other. While one
chunk is computed, the next is fetched and the last written.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gru_jax.scans.engines.pallas.target import Ref, output
from gru_jax.types import Array, BoolArray, DType

LANES = 128
"""The last dimension of a vector register, and the sides of a matrix unit."""

MOST_ROWS, MOST_STEPS = 256, 64
"""Sequences of a tile and steps of a chunk, at most: beyond, neither the products nor the copies gain."""

STREAMED = 4 * 2**20
"""Bytes of VMEM for what is fetched and written while a chunk is computed."""

MATRICES = 32 * 2**20
"""Bytes of VMEM for the recurrent matrices of a block, at most: from v5 on, TPUs have 64 MiB or more."""


Interpret = bool | pltpu.InterpretParams
"""Whether Pallas's interpreter runs a kernel, or what it is to simulate of a TPU."""

Inputs = dict[str, tuple[Array, pl.BlockSpec]]
"""What a kernel reads, by name: arrays with their blocks."""

Step = Callable[[dict[str, Ref], Array, Array], tuple[Array, Array]]
"""`(inputs, t, carry) -> (carry, out)`, all of a block and a tile; t counts within a chunk."""


class Blocks(NamedTuple):
    """How the units lie in blocks, which are filled up with units that stay 0.

    Attributes:
      heads: k.
      size: units of a head.
      together: heads of a block.
      number: blocks.
      width: units of a block, a multiple of `LANES`.
    """

    heads: int
    size: int
    together: int
    number: int
    width: int

    @classmethod
    def of(cls, heads: int, size: int) -> "Blocks":
        """Blocks for so many heads of so many units."""
        if size == 1:
            together = _up(-(-heads // -(-heads // (4 * LANES))), LANES)
            return cls(heads, size, together, -(-heads // together), together)
        number = -(-heads // max(1, LANES // size))
        together = -(-heads // number)
        return cls(heads, size, together, number, _up(together * size, LANES))

    @property
    def diagonal(self) -> bool:
        """Whether each unit sees itself alone."""
        return self.size == 1

    def put(self, a: Array) -> Array:
        """`[..., H]` to `[..., number * width]`."""
        units = self.together * self.size
        a = _grown(a, -1, self.number * units)
        if units < self.width:
            a = _grown(a.reshape(*a.shape[:-1], self.number, units), -1, self.width)
            a = a.reshape(*a.shape[:-2], self.number * self.width)
        return a

    def take(self, a: Array) -> Array:
        """`[..., number * width]` to `[..., H]`."""
        units = self.together * self.size
        if units < self.width:
            a = a.reshape(*a.shape[:-1], self.number, self.width)[..., :units]
            a = a.reshape(*a.shape[:-2], self.number * units)
        return a[..., : self.heads * self.size]

    def matrices(self, w_h: Array) -> Array:
        """w_h `[k, H/k, 3H/k]` to `[number, width, 3 width]`; of a diagonal matrix to `[number, 3, width]`."""
        if self.diagonal:
            return jnp.moveaxis(self.put(w_h[:, 0].T).reshape(3, self.number, self.width), 1, 0)
        w = _grown(w_h.reshape(self.heads, self.size, 3, self.size), 0, self.number * self.together)
        w = w.reshape(self.number, self.together, self.size, 3, 1, self.size)
        shape = (*w.shape[:4], self.together, self.size)
        own = lax.broadcasted_iota(jnp.int32, shape, 1) == lax.broadcasted_iota(jnp.int32, shape, 4)
        w = jnp.where(own, jnp.broadcast_to(w, shape), jnp.zeros(shape, w.dtype))
        units = self.together * self.size
        w = _grown(_grown(w.reshape(self.number, units, 3, units), 1, self.width), 3, self.width)
        return w.reshape(self.number, self.width, 3 * self.width)


class Tiles(NamedTuple):
    """How a kernel goes over the blocks of units, the tiles of the batch and the chunks of time.

    Attributes:
      blocks: how the units lie.
      T, B: steps and sequences.
      rows: sequences of a tile.
      chunk: steps of a chunk.
      backwards: whether it goes from the last step to the first.
      room: bytes of VMEM that it is given.
    """

    blocks: Blocks
    T: int
    B: int
    rows: int
    chunk: int
    backwards: bool
    room: int

    @classmethod
    def of(cls, blocks: Blocks, like: Array, streams: int, backwards: bool) -> "Tiles":
        """For so many arrays of all steps, of like's dtype."""
        T, B = like.shape[:2]
        # Everything that moves is there twice, computed on and in flight.
        of_step = 2 * blocks.width * streams * 4
        tiles = -(-B // max(16, min(MOST_ROWS, STREAMED // of_step)))
        rows = B if tiles == 1 else _up(-(-B // tiles), 16)
        chunk = max(1, min(T, MOST_STEPS, STREAMED // (of_step * _up(rows, 16))))
        w = 3 * blocks.width * (1 if blocks.diagonal else blocks.width) * 4
        room = w + of_step * _up(rows, 16) * (chunk + 8)
        return cls(blocks, T, B, rows, chunk, backwards, max(16 * 2**20, 2 * room))

    @property
    def chunks(self) -> int:
        return -(-self.T // self.chunk)

    def steps(self, gate: int) -> pl.BlockSpec:
        """A chunk of `[T, B, gates * number * width]`."""
        place = gate * self.blocks.number
        shape = (self.chunk, self.rows, self.blocks.width)
        return pl.BlockSpec(shape, lambda j, b, i: (self._chunk(i), b, place + j))

    def row(self, gate: int) -> pl.BlockSpec:
        """A gate's block of `[1, 3 * number * width]`."""
        place = gate * self.blocks.number
        return pl.BlockSpec((1, self.blocks.width), lambda j, b, i: (0, place + j))

    def tile(self) -> pl.BlockSpec:
        """A tile of `[B, number * width]`."""
        return pl.BlockSpec((self.rows, self.blocks.width), lambda j, b, i: (b, j))

    def matrices(self, transposed: bool = False) -> pl.BlockSpec:
        """A block's recurrent matrices, which stay where they are and so need no second place."""
        wide = 3 * self.blocks.width
        shape = (wide, self.blocks.width) if transposed else (self.blocks.width, wide)
        shape = (3, self.blocks.width) if self.blocks.diagonal else shape
        return pl.BlockSpec((None, *shape), lambda j, b, i: (j, 0, 0), pipeline_mode=pl.Buffered(1))

    def gates(self, name: str, a: Array, spec: Callable[[int], pl.BlockSpec]) -> Inputs:
        """The gates of `[..., 3H]` as three inputs: one array in three places where nothing has to be filled up."""
        if a.shape[-1] == 3 * self.blocks.number * self.blocks.width:
            return {f"{name}_{gate}": (a, spec(place)) for place, gate in enumerate("rzn")}
        parts = zip("rzn", jnp.split(a, 3, -1), strict=True)
        return {f"{name}_{gate}": (self.blocks.put(part), spec(0)) for gate, part in parts}

    def each(self, name: str, a: Array | None) -> Inputs:
        """`[B, H]` as an input, or none."""
        return {} if a is None else {name: (self.blocks.put(a), self.tile())}

    def flag(self, name: str, flag: BoolArray | None) -> Inputs:
        """`[T, B]` as an input `[chunks, B, chunk]`, or none: a row a sequence, as the state has it."""
        if flag is None:
            return {}
        cut = _grown(flag.astype(jnp.float32), 0, self.chunks * self.chunk).reshape(self.chunks, self.chunk, self.B)
        spec = pl.BlockSpec((None, self.rows, self.chunk), lambda j, b, i: (self._chunk(i), b, 0))
        return {name: (jnp.swapaxes(cut, 1, 2), spec)}

    def run(
        self, name: str, step: Step, inputs: Inputs, dtype: DType, interpret: Interpret
    ) -> tuple[Array, Array]:
        """What `step` gives at each step, `[T, B, H]`, and what it carries in the end, `[B, H]`.

        Args:
          name: of the kernel, for profiles.
          step: what is done at each.
          inputs: arrays with their blocks, by name; "begin" is what is carried at first.
          dtype: of out.
          interpret: whether Pallas's interpreter runs the kernel.
        """
        begin = inputs["begin"][0]

        def kernel(*refs: Ref) -> None:
            at = dict(zip(inputs, refs, strict=False))
            out, carry = refs[len(inputs) :]
            place = pl.program_id(2)

            @pl.when(place == 0)
            def _() -> None:
                carry[...] = at["begin"][...]

            # What lies beyond T in the last chunk is no step.
            steps = jnp.minimum(self.chunk, self.T - self._chunk(place) * self.chunk)

            def body(i: Array, _: None) -> None:
                t = steps - 1 - i if self.backwards else i
                carry[...], now = step(at, t, carry[...])
                out[t] = now.astype(dtype)

            lax.fori_loop(0, self.chunk if self.T % self.chunk == 0 else steps, body, None)

        arrays = [array for array, _ in inputs.values()]
        call = pl.pallas_call(
            kernel,
            grid=(self.blocks.number, -(-self.B // self.rows), self.chunks),
            in_specs=[spec for _, spec in inputs.values()],
            # What is carried is an output that stays in VMEM until its tile is done.
            out_specs=[self.steps(0), self.tile()],
            out_shape=[
                output((self.T, self.B, begin.shape[-1]), dtype, *arrays),
                output(begin.shape, begin.dtype, *arrays),
            ],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=self.room
            ),
            interpret=interpret,
            name=name,
        )
        with index_bits(begin.dtype):
            found, end = call(*arrays)
        return self.blocks.take(found), self.blocks.take(end)

    def _chunk(self, i: Array) -> Array:
        return self.chunks - 1 - i if self.backwards else i


def index_bits(dtype: DType) -> AbstractContextManager[None]:
    """Where a kernel that computes in this dtype is traced: Mosaic has no 64-bit numbers, not for indices either."""
    return jax.enable_x64(dtype == jnp.float64)


def kept(a: Array) -> Array:
    """The array as it is kept in memory: Mosaic has no float16."""
    return a.astype(jnp.float32) if a.dtype == jnp.float16 else a


def raised(flags: Ref, t: Array, like: Array) -> BoolArray:
    """A step's flags, `[rows, chunk]` to like's shape."""
    step = lax.broadcasted_iota(jnp.int32, flags.shape, 1) == t
    column = jnp.sum(jnp.where(step, flags[...], jnp.zeros(flags.shape, flags.dtype)), 1, keepdims=True)
    return jnp.broadcast_to(column, like.shape) > 0


def _grown(a: Array, axis: int, size: int) -> Array:
    """The array with zeros after its end."""
    widths = [(0, 0)] * a.ndim
    widths[axis] = (0, size - a.shape[axis])
    return jnp.pad(a, widths) if size != a.shape[axis] else a


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
