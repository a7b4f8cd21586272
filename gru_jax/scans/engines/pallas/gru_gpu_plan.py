"""Which form the GPU's kernels for a GRU take at a shape: what a program owns and how it multiplies."""

from typing import NamedTuple

import jax.numpy as jnp

from gru_jax.scans.engines.pallas.gru_gpu_tiles import power
from gru_jax.types import DType

MULTIPROCESSORS = 132
"""Of an H100 or H200: what is counted on where no GPU can be asked."""

ALONE = 128
"""The most units of a head that one program takes: three matrices of 128 x 128 fill most of its registers."""

REGISTERS = 104
"""The most of a thread's registers that hold a matrix in the form "sum": 255 with 8 warps, less what works."""

SHARED = 160 * 1024
"""The most bytes of shared memory that hold a matrix in the form "dot", of 227 KB."""


class Plan(NamedTuple):
    """How the kernels run.

    Attributes:
      exchanged: whether several programs share a head and exchange their states at every step.
      product: "own", "sum" or "dot", see `gru_jax.scans.engines.pallas.gru_gpu_tiles`.
      rows: sequences of a tile.
      units: of a tile.
      warps: of a program.
      ahead: steps whose input is read ahead, of what is not exchanged.
      groups: into how many parts the batch is divided, of what is exchanged.
      chunk: how much of a sum is read at a time, of what is exchanged.
      dtype: of the factors of "dot".
    """

    exchanged: bool
    product: str
    rows: int
    units: int
    warps: int
    ahead: int = 1
    groups: int = 1
    chunk: int = 1
    dtype: DType = jnp.float32


def plan(B: int, H: int, heads: int, dtype: DType, *, multiprocessors: int = MULTIPROCESSORS) -> Plan | None:
    """The form for B sequences of H units in so many heads, or None where the matrices do not fit on the chip.

    - One unit a head: nothing but what is elementwise, 128 units a program. A step takes less time than its input needs
      to come from memory, so that of 8 steps is read ahead.
    - Up to 128 units a head: a program takes a head alone. Few sequences a program, because all multiprocessors should
      have one and a step has to wait for its own sums, not for memory. In half precision from 8 sequences on they are
      taken 16 at a time, which is what tensor cores multiply. As many warps as have registers for the matrices, about
      100 a thread, and no more, because warps have to wait for each other.
    - Larger heads: shared by as many programs as can run at the same time, for each waits for all others. A program
      reads the whole state at every step, however few units it owns, so more programs than are needed to hold the
      matrices gain arithmetic but no reading; what is left of the chip goes to parts of the batch, which gains both.

    Args:
      B: sequences.
      H: units.
      heads: k, a divisor of H.
      dtype: of the matrices.
      multiprocessors: of the GPU, each of which can run one program.

    Returns:
      The plan, or None.

    Example:
      >>> plan(16, 768, 1, jnp.bfloat16).product
      'dot'
    """
    size, half = H // heads, jnp.dtype(dtype).itemsize < 4
    dots = half and B >= 8
    if size == 1:
        units = min(power(H), 128)
        return Plan(False, "own", 1, units, max(units // 32, 1), ahead=8)
    if size <= ALONE:
        units = max(power(size), 16)
        if dots:
            return Plan(False, "dot", 16, units, 8 if units == ALONE else 4)
        rows = 1
        # The largest matrices leave no registers for a second sequence.
        while units < ALONE and rows < min(B, 4) and -(-B // rows) * heads > 2 * multiprocessors:
            rows *= 2
        return Plan(False, "sum", rows, units, {16: 1, 32: 2, 64: 4, ALONE: 16}[units])
    fits = [_exchanged(B, size, heads, dots, units, dtype, multiprocessors) for units in (4, 8, 16, 32)]
    found = [option for option in fits if option is not None]
    return min(found, key=lambda option: option[0])[1] if found else None


def _exchanged(
    B: int, size: int, heads: int, dots: bool, units: int, dtype: DType, multiprocessors: int
) -> tuple[float, Plan] | None:
    """The plan with so many units a program, and about how many cycles a step of it takes; None where it cannot run."""
    programs = -(-size // units) * heads
    warps = 4 if dots else 8
    # In "sum" a chunk gives each thread one element of a sequence.
    chunk = 128 if dots else 32 * warps // units
    depth = -(-size // chunk) * chunk
    kept = 8 * depth * units if dots else -(-3 * depth * units // (32 * warps))
    if programs > multiprocessors or kept > (SHARED if dots else REGISTERS) or (dots and units < 8):
        return None
    rows = 16 if dots else min(power(B), 4)
    groups = min(multiprocessors // programs, -(-B // rows))
    each = -(-B // (rows * groups)) * rows
    # Measured on others' kernels: about 24 bytes a cycle and multiprocessor come from the level-2 cache, and each
    # multiprocessor adds up 128 products a cycle.
    reading = each * size * (2 if dots else 4) / 24
    adding = each * size * 3 * units / (2048 if dots else 128)
    return reading + adding, Plan(True, "dot" if dots else "sum", rows, units, warps, 1, groups, chunk, dtype)
