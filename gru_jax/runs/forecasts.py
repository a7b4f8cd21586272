"""What forecasts of series are worth, in the data's own units, beside what they have to be better than."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.runs.answers import Answers
from gru_jax.runs.baselines import NAMES, baselines, seasonal_naive, windows_of

_SPLITS = ("train", "valid", "test")


class Forecasts(NamedTuple):
    """Those of M windows, H steps ahead, of D columns, in the data's units.

    Attributes:
        windows: `[M]`, their places in the split.
        starts: `[M]`, the row of the first value told.
        truth: `[M, H, D]`, NaN where a value is missing.
        quantiles: `[M, H, D, Q]`, rising; of the mean, Q is 1.
        centre: which of them is the forecast that errors are taken of: the median.
    """

    windows: np.ndarray
    starts: np.ndarray
    truth: np.ndarray
    quantiles: np.ndarray
    centre: int

    @property
    def forecast(self) -> np.ndarray:
        """`[M, H, D]`, the median, or the mean."""
        return self.quantiles[..., self.centre]


def forecasts(found: Answers, series: SeriesFacts, split: str) -> Forecasts:
    """What answers on a split say in the data's units.

    Quantiles that cross are sorted, which is never further from the truth (Chernozhukov et al. 2010).

    Args:
        found: the answers.
        series: of the dataset.
        split: "train", "valid" or "test".
    """
    starts = series.starts[_SPLITS.index(split)][found.sequence]
    told = found.outputs.astype(np.float64).reshape(len(starts), series.horizon, len(series.names), -1)
    told = np.sort(told * series.deviation[:, None] + series.mean[:, None], -1)
    centre = series.quantiles.index(0.5) if series.quantiles else 0
    return Forecasts(found.sequence, starts, series.told(starts), told, centre)


class Errors(NamedTuple):
    """Errors of forecasts, each `[D]`, NaN where nothing is known of a column.

    Attributes:
        mae: mean absolute error.
        rmse: root of the mean square error.
        mase: mean absolute error over that of the seasonal-naive forecast in the training part.
        smape: mean of 200 |y - f| / (|y| + |f|), percent.
        by_horizon: `[H, D]`, the mean absolute error of each step ahead.
    """

    mae: np.ndarray
    rmse: np.ndarray
    mase: np.ndarray
    smape: np.ndarray
    by_horizon: np.ndarray


def errors(forecast: np.ndarray, truth: np.ndarray, series: SeriesFacts) -> Errors:
    """The errors of forecasts over all windows and steps whose value is known.

    Args:
        forecast, truth: `[M, H, D]`, in the data's units.
        series: of the dataset.

    Example:
        >>> day = np.arange(8.0)[:, None] % 4
        >>> series = SeriesFacts(("a",), day + (day > 2), None, None, None, 1, 1, (), (None,) * 3, 8)
        >>> found = errors(np.array([[[1.0]], [[2.0]]]), np.array([[[3.0]], [[2.0]]]), series)
        >>> float(found.mae[0]), float(found.rmse[0]), float(found.smape[0]), round(float(found.mase[0]), 4)
        (1.0, 1.4142135623730951, 50.0, 0.5833)

    Source: Hyndman and Koehler 2006, Another look at measures of forecast accuracy.
    """
    off = np.abs(forecast - truth)
    size = np.abs(forecast) + np.abs(truth)
    relative = np.where(size > 0, off / np.where(size > 0, size, 1), np.where(np.isnan(off), np.nan, 0))
    mae, scale = _mean(off, (0, 1)), seasonal_scale(series)
    mase = np.where(scale > 0, mae / np.where(scale > 0, scale, 1), np.nan)
    return Errors(mae, np.sqrt(_mean(off**2, (0, 1))), mase, 200 * _mean(relative, (0, 1)), _mean(off, 0))


def seasonal_scale(series: SeriesFacts) -> np.ndarray:
    """`[D]`: how far values of the training part are, in the mean, from those a season before; NaN where none is."""
    seen = series.values[: series.trained]
    return _mean(np.abs(seen[series.period :] - seen[: -series.period]), 0)


def _mean(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """The mean of what is known, NaN where nothing is, without a warning."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def pinball(found: Forecasts, quantiles: Sequence[float]) -> np.ndarray:
    """`[D]`: the mean over quantiles and values of max(q (y - f), (q - 1) (y - f))."""
    off = found.truth[..., None] - found.quantiles
    of = np.asarray(quantiles)
    return _mean(np.maximum(of * off, (of - 1) * off).mean(-1), (0, 1))


