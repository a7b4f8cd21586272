"""Forecasting one column of a CSV file: the next values of a series from a window of those before."""

import csv
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, Split, TaskShape
from gru_jax.data.files import MB, DataFile, check_sizes, damaged, find, fingerprint, lines, read, several
from gru_jax.data.missing import Missing, features, filled
from gru_jax.data.missing import deviation as deviation_of

_LIMIT = 64 * MB

CO2_VALUES = 2_284
"""Weeks from March 1958 to December 2001 in the series that statsmodels carries along."""


class Window(NamedTuple):
    """What is seen and what is told.

    Attributes:
        steps: T, values seen.
        horizon: O, values told, right after.
        stride: from one training example to the next; those of the other splits are one step apart.
    """

    steps: int
    horizon: int = 1
    stride: int = 1


class Windows(NamedTuple):
    """Windows in each split of a series with holes: those that tell no missing value."""

    train: int
    valid: int
    test: int


HOLES = ("", "?", "na", "nan", "null")
"""What stands in a field, in small letters, where a value is missing."""


def shape(values: int, window: Window, missing: Missing = "refuse", sizes: Windows | None = None) -> TaskShape:
    """The sizes of the task, of a series of so many values.

    The values told lie in the first 70 % for training, in the next 10 % for validation, in the last 20 % for testing.
    Those seen may lie in the part before: at the time of a forecast they are known.

    Example:
        >>> shape(1000, Window(50, 5))[:6]
        (646, 96, 196, 50, 1, 5)
        >>> shape(1000, Window(50, 5), "gaps", Windows(400, 80, 150))[:6]
        (400, 80, 150, 50, 3, 5)
    """
    train, valid, test = map(len, _starts(values, window)) if sizes is None else sizes
    gaps, seen = missing == "gaps", features(1, missing)
    return TaskShape(
        train, valid, test, time=window.steps, features=seen, outputs=window.horizon, target="values", gaps=gaps
    )


