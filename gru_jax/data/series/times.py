"""Times of rows: read from text, laid on an even grid, and as features of a calendar."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from gru_jax.data.dataset import DataDamaged
from gru_jax.data.files import damaged, several

Word = Literal["hour", "weekday", "day", "month"]
"""What a calendar knows ahead: the place in the day, in the week, in the month, in the year."""
WORDS: tuple[str, ...] = get_args(Word)

_DAY = 86_400_000_000  # microseconds
_DAY_FIRST = re.compile(
    r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})(?:[ T]+([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?", re.ASCII
)
_MIDNIGHT = re.compile(r"([0-9])[ T]+24:00(?::00)?(?![0-9:.])")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}", re.ASCII)
# Of a grid at most so many rows are missing for each that is there.
_MOST_MISSING = 10
_SEASONS = {_DAY: 7, 7 * _DAY: 52}


class Moments(NamedTuple):
    """Times as they are written.

    Attributes:
        local: `[N]` int64, microseconds since 1970 by the clock of the file.
        offset: `[N]` int64, what that clock is ahead of UTC, in microseconds; None where the file does not say it.
    """

    local: np.ndarray
    offset: np.ndarray | None

    @property
    def instants(self) -> np.ndarray:
        """`[N]`, microseconds of UTC, or, where it is not known, by the clock of the file."""
        return self.local if self.offset is None else self.local - self.offset

    def turned(self) -> "Moments":
        """The last one first."""
        return Moments(self.local[::-1], None if self.offset is None else self.offset[::-1])


class Grid(NamedTuple):
    """Evenly spaced rows.

    Attributes:
        row: `[N]`, the row of each line of the file.
        times: of all rows, datetime64, by the clock of the file.
        unit: from one row to the next: timedelta64, of microseconds or months.
        step: the same in words.
        period: rows of a season: of a day, of the week, of the year.
    """

    row: np.ndarray
    times: np.ndarray
    unit: np.timedelta64
    step: str
    period: int

    def until(self, rows: int) -> np.ndarray:
        """The times of so many rows, past the end of the grid too, by the clock of its last one.

        Example:
            >>> ends = np.array(["2025-01-31", "2025-02-28"], "datetime64[us]")
            >>> Grid(np.arange(2), ends, np.timedelta64(1, "M"), "1 month", 12).until(4).astype("datetime64[D]")[2:]
            array(['2025-03-31', '2025-04-30'], dtype='datetime64[D]')
        """
        more = self.unit * np.arange(1, max(rows - len(self.times), 0) + 1)
        last = self.times[-1]
        if np.datetime_data(self.unit.dtype)[0] == "M":
            month = last.astype("datetime64[M]")
            ends = (np.append(month, month + more) + 1).astype("datetime64[us]")
            left = ends[0] - last
            # The last day of a month is that of the next one too.
            begins = (month + more).astype("datetime64[us]")
            from_begin = np.minimum(begins + (last - month.astype("datetime64[us]")), ends[1:] - 1)
            later = ends[1:] - left if left <= np.timedelta64(1, "D") else from_begin
        else:
            later = last + more
        return np.concatenate([self.times, later])[:rows]


def moments(cells: Sequence[str], lines: Sequence[int], column: str, path: Path) -> Moments:
    """The times of a column, ISO 8601 or such as 31.12.2025 14:00.

    Args:
        cells: fields.
        lines: of the file that they stand in.
        column: its name.
        path: of the file.

    Raises:
        DataDamaged: some are no times, or some say their offset from UTC and others do not.
    """
    read = [_moment(cell) for cell in cells]
    wrong = [f"line {at} {f'holds {cell[:40]!r}' if cell else 'is empty'}" for cell, at, moment in
             zip(cells, lines, read, strict=True) if moment is None]  # fmt: skip
    if wrong:
        fact = f"{len(wrong)} of {len(cells)} times of {column!r} cannot be read: {several(wrong)}"
        raise damaged(path, fact, "write them as 2025-12-31 14:00 or 31.12.2025 14:00")
    known = [moment for moment in read if moment is not None]
    local = np.array([moment[0] for moment in known], np.int64)
    offsets = [moment[1] for moment in known]
    if all(offset is None for offset in offsets):
        return Moments(local, None)
    without = [f"line {at}" for at, offset in zip(lines, offsets, strict=True) if offset is None]
    if without:
        fact = f"{len(without)} of {len(cells)} times of {column!r} have no offset from UTC: {several(without)}"
        raise damaged(path, fact, "write one with all of them, or with none")
    return Moments(local, np.array(offsets, np.int64))


def _moment(cell: str) -> tuple[int, int | None] | None:
    """Microseconds since 1970 by its own clock, and by how much that is ahead of UTC."""
    # Where a day ends with it, 24:00 is the next one's 0:00.
    day_after = _MIDNIGHT.search(cell) is not None
    cell = _MIDNIGHT.sub(r"\1 00:00", cell)
    found = _DAY_FIRST.fullmatch(cell)
    try:
        if found is not None:
            day, month, year, hour, minute, second = (int(part or 0) for part in found.groups())
            time = datetime.datetime(year, month, day, hour, minute, second)
        else:
            time = datetime.datetime.fromisoformat(f"{cell}-01" if _MONTH.fullmatch(cell) else cell)
        time += datetime.timedelta(days=day_after)
    except (ValueError, OverflowError):
        return None
    ahead = time.utcoffset()
    since = time.replace(tzinfo=None) - datetime.datetime(1970, 1, 1)
    unit = datetime.timedelta(microseconds=1)
    return since // unit, None if ahead is None else ahead // unit


def grid(when: Moments, lines: Sequence[int], path: Path) -> Grid:
    """The even grid that times lie on: of a fixed step, the most frequent one, or of whole months.

    Args:
        when: of the lines.
        lines: their numbers in the file.
        path: of the file.

    Raises:
        DataDamaged: times do not rise, or lie beside the grid, or almost all of it is missing.

    Example:
        >>> cells = ["2025-01-01 00:00", "2025-01-01 01:00", "2025-01-01 03:00", "2025-01-01 04:00"]
        >>> made = grid(moments(cells, range(2, 6), "when", Path("x.csv")), range(2, 6), Path("x.csv"))
        >>> made.row.tolist(), made.step, made.period
        ([0, 1, 3, 4], '1:00:00', 24)
    """
    if when.offset is None:
        return _grid(when.local, np.zeros_like(when.local), lines, path)
    try:
        return _grid(when.instants, when.offset, lines, path)
    except DataDamaged:
        # Days from midnight to midnight have 23 hours, or 25, where clocks are put forward and back.
        if (np.diff(when.local) <= 0).any() or (when.local % _DAY).any():
            raise
        return _grid(when.local, np.zeros_like(when.local), lines, path)


def _grid(instants: np.ndarray, offset: np.ndarray, lines: Sequence[int], path: Path) -> Grid:
    _require_rising(instants, instants + offset, lines, path)
    if len(instants) < 2:
        raise damaged(path, "has one row, and no step from it to the next", "take more rows")
    months = _months(instants + offset)
    if months is not None:
        return _monthly(months, instants + offset, path)
    steps, counts = np.unique(np.diff(instants), return_counts=True)
    step = int(steps[counts.argmax()])
    row, beside = np.divmod(instants - instants[0], step)
    if beside.any():
        places = np.flatnonzero(beside).tolist()
        wrong = [f"line {lines[place]} is at {_said(instants[place] + offset[place])}" for place in places]
        fact = f"{len(places)} of {len(row)} rows lie beside the grid of {_length(step)} steps: {several(wrong)}"
        raise damaged(path, fact, "round their times, or leave them out")
    _require_dense(row, _length(step), path)
    # A row that is missing has the clock of the one before it.
    clock = offset[np.searchsorted(row, np.arange(row[-1] + 1), side="right") - 1]
    local = instants[0] + step * np.arange(row[-1] + 1) + clock
    period = _DAY // step if step < _DAY and _DAY % step == 0 else _SEASONS.get(step, 1)
    return Grid(row, local.astype("datetime64[us]"), np.timedelta64(step, "us"), _length(step), period)


def _require_rising(instants: np.ndarray, local: np.ndarray, lines: Sequence[int], path: Path) -> None:
    places = np.flatnonzero(np.diff(instants) <= 0) + 1
    if not places.size:
        return
    wrong = [
        f"line {lines[at]} is at {_said(local[at])}, {'as' if instants[at] == instants[at - 1] else 'before'} line"
        f" {lines[at - 1]}"
        for at in places.tolist()
    ]
    fix = "sort the rows by time"
    if (instants[places] == instants[places - 1]).any() or (np.diff(instants)[places - 1] > -2 * _DAY // 24).any():
        fix += ", and keep one of each time; where clocks are put back, write the offset from UTC, 02:00+01:00"
    raise damaged(path, f"{len(places)} times do not rise: {several(wrong)}", fix)


def _require_dense(row: np.ndarray, step: str, path: Path) -> None:
    rows = int(row[-1]) + 1
    if rows > _MOST_MISSING * len(row):
        fact = f"has {len(row)} rows on a grid of {rows} steps of {step}: almost all of it is missing"
        raise damaged(path, fact, "write rows of one step, or leave out what lies far from the others")


def _months(local: np.ndarray) -> np.ndarray | None:
    """The months of times that are a month apart or more, at the same moment of each, or on its last day."""
    if np.median(np.diff(local)) < 28 * _DAY:
        return None
    days = local.astype("datetime64[us]").astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    of_month = local - months.astype("datetime64[us]").astype(np.int64)
    last = (days + np.timedelta64(1, "D")).astype("datetime64[M]") > months
    same = (of_month == of_month[0]).all() or (last.all() and (local % _DAY == local[0] % _DAY).all())
    return months.astype(np.int64) if same else None


def _monthly(months: np.ndarray, local: np.ndarray, path: Path) -> Grid:
    step = int(np.gcd.reduce(np.diff(months)))
    row = (months - months[0]) // step
    said = {1: "1 month", 12: "1 year"}.get(step, f"{step} months")
    _require_dense(row, said, path)
    all_months = (months[0] + step * np.arange(row[-1] + 1)).astype("datetime64[M]")
    begin = all_months.astype("datetime64[us]").astype(np.int64)
    within = local - months.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)
    if (within != within[0]).any():
        # On the last day of each month, which a month that is missing has, too.
        begin = (all_months + 1).astype("datetime64[us]").astype(np.int64) - _DAY
        within = local % _DAY
    period = 12 // step if 12 % step == 0 else 1
    return Grid(row, (begin + within[0]).astype("datetime64[us]"), np.timedelta64(step, "M"), said, period)


def _said(local: int) -> str:
    return str(np.datetime64(int(local), "us").astype("datetime64[s]")).replace("T", " ")


def _length(step: int) -> str:
    """A stretch of microseconds in words, `1:00:00` or `7 days`."""
    return str(datetime.timedelta(microseconds=step)).removesuffix(", 0:00:00")


def calendar(times: np.ndarray, word: str) -> np.ndarray:
    """Where times lie in a day, a week, a month or a year, as the sine and the cosine of an angle.

        (sin a, cos a),    a = 2 pi (what has passed) / (the whole)

    The hour counts to the microsecond, the others whole days.

    Args:
        times: `[N]` datetime64.
        word: one of `WORDS`.

    Returns:
        `[N, 2]` float64.

    Example:
        >>> calendar(np.array(["2025-12-31T18:00"], "datetime64[us]"), "hour").round(6).tolist()
        [[-1.0, -0.0]]
    """
    days = times.astype("datetime64[D]")
    if word == "hour":
        share = (times - days).astype("timedelta64[us]").astype(np.int64) / _DAY
    elif word == "weekday":
        share = (days.astype(np.int64) + 3) % 7 / 7  # 1970 began on a Thursday
    else:
        unit = "datetime64[M]" if word == "day" else "datetime64[Y]"
        begin = times.astype(unit)
        end = (begin + 1).astype("datetime64[D]")
        share = (days - begin.astype("datetime64[D]")) / (end - begin.astype("datetime64[D]"))
    angle = 2 * np.pi * share
    return np.stack([np.sin(angle), np.cos(angle)], -1)
