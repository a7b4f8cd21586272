"""Pictures of forecasts: some windows with what came, and the error of each step ahead."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gru_jax.runs.watching.style import COLOURS, Style, legend_below, line, look, new_figure, save

_OWN, _SEASON = COLOURS[0], COLOURS[1]
_BEFORE, _CAME = "0.55", "black"


class Shown(NamedTuple):
    """One window of one column, in the data's units.

    Attributes:
        title: of its panel.
        before: times or rows `[L]`, and values, of the history.
        ahead: times or rows `[H]`, of what is told.
        truth: `[H]`, NaN where a value is missing.
        quantiles: `[H, Q]`; of the mean, Q is 1.
        forecast: `[H]`, the median, or the mean.
        season: `[H]`, the seasonal-naive forecast.
    """

    title: str
    before: tuple[np.ndarray, np.ndarray]
    ahead: np.ndarray
    truth: np.ndarray
    quantiles: np.ndarray
    forecast: np.ndarray
    season: np.ndarray


def windows(
    panels: Sequence[Sequence[Shown]], names: Sequence[str], band: str, path: Path, title: str, style: Style = "talk"
) -> None:
    """History, forecast with its band, what came, and the seasonal-naive forecast.

    Args:
        panels: a row for each column, in each a panel a window.
        names: of the columns, on the axes.
        band: what the band is, in words; "" for none.
        path: picture to write.
        title: over the picture.
        style: for what.
    """
    with look(style):
        figure, axes = new_figure(len(panels), len(panels[0]), style)
        handles: dict[str, Any] = {}
        for row, name, shown in zip(axes, names, panels, strict=True):
            for axis in row[1:]:
                # Before anything is drawn: the range is then that of all.
                axis.sharey(row[0])
                axis.tick_params(labelleft=False)
            for axis, one in zip(row, shown, strict=True):
                handles |= _draw(axis, one, band)
                axis.set_title(one.title)
            row[0].set_ylabel(name)
        figure.suptitle(title)
        legend_below(figure, handles)
        save(figure, path)


def _draw(axis: Any, shown: Shown, band: str) -> dict[str, Any]:
    """Draws one window: label -> what was drawn."""
    found: dict[str, Any] = {}
    (found["before"],) = axis.plot(*shown.before, color=_BEFORE, zorder=2)
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
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        # So many that it finds an interval for every stretch: it warns where it does not.
        locator = AutoDateLocator(minticks=2, maxticks=5)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return found


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
        handles: dict[str, Any] = {}
        for axis, (name, errors) in zip(axes[0], panels.items(), strict=True):
            for number, (label, error) in enumerate(errors.items()):
                steps = np.arange(1, len(error) + 1)
                looks = dict(line(number)) | ({} if number == 0 else {"linestyle": "--"})
                marks = {"marker": "o"} if len(error) == 1 else {}
                (handles[label],) = axis.plot(steps, error, **(looks | marks))
            axis.set(xlabel=ahead, ylabel=f"MAE, {name}", ylim=(0, None))
            axis.margins(x=0.02)
            axis.xaxis.get_major_locator().set_params(integer=True)
        figure.suptitle(title)
        legend_below(figure, handles)
        save(figure, path)
