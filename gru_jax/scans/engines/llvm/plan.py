"""The sizes of a gated cell's kernel that are known when it is written, and how arrays lie in memory."""

from typing import NamedTuple

from gru_jax.cells.gru_layout import NEUTRAL, Layout
from gru_jax.scans.engines.llvm.cells import Gated
from gru_jax.scans.engines.llvm.code import Code, Value
from gru_jax.scans.engines.llvm.host import Host

WIDE = 2**20
"""Bytes of a recurrent matrix from which on threads share its units, so that each has to read a part of it only."""
FORWARD_ROWS, BACKWARD_ROWS = 256, 256
"""How many rows, steps times sequences, are projected at a time, and are summed for gradients at a time."""
WORTH_PACKING = 16
"""How often a matrix has to be read for it to be laid out anew."""
TALLEST = 8
"""Rows of a tile at most."""
PIECES = 4
"""Parts of the sequences for each thread at most: others do those that a thread which comes late has not begun."""
USED, RESET = 1, 2
"""Bits of a step's flag: whether it is used, and whether the state is set to another before it, which is so only of one
that is used."""


class Plan(NamedTuple):
    """What a kernel is written for; all but the number of steps.

    Attributes:
      cell: its equations.
      lanes: float32 numbers of a vector.
      sums: vectors of sums in a tile.
      features: I.
      units: H.
      batch: B.
      batch_leads: whether x and the states are `[B, T, n]`, else `[T, B, n]`.
      reverse: whether time runs from the last index to the first. A kernel is told when it runs: layers of both
        directions would need two that differ in nothing else.
      bias: "full" for one of each gate's projected input and product, "minimal" for the former and the candidate's
        product, "input" for the former, or "none".
      masked: whether the flags `[B, T]` or `[T, B]` say which steps to use.
      resets: whether they say before which the state is set to another.
      dropout: whether there are factors `[B, H]` of the states that products are of.
      bfloat16: whether states are rounded to bfloat16, of which float32 numbers are made here.
      keep: whether the gates are written for the backward pass, or read by it.
      threads: how many may work at a time.
      together: whether they share the units of every step; else the sequences.
      parts: into how many the work is cut: one for each thread, of sequences more where there are whole tiles of them.
      packed: whether matrices are laid out anew, in the order in which they are read.
      chunk: steps whose input is projected at a time.
      weights: how the parameters lie; backwards in the neutral layout.
      head: units outside of which the recurrent matrix holds zeros in the columns of one of them.
    """

    cell: Gated
    lanes: int
    sums: int
    features: int
    units: int
    batch: int
    batch_leads: bool
    reverse: bool
    bias: str
    masked: bool
    resets: bool
    dropout: bool
    bfloat16: bool
    keep: bool
    threads: int
    together: bool
    parts: int
    packed: bool
    chunk: int
    weights: Layout
    head: int

    @classmethod
    def of(
        cls, host: Host, cell: Gated, *, steps: int, batch: int, features: int, units: int, batch_leads: bool,
        reverse: bool, bias: str, masked: bool, bfloat16: bool, keep: bool, cores: int, backward: bool,
        resets: bool = False, dropout: bool = False, weights: Layout = NEUTRAL, head: int | None = None,
    ) -> "Plan":  # fmt: skip
        """The plan for a call, with what is the fastest in place of what changes no result."""
        blocks = -(-units // host.lanes)
        together = cores > 1 and (batch < cores or 4 * units * cell.gates * units > WIDE)
        threads = min(cores, blocks if together else batch)
        together = together and threads > 1
        parts = threads if together or threads == 1 else threads * max(1, min(PIECES, batch // (threads * TALLEST)))
        rows = batch if together else -(-batch // parts)
        # Without units to fill up, matrices can be read where they are.
        packed = backward or units % host.lanes > 0 or steps * -(-rows // TALLEST) >= WORTH_PACKING
        packed = packed or weights.transposed
        # Whatever the number of steps: of fewer, a part of what there is room for is used. Backwards a step reads the
        # one after it while it is written itself.
        chunk = max(2 if backward else 1, -(-(BACKWARD_ROWS if backward else FORWARD_ROWS) // rows))
        return cls(
            cell, host.lanes, host.sums, features, units, batch, batch_leads, reverse, bias, masked, resets, dropout,
            bfloat16, keep, threads, together, parts, packed, chunk, weights, head or units,
        )  # fmt: skip

    @property
    def blocks(self) -> int:
        """Vectors that all units take up."""
        return -(-self.units // self.lanes)

    @property
    def tail(self) -> int:
        """Units in the last block, 0 where it is full."""
        return self.units % self.lanes

    @property
    def width(self) -> int:
        """Units with those that fill the last block."""
        return self.blocks * self.lanes

    @property
    def time_axis(self) -> int:
        """The axis of x that holds the steps."""
        return 1 if self.batch_leads else 0

    def within(self, code: Code, block: Value, width: int) -> tuple[Value, Value]:
        """The rows of the recurrent matrix, from one to before another, that are not 0 in so many blocks of columns."""
        if self.head == self.units:
            return 0, self.units
        ends = (code.mul(block, self.lanes), code.sub(code.mul(code.add(block, width), self.lanes), 1))
        first, last = (code.mul(code.div(end, self.head), self.head) for end in ends)
        return first, code.smaller(code.add(last, self.head), self.units)

    @property
    def states(self) -> int:
        """How many vectors a state is made of."""
        return len(self.cell.states)

    @property
    def arguments(self) -> list[str]:
        """The arrays that both passes begin with, by their names."""
        each = lambda name: [f"{name}_{k}" for k in range(self.states)]  # noqa: E731
        there = {"b_x": self.bias != "none", "b_h": self.bias in ("full", "minimal")}
        there |= {"drop": self.dropout, "flags": self.flagged}
        some = [name for name, is_there in there.items() if is_there]
        return ["x", *each("h0"), "w_x", "w_h", *some, *(each("reset_to") if self.resets else [])]

    @property
    def flagged(self) -> bool:
        """Whether there are flags of steps, bytes of `USED` and `RESET`."""
        return self.masked or self.resets

    def place(self, gate: int) -> int:
        """How many gates stand before one in matrices and biases."""
        return gate if self.weights == NEUTRAL else self.weights.place(gate)

    def rows(self) -> list[tuple[int, int]]:
        """For parts that share the sequences: (how many parts, of how many rows), larger ones first."""
        if self.together:
            return [(self.parts, self.batch)]
        small, more = divmod(self.batch, self.parts)
        return [(n, r) for n, r in ((more, small + 1), (self.parts - more, small)) if n and r]

    def strides(self, code: Code, steps: Value, width: int, reverse: Value) -> tuple[Value, Value, Value]:
        """Of an array of all steps: from one sequence to the next, one step to the next, and where the first is.

        Args:
          code: the function that is being written.
          steps: how many there are.
          width: numbers of a step of a sequence.
          reverse: 1 where time runs from the last index to the first, else 0.
        """
        if self.batch_leads:
            row, step = code.mul(steps, width), width
        else:
            row, step = width, self.batch * width
        first = code.mul(reverse, code.mul(code.sub(steps, 1), step))
        return row, code.mul(code.sub(1, code.mul(reverse, 2)), step), first


class Room:
    """Cuts up scratch memory: how much is needed, and where each piece starts."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, *sizes: int) -> int:
        """Room for so many float32; the offset."""
        offset, count = self.size, 1
        for size in sizes:
            count *= size
        self.size += -(-count // 16) * 16
        return offset


def spread_rows(width: int) -> int:
    """The distance of rows of so many float32: not one of the powers of two that fall into the same cache lines."""
    return width + 16 if width % 128 == 0 else width
