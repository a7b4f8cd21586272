"""Time series with a class each, in the `.ts` files of the UEA and UCR archives."""

from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset, Sequences, Source, Split, TaskShape
from gru_jax.data.files import MB, DataFile, check_sizes, damaged, find, fingerprint, lines, read, several
from gru_jax.data.missing import Missing, features, filled
from gru_jax.data.missing import deviation as deviation_of

_LIMIT = 512 * MB


class Sizes(NamedTuple):
    """Series of each split; steps of the longest training series; channels; classes."""

    train: int
    valid: int
    test: int
    time: int
    channels: int
    classes: int


class Series(NamedTuple):
    """What a file holds.

    Attributes:
        x: N arrays `[T, I]` float32, of any lengths; NaN where a value is missing.
        y: `[N]` int32, places in `classes`.
        classes: the labels that the header lists, in its order.
    """

    x: list[np.ndarray]
    y: np.ndarray
    classes: list[str]


def shape(sizes: Sizes, missing: Missing = "refuse") -> TaskShape:
    """The sizes of the task."""
    seen = features(sizes.channels, missing)
    return TaskShape(*sizes[:4], features=seen, outputs=sizes.classes, gaps=missing == "gaps")


def load(
    train: str, test: str, data_root: str | None, sizes: Sizes, valid_every: int = 5, missing: Missing = "refuse"
) -> Dataset:
    """Series and their classes: x `[T, I]`, every channel less its mean and over its deviation in training.

    Of every `valid_every` series of a class, in the order of the training file, the last is for validation.

    Args:
        train, test: names of the two files under the folder of data files.
        data_root: that folder, see `files.root`.
        sizes: what they hold, after that split.
        valid_every: at least 2.
        missing: what becomes of a value that is missing ("?" or NaN); steps are 1 apart.

    Returns:
        Splits side by side where all series have one length, else sources.

    Raises:
        DataMissing: a file is not there.
        DataDamaged: a file is not of that format, has missing values or time stamps, or sizes differ.

    Source: A. Bagnall et al., The UEA multivariate time series classification archive, arXiv:1811.00075.
    """
    files = [read(find([name], data_root), _LIMIT) for name in (train, test)]
    of_train, of_test = (read_ts(file, missing != "refuse") for file in files)
    if of_train.classes != of_test.classes or of_train.x[0].shape[1] != of_test.x[0].shape[1]:
        raise damaged(files[1].path, f"has other classes or channels than {files[0].path.name}")
    held = np.zeros(len(of_train.y), bool)
    for label in range(len(of_train.classes)):
        held[np.flatnonzero(of_train.y == label)[valid_every - 1 :: valid_every]] = True
    kept, left = np.flatnonzero(~held), np.flatnonzero(held)
    check_sizes(
        files[0].path,
        train=(sizes.train, len(kept)),
        valid=(sizes.valid, len(left)),
        time=(sizes.time, max(len(of_train.x[i]) for i in kept)),
        channels=(sizes.channels, of_train.x[0].shape[1]),
        classes=(sizes.classes, len(of_train.classes)),
    )
    check_sizes(files[1].path, test=(sizes.test, len(of_test.x)))
    seen = np.concatenate([of_train.x[i] for i in kept])
    never = np.isnan(seen).all(0)
    if never.any():
        raise damaged(files[0].path, f"has no value in channel {never.argmax() + 1}", "leave the channel out")
    mean = np.nanmean(seen, 0, dtype=np.float64).astype(np.float32)
    deviation = deviation_of(seen).astype(np.float32)
    x, test_x = ([filled((each - mean) / deviation, missing) for each in series.x] for series in (of_train, of_test))
    equal = len({len(each) for each in (*x, *test_x)}) == 1
    splits = [
        _split([x[i] for i in kept], of_train.y[kept], equal),
        _split([x[i] for i in left], of_train.y[left], equal),
        _split(test_x, of_test.y, equal),
    ]
    description = (
        f"{files[0].path.name}: {len(of_train.classes)} classes; one of {valid_every} training series of each class is"
        f" for validation: {len(kept)} train, {len(left)} validation, {len(test_x)} test"
    )
    kind = () if missing == "refuse" else (missing,)
    marked, names = fingerprint(files, "uea", valid_every, *kind), tuple(of_train.classes)
    scale = np.asarray(mean), np.asarray(deviation)
    return Dataset(splits[0], splits[1], splits[2], description, marked, names, scale=scale)


