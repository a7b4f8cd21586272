"""The task of kind sequences: labelled sequences in files of one's own, split, scaled, and numbered."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data import files
from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, Sequences, Source, Split, TaskShape
from gru_jax.data.files import MB, DataFile, check_sizes, damaged, fingerprint, several
from gru_jax.data.missing import Missing, features, filled
from gru_jax.data.sequences.archive import read_archive
from gru_jax.data.sequences.labelled import SPLITS, Labelled
from gru_jax.data.sequences.rows import Reading, folder_of_tables, labelled, long_table

_LIMIT = 2048 * MB
_MOST_FILES = 10**6
_MOST_NAMED = 20


class Sizes(NamedTuple):
    """Sequences of each split; steps of the longest training sequence; numbers at each step; classes."""

    train: int
    valid: int
    test: int
    time: int
    channels: int
    classes: int


class Shares(NamedTuple):
    """The shares of the sequences of each class, where the files do not say which is in which split."""

    train: float
    valid: float
    test: float


def shape(sizes: Sizes, reading: Reading, missing: Missing = "refuse") -> TaskShape:
    """The sizes of the task; nothing is read."""
    return TaskShape(
        *sizes[:4],
        features=features(sizes.channels, missing),
        outputs=sizes.classes,
        target="tags" if reading.tags else "class",
        gaps=missing == "gaps",
    )


def read(path: Path) -> tuple[DataFile, ...]:
    """The content of a file, or of all .csv files in a folder and in those within, by their names.

    Raises:
        DataMissing: something cannot be read.
        DataDamaged: something is empty, too large, or no regular file.
    """
    if not path.is_dir():
        return (files.read(path, _LIMIT),)
    names = sorted(each for each in path.rglob("*") if each.suffix.lower() == ".csv" and not each.name.startswith("."))
    if not names or len(names) > _MOST_FILES:
        raise damaged(path, f"holds {len(names)} files .csv", "name a folder of tables, or a file .npz or .csv")
    return tuple(files.read(name, _LIMIT) for name in names)


# A config is read once for its sizes, and once for its data; a sweep reads it for each of its runs.
@functools.lru_cache(maxsize=2)
def sequences_of(path: Path, contents: tuple[DataFile, ...], reading: Reading) -> Labelled:
    """The sequences of what was read at a path.

    Raises:
        DataDamaged: it does not hold labelled sequences.
    """
    if path.suffix == ".npz":
        return read_archive(contents[0], reading.tags, reading.holes)
    if path.is_dir():
        return labelled(folder_of_tables(path, contents, reading), reading)
    return labelled(long_table(contents[0], reading), reading)


def sizes_of(path: Path, contents: tuple[DataFile, ...], reading: Reading, split: Shares) -> Sizes:
    """The sizes of the task that files amount to.

    Raises:
        DataDamaged: they do not hold labelled sequences, fewer than two classes, or none for a split.
    """
    found = sequences_of(path, contents, reading)
    if len(found.classes) < 2:
        raise damaged(path, f"holds one class, {found.classes[0]!r}", "name the column of the classes by the key label")
    places = split_of(found, split, reading.tags)
    empty = [name for name, place in zip(SPLITS, places, strict=True) if not len(place)]
    if empty:
        fact = f"holds {len(found.x)} sequences, which leave none for {' and '.join(empty)}"
        raise damaged(path, fact, "take more, or another split")
    longest = max(len(found.x[place]) for place in places[0])
    train, valid, test = map(len, places)
    return Sizes(train, valid, test, longest, found.x[0].shape[1], len(found.classes))


def split_of(found: Labelled, shares: Shares, tags: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The places of the sequences of each split.

    They are what the files say. Else each class is divided by the shares, the order within it being that of a hash of
    the place, which is the same everywhere; of a class of three each split has one. Where the files name sequences for
    training and for the test alone, those for validation are taken from training.

    Args:
        found: the sequences.
        shares: of the splits.
        tags: whether each step has a class: then all sequences are divided as one.
    """
    if found.split is None:
        rows, to = np.arange(len(found.x)), shares
    elif (found.split == 1).any():
        train, valid, test = (np.flatnonzero(found.split == place) for place in range(3))
        return train, valid, test
    else:
        rows, to = np.flatnonzero(found.split == 0), Shares(shares.train, shares.valid, 0.0)
    kinds = np.zeros(len(rows), int) if tags else np.array([int(found.y[row]) for row in rows], int)
    order = sorted(range(len(rows)), key=lambda place: hashlib.sha256(str(rows[place]).encode()).digest())
    parts: tuple[list[int], ...] = ([], [], [])
    for kind in np.unique(kinds):
        mine = [int(rows[place]) for place in order if kinds[place] == kind]
        kept, left = _counts(len(mine), to)
        for part, chosen in zip(parts, (mine[kept + left :], mine[:kept], mine[kept : kept + left]), strict=True):
            part.extend(chosen)
    train, valid_rows, test_rows = (np.array(sorted(part), int) for part in parts)
    if found.split is not None:
        test_rows = np.flatnonzero(found.split == 2)
    return train, valid_rows, test_rows


def _counts(sequences: int, shares: Shares) -> tuple[int, int]:
    """How many of a class are for validation and for the test: some of both as soon as there are three."""
    valid, test = (
        max(round(sequences * share / sum(shares)), int(share > 0 and sequences >= 3))
        for share in (shares.valid, shares.test)
    )
    return valid, test


