"""What forecasts are worth: errors, quantiles and baselines against values by hand."""

from typing import Any

import numpy as np
import pytest

from gru_jax.data.dataset import Dataset, Split, TaskShape
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.runs.answers import Answers
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.forecasting.baselines import linear, naive, seasonal_naive

NAN = np.nan


def facts(values: Any, period: int = 1, horizon: int = 2, **more: Any) -> SeriesFacts:
    values = np.asarray(values, float).reshape(len(values), -1)
    columns = values.shape[1]
    starts = more.pop("starts", (np.arange(2, 4),) * 3)
    made = SeriesFacts(
        tuple("ab"[:columns]), values, None, {"a": (0, 1), "b": (0, 1)}, period, horizon, (), starts, 6
    )
    return made._replace(**more)


def test_errors_by_hand() -> None:
    """The seasons of the training part differ by 2, 2, 4 and 4: a scale of 3."""
    series = facts([1, 2, 3, 4, 7, 8, 99, 99], period=2)
    truth = np.array([[[10.0], [NAN]], [[0.0], [-4.0]]])
    made = forecasts.errors(np.array([[[12.0], [5.0]], [[0.0], [-3.0]]]), truth, series)
    np.testing.assert_allclose(made.mae, 1)
    np.testing.assert_allclose(made.rmse, np.sqrt(5 / 3))
    np.testing.assert_allclose(made.mase, 1 / 3)
    np.testing.assert_allclose(made.smape, 200 / 3 * (2 / 22 + 0 + 1 / 7))
    np.testing.assert_allclose(made.by_horizon[:, 0], [1, 1])
    # Where nothing changes from season to season there is no scale, and no MASE.
    assert np.isnan(forecasts.errors(truth, truth, facts([5.0] * 8)).mase).all()


def test_baselines_by_hand() -> None:
    values = [[1, NAN], [2, NAN], [3, 6], [NAN, 7], [5, 8], [NAN, 9], [7, NAN]]
    series = facts(values, period=3, horizon=4, scale={"a": (50, 1), "b": (60, 1)})
    starts = np.array([1, 5])
    np.testing.assert_array_equal(naive(series, starts)[:, :, 0], [[1] * 4, [5] * 4])
    np.testing.assert_array_equal(naive(series, starts)[:, :, 1], [[60] * 4, [8] * 4])
    # From row 5: rows 2, 3 and 4, of which 3 is missing, as it was a season before, in row 0; then row 2 again.
    np.testing.assert_array_equal(seasonal_naive(series, starts)[1, :, 0], [3, 1, 5, 3])
    np.testing.assert_array_equal(seasonal_naive(series, starts)[1, :, 1], [6, 7, 8, 6])
    # From row 1 nothing is known a season before, and what comes after is not looked at.
    np.testing.assert_array_equal(seasonal_naive(series, starts)[0], naive(series, starts)[0])


def dataset(gaps: bool) -> Dataset:
    """y is 2 x_T - x_{T-1} + the known value of its step; x is 1 wide, and so is what is known."""
    rng = np.random.default_rng(0)
    series, known = rng.normal(size=60), rng.normal(size=60)
    for t in range(2, 60):
        series[t] = 0.9 * series[t - 1] - 0.5 * series[t - 2] + known[t]
    T, H = 4, 2
    starts = np.arange(T, 59)
    x = np.stack([np.stack([series[s - T : s], known[s - T + H : s + H]], 1) for s in starts]).astype(np.float32)
    x = np.concatenate([x, np.ones_like(x), np.ones_like(x)], 2) if gaps else x
    y = np.stack([series[s : s + H] for s in starts]).astype(np.float32)
    y[3, 1] = NAN
    parts = tuple(slice(*ends) for ends in ((0, 35), (35, 43), (43, 55)))
    made = facts(series, horizon=H, starts=tuple(starts[part] for part in parts))
    return Dataset(*(Split(x[part], y[part]) for part in parts), "", "", series=made)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_linear_series_is_what_the_linear_model_finds(gaps: bool) -> None:
    data: Any = dataset(gaps)
    found = linear(data, data.series, gaps)
    assert found is not None and len(found.mean) == 4 + 2
    test = np.concatenate([data.test.x[:, :, 0], data.test.x[:, -2:, 1]], 1)
    np.testing.assert_allclose(found(test), data.test.y, atol=1e-3)
    nothing = data._replace(train=data.train._replace(y=np.full_like(data.train.y, NAN)))
    assert linear(nothing, data.series, gaps) is None


