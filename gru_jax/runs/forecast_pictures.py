"""The pictures of a run that forecasts: a good, a median and a bad window, and the error of each step ahead."""

from pathlib import Path

import numpy as np

from gru_jax.data.dataset import Dataset
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.runs.baselines import NAMES, baselines, seasonal_naive, windows_of
from gru_jax.runs.forecasts import Forecasts, errors, moment
from gru_jax.runs.watching import forecast_plots
from gru_jax.runs.watching.forecast_plots import Shown

# The share of windows that are better.
_CASES = {"good": 0.1, "median": 0.5, "bad": 0.9}
_MOST_COLUMNS = 3
_UNITS = {3600: "hours", 86_400: "days", 604_800: "weeks", 60: "minutes", 1: "seconds"}


def draw(folder: Path, name: str, found: Forecasts, dataset: Dataset, series: SeriesFacts, gaps: bool) -> list[Path]:
    """Writes `forecast.png` and `error_by_horizon.png`; returns their paths.

    Args:
        folder: to write them to.
        name: of the run.
        found: its forecasts of the test split.
        dataset: of its task.
        series: of the dataset.
        gaps: whether masks and times since stand beside the values that are seen.
    """
    paths = [folder / "forecast.png", folder / "error_by_horizon.png"]
    _windows(paths[0], name, found, series)
    _by_horizon(paths[1], name, found, dataset, series, gaps)
    return paths


def _windows(path: Path, name: str, found: Forecasts, series: SeriesFacts) -> None:
    names = series.names[:_MOST_COLUMNS]
    off = np.abs(found.forecast - found.truth)
    # In deviations, so that columns of all units count alike.
    ranked = np.argsort([np.nanmean(each) for each in off / series.deviation], kind="stable")
    panels = []
    for case, share in _CASES.items():
        window = int(ranked[round(share * (len(ranked) - 1))])
        panels.append([_shown(case, window, place, off, found, series) for place in range(len(names))])
    band = ""
    if len(series.quantiles) > 1:
        low, high = series.quantiles[0], series.quantiles[-1]
        band = f"from {100 * low:g} % to {100 * high:g} %"
    title = f"{name}: {series.horizon} {_ahead(series)} ahead, by test error: of 10 windows 1, 5, 9 are better"
    forecast_plots.windows(panels, names, band, path, title)


def _shown(case: str, window: int, place: int, off: np.ndarray, found: Forecasts, series: SeriesFacts) -> Shown:
    start = int(found.starts[window])
    history = slice(max(0, start - max(2 * series.horizon, min(2 * series.period, 6 * series.horizon))), start)
    ahead = np.arange(start, start + series.horizon)
    axis = np.arange(len(series.values)) if series.times is None else series.times
    error = np.nanmean(off[window, :, place]) if not np.isnan(off[window, :, place]).all() else np.nan
    return Shown(
        f"{case}, from {moment(series, start - 1)}: MAE {error:.3g}",
        (axis[history], series.values[history, place]),
        axis[ahead],
        found.truth[window, :, place],
        found.quantiles[window, :, place],
        found.centre,
        seasonal_naive(series, found.starts[window : window + 1])[0, :, place],
    )


def _by_horizon(
    path: Path, name: str, found: Forecasts, dataset: Dataset, series: SeriesFacts, gaps: bool
) -> None:
    seen = np.asarray(windows_of(dataset, "test").x)[found.windows]
    others = baselines(dataset, series, found.starts, seen, gaps)
    made = {name: found.forecast} | {NAMES[each]: forecast for each, forecast in others.items()}
    errors_of = {label: errors(forecast, found.truth, series).by_horizon for label, forecast in made.items()}
    panels = {
        column: {label: error[:, place] for label, error in errors_of.items()}
        for place, column in enumerate(series.names[:_MOST_COLUMNS])
    }
    forecast_plots.by_horizon(panels, f"{_ahead(series)} ahead", path, f"{name}: test error of each step ahead")


def _ahead(series: SeriesFacts) -> str:
    """What a step is, in the plural."""
    if series.times is None or len(series.times) < 2:
        return "steps"
    step = np.median(np.diff(series.times).astype("timedelta64[s]").astype(float))
    return _UNITS.get(int(step), "steps")
