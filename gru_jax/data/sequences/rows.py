"""Labelled sequences in CSV files: a long table, in which a column says what row is of which, or a folder of tables."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import DataDamaged
from gru_jax.data.files import DataFile, damaged, lines, several
from gru_jax.data.sequences.labelled import Labelled, in_order, numbered, splits_of
from gru_jax.data.series.numbers import decimal_of, number
from gru_jax.data.series.table import SEPARATORS
from gru_jax.data.series.times import moments

SPLIT = "split"
"""The column that may say which split a sequence is in."""
LABELS = "labels.csv"
"""The file of a folder that may say the class of each other one."""


class Reading(NamedTuple):
    """How files are read.

    Attributes:
        id: the column that says which sequence a row of a long table is of.
        label: the column of the class.
        time: a column that must rise within a sequence and is no feature; None for none.
        features: the columns of numbers; () for all others.
        tags: whether each row has a class of its own.
        separator, decimal: None where the file says it.
        holes: whether values may be missing.
    """

    id: str
    label: str
    time: str | None = None
    features: tuple[str, ...] = ()
    tags: bool = False
    separator: str | None = None
    decimal: str | None = None
    holes: bool = False


class Rows(NamedTuple):
    """Rows of one file or of several.

    Attributes:
        path: of the file, or of the folder.
        names: of the features.
        cells: N rows of fields, one for each feature.
        sequence, label: of each row.
        split: of each row; None where none is said.
        time: of each row; None where there is none.
        where: each row stands.
        separator: of the first file.
    """

    path: Path
    names: tuple[str, ...]
    cells: list[list[str]]
    sequence: list[str]
    label: list[str]
    split: list[str] | None
    time: list[str] | None
    where: list[tuple[str, int]]
    separator: str


class _Table(NamedTuple):
    header: list[str]
    rows: list[list[str]]
    line: list[int]
    separator: str

    def column(self, name: str) -> list[str]:
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def long_table(file: DataFile, reading: Reading) -> Rows:
    """The rows of one table.

    Raises:
        DataDamaged: a column is missing, or a row has more or fewer fields than the header.
    """
    needed = [reading.id, reading.label, *_of_rows(reading)]
    table = _table(file, reading.separator, needed)
    names = _features(table, reading, {reading.id, reading.label, SPLIT})
    return Rows(
        file.path,
        names,
        _columns(table, names),
        table.column(reading.id),
        table.column(reading.label),
        table.column(SPLIT) if SPLIT in table.header else None,
        None if reading.time is None else table.column(reading.time),
        [("", line) for line in table.line],
        table.separator,
    )


def folder_of_tables(folder: Path, files: Sequence[DataFile], reading: Reading) -> Rows:
    """The rows of all tables of a folder, each of them a sequence.

    Of each the class is the name of the folder it is in, or what `labels.csv` says beside its name, file,label[,split];
    with tags each row has its own.

    Args:
        folder: where they are.
        files: the tables, `labels.csv` among them if there is one.
        reading: how they are read.

    Raises:
        DataDamaged: a file has other columns than the first one, or no class.
    """
    listed = next((file for file in files if file.path == folder / LABELS), None)
    known = {} if listed is None else _listed(listed, reading)
    tables = [(file.path.relative_to(folder).as_posix(), file) for file in files if file is not listed]
    if not tables:
        raise damaged(folder, "holds no .csv file of a sequence", "name another folder")
    unknown = [name for name, _ in tables if name not in known and (listed is not None or "/" not in name)]
    if unknown and not (reading.tags and listed is None):
        fix = f"write it into {LABELS}, file,label" + ("" if listed else ", or move it into a folder of that name")
        raise damaged(folder, f"does not say the class of {several(unknown)}", fix)
    absent = sorted(known.keys() - {name for name, _ in tables})
    if absent:
        raise damaged(folder / LABELS, f"names {several(absent)}, not in the folder", "take the lines out")
    made: Rows | None = None
    for name, file in tables:
        table = _table(file, reading.separator, [*_of_rows(reading), *([reading.label] if reading.tags else [])])
        names = _features(table, reading, {reading.label} if reading.tags else set())
        if made is None:
            split: list[str] | None = [] if any(said for _, said in known.values()) else None
            made = Rows(
                folder, names, [], [], [], split, None if reading.time is None else [], [], table.separator
            )
        if set(names) != set(made.names):
            mine, first = (", ".join(map(repr, each[:20])) for each in (names, made.names))
            fact = f"has the columns {mine}, and {tables[0][0]} has {first}"
            raise damaged(file.path, fact, "give all files the same columns, or name the features")
        label, said = known.get(name, (name.rpartition("/")[0], ""))
        made.cells.extend(_columns(table, made.names))
        made.sequence.extend([name] * len(table.rows))
        made.label.extend(table.column(reading.label) if reading.tags else [label] * len(table.rows))
        if made.split is not None:
            made.split.extend([said] * len(table.rows))
        if made.time is not None and reading.time is not None:
            made.time.extend(table.column(reading.time))
        made.where.extend((name, line) for line in table.line)
    assert made is not None
    return made


def labelled(rows: Rows, reading: Reading) -> Labelled:
    """The sequences of rows: those of each id, in the order in which they stand.

    Raises:
        DataDamaged: a field is no number, a class or a split is missing or changes within a sequence, or a time falls.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(rows.sequence):
        places.setdefault(name, []).append(place)
    _complain(rows, [place for place, name in enumerate(rows.sequence) if not name], "has no id", "fill it in")
    _complain(rows, [place for place, label in enumerate(rows.label) if not label], "has no label", "fill it in")
    if not reading.tags:
        _require_one(rows, rows.label, places, "label", "tags: true is of a class at each row")
    numbers = _numbers(rows, reading)
    if rows.time is not None:
        _require_rising(rows, reading, places)
    firsts = [of_it[0] for of_it in places.values()]
    split = None
    if rows.split is not None:
        _require_one(rows, rows.split, places, "split", "a sequence is in one")
        split = splits_of(rows.path, [rows.split[at] for at in firsts], [_where(rows, at) for at in firsts])
    classes = in_order(rows.label)
    labels = numbered(rows.label, classes)
    y = [labels[of_it] if reading.tags else labels[of_it[0]] for of_it in places.values()]
    return Labelled([numbers[of_it] for of_it in places.values()], y, classes, split, tuple(places))


