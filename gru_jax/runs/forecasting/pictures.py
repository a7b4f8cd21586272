"""The pictures of a run that forecasts: a good, a median and a bad window, and the error of each step ahead."""

from pathlib import Path

import numpy as np

from gru_jax.data.series.facts import SeriesFacts
from gru_jax.runs.forecasting.baselines import NAMES
from gru_jax.runs.forecasting.forecasts import Forecasts, errors, moment
from gru_jax.runs.watching import forecast_plots
from gru_jax.runs.watching.forecast_plots import Shown
from gru_jax.runs.watching.style import Style

# What is said of a window, and the share of windows that are better.
_CASES = {"better than 9 of 10": 0.1, "the median": 0.5, "worse than 9 of 10": 0.9}
_MOST_COLUMNS = 3
_UNITS = {3600: "hours", 86_400: "days", 604_800: "weeks", 60: "minutes", 1: "seconds"}


def draw(folder: Path, name: str, made: Forecasts, style: Style = "talk", suffix: str = ".png") -> list[Path]:
    """Writes `forecast.png` and `error_by_horizon.png`; returns their paths.

    Args:
        folder: to write them to.
        name: of the run.
        made: its forecasts of the test split.
        style: for what they are.
        suffix: in place of .png.
    """
    paths = [folder / f"forecast{suffix}", folder / f"error_by_horizon{suffix}"]
    _windows(paths[0], name, made, style)
    _by_horizon(paths[1], name, made, style)
    return paths


def _windows(path: Path, name: str, made: Forecasts, style: Style) -> None:
    series = made.series
    # In deviations, so that columns of all units count alike.
    off = np.abs(made.forecast - made.truth) / series.deviation
    ranked = np.argsort([np.nanmean(each) for each in off], kind="stable")
    picked = {case: int(ranked[round(share * (len(ranked) - 1))]) for case, share in _CASES.items()}
    columns = range(len(series.names[:_MOST_COLUMNS]))
    panels = [[_shown(case, at, place, made) for case, at in picked.items()] for place in columns]
    title = f"{name}, {series.horizon} {_unit(series)} ahead: three of {len(off)} test windows"
    words = _before(made), _band(series)
    forecast_plots.windows(panels, series.names[:_MOST_COLUMNS], words, path, title, style)


def draw_coming(path: Path, name: str, made: Forecasts) -> None:
    """Writes the picture of the one window that is forecast after the last value.

    Args:
        path: picture to write.
        name: of the run.
        made: the forecast.
    """
    series = made.series
    panels = [[_shown("", 0, place, made)] for place in range(len(series.names[:_MOST_COLUMNS]))]
    title = f"{name}: the {series.horizon} {_unit(series)} after {moment(series, int(made.starts[0]) - 1)}"
    forecast_plots.windows(panels, series.names[:_MOST_COLUMNS], (_before(made), _band(series)), path, title)


def _before(made: Forecasts) -> str:
    """What is drawn of what the model is shown, in words."""
    shown, unit = _drawn(made), _unit(made.series)
    return f"the {shown} {unit} it saw" if shown == made.seen else f"the last {shown} of {made.seen} {unit} it saw"


def _drawn(made: Forecasts) -> int:
    """How many rows of what the model is shown fit beside the forecast."""
    return min(made.seen, max(4 * made.series.horizon, 48))


def _band(series: SeriesFacts) -> str:
    quantiles = series.quantiles
    return f"{100 * quantiles[0]:g} to {100 * quantiles[-1]:g} %" if len(quantiles) > 1 else ""


def _shown(case: str, window: int, place: int, made: Forecasts) -> Shown:
    series, start = made.series, int(made.starts[window])
    history = slice(max(0, start - _drawn(made)), start)
    ahead = slice(start, start + series.horizon)
    axis = np.arange(len(series.values)) if series.times is None else series.times
    off = np.abs(made.forecast[window, :, place] - made.truth[window, :, place])
    error = f"MAE {np.nanmean(off):.3g}" if np.isfinite(off).any() else "nothing came"
    return Shown(
        case,
        error,
        (axis[history], series.values[history, place]),
        axis[ahead],
        made.truth[window, :, place],
        made.quantiles[window, :, place],
        made.forecast[window, :, place],
        made.others["seasonal_naive"][window, :, place],
    )


def _by_horizon(path: Path, name: str, made: Forecasts, style: Style) -> None:
    labels = {name: made.forecast} | {NAMES[each]: other for each, other in made.others.items()}
    errors_of = {label: errors(each, made.truth, made.series).by_horizon for label, each in labels.items()}
    panels = {
        column: {label: error[:, place] for label, error in errors_of.items()}
        for place, column in enumerate(made.series.names[:_MOST_COLUMNS])
    }
    title = f"{name}: mean absolute error, test split"
    forecast_plots.by_horizon(panels, f"{_unit(made.series)} ahead", path, title, style)


def _unit(series: SeriesFacts) -> str:
    """What a step is, in the plural."""
    if series.times is None or len(series.times) < 2:
        return "steps"
    step = np.median(np.diff(series.times).astype("timedelta64[s]").astype(float))
    return _UNITS.get(int(step), "steps")
