"""A CSV file of whatever make as numbers and times: what parts its fields, and where values are missing."""

import contextlib
import csv
import functools
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gru_jax.data.files import DataFile, damaged, lines, several
from gru_jax.data.series.numbers import decimal_of, is_hole, number
from gru_jax.data.series.times import WORDS, Grid, calendar, grid, moments

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class Reading(NamedTuple):
    """How a file is read.

    Attributes:
        target: the columns that are told.
        known: what is known ahead: columns, or, with times, words of the calendar.
        time: the column of times, or those of days and of clocks; () for rows that are evenly spaced.
        separator, decimal: None where the file says it.
    """

    target: tuple[str, ...]
    known: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    separator: str | None = None
    decimal: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """What of `known` is made from the times."""
        return tuple(name for name in self.known if name in WORDS and self.time)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of numbers, those that are told first."""
        return (*self.target, *(name for name in self.known if name not in self.words))


class Table(NamedTuple):
    """Evenly spaced rows.

    Attributes:
        values: `[N, D]` float64, of the columns that are told, NaN where one is missing.
        known: `[N, K]` float64, of the columns that are known ahead.
        calendar: `[N, 2W]` float64, sines and cosines of the words.
        line: `[N]`, the line of the file; 0 for a row that it does not have.
        grid: of the times; None where there are none.
    """

    values: np.ndarray
    known: np.ndarray
    calendar: np.ndarray
    line: np.ndarray
    grid: Grid | None


# A config is read once for its sizes, and once for its data; a sweep reads it for each of its runs.
@functools.lru_cache(maxsize=2)
def read_table(file: DataFile, reading: Reading) -> Table:
    r"""The rows of a file, on the grid of their times.

    Args:
        file: content, with a header line.
        reading: what is asked of it.

    Raises:
        DataDamaged: there is no such column, or some fields are no numbers or times, or times do not rise.

    Example:
        >>> from pathlib import Path
        >>> file = DataFile(Path("x.csv"), b"when;load\n1.2.2025;1.234,5\n2.2.2025;\n4.2.2025;9,5\n", b"", "")
        >>> made = read_table(file, Reading(("load",), time=("when",)))
        >>> made.values[:, 0].tolist(), made.line.tolist()
        ([1234.5, nan, nan, 9.5], [2, 3, 0, 4])
    """
    separator, cells, at = _fields(file, (*reading.columns, *reading.time), reading.separator, bool(reading.time))
    numbers = _numbers(file, reading, separator, cells[: len(reading.columns)], at)
    found, row = None, np.arange(len(at))
    if reading.time:
        written = [" ".join(parts).strip() for parts in zip(*cells[len(reading.columns) :], strict=True)]
        when = moments(written, at, " ".join(reading.time), file.path)
        if (np.diff(when.instants) < 0).all():
            # The newest first.
            when, numbers, at = when.turned(), numbers[::-1], at[::-1]
        found = grid(when, at, file.path)
        row = found.row
    rows = int(row[-1]) + 1
    values, line = np.full((rows, len(reading.columns)), np.nan), np.zeros(rows, int)
    values[row], line[row] = numbers, at
    made = [] if found is None else [calendar(found.times, word) for word in reading.words]
    told = len(reading.target)
    return Table(values[:, :told], values[:, told:], np.concatenate([np.zeros((rows, 0)), *made], 1), line, found)


def _fields(
    file: DataFile, columns: Sequence[str], separator: str | None, timed: bool
) -> tuple[str, list[list[str]], list[int]]:
    """What parts the fields, the fields of the columns, and the line of each row."""
    text = lines(file)
    # What some spreadsheets write, and read, before the header.
    before = int(text[0][:4].lower() == "sep=" and text[0][4:] in SEPARATORS)
    if separator is None:
        separator = text[0][4:] if before else _separator(text[0], columns)
    # Strict, or a quotation mark that is never closed would take all that follows into one field.
    rows = csv.reader(io.StringIO("\n".join(text[before:])), delimiter=separator, strict=True)
    cells: list[list[str]] = [[] for _ in columns]
    at: list[int] = []
    wrong: list[str] = []
    try:
        header = [name.strip() for name in next(rows, [])]
        for column in columns:
            if header.count(column) != 1:
                fix = "name one of them"
                if column in WORDS:
                    fix += f"; {column} is made from the column that the key time names"
                raise damaged(file.path, _no_column(column, header, separator), fix)
        places = [header.index(column) for column in columns]
        for row in rows:
            # An empty line, such as after the last; with times a row of empty fields as well, without it is a step.
            if not row or (not any(map(str.strip, row)) and (timed or len(row) < len(header))):
                continue
            if len(row) <= max(places) or any(map(str.strip, row[len(header) :])):
                wrong.append(f"line {before + rows.line_num} has {len(row)} fields, and the header {len(header)}")
                continue
            at.append(before + rows.line_num)
            for fields, place in zip(cells, places, strict=True):
                fields.append(row[place].strip())
    except csv.Error as error:
        raise damaged(file.path, f"line {before + rows.line_num}: {error}", "correct the line") from error
    if wrong:
        fact = f"{len(wrong)} of {len(at) + len(wrong)} rows, parted by {SEPARATORS[separator]}, do not fit:"
        fix = "part the fields by another sign than the decimal one" if separator == "," else "correct the lines"
        raise damaged(file.path, f"{fact} {several(wrong)}", fix)
    if not at:
        raise damaged(file.path, "has no rows under its header")
    return separator, cells, at


def _separator(header: str, columns: Sequence[str]) -> str:
    """The sign that parts the header into the most names, among them all that are asked for."""
    parted: dict[str, list[str]] = {}
    for sign in SEPARATORS:
        # Not strict: between quotation marks stand the others.
        with contextlib.suppress(csv.Error):
            parted[sign] = [name.strip() for name in next(csv.reader([header], delimiter=sign), [])]
    fitting = {sign: names for sign, names in parted.items() if set(columns) <= set(names)}
    return max(fitting or parted or SEPARATORS, key=lambda sign: len(parted.get(sign, [])))


def _no_column(column: str, header: list[str], separator: str) -> str:
    names = ", ".join(repr(name[:40]) for name in header[:20])
    return f"has {header.count(column)} columns {column!r}; its header, parted by {SEPARATORS[separator]}, is {names}"


def _numbers(
    file: DataFile, reading: Reading, separator: str, cells: Sequence[Sequence[str]], at: Sequence[int]
) -> np.ndarray:
    """`[rows, columns]`, NaN where a field is empty or says that it is missing."""
    decimal = reading.decimal
    if decimal is None:
        decimal = decimal_of((cell for column in cells for cell in column if not is_hole(cell)), separator)
        if decimal not in (".", ","):
            fact = f"does not tell whether {decimal!r} has a decimal sign or one of thousands; no other number does"
            raise damaged(file.path, fact, "say it by the key decimal: '.' or ','")
    found = []
    for name, column in zip(reading.columns, cells, strict=True):
        read = [number(cell, decimal) for cell in column]
        cut = zip(read, at, column, strict=True)
        wrong = [f"line {line} holds {cell[:40]!r}" for value, line, cell in cut if value is None]
        if wrong:
            fact = f"{len(wrong)} of {len(read)} values of {name!r} cannot be read with the decimal sign {decimal!r}"
            fix = "correct them, or leave the fields empty; the key decimal names another sign"
            raise damaged(file.path, f"{fact}: {several(wrong)}", fix)
        found.append(np.array(read, float))
    return np.stack(found, 1)