def _of_rows(reading: Reading) -> list[str]:
    """The columns that every table has."""
    return [*reading.features, *([] if reading.time is None else [reading.time])]


def _features(table: _Table, reading: Reading, others: set[str]) -> tuple[str, ...]:
    return reading.features or tuple(name for name in table.header if name not in {*others, reading.time})


def _columns(table: _Table, names: Sequence[str]) -> list[list[str]]:
    places = [table.header.index(name) for name in names]
    return [[row[place] for place in places] for row in table.rows]


def _table(file: DataFile, separator: str | None, needed: Sequence[str]) -> _Table:
    text = lines(file)
    if separator is None:
        parted = {sign: {name.strip(' "') for name in text[0].split(sign)} for sign in SEPARATORS}
        separator = max(parted, key=lambda sign: (set(needed) <= parted[sign], len(parted[sign])))
    # Strict, or a quotation mark that is never closed would take all that follows into one field.
    reader = csv.reader(io.StringIO("\n".join(text)), delimiter=separator, strict=True)
    table = _Table([], [], [], separator)
    wrong: list[str] = []
    try:
        table.header.extend(name.strip() for name in next(reader, []))
        for row in reader:
            if not any(map(str.strip, row)):
                continue  # an empty line, such as after the last
            if len(row) != len(table.header):
                wrong.append(f"line {reader.line_num} has {len(row)} fields, and the header {len(table.header)}")
            table.rows.append([cell.strip() for cell in row])
            table.line.append(reader.line_num)
    except csv.Error as error:
        raise damaged(file.path, f"line {reader.line_num}: {error}", "correct the line") from error
    absent = [name for name in needed if table.header.count(name) != 1]
    if absent or len(set(table.header)) != len(table.header):
        names = ", ".join(repr(name[:40]) for name in table.header[:20])
        fact = f"has no column {absent[0]!r}" if absent else "has two columns of one name"
        fact += f"; its header, parted by {SEPARATORS[separator]}, is {names}"
        raise damaged(file.path, fact, "name its columns")
    if wrong:
        fix = "part the fields by another sign than the decimal one" if separator == "," else "correct the lines"
        raise damaged(file.path, several(wrong), fix)
    if not table.rows:
        raise damaged(file.path, "has no rows under its header")
    return table


