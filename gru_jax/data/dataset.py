"""What a task hands to training: three splits of sequences with labels, and their sizes."""

from typing import NamedTuple

import numpy as np


class TaskShape(NamedTuple):
    """The sizes of a task, known without loading it."""

    train: int
    valid: int
    test: int
    time: int
    features: int
    classes: int


class Split(NamedTuple):
    """Sequences with one label each.

    Attributes:
        x: `[N, T, I]` float32.
        y: `[N]` int32, class numbers.
    """

    x: np.ndarray
    y: np.ndarray


class Dataset(NamedTuple):
    """A task's data.

    Attributes:
        train, valid, test: the three splits.
        description: one line for people, the split included.
        fingerprint: 16 hex digits that change with any value or with the split.
    """

    train: Split
    valid: Split
    test: Split
    description: str
    fingerprint: str


class DataMissing(Exception):
    """The data, or the package that carries it, is not here; the message says how to get it."""