def coverage(found: Forecasts) -> np.ndarray:
    """`[D]`: the share of known values from the lowest to the highest quantile."""
    low, high = found.quantiles[..., 0], found.quantiles[..., -1]
    inside = np.where(np.isnan(found.truth), np.nan, (low <= found.truth) & (found.truth <= high))
    return _mean(inside, (0, 1))


def scores(found: Forecasts, dataset: Dataset, series: SeriesFacts, split: str, gaps: bool) -> dict[str, Any]:
    """What result.json says of the forecasts of a split, and of the baselines on the same windows.

    `{split}/mae`, `rmse`, `mase`, `smape`, with quantiles `pinball` and `coverage`, and `mae_by_horizon`, a list; the
    same of each baseline under `baselines`. Of several columns it is the mean over them, and `columns` has each.

    Args:
        found: the forecasts.
        dataset: that they are of.
        series: of the dataset.
        split: "valid" or "test".
        gaps: whether masks and times since stand beside the values that are seen.
    """
    own = {f"{split}/{name}": value for name, value in _said(_columns(found, series)).items()}
    seen = np.asarray(windows_of(dataset, split).x)[found.windows]
    others = baselines(dataset, series, found.starts, seen, gaps)
    made = {name: _said(errors(each, found.truth, series)._asdict()) for name, each in others.items()}
    if len(series.names) == 1:
        return own | {"baselines": made}
    by_column = [
        {name: value[..., place : place + 1] for name, value in _columns(found, series).items()}
        for place in range(len(series.names))
    ]
    return own | {"baselines": made, "columns": dict(zip(series.names, map(_said, by_column), strict=True))}


def _columns(found: Forecasts, series: SeriesFacts) -> dict[str, np.ndarray]:
    """Every measure, its last axis the columns."""
    made = errors(found.forecast, found.truth, series)._asdict()
    if series.quantiles:
        made |= {"pinball": pinball(found, series.quantiles)}
        made |= {"coverage": coverage(found)} if len(series.quantiles) > 1 else {}
    return made


def _said(measures: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Measures as result.json has them: means over the columns; without those that nothing is known of."""
    found = {name: _number(_mean(value, value.ndim - 1)) for name, value in measures.items()}
    found["mae_by_horizon"] = found.pop("by_horizon")
    return {name: value for name, value in found.items() if value is not None}


def _number(value: np.ndarray) -> Any:
    """A float, or a list of them; None for what is not known."""
    if value.ndim:
        return [_number(each) for each in value]
    return float(value) if np.isfinite(value) else None


def verdict(result: Mapping[str, Any]) -> str:
    """Whether a run is better than the seasonal-naive forecast, and than the others.

    Example:
        >>> mae = {name: {"mae": error} for name, error in (("naive", 5), ("seasonal_naive", 4), ("linear", 3.5))}
        >>> verdict({"test/mae": 3.1, "baselines": mae})
        'beats seasonal-naive: MAE 3.1 beside 4; linear 3.5, naive 5'
    """
    own, others = result["test/mae"], {name: each["mae"] for name, each in result["baselines"].items()}
    better = "beats" if own < others["seasonal_naive"] else "does NOT beat"
    rest = ", ".join(f"{NAMES[name]} {others[name]:.4g}" for name in ("linear", "naive") if name in others)
    return f"{better} seasonal-naive: MAE {own:.4g} beside {others['seasonal_naive']:.4g}; {rest}"


def rows(found: Forecasts, series: SeriesFacts) -> Iterator[Sequence[object]]:
    """A header, and a row for every value told: when it was forecast, when it is, the truth and the forecasts.

    Times are those of the data, or, where it has none, the numbers of its rows, from 0. A value that is missing is
    empty.

    Args:
        found: the forecasts.
        series: of the dataset.
    """
    told = [f"q{quantile:g}" for quantile in series.quantiles] or ["forecast"]
    yield ["made", "time", "ahead", "column", "true", *told, "seasonal_naive"]
    season = seasonal_naive(series, found.starts)
    for window, start in enumerate(found.starts):
        for ahead in range(series.horizon):
            for place, name in enumerate(series.names):
                numbers = [found.truth[window, ahead, place], *found.quantiles[window, ahead, place]]
                at = (moment(series, start - 1), moment(series, start + ahead), ahead + 1, name)
                yield [*at, *map(_short, numbers), _short(season[window, ahead, place])]


def _short(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.7g}"


def moment(series: SeriesFacts, row: int) -> str:
    """The time of a row as text, its seconds left out where they are 0; the row's number where there are no times."""
    if series.times is None:
        return str(row)
    text = str(series.times[row].astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(":00")
