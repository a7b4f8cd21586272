"""The window from which to forecast what comes after the last value of a file."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gru_jax.data.csv_column import Window
from gru_jax.data.files import DataFile, damaged
from gru_jax.data.missing import Missing
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.data.series.table import Reading, Table, read_table
from gru_jax.data.series.times import calendar
from gru_jax.data.series.windows import channels, period_of, windows


class Coming(NamedTuple):
    """One window.

    Attributes:
        x: `[1, T, C]`, what the model is shown.
        series: of the file, its rows going on to the last that is told; its splits are empty.
        start: the row of the first value told.
    """

    x: np.ndarray
    series: SeriesFacts
    start: int


def coming(
    content: DataFile,
    reading: Reading,
    window: Window,
    missing: Missing,
    period: int | None,
    quantiles: tuple[float, ...],
    relative: bool,
    scale: Mapping[str, tuple[float, float]],
) -> Coming:
    """The last window of a file that sees a value of the columns told, and the rows after it.

    Columns that are known ahead have to go on for the horizon, in rows where those that are told are empty; a calendar
    goes on by itself.

    Args:
        content: of the file, which may be a longer one than that of training.
        reading: how it is read.
        window: what is seen and told.
        missing: what becomes of a value that is missing and seen.
        period: steps of a season; None for that of the times.
        quantiles: that are told.
        relative: whether the level of a window is the last value known, not the mean.
        scale: of the training part.

    Raises:
        DataDamaged: it cannot be read so, is shorter than a window, or does not say what has to be known.
    """
    table = read_table(content, reading)
    told = np.flatnonzero(~np.isnan(table.values).all(1))
    start = int(told[-1]) + 1 if told.size else 0
    if start < window.steps:
        fact = f"has {start} rows up to the last value of {', '.join(map(repr, reading.target))}, fewer than the window"
        raise damaged(content.path, f"{fact} of {window.steps}", "take more rows")
    longer = _until(table, reading, start + window.horizon)
    for name, known in zip(reading.columns[len(reading.target) :], longer.known[start:].T, strict=True):
        if np.isnan(known).all() or (missing == "refuse" and np.isnan(known).any()):
            fact = f"knows {np.sum(~np.isnan(known))} values of {name!r} after line {table.line[start - 1]}"
            fix = "append rows in which it stands and what is told is empty"
            raise damaged(content.path, f"{fact}, and {window.horizon} are told ahead", fix)
    shown = channels(longer, reading, scale, window.horizon)
    if missing == "refuse" and np.isnan(shown[start - window.steps : start]).any():
        raise damaged(content.path, f"has values missing in the last {window.steps} rows that are seen", "fill them in")
    nothing = np.zeros(0, int)
    facts = SeriesFacts(
        names=reading.target,
        values=longer.values,
        times=None if longer.grid is None else longer.grid.times,
        scale=scale,
        period=period_of(content, table, period, start),
        horizon=window.horizon,
        quantiles=quantiles,
        starts=(nothing,) * 3,
        trained=start,
        relative=relative,
        step=None if table.grid is None else table.grid.step,
    )
    return Coming(windows(shown, facts, np.array([start]), window.steps, missing), facts, start)


def _until(table: Table, reading: Reading, rows: int) -> Table:
    """So many rows of a table; those that it does not have are empty but for their times."""
    more = max(0, rows - len(table.values))
    grid = table.grid
    if grid is not None:
        grid = grid._replace(times=grid.until(rows))
    made = [] if grid is None else [calendar(grid.times, word) for word in reading.words]

    def longer(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.full((more, values.shape[1]), np.nan)])[:rows]

    words = np.concatenate([np.zeros((rows, 0)), *made], 1)
    return Table(longer(table.values), longer(table.known), words, np.pad(table.line, (0, more))[:rows], grid)
