"""What forecasts of series are worth, in the data's own units, beside what they have to be better than."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset, TaskShape
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.runs.answers import Answers
from gru_jax.runs.forecasting.baselines import NAMES, baselines, windows_of
from gru_jax.types import Plain

_SPLITS = ("train", "valid", "test")


class Forecasts(NamedTuple):
    """Those of M windows, H steps ahead, of D columns, in the data's units.

    Attributes:
        split: "train", "valid" or "test"; "next" after the last value.
        series: that the windows are of.
        starts: `[M]`, the row of the first value told.
        truth: `[M, H, D]`, NaN where a value is missing.
        quantiles: `[M, H, D, Q]`, rising; of the mean, Q is 1.
        others: what the baselines forecast, name -> `[M, H, D]`.
        seen: rows before the first value told that the model is shown.
    """

    split: str
    series: SeriesFacts
    starts: np.ndarray
    truth: np.ndarray
    quantiles: np.ndarray
    others: Mapping[str, np.ndarray]
    seen: int

    @property
    def forecast(self) -> np.ndarray:
        """`[M, H, D]`, the median, or the mean: what errors are taken of."""
        of = self.series.quantiles
        return self.quantiles[..., of.index(0.5) if of else 0]


def of(found: Answers, dataset: Dataset, shape: TaskShape) -> Forecasts:
    """What answers on a split of a series say in the data's units, and what the baselines do.

    Args:
        found: the answers.
        dataset: that they belong to, of a series.
        shape: of the task.
    """
    series = dataset.series
    assert series is not None
    starts = series.starts[_SPLITS.index(found.split)][found.sequence]
    seen = np.asarray(windows_of(dataset, found.split).x)[found.sequence]
    others = baselines(dataset, series, starts, seen, shape.gaps)
    told, truth = in_units(found.outputs, series, starts), series.told(starts)
    return Forecasts(found.split, series, starts, truth, told, others, seen.shape[1])


def in_units(outputs: np.ndarray, series: SeriesFacts, starts: np.ndarray) -> np.ndarray:
    """What a model tells, `[M, H D Q]`, of windows that begin to tell at rows `[M]`, in the data's units.

    Of `[M, H, D, Q]` the quantiles rise: those that cross are sorted, which is never further from the truth
    (Chernozhukov et al. 2010).
    """
    told = outputs.astype(np.float64).reshape(len(outputs), series.horizon, len(series.names), -1)
    return np.sort(told * series.deviation[:, None] + series.level(starts)[:, None, :, None], -1)


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
        >>> series = SeriesFacts(("a",), day + (day > 2), None, {}, 1, 1, (), (None,) * 3, 8)
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


def pinball(made: Forecasts) -> np.ndarray:
    """`[D]`: the mean over quantiles and values of max(q (y - f), (q - 1) (y - f))."""
    off, quantiles = made.truth[..., None] - made.quantiles, np.asarray(made.series.quantiles)
    return _mean(np.maximum(quantiles * off, (quantiles - 1) * off).mean(-1), (0, 1))


def coverage(made: Forecasts) -> np.ndarray:
    """`[D]`: the share of known values from the lowest to the highest quantile."""
    low, high = made.quantiles[..., 0], made.quantiles[..., -1]
    inside = np.where(np.isnan(made.truth), np.nan, (low <= made.truth) & (made.truth <= high))
    return _mean(inside, (0, 1))


def scores(made: Forecasts) -> dict[str, float]:
    """`mae`, `rmse`, `mase`, `smape`, with quantiles `pinball` and `coverage`, the split before each.

    Of several columns it is the mean over them. What is not known, such as the MASE of a constant series, is left out.
    """
    found = _said(_measures(made))
    return {f"{made.split}/{name}": value for name, value in found.items() if not isinstance(value, list)}


def beside(made: Forecasts) -> dict[str, Plain]:
    """What result.json has beside the test scores: errors by steps ahead, baselines, columns, scale of the data."""
    names = made.series.names
    others = {name: _said(errors(each, made.truth, made.series)._asdict()) for name, each in made.others.items()}
    # Not under test/: whoever reads those names takes them for numbers.
    found = {
        "mae_by_horizon": _said(_measures(made))["mae_by_horizon"],
        "baselines": others,
        "scale": made.series.scale,
        "step": made.series.step,
        "period": made.series.period,
    }
    if len(names) == 1:
        return found
    each = [{key: value[..., at : at + 1] for key, value in _measures(made).items()} for at in range(len(names))]
    return found | {"columns": dict(zip(names, map(_said, each), strict=True))}


def _measures(made: Forecasts) -> dict[str, np.ndarray]:
    """Every measure, its last axis the columns."""
    found = errors(made.forecast, made.truth, made.series)._asdict()
    if made.series.quantiles:
        found |= {"pinball": pinball(made)}
    if len(made.series.quantiles) > 1:
        found |= {"coverage": coverage(made)}
    return found


def _said(measures: Mapping[str, np.ndarray]) -> dict[str, Plain]:
    """Measures as result.json has them: means over the columns; without those that nothing is known of."""
    found = {name: _number(_mean(value, value.ndim - 1)) for name, value in measures.items()}
    found["mae_by_horizon"] = found.pop("by_horizon")
    return {name: value for name, value in found.items() if value is not None}


def _number(value: np.ndarray) -> Plain:
    """A float, or a list of them; None for what is not known."""
    if value.ndim:
        return [_number(each) for each in value]
    return float(value) if np.isfinite(value) else None


def verdict(result: Mapping[str, Plain], split: str = "test") -> str:
    """Whether a run is better than each baseline, the seasonal-naive one first; "" of a result that has none.

    Example:
        >>> mae = {name: {"mae": error} for name, error in (("naive", 5), ("seasonal_naive", 4), ("linear", 3))}
        >>> verdict({"test/mae": 3.1, "baselines": mae})
        'beats seasonal-naive: MAE 3.1 beside 4; does NOT beat linear: 3; beats naive: 5'
    """
    if "baselines" not in result:
        return ""
    # Of several columns, each in units of its own, the errors are compared by what has none.
    measure = "mase" if "columns" in result and f"{split}/mase" in result else "mae"
    own, others = result[f"{split}/{measure}"], result["baselines"]
    errors_of = {words: others[name][measure] for name, words in NAMES.items() if name in others}
    said = [f"{'beats' if own < error else 'does NOT beat'} {words}: {error:.4g}" for words, error in errors_of.items()]
    return "; ".join(said).replace(": ", f": {measure.upper()} {own:.4g} beside ", 1)


def rows(made: Forecasts) -> Iterator[Sequence[object]]:
    """A header, and a row for every value told: when it was forecast, when it is, the truth and the forecasts.

    Times are those of the data, or, where it has none, the numbers of its rows, from 0. A value that is missing is
    empty.
    """
    series = made.series
    told = [f"q{quantile:g}" for quantile in series.quantiles] or ["forecast"]
    yield ["made", "time", "ahead", "column", "true", *told, *made.others]
    for window, start in enumerate(made.starts):
        for ahead in range(series.horizon):
            for place, name in enumerate(series.names):
                at = (window, ahead, place)
                numbers = [made.truth[at], *made.quantiles[at], *(other[at] for other in made.others.values())]
                times = (moment(series, start - 1), moment(series, start + ahead))
                yield [*times, ahead + 1, name, *map(_short, numbers)]


def _short(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.7g}"


def moment(series: SeriesFacts, row: int) -> str:
    """The time of a row as text, its seconds left out where they are 0; the row's number where there are no times."""
    if series.times is None:
        return str(row)
    text = str(series.times[row].astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(":00")