def _starts(values: int, window: Window) -> tuple[range, range, range]:
    """The places of the first value told, for each split."""
    ends = [values * 7 // 10, values * 8 // 10, values]
    return (
        range(window.steps, ends[0] - window.horizon + 1, window.stride),
        range(max(ends[0], window.steps), ends[1] - window.horizon + 1),
        range(max(ends[1], window.steps), ends[2] - window.horizon + 1),
    )


def load(
    file: str | None,
    column: str,
    values: int,
    window: Window,
    data_root: str | None,
    missing: Missing = "refuse",
    sizes: Windows | None = None,
) -> Dataset:
    """Windows of a series, less the mean and over the deviation of its training part: x `[N, T, 1]`, y `[N, O]`.

    Args:
        file: name of a CSV file with a header line under the folder of data files; None is weekly CO2 at Mauna Loa.
        column: the name of the column in the header.
        values: how many it should have, missing ones too.
        window: what is seen and told.
        data_root: the folder, see `files.root`.
        missing: what becomes of a missing value that is seen: with "gaps" x is `[N, T, 3]`, see `missing.filled`. A
            window knows nothing from before its first step, and one that tells a missing value is left out.
        sizes: how many windows should be left; None unless values may be missing.

    Raises:
        DataMissing: the file, or statsmodels, is not there.
        DataDamaged: there is no such column, or a value is missing or no number, or there are more or fewer.

    Source: C. D. Keeling and T. P. Whorf, Atmospheric CO2 records (2004), as statsmodels.datasets.co2.
    """
    holes = missing != "refuse"
    if file is None:
        series = co2(holes)
        name = "weekly CO2 at Mauna Loa (ppm)" + (", missing weeks filled in straight lines" if not holes else "")
        content = DataFile(Path(name), b"", hashlib.sha256(series.tobytes()).digest(), "")
    else:
        content = read(find([file], data_root), _LIMIT)
        series, name = read_column(content, column, holes), f"{content.path.name}, column {column!r}"
    check_sizes(content.path, values=(values, len(series)))
    seen = series[: values * 7 // 10]
    if np.isnan(seen).all():
        raise damaged(content.path, f"has no value of {column!r} in its first 70 %, the training part", "fill some in")
    mean, deviation = np.nanmean(seen), float(deviation_of(seen))
    scaled = ((series - mean) / deviation).astype(np.float32)
    train, valid, test = (_windows(scaled, starts, window, missing) for starts in _starts(values, window))
    if sizes is not None:
        left = {"train": train, "valid": valid, "test": test}
        found = {name: (getattr(sizes, name), len(split.y)) for name, split in left.items()}
        check_sizes(content.path, **found)
    description = (
        f"{name}: the next {window.horizon} from {window.steps}, in units of {deviation:.4g} around {mean:.4g};"
        f" split by time: {len(train.y)} train, {len(valid.y)} validation, {len(test.y)} test"
    )
    kind = (missing,) if holes else ()
    return Dataset(train, valid, test, description, fingerprint([content], "forecast", column, *window, *kind))


def _windows(series: np.ndarray, starts: range, window: Window, missing: Missing) -> Split:
    both = np.lib.stride_tricks.sliding_window_view(series, window.steps + window.horizon)
    rows = both[starts.start - window.steps : starts.stop - window.steps : starts.step]
    x, y = rows[:, : window.steps, None], rows[:, window.steps :]
    told = ~np.isnan(y).any(-1)
    return Split(filled(x[told], missing), y[told])


def co2(holes: bool = False) -> np.ndarray:
    """Weekly CO2 at Mauna Loa in ppm, 1958 to 2001, `[2284]`.

    Args:
        holes: whether the missing weeks are NaN, and not filled in by straight lines.

    Raises:
        DataMissing: statsmodels is not installed.
    """
    try:
        from statsmodels.datasets import co2 as carried
    except ImportError as error:
        raise DataMissing(
            "the CO2 series comes with statsmodels, which is not installed;"
            " gru-jax[experiments] brings it: pip install '.[experiments]' in a clone"
        ) from error
    series = carried.load_pandas().data["co2"].to_numpy(np.float64)
    weeks, known = np.arange(len(series)), np.isfinite(series)
    return series if holes else np.interp(weeks, weeks[known], series[known])


def read_column(file: DataFile, column: str, holes: bool = False) -> np.ndarray:
    r"""One column of a CSV file.

    Args:
        file: content, with a header line.
        column: a name in the header.
        holes: whether values may be missing, one of `HOLES` in their place.

    Returns:
        `[N]` float64, at least one, NaN where there may be holes.

    Raises:
        DataDamaged: there is no such column, or a value is missing or no number.

    Example:
        >>> file = DataFile(Path("tiny.csv"), b"day,price\n1,2.5\n2,3\n", b"", "")
        >>> read_column(file, "price").tolist()
        [2.5, 3.0]
    """
    # Strict, or a quotation mark that is never closed would take all that follows into one field.
    rows = csv.reader(io.StringIO("\n".join(lines(file))), strict=True)
    found: list[float] = []
    wrong: list[str] = []
    commas = False
    try:
        header = [name.strip() for name in next(rows, [])]
        if header.count(column) != 1:
            raise _no_column(file, column, header)
        place = header.index(column)
        for row in rows:
            if not row:
                continue  # an empty line, such as after the last
            cell = row[place].strip() if place < len(row) else ""
            value = np.nan if holes and place < len(row) and cell.lower() in HOLES else _number(cell)
            if any(map(str.strip, row[len(header) :])):
                # Such as 2,5 for 2.5, of which a column would be read as 2.
                commas = True
                wrong.append(f"line {rows.line_num} has {len(row)} fields, and the header {len(header)}")
            elif value is None:
                commas |= _number(cell.replace(",", ".", 1)) is not None
                wrong.append(f"line {rows.line_num} {f'holds {cell[:40]!r}' if cell else 'is empty'}")
            else:
                found.append(value)
    except csv.Error as error:
        raise damaged(file.path, f"line {rows.line_num}: {error}", "correct the line") from error
    if wrong:
        fact = f"{len(wrong)} of {len(found) + len(wrong)} values of {column!r} cannot be read: {several(wrong)}"
        fix = "write 2.5 for 2,5" if commas else "fill them in, or leave their lines out"
        if not (commas or holes):
            fix += "; the key missing says what else becomes of them"
        raise damaged(file.path, fact, fix)
    if not found:
        raise damaged(file.path, "has no rows under its header")
    return np.array(found)


def _number(cell: str) -> float | None:
    """A number, far below float32's largest, so that deviations stay finite; None where there is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    # Python takes 1_0 for 10.
    return value if abs(value) < 1e30 and "_" not in cell else None


def _no_column(file: DataFile, column: str, header: list[str]) -> DataDamaged:
    names = ", ".join(repr(name[:40]) for name in header[:20])
    count = f"{header.count(column)} columns" if column in header else "no column"
    fact = f"has {count} {column!r}; its header is {names}"
    for mark, said in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if column in [name.strip(' "') for name in ",".join(header).split(mark)] and mark in "".join(header):
            return damaged(file.path, f"is parted by {said}: {fact}", "part it by commas, with points in its numbers")
    return damaged(file.path, fact, "name one of them by the key column")
