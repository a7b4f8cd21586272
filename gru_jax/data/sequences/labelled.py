"""What files of labelled sequences hold, whatever their form: sequences, the class of each or of its steps, splits."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data.files import damaged, several

SPLITS = ("train", "valid", "test")
_CALLED = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2, "testing": 2}


class Labelled(NamedTuple):
    """N sequences.

    Attributes:
        x: N arrays `[T, I]` float32, of any lengths; NaN where a value is missing.
        y: N arrays int32, numbers of classes: one, or `[T]`.
        classes: their names, in order.
        split: `[N]`, places in `SPLITS`; None where the files do not say it.
        ids: what each is called.
    """

    x: list[np.ndarray]
    y: list[np.ndarray]
    classes: tuple[str, ...]
    split: np.ndarray | None
    ids: tuple[str, ...]


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Different labels in their order: whole numbers by value, words as words.

    Example:
        >>> in_order(["10", "9", "10"]), in_order(["walk", "fall"])
        (('9', '10'), ('fall', 'walk'))
    """
    different = set(labels)
    if all(label.removeprefix("-").isdecimal() and len(label) < 20 for label in different):
        # By the text too: 1 and 01 are two labels.
        return tuple(sorted(different, key=lambda label: (int(label), label)))
    return tuple(sorted(different))


def numbered(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Labels as places among the classes, int32."""
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[label] for label in labels], np.int32)


def splits_of(path: Path, words: Sequence[str], where: Sequence[str]) -> np.ndarray:
    """What files say of the split of each sequence, as places in `SPLITS`.

    Args:
        path: of the file.
        words: what it says.
        where: it says it.

    Raises:
        DataDamaged: a word is no split.
    """
    found = [_CALLED.get(word.lower()) for word in words]
    wrong = [f"{at} says {word[:40]!r}" for word, at, place in zip(words, where, found, strict=True) if place is None]
    if wrong:
        raise damaged(path, f"the split is unknown: {several(wrong)}", f"write {', '.join(SPLITS)}")
    return np.array(found)
