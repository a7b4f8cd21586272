"""Tables of `Source<TAB>Target`: classify a row of tokens, as the Long Range Arena writes ListOps."""

from typing import Literal, NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset, Sequences, TaskShape
from gru_jax.data.files import MB, DataFile, check_sizes, damaged, find, fingerprint, lines, read, several
from gru_jax.data.sequences.labelled import in_order

_LIMIT = 512 * MB

Unit = Literal["words", "characters"]


class Sizes(NamedTuple):
    """Rows of each file; tokens of the longest training row; different tokens and targets in the training file."""

    train: int
    valid: int
    test: int
    time: int
    vocabulary: int
    classes: int


class Reading(NamedTuple):
    """How a source becomes tokens.

    Attributes:
        unit: a token is what stands between white space, or a character.
        drop: characters taken out before.
        cut: tokens after which the rest of a row is left out; None keeps all.
    """

    unit: Unit = "words"
    drop: str = ""
    cut: int | None = None


WORDS = Reading()
"""Whole rows of what stands between white space."""


def shape(sizes: Sizes) -> TaskShape:
    """The sizes of the task; one token more than the vocabulary stands for those that training never saw."""
    train, valid, test, time, vocabulary, classes = sizes
    return TaskShape(train, valid, test, time, vocabulary + 1, classes, "class", tokens=True)


def load(files: tuple[str, str, str], data_root: str | None, sizes: Sizes, reading: Reading = WORDS) -> Dataset:
    """Rows of tokens and their classes: x `[T]`, y a class.

    A file is UTF-8 text, a header line of the two words Source and Target, then one row a line; quotation marks mean
    nothing. Tokens are numbered in sorted order of the training file's, and one number more stands for all others.
    Targets are numbered in sorted order too, by value if they are whole numbers.

    Args:
        files: names of the training, validation and test file under the folder of data files.
        data_root: that folder, see `files.root`.
        sizes: what the files hold.
        reading: how.

    Raises:
        DataMissing: a file is not there.
        DataDamaged: a line is not of that form, a target does not occur in training, or sizes differ.

    Source: Y. Tay et al., Long Range Arena, arXiv:2011.04006.
    """
    read_files = [read(find([name], data_root), _LIMIT) for name in files]
    seen: dict[str, int] = {}
    rows = [_rows(file, reading, seen, grow=file is read_files[0]) for file in read_files]
    # From the order in which training brings the tokens to the sorted one; the last stands for all others.
    place = np.empty(len(seen) + 1, np.uint16 if len(seen) < 2**16 else np.int32)
    place[[*(seen[token] for token in sorted(seen)), len(seen)]] = np.arange(len(seen) + 1)
    labels = {label: i for i, label in enumerate(in_order(rows[0].labels))}
    check_sizes(
        read_files[0].path,
        train=(sizes.train, len(rows[0].sources)),
        time=(sizes.time, max(map(len, rows[0].sources))),
        vocabulary=(sizes.vocabulary, len(seen)),
        classes=(sizes.classes, len(labels)),
    )
    check_sizes(read_files[1].path, valid=(sizes.valid, len(rows[1].sources)))
    check_sizes(read_files[2].path, test=(sizes.test, len(rows[2].sources)))
    splits = [_numbered(file, of, place, labels) for file, of in zip(read_files, rows, strict=True)]
    description = (
        f"{read_files[0].path.name}: {len(labels)} classes of rows of {len(seen)} {reading.unit}; a file each of"
        f" {len(splits[0])} train, {len(splits[1])} validation, {len(splits[2])} test"
    )
    marked = fingerprint(read_files, "tsv", *reading)
    return Dataset(splits[0], splits[1], splits[2], description, marked, tuple(labels))


class _Rows(NamedTuple):
    sources: list[np.ndarray]
    labels: list[str]


def _rows(file: DataFile, reading: Reading, seen: dict[str, int], grow: bool) -> _Rows:
    """The rows of a file, tokens numbered in the order in which they come into `seen`.

    Numbers at once, for words would need ten times the memory.
    """
    header, *rest = lines(file)
    if header.split("\t") != ["Source", "Target"]:
        raise damaged(file.path, "does not start with the line Source<TAB>Target", "add it")
    if rest and not rest[-1]:
        rest.pop()  # what follows the end of the last line
    dropped = str.maketrans("", "", reading.drop)
    rows = _Rows([], [])
    wrong: list[str] = []
    for number, line in enumerate(rest, 2):
        source, tab, label = line.rpartition("\t")
        source = source.translate(dropped)
        tokens = (source.split() if reading.unit == "words" else list(source))[: reading.cut]
        if not (tokens and tab and label.strip()):
            wrong.append(f"line {number}")
            continue
        if grow:
            for token in tokens:
                seen.setdefault(token, len(seen))
        rows.sources.append(np.array([seen.get(token, len(seen)) for token in tokens], np.int32))
        rows.labels.append(label.strip())
    if wrong:
        said = f"{several(wrong)} {'is' if len(wrong) == 1 else 'are'} not a source, a tab and a target"
        raise damaged(file.path, said, "correct the line" + "s" * (len(wrong) > 1))
    if not rows.sources:
        raise damaged(file.path, "has no rows under its header")
    return rows


def _numbered(file: DataFile, rows: _Rows, place: np.ndarray, labels: dict[str, int]) -> Sequences:
    numbered = list(enumerate(rows.labels, 2))
    wrong = [f"line {number} has the target {label[:40]!r}" for number, label in numbered if label not in labels]
    if wrong:
        raise damaged(file.path, f"{several(wrong)}, which training never has")
    return Sequences(
        [place[source] for source in rows.sources],
        [np.array(labels[label], np.int32) for label in rows.labels],
    )