def _listed(file: DataFile, reading: Reading) -> dict[str, tuple[str, str]]:
    """(class, split) of each file that `labels.csv` names; "" for a split that it does not say."""
    table = _table(file, reading.separator, ["file", "label"])
    splits = table.column(SPLIT) if SPLIT in table.header else [""] * len(table.rows)
    names = [name.replace("\\", "/") for name in table.column("file")]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise damaged(file.path, f"names {several(twice)} twice", "name each file once")
    return dict(zip(names, zip(table.column("label"), splits, strict=True), strict=True))


def _numbers(rows: Rows, reading: Reading) -> np.ndarray:
    """`[N, I]` float32, NaN where a value is missing."""
    if not rows.names:
        raise damaged(rows.path, "has no column of numbers", "add one, or name the features")
    decimal = reading.decimal or decimal_of((cell for row in rows.cells for cell in row), rows.separator)
    if decimal not in (".", ","):
        fact = f"does not tell whether {decimal!r} has a decimal sign or one of thousands"
        raise damaged(rows.path, fact, "say it by the key decimal: '.' or ','")
    read = [[number(cell, decimal) for cell in row] for row in rows.cells]
    wrong = [
        f"{_where(rows, place)} {_said(rows.cells[place][column])} in {rows.names[column]!r}"
        for place, row in enumerate(read)
        for column, value in enumerate(row)
        if value is None or (value != value and not reading.holes)
    ]
    if wrong:
        fix = "correct them; the key features names the columns of numbers, decimal their sign"
        if not reading.holes:
            fix += ", missing what becomes of a value that is"
        raise damaged(rows.path, f"{several(wrong)}, where a number is, with the decimal sign {decimal!r}", fix)
    return np.array(read, np.float64).astype(np.float32)


def _said(cell: str) -> str:
    return f"holds {cell[:40]!r}" if cell else "has nothing"


def _require_one(
    rows: Rows, values: Sequence[str], places: dict[str, list[int]], what: str, fix: str
) -> None:
    """Raises DataDamaged unless all rows of a sequence say the same."""
    wrong = [
        f"{_where(rows, at)} has the {what} {values[at][:40]!r}, and {name[:40]!r} began with {values[of_it[0]][:40]!r}"
        for name, of_it in places.items()
        for at in of_it
        if values[at] != values[of_it[0]]
    ]
    if wrong:
        raise damaged(rows.path, several(wrong), f"give all rows of a sequence the same; {fix}")


def _require_rising(rows: Rows, reading: Reading, places: dict[str, list[int]]) -> None:
    assert rows.time is not None and reading.time is not None
    decimal = reading.decimal or decimal_of(rows.time, rows.separator)
    found = [number(cell, decimal) if cell else None for cell in rows.time]
    if None not in found:
        times = np.array(found, float)
    else:
        try:
            read = moments(rows.time, [line for _, line in rows.where], reading.time, rows.path)
        except DataDamaged as error:
            raise DataDamaged(f"{error}; or as numbers") from error
        times = read.local if read.offset is None else read.local - read.offset
    falls = [at for of_it in places.values() for before, at in zip(of_it, of_it[1:], strict=False) if
             not times[at] > times[before]]  # fmt: skip
    _complain(rows, falls, f"has no later {reading.time!r} than the row before it of its sequence", "sort the rows")


def _complain(rows: Rows, wrong: Sequence[int], fact: str, fix: str) -> None:
    if wrong:
        raise damaged(rows.path, several([f"{_where(rows, at)} {fact}" for at in sorted(wrong)]), fix)


def _where(rows: Rows, at: int) -> str:
    file, line = rows.where[at]
    return f"{file} line {line}".strip()
