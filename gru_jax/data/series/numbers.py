"""Numbers as people write them: 1234.5, 1,234.5, 1.234,5, 1 234,5; and which of both signs is the decimal one."""

import re
from collections.abc import Iterable
from typing import Literal

import numpy as np

from gru_jax.data.csv_column import HOLES

Decimal = Literal[".", ","]

# Three digits stand between signs of thousands; a first group of 0 is none of a number.
_SPACES = " '\u00a0\u202f\u2019"
_NUMBER = {
    decimal: re.compile(
        rf"[+-]?(?:[0-9]+|[1-9][0-9]{{0,2}}(?:([{group}{_SPACES}])[0-9]{{3}}(?:\1[0-9]{{3}})*)|(?={re.escape(decimal)}[0-9]))"
        rf"(?:{re.escape(decimal)}[0-9]*)?(?:[eE][+-]?[0-9]{{1,3}})?"
    )
    for decimal, group in ((".", ","), (",", "."))
}
_DROPPED = {decimal: str.maketrans({sign: "" for sign in group + _SPACES} | {decimal: "."}) for decimal, group in
            ((".", ","), (",", "."))}  # fmt: skip


_HOLES = {*HOLES, "-", "n/a", "#n/a", "none"}


def is_hole(cell: str) -> bool:
    """Whether a field says that its value is missing."""
    return cell.lower() in _HOLES


def number(cell: str, decimal: str) -> float | None:
    """A number far below float32's largest, NaN for a missing one; None where there is none.

    Example:
        >>> number("1.234,5", ","), number("1 234", "."), number("1,5", "."), number("12 kW", ".")
        (1234.5, 1234.0, None, None)
    """
    if is_hole(cell):
        return np.nan
    if _NUMBER[decimal].fullmatch(cell) is None:
        return None
    value = float(cell.translate(_DROPPED[decimal]))
    return value if abs(value) < 1e30 else None


def decimal_of(cells: Iterable[str], separator: str) -> Decimal | str:
    """The decimal sign of numbers, or, where they do not tell, one of them that can be read in both ways.

    It is the one with which more of them can be read; of a file that is parted by commas, else the point.

    Args:
        cells: fields.
        separator: what stands between the fields.

    Example:
        >>> decimal_of(["1.234", "17,5"], ";"), decimal_of(["1.234"], ";"), decimal_of(["1.234"], ",")
        (',', '1.234', '.')
    """
    read = {".": 0, ",": 0}
    either = ""
    for cell in set(cells):
        signs = [decimal for decimal in read if _NUMBER[decimal].fullmatch(cell)]
        for decimal in signs:
            read[decimal] += 1
        if len(signs) == 2 and ("." in cell or "," in cell):
            either = cell if not either else min(either, cell)
    if read["."] != read[","]:
        return "." if read["."] > read[","] else ","
    return either if either and separator != "," else "."
