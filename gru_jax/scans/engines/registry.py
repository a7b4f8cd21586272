"""What an engine is, and all of them by their names: methods ask them, and compare no names."""

import functools
import importlib
import os
from typing import NamedTuple, Protocol

from gru_jax.cells.base import Cell
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory
from gru_jax.types import Array, BoolArray, DType

STEPPING = ("scan", "chunked", "llvm", "cudnn", "pallas", "interpret-gpu", "interpret-tpu")
"""The engines that take one step after another."""
LINEAR = ("pallas", "interpret-gpu", "interpret-tpu", "llvm")
"""Those that run a linear recurrence with a factor for each unit."""
ROUNDS = ("pallas", "interpret-gpu", "interpret-tpu")
"""Those that run a round of Newton's method on a diagonal."""


class Asked(NamedTuple):
    """What one call of `scan` asks, as far as engines differ in it.

    Attributes:
      dtype: of x and the states.
      lengths: whether sequences have lengths.
      mask: whether there is a mask, which may have holes.
      resets: whether there are resets.
      recurrent_dropout: whether there is recurrent dropout.
      symbolic: whether a size of x is not known, under `jax.export`.
      other_state: whether states have another dtype than x.
    """

    dtype: DType
    lengths: bool = False
    mask: bool = False
    resets: bool = False
    recurrent_dropout: bool = False
    symbolic: bool = False
    other_state: bool = False


class Needs(NamedTuple):
    """How an engine wants a call's arrays.

    Attributes:
      raw_x: x as the caller has it at masked steps, which the engine does not look at.
      original: parameters as the caller's framework lays them out, beside the neutral ones, where that is known.
      lengths: the lengths that flags of steps were made of.
    """

    raw_x: bool = False
    original: bool = False
    lengths: bool = False

    def __and__(self, other: "Needs") -> "Needs":
        """What both want."""
        return Needs(*(mine and theirs for mine, theirs in zip(self, other, strict=True)))


class How(NamedTuple):
    """The options of `Sequential`, none of them "auto"."""

    keep_gates: bool = False
    chunk: int = 1
    cores: int = 1
    unroll: int = 1
    hoist: bool = True


class Rounds(Protocol):
    """What all rounds of Newton's method over the same steps share, of an engine that has a kernel for one."""

    def products(self, before: Array) -> Array | None:
        """The recurrent products of all steps, from the states before them; None where a round needs none."""

    def solve(self, h: Array, start: Array, products: Array | None, damping: Array) -> tuple[Array, Array]:
        """By how much a round moves the iterate h, and F at it."""


class Engine:
    """An engine; what one cannot do is refused before it is asked.

    Attributes:
      name: as in `kernel=`.
      in_one_place: whether it needs all steps on one device.
      needs: how it wants a call's arrays.
      two_passes: whether its forward and its backward pass can be had by themselves, by `forward` and `backward`.
    """

    name: str
    in_one_place = True
    needs = Needs()
    two_passes = False

    def refusal(self, cell: Cell, asked: Asked) -> str | None:
        """What of a call it does not serve, as the end of a sentence such as "resets"; None where it serves all of it.

        Raises:
          ValueError: where there is nothing that it could run on.
        """
        return None

    def keeps_states(self, keep_gates: bool) -> bool:
        """Whether its backward pass is to be given nothing but arguments and states."""
        return False

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool, how: How) -> Trajectory:
        """The states of all steps, with their derivative."""
        raise NotImplementedError

    def forward(
        self, cell: Cell, context: Context, steps: Steps, reverse: bool, how: How
    ) -> tuple[Array, tuple[Array, ...]]:
        """The states, `[T, *batch, H]`, and what `backward` takes."""
        raise NotImplementedError

    def backward(
        self, cell: Cell, context: Context, steps: Steps, reverse: bool, kept: tuple[Array, ...], cotangent: Array,
        how: How,
    ) -> tuple[Context, Steps]:
        """The gradients of all that made the states, from what `forward` kept and the gradients of the states."""
        raise NotImplementedError

    def rounds(self, cell: Cell, context: Context, steps: Steps) -> "Rounds | None":
        """A round of Newton's method on the diagonal as one kernel; None where it has none for the cell."""
        return None


class LinearEngine(Engine):
    """One that also runs linear recurrences; arrays lie as `engines.batch.Rows` lays them."""

    def require(self, who: str) -> None:
        """Raises where there is nothing that it could run on."""

    def refusal_of_recurrence(self, who: str, dtype: DType) -> str | None:
        """What of a recurrence of such numbers it does not serve, as the end of a sentence."""
        self.require(who)
        return None

    def states(self, a: Array, b: Array, h0: Array, *, reverse: bool, batch_leads: bool) -> Array:
        """`h_t = a_t h_{t-1} + b_t`."""
        raise NotImplementedError

    def gradients(
        self, a: Array, b: Array, h0: Array, h: Array, c: Array, *, reverse: bool, batch_leads: bool
    ) -> tuple[Array, Array, Array]:
        """The gradients of a, b and h0 from those of the states, c."""
        raise NotImplementedError

    def adjoint(self, a: Array, c: Array, *, reverse: bool, batch_leads: bool) -> Array:
        """`l_t = c_t + a_{t+1} l_{t+1}`."""
        raise NotImplementedError

    def takes(self, cell: Cell) -> bool:
        """Whether it computes a cell's (a, b) from its projected input by itself."""
        raise NotImplementedError

    def cell_states(self, cell: Cell, u: Array, h0: Array, around: "Around", **how: bool) -> Array:
        """The states of such a cell, from its projected input in parts, `[B, T, P, H]` or `[T, B, P, H]`."""
        raise NotImplementedError

    def cell_gradients(
        self, cell: Cell, u: Array, h0: Array, around: "Around", h: Array, c: Array, **how: bool
    ) -> tuple[Array, Array, Array | None]:
        """The gradients of u, h0 and what a reset sets the state to."""
        raise NotImplementedError


class Around(NamedTuple):
    """What stands around the steps of such a cell.

    Attributes:
      use: flags, `[B, T]` or `[T, B]`, or None.
      reset: flags likewise, or None.
      reset_to: the state after a reset, `[B, H]`, or None.
    """

    use: BoolArray | None
    reset: BoolArray | None
    reset_to: Array | None


_PLACES = {
    "scan": ("xla", "Loop"),
    "chunked": ("xla", "Chunked"),
    "llvm": ("llvm", "MachineCode"),
    "cudnn": ("cudnn", "CuDNN"),
    **dict.fromkeys(ROUNDS, ("pallas", "Pallas")),
}


@functools.cache
def engine(kernel: str) -> Engine:
    """The engine of a name; of "auto" and "xla", and of forms of a recurrence that XLA compiles, the plain loop."""
    name = kernel if kernel in _PLACES else "scan"
    # Imported here: on a CPU nothing of a GPU's is, and what is not used need not be installed.
    place, kind = _PLACES[name]
    made: Engine = getattr(importlib.import_module(f"gru_jax.scans.engines.{place}.engine"), kind)(name)
    return made


def linear(kernel: str) -> LinearEngine | None:
    """The engine of a linear recurrence; None for the forms that XLA compiles."""
    found = engine(kernel)
    return found if isinstance(found, LinearEngine) else None


def usable_cores() -> int:
    """How many of the machine's cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
