"""Pictures of forecasts: some windows with what came, and the error of each step ahead."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gru_jax.runs.watching.style import COLOURS, Style, legend_below, line, look, new_figure, save

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_OWN, _SEASON = COLOURS[0], COLOURS[1]
_BEFORE, _CAME = "0.55", "black"


class Shown(NamedTuple):
    """One window of one column, in the data's units.

    Attributes:
        case: how it was picked, over the first panel that shows it; "" for the only window there is.
        error: of the forecast, over each panel of a case.
        before: times or rows `[L]`, and values, of the history.
        ahead: times or rows `[H]`, of what is told.
        truth: `[H]`, NaN where a value is missing.
        quantiles: `[H, Q]`; of the mean, Q is 1.
        forecast: `[H]`, the median, or the mean.
        season: `[H]`, the seasonal-naive forecast.
    """

    case: str
    error: str
    before: tuple[np.ndarray, np.ndarray]
    ahead: np.ndarray
    truth: np.ndarray
    quantiles: np.ndarray
    forecast: np.ndarray
    season: np.ndarray


def windows(
    panels: Sequence[Sequence[Shown]],
    names: Sequence[str],
    words: tuple[str, str],
    path: Path,
    title: str,
    style: Style = "talk",
) -> None:
    """History, forecast with its band, what came, and the seasonal-naive forecast.

    Args:
        panels: a row for each column, in each a panel a window.
        names: of the columns, on the axes.
        words: what is drawn of the history, and what the band is; "" for no band.
        path: picture to write.
        title: over the picture.
        style: for what.
    """
    with look(style):
        figure, axes = new_figure(len(panels), len(panels[0]), style)
        handles: dict[str, Artist] = {}
        for number, (row, name, shown) in enumerate(zip(axes, names, panels, strict=True)):
            for axis in row[1:]:
                # Before anything is drawn: the range is then that of all.
                axis.sharey(row[0])
                axis.tick_params(labelleft=False)
            for axis, one in zip(row, shown, strict=True):
                handles |= _draw(axis, one, *words)
                words_above = [one.case] if one.case and number == 0 else []
                axis.set_title("\n".join([*words_above, *([one.error] if one.case else [])]))
            row[0].set_ylabel(name)
        figure.suptitle(title)
        legend_below(figure, handles)
        save(figure, path)


def _draw(axis: "Axes", shown: Shown, before: str, band: str) -> dict[str, "Artist"]:
    """Draws one window: label -> what was drawn."""
    found: dict[str, Artist] = {}
    (found[before],) = axis.plot(*shown.before, color=_BEFORE, zorder=2)
    # From the last value that was seen on, or what came would begin with a gap.
    since = np.concatenate([shown.before[0][-1:], shown.ahead])
    if np.isfinite(shown.truth).any():
        truth = np.concatenate([shown.before[1][-1:], shown.truth])
        (found["what came"],) = axis.plot(since, truth, color=_CAME, zorder=4)
    (season,) = axis.plot(shown.ahead, shown.season, "--", color=_SEASON, zorder=3)
    (own,) = axis.plot(shown.ahead, shown.forecast, color=_OWN, zorder=5)
    found |= {"forecast": own, "seasonal-naive": season}
    quantiles = shown.quantiles.shape[1]
    for low in range(quantiles // 2):
        edges = shown.quantiles[:, [low, -1 - low]].T
        filled = axis.fill_between(shown.ahead, *edges, color=_OWN, alpha=0.25, linewidth=0, zorder=1)
        found |= {band: filled} if low == 0 else {}
    axis.axvline(shown.before[0][-1], color="0.8", zorder=0)
    axis.margins(x=0.01)
    if np.issubdtype(shown.ahead.dtype, np.datetime64):
        from matplotlib.dates import AutoDateLocator, num2date
        from matplotlib.ticker import Formatter

        class Dates(Formatter):
            """Each tick with its day; matplotlib's own says "Jan" for the first of January."""

            def format_ticks(self, values: Iterable[float]) -> list[str]:
                return dates([num2date(value) for value in values])

        # So many that it finds an interval for every stretch: it warns where it does not.
        locator = AutoDateLocator(minticks=2, maxticks=5)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(Dates())
    return found


def dates(ticks: Sequence[datetime]) -> list[str]:
    r"""What stands at the ticks of an axis of time: the day at each, the year at the first and where another begins.

    Example:
        >>> dates([datetime(2025, 12, 31), datetime(2026, 1, 1), datetime(2026, 1, 2)])
        ['31 Dec\n2025', '1 Jan\n2026', '2 Jan']
        >>> dates([datetime(2026, 1, 1, 6), datetime(2026, 1, 1, 12)])
        ['06:00\n1 Jan\n2026', '12:00']
    """
    timed = any((tick.hour, tick.minute, tick.second) != (0, 0, 0) for tick in ticks)
    monthly = not timed and all(tick.day == 1 for tick in ticks) and len(ticks) > 1
    clock = "%H:%M:%S" if any(tick.second for tick in ticks) else "%H:%M"
    said: list[str] = []
    for number, tick in enumerate(ticks):
        last = ticks[number - 1] if number else None
        new_day = last is None or last.date() != tick.date()
        parts = [tick.strftime(clock)] if timed else []
        if new_day:
            parts.append(tick.strftime("%b") if monthly else f"{tick.day} {tick.strftime('%b')}")
        if last is None or last.year != tick.year:
            parts.append(str(tick.year))
        said.append("\n".join(parts))
    return said


def by_horizon(
    panels: Mapping[str, Mapping[str, np.ndarray]], ahead: str, path: Path, title: str, style: Style = "talk"
) -> None:
    """The mean absolute error against the steps ahead, a panel a column.

    Args:
        panels: column -> label -> `[H]`, the run's own first.
        ahead: what is on the other axis.
        path: picture to write.
        title: over the picture.
        style: for what.
    """
    with look(style):
        figure, axes = new_figure(1, len(panels), style)
        handles: dict[str, Artist] = {}
        for axis, (name, errors) in zip(axes[0], panels.items(), strict=True):
            for number, (label, error) in enumerate(errors.items()):
                steps = np.arange(1, len(error) + 1)
                looks = dict(line(number)) | ({} if number == 0 else {"linestyle": "--"})
                marks = {"marker": "o"} if len(error) == 1 else {}
                (handles[label],) = axis.plot(steps, error, **(looks | marks))
            axis.set(xlabel=ahead, ylabel=f"MAE, {name}", ylim=(0, None))
            axis.margins(x=0.02)
            # The first and the last step among them.
            axis.set_xticks(np.unique(np.linspace(1, steps[-1], min(steps[-1], 6)).round()))
        figure.suptitle(title)
        legend_below(figure, handles)
        save(figure, path)