def _split(x: list[np.ndarray], y: np.ndarray, equal: bool) -> Split | Source:
    return Split(np.stack(x), y) if equal else Sequences(x, list(y))


def read_ts(file: DataFile, holes: bool = False) -> Series:
    r"""The series of one file.

    Lines of `#` are comments and of `@` are the header; after `@data` a line is channels, parted by `:`, of numbers,
    parted by `,`, and then the class.

    Args:
        file: content.
        holes: whether values may be missing, "?" or NaN.

    Raises:
        DataDamaged: the file is not of that format, or has missing values or time stamps.

    Example:
        >>> from pathlib import Path
        >>> text = "@classLabel true up down\n@data\n1,2,3:0,0,0:up\n3,2:0,1:down\n"
        >>> series = read_ts(DataFile(Path("tiny.ts"), text.encode(), b"", ""))
        >>> [x.shape for x in series.x], series.y.tolist()
        ([(3, 2), (2, 2)], [0, 1])
    """
    header, rows = _parts(file)
    if header.get("timestamps", "false").lower() != "false":
        raise damaged(file.path, "has time stamps", "only series at even intervals are read")
    flag, *classes = header.get("classlabel", "").split() or [""]
    if flag.lower() != "true" or len(set(classes)) != len(classes) or not classes:
        fix = "only series of classes are read" if "targetlabel" in header else "get the file again"
        raise damaged(file.path, "lists no different class labels (@classLabel true A B ...)", fix)
    number = {label: i for i, label in enumerate(classes)}
    x: list[np.ndarray] = []
    y: list[int] = []
    wrong: list[str] = []
    for place, line in rows:
        *channels, label = line.split(":")
        values = _numbers(channels, holes)
        if label.strip() not in number:
            wrong.append(f"line {place} ends with {label.strip()[:40]!r}, no class that its header lists")
        elif isinstance(values, str):
            wrong.append(f"line {place} {values}")
        elif x and values.shape[1] != x[0].shape[1]:
            wrong.append(f"line {place} has {values.shape[1]} channels, and the first has {x[0].shape[1]}")
        else:
            x.append(values)
            y.append(number[label.strip()])
    if wrong:
        fix = "correct the line" + "s" * (len(wrong) > 1)
        missing = all(" missing " in fact for fact in wrong)
        raise damaged(file.path, several(wrong), "fill them in, or say what becomes of them" if missing else fix)
    if not x:
        raise damaged(file.path, "has no series after @data")
    return Series(x, np.array(y, np.int32), classes)


def _parts(file: DataFile) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """(the header's values by lower-case key, the numbered lines of data)."""
    header: dict[str, str] = {}
    numbered = [(place, line.strip()) for place, line in enumerate(lines(file), 1)]
    told = [(place, line) for place, line in numbered if line and not line.startswith("#")]
    for i, (place, line) in enumerate(told):
        if line.lower() == "@data":
            return header, told[i + 1 :]
        if not line.startswith("@"):
            raise damaged(file.path, f"line {place} is neither a comment nor part of a header")
        key, *value = line[1:].split(None, 1) or [""]
        header[key.lower()] = "".join(value)
    raise damaged(file.path, "has no line @data")


def _numbers(channels: list[str], holes: bool) -> np.ndarray | str:
    """`[T, I]`, NaN where there may be holes, or what is wrong with them."""
    columns = [channel.split(",") for channel in channels]
    if holes:
        columns = [["nan" if value.strip() == "?" else value for value in column] for column in columns]
    if not columns or len({len(column) for column in columns}) != 1:
        return f"has channels of {[len(column) for column in columns][:8]} steps"
    try:
        if any("_" in channel for channel in channels):
            raise ValueError  # Python takes 1_0 for 10
        values = np.array(columns, np.float64).T
    except (ValueError, OverflowError):
        missing = any(value.strip() == "?" for column in columns for value in column)
        return "has missing values (?)" if missing else "holds something that is no number"
    # Far below float32's largest, so that means and deviations stay finite.
    good = (np.abs(values) < 1e30) | (np.isnan(values) & holes)
    return values.astype(np.float32) if good.all() else "has missing or infinite values"
