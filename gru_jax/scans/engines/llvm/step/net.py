"""A network whose step machine code runs, part by part; what is known of it before any code is written."""

from typing import NamedTuple

from gru_jax.scans.engines.llvm.cells import Gated
from gru_jax.scans.engines.llvm.step.minimal import LinearCell


class Cell(NamedTuple):
    """A cell.

    Attributes:
      source: which value it reads: 0 is x, k what part k - 1 made.
      cell: its equations.
      features: I.
      width: H, its units, which is also what it puts out.
    """

    source: int
    cell: Gated | LinearCell
    features: int
    width: int


class Norm(NamedTuple):
    """A normalisation over features.

    Attributes:
      source: which value it reads.
      kind: "layer" or "rms".
      width: features.
      epsilon: what is added to the mean of squares.
    """

    source: int
    kind: str
    width: int
    epsilon: float


class Sum(NamedTuple):
    """The sum of two values.

    Attributes:
      source: one of them.
      other: the other.
      width: features.
    """

    source: int
    other: int
    width: int


class Dense(NamedTuple):
    """An output layer, `activation(x w + b)`.

    Attributes:
      source: which value it reads.
      features: of that.
      width: features that it puts out.
      activation: "linear", "sigmoid" or "softmax", the last one over all of them.
    """

    source: int
    features: int
    width: int
    activation: str


Part = Cell | Norm | Sum | Dense


class Net(NamedTuple):
    """What a program is written for.

    Attributes:
      lanes: float32 numbers of a vector.
      sums: vectors of sums in a tile.
      rows: how many sequences.
      parts: one after the other, each makes a value of those before it; the last one makes y.
    """

    lanes: int
    sums: int
    rows: int
    parts: tuple[Part, ...]