def absent(found: Labelled, parts: Sequence[np.ndarray]) -> list[str]:
    """The classes that some split has nothing of, each with how many sequences have it, and where it is missing.

    Args:
        found: the sequences.
        parts: the places of the sequences of each split.

    Example:
        >>> found = Labelled([], [np.int32(0), np.int32(0), np.int32(0), np.int32(1)], ("walk", "fall"), None, ())
        >>> absent(found, (np.array([0, 3]), np.array([1]), np.array([2])))
        ["'fall' (1 sequence; none in valid and test)"]
    """
    # So many sequences of each split have each class.
    counts = np.zeros((len(parts), len(found.classes)), int)
    for split, part in zip(counts, parts, strict=True):
        for row in part:
            split[np.unique(found.y[row])] += 1
    said = []
    for name, each in zip(found.classes, counts.T, strict=True):
        without = [called for called, count in zip(SPLITS, each, strict=True) if not count]
        if without:
            of_it = f"{each.sum()} sequence{'s' if each.sum() > 1 else ''}"
            said.append(f"{name!r} ({of_it}; none in {' and '.join(without)})")
    return said


def notes(file: str, reading: Reading, split: Shares, data_root: str | None) -> list[str]:
    """What the user should know of the splits of a file; nothing where it cannot be read."""
    try:
        place = _found(file, data_root)
        found = sequences_of(place, read(place), reading)
    except (DataMissing, DataDamaged):
        return []
    said = absent(found, split_of(found, split, reading.tags))
    if not said:
        return []
    many = f"{len(said)} classes are" if len(said) > 1 else "a class is"
    return [f"{many} not in every split: {several(said)}; what is not there is not learnt, or not tested"]


def _found(file: str, data_root: str | None) -> Path:
    # The file of a run may be elsewhere by now: then its name, below the folder that is said.
    return files.find([file, file.replace("\\", "/").rstrip("/").rpartition("/")[2]], data_root)


def load(
    file: str, reading: Reading, missing: Missing, split: Shares, sizes: Sizes, data_root: str | None
) -> Dataset:
    """Sequences and their classes: x `[T, I]`, every number less its mean and over its deviation in training.

    Args:
        file: the file or folder, absolute or below `data_root`.
        reading: how it is read.
        missing: what becomes of a value that is missing; steps are 1 apart.
        split: shares, where the files do not say it.
        sizes: what there should be.
        data_root: the folder of data files, see `files.root`.

    Returns:
        Splits side by side where all sequences have one length, else sources.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: it cannot be read so, or has other sizes.
    """
    place = _found(file, data_root)
    contents = read(place)
    check_sizes(place, **{name: (getattr(sizes, name), size) for name, size in
                          sizes_of(place, contents, reading, split)._asdict().items()})  # fmt: skip
    found = sequences_of(place, contents, reading)
    rows = split_of(found, split, reading.tags)
    seen = np.concatenate([found.x[row] for row in rows[0]])
    never = np.isnan(seen).all(0)
    if never.any():
        fact = f"has no value of number {never.argmax() + 1} of each step in training"
        raise damaged(place, fact, "leave it out by the key features")
    mean = np.nanmean(seen, 0, dtype=np.float64).astype(np.float32)
    deviation = np.nanstd(seen, 0, dtype=np.float64).astype(np.float32)
    # What never changes in training says nothing, whatever it is elsewhere: it must not become huge.
    deviation = np.where(deviation > 1e-6 * np.abs(mean), deviation, np.float32(1))
    x = [filled((each - mean) / deviation, missing) for each in found.x]
    equal = len({len(each) for each in x}) == 1
    parts = [_part([x[row] for row in part], [found.y[row] for row in part], equal) for part in rows]
    names = [each.path.relative_to(place).as_posix() for each in contents] if place.is_dir() else []
    marked = fingerprint(contents, "sequences", reading, missing, split, names)
    ids = {name: tuple(found.ids[row] for row in part) for name, part in zip(SPLITS, rows, strict=True)}
    said = _described(place, found, reading, sizes)
    scale = np.asarray(mean), np.asarray(deviation)
    return Dataset(parts[0], parts[1], parts[2], said, marked, found.classes, ids=ids, scale=scale)


def _described(place: Path, found: Labelled, reading: Reading, sizes: Sizes) -> str:
    named = ", ".join(found.classes[:_MOST_NAMED]) + (", ..." if len(found.classes) > _MOST_NAMED else "")
    shortest, longest = (of(len(each) for each in found.x) for of in (min, max))
    steps = str(longest) if shortest == longest else f"{shortest} to {longest}"
    each = "step" if reading.tags else "sequence"
    split = "as the files say" if found.split is not None else "by sequences" if reading.tags else "within each class"
    return (
        f"{place.name}: sequences of {steps} steps of {sizes.channels}, each {each} of one of {len(found.classes)}"
        f" classes ({named}); split {split}: {sizes.train} train, {sizes.valid} validation, {sizes.test} test"
    )


def _part(x: list[np.ndarray], y: list[np.ndarray], equal: bool) -> Split | Source:
    return Split(np.stack(x), np.stack(y)) if equal else Sequences(x, y)
