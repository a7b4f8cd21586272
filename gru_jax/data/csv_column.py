"""Forecasting one column of a CSV file: the next values of a series from a window of those before."""

import csv
import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, Split, TaskShape
from gru_jax.data.files import MB, DataFile, check_sizes, damaged, find, fingerprint, lines, read, several

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


def shape(values: int, window: Window) -> TaskShape:
    """The sizes of the task, of a series of so many values.

    The values told lie in the first 70 % for training, in the next 10 % for validation, in the last 20 % for testing.
    Those seen may lie in the part before: at the time of a forecast they are known.

    Example:
        >>> shape(1000, Window(50, 5))[:6]
        (646, 96, 196, 50, 1, 5)
    """
    train, valid, test = map(len, _starts(values, window))
    return TaskShape(train, valid, test, time=window.steps, features=1, outputs=window.horizon, target="values")


def _starts(values: int, window: Window) -> tuple[range, range, range]:
    """The places of the first value told, for each split."""
    ends = [values * 7 // 10, values * 8 // 10, values]
    return (
        range(window.steps, ends[0] - window.horizon + 1, window.stride),
        range(max(ends[0], window.steps), ends[1] - window.horizon + 1),
        range(max(ends[1], window.steps), ends[2] - window.horizon + 1),
    )


def load(file: str | None, column: str, values: int, window: Window, data_root: str | None) -> Dataset:
    """Windows of a series, less the mean and over the deviation of its training part: x `[N, T, 1]`, y `[N, O]`.

    Args:
        file: name of a CSV file with a header line under the folder of data files; None is weekly CO2 at Mauna Loa.
        column: the name of the column in the header.
        values: how many it should have.
        window: what is seen and told.
        data_root: the folder, see `files.root`.

    Raises:
        DataMissing: the file, or statsmodels, is not there.
        DataDamaged: there is no such column, or a value is missing or no number, or there are more or fewer.

    Source: C. D. Keeling and T. P. Whorf, Atmospheric CO2 records (2004), as statsmodels.datasets.co2.
    """
    if file is None:
        series, name = co2(), "weekly CO2 at Mauna Loa (ppm), missing weeks filled in straight lines"
        content = DataFile(Path(name), b"", hashlib.sha256(series.tobytes()).digest(), "")
    else:
        content = read(find([file], data_root), _LIMIT)
        series, name = read_column(content, column), f"{content.path.name}, column {column!r}"
    check_sizes(content.path, values=(values, len(series)))
    seen = series[: values * 7 // 10]
    mean, deviation = seen.mean(), max(float(seen.std()), 1e-8)
    scaled = ((series - mean) / deviation).astype(np.float32)
    train, valid, test = (_windows(scaled, starts, window) for starts in _starts(values, window))
    description = (
        f"{name}: the next {window.horizon} from {window.steps}, in units of {deviation:.4g} around {mean:.4g};"
        f" split by time: {len(train.y)} train, {len(valid.y)} validation, {len(test.y)} test"
    )
    return Dataset(train, valid, test, description, fingerprint([content], "forecast", column, *window))


def _windows(series: np.ndarray, starts: range, window: Window) -> Split:
    both: Any = np.lib.stride_tricks.sliding_window_view(series, window.steps + window.horizon)
    rows = both[starts.start - window.steps : starts.stop - window.steps : starts.step]
    return Split(rows[:, : window.steps, None].copy(), rows[:, window.steps :].copy())


def co2() -> np.ndarray:
    """Weekly CO2 at Mauna Loa in ppm, 1958 to 2001, `[2284]`, the missing weeks filled in by straight lines.

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
    return np.interp(weeks, weeks[known], series[known])


def read_column(file: DataFile, column: str) -> np.ndarray:
    r"""One column of a CSV file.

    Args:
        file: content, with a header line.
        column: a name in the header.

    Returns:
        `[N]` float64, at least one.

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
            value = _number(cell)
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
    fact = f"has {header.count(column)} columns {column!r}; its header is {names}"
    for mark, said in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if column in [name.strip(' "') for name in ",".join(header).split(mark)] and mark in "".join(header):
            return damaged(file.path, f"is parted by {said}: {fact}", "part it by commas, with points in its numbers")
    return damaged(file.path, fact, "name one of them")
