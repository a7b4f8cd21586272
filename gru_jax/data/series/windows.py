"""Windows of a CSV file's columns, and what is to be told after them: the task of kind series."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data import files
from gru_jax.data.csv_column import Window, Windows
from gru_jax.data.dataset import Dataset, Split, TaskShape
from gru_jax.data.files import MB, DataFile, check_sizes, damaged, fingerprint, several
from gru_jax.data.missing import Missing, features, filled
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.data.series.table import Reading, Table, read_table

_LIMIT = 64 * MB
# Windows that are filled at once: what stands beside them meanwhile is many times as large.
_AT_ONCE = 1024
# Deviations between the means of training and test, from which on a model does not know the level it is tested on.
_FAR = 1.5


class Parts(NamedTuple):
    """The shares of the rows in which values are told for training, validation and testing."""

    train: float
    valid: float
    test: float


def shape(
    reading: Reading, window: Window, missing: Missing, quantiles: tuple[float, ...], sizes: Windows
) -> TaskShape:
    """The sizes of the task; nothing is read.

    Example:
        >>> reading = Reading(("load",), ("temperature", "hour"), time=("when",))
        >>> shape(reading, Window(168, 24), "gaps", (0.1, 0.5, 0.9), Windows(400, 80, 150))[:6]
        (400, 80, 150, 168, 12, 72)
    """
    channels = len(reading.columns) + 2 * len(reading.words)
    outputs = window.horizon * len(reading.target) * max(1, len(quantiles))
    return TaskShape(
        *sizes,
        time=window.steps,
        features=features(channels, missing),
        outputs=outputs,
        target="values",
        gaps=missing == "gaps",
        quantiles=quantiles,
    )


def read(file: str, beside: str | None, data_root: str | None) -> DataFile:
    """The file, beside the config or below the folder of data files.

    Args:
        file: its name.
        beside: the folder of the config; None where it is not known.
        data_root: see `files.root`.

    Raises:
        DataMissing: it is in neither; the message says where it was looked for.
        DataDamaged: it is empty, too large, or no regular file.
    """
    return files.read(files.find([file] if beside is None else [str(Path(beside, file)), file], data_root), _LIMIT)


def read_again(file: str, data_root: str | None) -> DataFile:
    """The file of a run: where it was, or, by its bare name, below the folder of data files."""
    return files.read(files.find([file, file.replace("\\", "/").rpartition("/")[2]], data_root), _LIMIT)


def sizes_of(
    content: DataFile, reading: Reading, window: Window, missing: Missing, period: int | None, split: Parts
) -> Windows:
    """How many windows tell something, in each part of a file.

    Raises:
        DataDamaged: the file cannot be read so; it has values missing, and they are refused.
    """
    table = _table(content, reading, missing)
    period_of(content, table, period, _ends(len(table.values), split)[0])
    return Windows(*(len(starts) for starts in _starts(table.values, window, _ends(len(table.values), split))))


def load(
    file: str,
    reading: Reading,
    window: Window,
    missing: Missing,
    period: int | None,
    quantiles: tuple[float, ...],
    split: Parts,
    relative: bool,
    sizes: Windows,
    data_root: str | None,
) -> Dataset:
    """Windows of a series: x `[M, T, D + K]`, three times as wide with gaps, y `[M, H D]`, NaN where one is missing.

    Every column is taken less its mean and over its deviation, both of the training part; with `relative` those that
    are told less the last value known before the horizon. Sines and cosines are as they are. What is known ahead is
    given as of the step that is told: at step t of a window stands what is known of step t + H, so that its last H
    steps carry all of the horizon.

    Args:
        file: of the data, absolute or below `data_root`.
        reading: how it is read.
        window: what is seen and told.
        missing: what becomes of a value that is missing and seen, see `missing.filled`; all columns are filled alike.
        period: steps of a season; None for that of the grid.
        quantiles: that are told; () for the mean.
        split: shares of the rows, the later parts last.
        relative: whether the level of a window is the last value known, not the mean.
        sizes: windows in each part.
        data_root: the folder of data files.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: it cannot be read so, or has other sizes.
    """
    content = read_again(file, data_root)
    table = _table(content, reading, missing)
    ends = _ends(len(table.values), split)
    starts = _starts(table.values, window, ends)
    check_sizes(content.path, **{name: (getattr(sizes, name), len(part)) for name, part in
                                 zip(Windows._fields, starts, strict=True)})  # fmt: skip
    facts = SeriesFacts(
        names=reading.target,
        values=table.values,
        times=None if table.grid is None else table.grid.times,
        scale=_scale(content, reading, table, ends[0]),
        period=period_of(content, table, period, ends[0]),
        horizon=window.horizon,
        quantiles=quantiles,
        starts=starts,
        trained=ends[0],
        relative=relative,
        step=None if table.grid is None else table.grid.step,
    )
    if relative:
        facts = facts._replace(scale={**facts.scale, **_from_the_last(facts)})
    shown = channels(table, reading, facts.scale, window.horizon)
    train, valid, test = (_split(shown, facts, each, window, missing) for each in starts)
    return Dataset(
        train,
        valid,
        test,
        _description(content, reading, window, facts, table),
        fingerprint([content], "series", *reading, *window, missing, *split, relative),
        series=facts,
    )


def _table(content: DataFile, reading: Reading, missing: Missing) -> Table:
    """The rows of the file up to the last that is told; raises where values are missing that must not be."""
    table = read_table(content, reading)
    told = np.flatnonzero(~np.isnan(table.values).all(1))
    # What is known ahead may go on, for the forecast of what comes.
    rows = int(told[-1]) + 1 if told.size else len(table.values)
    grid = None if table.grid is None else table.grid._replace(times=table.grid.times[:rows])
    table = Table(table.values[:rows], table.known[:rows], table.calendar[:rows], table.line[:rows], grid)
    if missing != "refuse":
        return table
    lost = np.isnan(np.concatenate([table.values, table.known], 1))
    places = np.flatnonzero(lost.any(1))
    if places.size:
        before = np.maximum.accumulate(table.line)
        said = [
            f"line {table.line[row]} ({', '.join(np.array(reading.columns)[lost[row]])})"
            if table.line[row]
            else f"no row after line {before[row]}"
            for row in places
        ]
        fact = f"{len(places)} of {len(lost)} rows have values missing: {several(list(dict.fromkeys(said)))}"
        raise damaged(content.path, fact, "fill them in, or say what becomes of them: missing: gaps, last or zeros")
    return table


def _ends(rows: int, split: Parts) -> tuple[int, int, int]:
    """The rows after the last of each part."""
    return round(rows * split.train), round(rows * (split.train + split.valid)), rows


def _starts(
    values: np.ndarray, window: Window, ends: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The row of the first value told, of the windows of each part that tell some value."""
    seen = np.concatenate([[0], np.cumsum(~np.isnan(values).all(1))])

    def part(begin: int, end: int, stride: int) -> np.ndarray:
        rows = np.arange(max(begin, window.steps), max(end - window.horizon + 1, 0), stride)
        return rows[seen[rows + window.horizon] > seen[rows]]

    return part(0, ends[0], window.stride), part(ends[0], ends[1], 1), part(ends[1], ends[2], 1)


