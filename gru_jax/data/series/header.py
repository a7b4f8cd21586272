"""Whether the header of a CSV file has the columns that a config names."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.data.dataset import DataDamaged
from gru_jax.data.series.times import WORDS

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class Column(NamedTuple):
    """A column by its name, and the key of the config that names it."""

    key: str
    name: str


class WrongColumn(NamedTuple):
    """A column that a header does not have once.

    Attributes:
        column: what is asked for.
        fact: what is wrong with it.
        options: what else may have been meant; () where the fact says it.
    """

    column: Column
    fact: str
    options: tuple[str, ...]


class WrongColumns(DataDamaged):
    """A header has not, or twice, what a config names; `wrong` are these columns, in `file`, whose `header` is said."""

    file: Path
    wrong: tuple[WrongColumn, ...]
    header: str


def check_columns(file: Path, columns: Sequence[Column], header: Sequence[str], separator: str) -> None:
    """Looks for columns in a header.

    Args:
        file: whose header it is.
        columns: that are asked for.
        header: the names that there are.
        separator: what parts them.

    Raises:
        WrongColumns: one of them is not there, or more than once.

    Example:
        >>> check_columns(Path("x.csv"), [Column("target", "lod")], ["load"], ",")
        Traceback (most recent call last):
        gru_jax.data.series.header.WrongColumns: x.csv: has no column 'lod'; its header, parted by commas, is ...
    """
    wrong = tuple(_wrong(column, header) for column in columns if header.count(column.name) != 1)
    if wrong:
        names = ", ".join(repr(name[:40]) for name in header[:20])
        said = f"its header, parted by {SEPARATORS[separator]}, is {names}"
        facts = " and ".join(each.fact for each in wrong)
        error = WrongColumns(f"{file}: {facts}; {said}; name one of them")
        error.file, error.wrong, error.header = file, wrong, said
        raise error


def _wrong(column: Column, header: Sequence[str]) -> WrongColumn:
    count, name = header.count(column.name), column.name
    if count:
        return WrongColumn(column, f"has {count} columns {name!r}", ())
    fact, word = f"has no column {name!r}", name.lower()
    if column.key == "known" and word in WORDS:
        said = f"{word!r} is a word of the calendar, made from the column that the key time names"
        return WrongColumn(column, f"{fact} ({said})", ())
    return WrongColumn(column, fact, (*header, *(WORDS if column.key == "known" else ())))
