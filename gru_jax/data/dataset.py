"""What a task hands to training: sequences with what is to be told of them, in three splits, and their sizes."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from gru_jax.data.series.facts import SeriesFacts
from gru_jax.types import Array, BoolArray, IntArray, Key

Target = Literal["class", "values", "tags", "notes"]
"""What is told: of a sequence its class or numbers, of every step its tag or which of several notes sound."""

TARGET_METRICS: dict[Target, tuple[str, ...]] = {
    "class": ("loss", "accuracy"),
    "values": ("loss",),
    "tags": ("loss", "accuracy"),
    "notes": ("loss", "nll"),
}
"""The metrics of every kind of target."""

BETTER_HIGHER = ("accuracy", "macro_f1")
"""The metrics that are better when higher; all others are when lower."""

_MOST_CLASSES = 100
# Outputs of a split that are held at once.
_MOST_NUMBERS = 2**26


class TaskShape(NamedTuple):
    """The sizes of a task, known without loading it.

    Attributes:
        train, valid, test: sequences in each split; of generated data, those called an epoch of training.
        time: steps of the longest training sequence.
        features: numbers at each step, or, with `tokens`, how many tokens there are.
        outputs: classes or tags to choose from, numbers, or notes.
        target: what is told.
        tokens: whether a step is the number of a token, from 0.
        next_step: whether what is told of a step is the step after it, which must not be seen.
        gaps: whether a step is values, masks and times since side by side, as `gru_jax.observed` makes them.
        quantiles: of a forecast, whose values may be missing: those told of each value, in (0, 1) and rising, so many
            outputs side by side; () for its mean. None of other values, which are all there.
    """

    train: int
    valid: int
    test: int
    time: int
    features: int
    outputs: int
    target: Target = "class"
    tokens: bool = False
    next_step: bool = False
    gaps: bool = False
    quantiles: tuple[float, ...] | None = None

    @property
    def values(self) -> int:
        """Numbers told of a sequence, where values are."""
        return self.outputs // max(1, len(self.quantiles or ()))


def has_scores(shape: TaskShape, sequences: int) -> bool:
    """Whether a split of a task has scores: of classes, tags and values, unless there are too many to look at at once.

    Args:
        shape: of the task.
        sequences: in the split.

    Example:
        >>> has_scores(TaskShape(8, 2, 2, time=5, features=1, outputs=3), 2)
        True
        >>> has_scores(TaskShape(8, 2, 2, time=5, features=1, outputs=8192, target="tags"), 2)
        False
    """
    told = sequences * (shape.time if shape.target == "tags" else 1)
    few = told * shape.outputs <= _MOST_NUMBERS and (shape.target == "values" or shape.outputs <= _MOST_CLASSES)
    return few and shape.target != "notes" and not shape.next_step


class Split(NamedTuple):
    """Sequences side by side, and what is to be told of them.

    Attributes:
        x: `[N, T, I]` float32, or `[N, T]` int32 tokens.
        y: the target: class `[N]` int32, values `[N, O]` float32, of a forecast NaN for one that is missing, tags
            `[N, T]` int32, notes `[N, T, O]` float32.
        lengths: `[N]` int32, steps of each; None when all have T.
        asked: `[N, T]` bool, the steps whose tags or notes count; None when all do. Steps past the length never do.
    """

    x: Array | np.ndarray
    y: Array | np.ndarray
    lengths: IntArray | np.ndarray | None = None
    asked: BoolArray | np.ndarray | None = None


class Example(NamedTuple):
    """One sequence: x `[T, I]` or `[T]`; y a class, values `[O]`, tags `[T]` or notes `[T, O]`."""

    x: np.ndarray
    y: np.ndarray


class Source(Protocol):
    """Sequences of any lengths, read one by one as they are needed.

    Attributes:
        lengths: `[N]`, steps of each.
    """

    lengths: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class Sequences:
    """A `Source` of arrays in memory.

    Args:
        x: N arrays `[T, I]` or `[T]`.
        y: N targets, see `Example`.
    """

    def __init__(self, x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> None:
        # An array stays one, which a list of its rows would not; whatever can be run through but once is kept.
        self.x, self.y = (part if hasattr(part, "__getitem__") else list(part) for part in (x, y))
        self.lengths = np.array([_steps(each) for each in self.x], np.int32)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Example:
        return Example(self.x[index], self.y[index])


def _steps(x: Any) -> int:
    """How long a sequence is; 0 for what is none, which `fitting` then names with its place."""
    shape = x.shape if hasattr(x, "shape") else (len(x),) if hasattr(x, "__len__") else ()
    return shape[0] if shape else 0


Generator = Callable[[Key, int], Split]
"""`(key, examples) -> Split`, pure, `examples` static under `jax.jit`: data made as they are needed."""


class Dataset(NamedTuple):
    """A task's data.

    Attributes:
        train: all of it, a source of it, or what makes it.
        valid, test: the splits that training never sees.
        description: one line for people, the split included.
        fingerprint: 16 hex digits that change with any value or with the split.
        classes: the names of the classes or tags, in the order of their numbers; () where they have none.
        series: of a forecast, the series that the windows were cut from.
        ids: what the sequences of each split are called in their files; None where they have no names.
        scale: mean and deviation, `[I]` each, by which the numbers of a step were scaled (before masks and times since
            came beside them); None where the description or the series says it.
    """

    train: Split | Source | Generator
    valid: Split | Source
    test: Split | Source
    description: str
    fingerprint: str
    classes: tuple[str, ...] = ()
    series: SeriesFacts | None = None
    ids: dict[str, tuple[str, ...]] | None = None
    scale: tuple[np.ndarray, np.ndarray] | None = None


class DataMissing(Exception):
    """The data, or the package that carries it, is not here; the message says how to get it."""


class DataDamaged(Exception):
    """A data file is not what its name says; the message names the file, the fact and the fix."""