def answered(data: Any, outputs: np.ndarray) -> Answers:
    return Answers(outputs.astype(np.float32), data.test.y, np.arange(len(outputs)), None)


def test_quantiles_in_the_units_of_the_data() -> None:
    data: Any = dataset(False)
    series = data.series._replace(quantiles=(0.1, 0.5, 0.9), scale={"a": (10, 2)})
    data = data._replace(series=series)
    shape = TaskShape(35, 8, 12, 4, 2, 6, "values", quantiles=series.quantiles)
    truth = series.told(series.starts[2])
    # They cross: 1 above the truth, below it, at it.
    off = np.tile([1.0, -1.0, 0.0], 2)
    outputs = (np.repeat(truth[:, :, 0], 3, 1) + off - 10) / 2
    made = forecasts.of(answered(data, outputs), data, shape)
    np.testing.assert_allclose(made.quantiles - truth[..., None], np.tile([-1, 0, 1], (12, 2, 1, 1)), atol=1e-5)
    scores = forecasts.scores(made)
    assert scores["test/coverage"] == 1 and scores["test/mae"] < 1e-5
    np.testing.assert_allclose(scores["test/pinball"], (0.1 + 0 + 0.1) / 3, atol=1e-6)
    beside = forecasts.beside(made)
    others = ["seasonal_naive", "linear", "naive"]
    assert len(beside["mae_by_horizon"]) == 2 and list(beside["baselines"]) == others
    assert forecasts.verdict(scores | beside).startswith("beats seasonal-naive: MAE ")
    header, first, *rest = forecasts.rows(made)
    assert header == ["made", "time", "ahead", "column", "true", "q0.1", "q0.5", "q0.9", *others]
    row = int(series.starts[2][0])
    assert first[:4] == [str(row - 1), str(row), 1, "a"] and len(rest) == 12 * 2 - 1
    np.testing.assert_allclose(list(map(float, first[4:8])), truth[0, 0] + [0, -1, 0, 1], atol=1e-5)


def test_what_is_told_as_changes_is_what_was_meant() -> None:
    data: Any = dataset(False)
    data = data._replace(series=data.series._replace(relative=True, scale={"a": (0, 4)}))
    starts = data.series.starts[2]
    truth = data.series.told(starts)[..., 0]
    outputs = (truth - data.series.values[starts - 1]) / 4
    made = forecasts.of(answered(data, outputs), data, TaskShape(35, 8, 12, 4, 2, 2, "values"))
    np.testing.assert_allclose(made.forecast[..., 0], truth, atol=1e-5)
    # The linear model, too, tells changes: here of series that were made without, which it is off by just these.
    plain: Any = dataset(False)
    others = forecasts.of(answered(plain, outputs), plain, TaskShape(35, 8, 12, 4, 2, 2, "values")).others
    moved = others["linear"] * 4 + data.series.values[starts - 1][:, None]
    np.testing.assert_allclose(made.others["linear"], moved, atol=1e-9)


def test_two_columns_are_told_apart() -> None:
    values = np.column_stack([np.arange(20.0), 100 * np.arange(20.0)])
    series = facts(values, horizon=2, starts=(np.arange(2, 9), np.arange(9, 12), np.arange(12, 18)))
    x = np.zeros((7, 3, 2), np.float32)
    splits = [Split(x[: len(each)], np.zeros((len(each), 4), np.float32)) for each in series.starts]
    data = Dataset(*splits, "", "", series=series)
    outputs = series.told(series.starts[2]).reshape(6, 4) + [1, 200, 1, 200]
    made = forecasts.of(answered(data, outputs), data, TaskShape(7, 3, 6, 3, 2, 4, "values"))
    beside = forecasts.beside(made)
    assert [beside["columns"][name]["mae"] for name in "ab"] == [1, 200]
    scores = forecasts.scores(made)
    assert scores["test/mae"] == 100.5 and scores["test/mase"] == 1.5 and "test/pinball" not in scores
    # The season before is 1 and 100 off, then twice that: 1.5 of the scale, as the forecast is.
    np.testing.assert_allclose(beside["baselines"]["seasonal_naive"]["mase"], 1.5)
    assert forecasts.verdict(scores | beside).startswith("does NOT beat seasonal-naive: MASE 1.5 beside 1.5; ")
