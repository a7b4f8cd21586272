"""What a forecast has to be better than: the last value, the last season, and a linear model of the same window."""

from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset, Split
from gru_jax.data.series.facts import SeriesFacts

NAMES = {"seasonal_naive": "seasonal-naive", "linear": "linear", "naive": "naive"}
"""The baselines by their names in result.json, and in words."""

# Of the linear model: training windows, validation windows, and inputs, those nearest to what is told.
_MOST_FITTED, _MOST_PICKED, _MOST_INPUTS = 4096, 2048, 1024
_PENALTIES = 10.0 ** np.arange(-6, 4)


def baselines(
    dataset: Dataset, series: SeriesFacts, starts: np.ndarray, seen: np.ndarray, gaps: bool
) -> dict[str, np.ndarray]:
    """What each of them forecasts for windows, in the data's units: name -> `[M, H, D]`.

    Args:
        dataset: of the task.
        series: of the dataset.
        starts: `[M]`, the row of the first value told.
        seen: `[M, T, C]`, the windows, as the model sees them.
        gaps: whether masks and times since stand beside the values that are seen.

    Returns:
        The baselines; without the linear one where no training window tells all of its values.
    """
    found = {"seasonal_naive": seasonal_naive(series, starts)}
    fitted = linear(dataset, series, gaps)
    if fitted is not None:
        made = fitted(_inputs(seen, series, gaps)).reshape(len(starts), series.horizon, -1)
        found["linear"] = made * series.deviation + series.level(starts)[:, None]
    return found | {"naive": naive(series, starts)}


def naive(series: SeriesFacts, starts: np.ndarray) -> np.ndarray:
    """The last value that is known before each window begins to tell, at all of its steps.

    Args:
        series: of the dataset.
        starts: `[M]`, the row of the first value told.

    Returns:
        `[M, H, D]`; the mean of the training part where there is none.
    """
    return np.repeat(series.last(starts)[:, None], series.horizon, 1)


def seasonal_naive(series: SeriesFacts, starts: np.ndarray) -> np.ndarray:
    """The value at the same step of the last season in which it is known; where there is none, that of `naive`.

    Args:
        series: of the dataset.
        starts: `[M]`, the row of the first value told.

    Returns:
        `[M, H, D]`.
    """
    period, rows = series.period, len(series.values)
    seasons = -(-rows // period)
    whole = np.full((seasons * period, series.values.shape[1]), np.nan)
    whole[:rows] = series.values
    same_step = whole.reshape(seasons, period, -1)
    known = np.maximum.accumulate(np.where(np.isnan(same_step), -1, np.arange(seasons)[:, None, None]), 0)
    filled = np.take_along_axis(same_step, np.maximum(known, 0), 0).reshape(whole.shape)
    ahead = np.arange(series.horizon)
    # So many seasons before, that all of it lies before the window begins to tell.
    at = starts[:, None] + ahead - (ahead // period + 1) * period
    made = np.where((at < 0)[..., None], np.nan, filled[at])
    return np.where(np.isnan(made), naive(series, starts), made)


class Ridge(NamedTuple):
    """`(inputs - mean) @ weight + bias`, of inputs `[M, P]`."""

    mean: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        return (inputs - self.mean) @ self.weight + self.bias


def linear(dataset: Dataset, series: SeriesFacts, gaps: bool) -> Ridge | None:
    """A linear model of the window, all steps at once, by ridge regression on some of the training windows.

        min_W |Y - X W|^2 / n + penalty |W|^2

    It sees the values told in the window, the last known ones where some are missing, and what is known ahead of the
    horizon; the penalty is the one with the least absolute error on validation windows.

    Args:
        dataset: of the task.
        series: of the dataset.
        gaps: whether masks and times since stand beside the values that are seen.

    Returns:
        The model, of what the network tells; None where no training window tells all of its values.

    Source: Hoerl and Kennard 1970, Ridge regression.
    """
    train, valid = windows_of(dataset, "train"), windows_of(dataset, "valid")
    x, y = _some(train, np.flatnonzero(~np.isnan(np.asarray(train.y)).any(1)), _MOST_FITTED)
    if not len(y):
        return None
    inputs = _inputs(x, series, gaps)
    mean, bias = inputs.mean(0), y.mean(0)
    inputs, y = inputs - mean, y - bias
    # Of the spectrum every penalty is one product.
    values, vectors = np.linalg.eigh(inputs.T @ inputs / len(y))
    turned = vectors.T @ (inputs.T @ y / len(y))
    values = np.maximum(values, 0)
    models = [Ridge(mean, vectors @ (turned / (values + penalty)[:, None]), bias) for penalty in _PENALTIES]
    x, y = _some(valid, np.arange(len(valid.y)), _MOST_PICKED)
    picked = _inputs(x, series, gaps)
    return min(models, key=lambda model: float(np.nanmean(np.abs(model(picked) - y))))


def windows_of(dataset: Dataset, split: str) -> Split:
    """The windows of a split of a series, which all lie in memory."""
    found = getattr(dataset, split)
    assert isinstance(found, Split)
    return found


def _some(split: Split, rows: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many of the rows of a split, evenly spread."""
    rows = rows[:: max(1, -(-len(rows) // most))]
    return np.asarray(split.x)[rows], np.asarray(split.y)[rows].astype(np.float64)


def _inputs(x: np.ndarray, series: SeriesFacts, gaps: bool) -> np.ndarray:
    """What the linear model sees of windows `[M, T, C]`: `[M, P]`."""
    told = len(series.names)
    channels = x.shape[2] // 3 if gaps else x.shape[2]
    ahead = x[:, max(0, x.shape[1] - series.horizon) :, told:channels].reshape(len(x), -1)
    if ahead.shape[1] > _MOST_INPUTS // 2:
        ahead = ahead[:, :0]
    steps = min(x.shape[1], max(1, (_MOST_INPUTS - ahead.shape[1]) // told))
    return np.concatenate([x[:, -steps:, :told].reshape(len(x), -1), ahead], 1).astype(np.float64)