def period_of(content: DataFile, table: Table, period: int | None, trained: int) -> int:
    """Steps of a season: as said, or as the times have it, or 1 where the training part has not two of them."""
    if period is not None:
        if period >= trained:
            fact = f"has {trained} rows in its training part, and a season of {period}"
            raise damaged(content.path, fact, "choose a shorter period, or take more rows")
        return period
    of_grid = 1 if table.grid is None else table.grid.period
    return of_grid if 2 * of_grid <= trained else 1


def _scale(content: DataFile, reading: Reading, table: Table, trained: int) -> dict[str, tuple[float, float]]:
    """Mean and deviation of every column in the training part."""
    rows = np.concatenate([table.values, table.known], 1)[:trained]
    for name, empty in zip(reading.columns, np.isnan(rows).all(0), strict=True):
        if empty:
            raise damaged(content.path, f"has no value of {name!r} in its training part", "fill some in")
    found = zip(np.nanmean(rows, 0).tolist(), _deviation(np.nanstd(rows, 0), rows).tolist(), strict=True)
    return dict(zip(reading.columns, found, strict=True))


def _deviation(found: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Deviations of columns `[N, D]`, 1 for one that is constant: what comes of it later must not become huge."""
    return np.where(found <= 1e-9 * np.nanmax(np.abs(rows), 0), 1.0, found)


def _from_the_last(facts: SeriesFacts) -> dict[str, tuple[float, float]]:
    """Mean of every column told, and its deviation from the last value known, in the training windows."""
    starts = facts.starts[0]
    off = facts.told(starts) - facts.last(starts)[:, None]
    # Of a column that none of the windows tells, the mean square of nothing is 0.
    deviation = np.sqrt(np.nan_to_num(off**2).sum((0, 1)) / np.maximum((~np.isnan(off)).sum((0, 1)), 1))
    found = zip(facts.mean.tolist(), _deviation(deviation, facts.values[: facts.trained]).tolist(), strict=True)
    return dict(zip(facts.names, found, strict=True))


def channels(table: Table, reading: Reading, scale: Mapping[str, tuple[float, float]], horizon: int) -> np.ndarray:
    """What a window shows, `[N, C]`: the columns that are told, and of the step `horizon` later what is known.

    The last rows, of which nothing is known so far ahead, have NaN there.
    """
    means, deviations = np.array([scale[name] for name in reading.columns]).T
    told = table.values.shape[1]
    known = np.concatenate([(table.known - means[told:]) / deviations[told:], table.calendar], 1)
    later = np.concatenate([known[horizon:], np.full_like(known[:horizon], np.nan)])
    return np.concatenate([(table.values - means[:told]) / deviations[:told], later], 1)


def _split(shown: np.ndarray, facts: SeriesFacts, starts: np.ndarray, window: Window, missing: Missing) -> Split:
    told = (facts.told(starts) - facts.level(starts)[:, None]) / facts.deviation
    return Split(
        windows(shown, facts, starts, window.steps, missing), told.reshape(len(starts), -1).astype(np.float32)
    )


def windows(shown: np.ndarray, facts: SeriesFacts, starts: np.ndarray, steps: int, missing: Missing) -> np.ndarray:
    """The rows before each of the rows `starts`, less their level and without holes: `[M, T, features]` float32."""
    level = np.zeros((len(starts), shown.shape[1]))
    level[:, : len(facts.names)] = (facts.level(starts) - facts.mean) / facts.deviation
    views = np.lib.stride_tricks.sliding_window_view(shown, steps, axis=0)
    x = np.empty((len(starts), steps, features(shown.shape[1], missing)), np.float32)
    for first in range(0, len(starts), _AT_ONCE):
        rows = starts[first : first + _AT_ONCE]
        seen = views[rows - steps] - level[first : first + _AT_ONCE, :, None]
        x[first : first + _AT_ONCE] = filled(seen.swapaxes(1, 2).astype(np.float32), missing)
    return x


def _description(content: DataFile, reading: Reading, window: Window, facts: SeriesFacts, table: Table) -> str:
    columns = f"column{'s' if len(reading.target) > 1 else ''} {', '.join(map(repr, reading.target))}"
    rows = f"{len(table.values)} rows" + ("" if table.grid is None else f" of {table.grid.step}")
    untold, unknown = (np.isnan(each).any(1) for each in (table.values, table.known))
    lost = int((untold | unknown).sum())
    holes = f", {lost} with values missing" if lost else ""
    if untold.sum() < lost:
        holes += f" ({int(untold.sum())} in the target)"
    season = f", a season of {facts.period}" if facts.period > 1 else ""
    train, valid, test = map(len, facts.starts)
    return (
        f"{content.path.name}, {columns}: the next {window.horizon} from {window.steps}; {rows}{holes}{season};"
        f" split by time: {train} train, {valid} validation, {test} test{_drift(facts)}"
    )


def _drift(facts: SeriesFacts) -> str:
    """What is said of a series whose test part lies where no training window was."""
    told = facts.told(facts.starts[2])
    known = ~np.isnan(told)
    off = np.abs(np.where(known, told - facts.mean, 0).sum((0, 1))) / np.maximum(known.sum((0, 1)), 1) / facts.deviation
    if facts.relative or off.max() < _FAR:
        return ""
    far = facts.names[int(off.argmax())]
    return f"; {far!r} drifts, by {off.max():.1f} deviations until the test: relative: true is for that"
