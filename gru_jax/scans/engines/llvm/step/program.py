"""One step of a whole network as one function of machine code: cells, norms and residual sums one after the other.

The weights are laid out once, in the order in which a step reads them, from the first to the last. The memory holds the
states, and what a step writes beside them; nothing is allocated.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gru_jax.scans.engines.llvm.code import POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.plan import Room
from gru_jax.scans.engines.llvm.step.between import NormWriter, SumWriter
from gru_jax.scans.engines.llvm.step.dense import DenseWriter
from gru_jax.scans.engines.llvm.step.gated import CellWriter
from gru_jax.scans.engines.llvm.step.net import Cell, Dense, Net, Norm, Part, Sum
from gru_jax.scans.engines.llvm.step.writer import Writer

STEP, CALL = "step", "call"


class Written(NamedTuple):
    """A program and what it works on.

    Attributes:
      program: its functions are STEP, `(weights, memory, x, y)` with x `[rows, I]` and y `[rows, F]`, and CALL, which
        takes a pointer to these four pointers.
      weights: how many float32 the weights are.
      memory: how many a step reads and writes.
      states: for each cell its state vectors, each where it begins in the memory and how far it is from one sequence
        to the next.
      writers: of the parts.
    """

    program: Program
    weights: int
    memory: int
    states: tuple[tuple[tuple[int, int], ...], ...]
    writers: tuple[Writer, ...]

    def lay_out(self, arrays: Sequence[tuple[np.ndarray, ...]], weights: np.ndarray) -> None:
        """Fills the weights from the parameters of each part."""
        for writer, given in zip(self.writers, arrays, strict=True):
            writer.lay_out(weights, *given)


_WRITERS: dict[type, Callable[..., Writer]] = {Cell: CellWriter, Norm: NormWriter, Sum: SumWriter, Dense: DenseWriter}


@functools.cache
def write(net: Net) -> Written:
    """The program of a network's step."""
    program = Program(net.lanes)
    weights, memory = Room(), Room()
    kinds: dict[Part, int] = {}
    writers: list[Writer] = []
    for part in net.parts:
        # Equal parts share their functions.
        own = program.part(f"part{kinds.setdefault(part._replace(source=0), len(kinds))}_")
        writers.append(_WRITERS[type(part)](own, net, part, weights, memory))
    between = [memory.take(net.rows * part.width) for part in net.parts[:-1]]

    def step(code: Code, at_weights: Value, at_memory: Value, x: Value, y: Value) -> None:
        values = [x, *(code.at(at_memory, value) for value in between), y]
        for place, writer in enumerate(writers, start=1):
            writer.step(code, at_weights, at_memory, values, values[place])

    def call(code: Code, given: Value) -> None:
        code.call(stepping, *(code.load_word(given, i, POINTER) for i in range(4)))

    stepping = program.function(STEP, [POINTER] * 4, step)
    program.function(CALL, [POINTER], call)
    states = tuple(writer.states for writer in writers if isinstance(writer, CellWriter))
    return Written(program, weights.size, memory.size, states, tuple(writers))
