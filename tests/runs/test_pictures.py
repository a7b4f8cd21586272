"""What the pictures show, and that they look the same everywhere."""

import types
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from gru_jax.data.series.facts import SeriesFacts
from gru_jax.runs.forecasting import pictures as forecast_pictures
from gru_jax.runs.forecasting.forecasts import Forecasts
from gru_jax.runs.watching import forecast_plots, gate_maps, plots, style
from gru_jax.runs.watching.plots import Metrics


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been written."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    return figures


def lines(*values: tuple[float, float]) -> list[dict[str, float]]:
    """Validation loss and accuracy at steps 10, 20, ..."""
    return [
        {"step": 10 * step, "train/loss": 3.0, "valid/loss": loss, "valid/accuracy": accuracy}
        for step, (loss, accuracy) in enumerate(values, start=1)
    ]


TRAINING = "training (mean around a point)"

METRICS = Metrics({"loss": "loss, nats", "accuracy": "accuracy"}, "valid/loss")


def test_the_best_step_of_a_run(drawn: list[Any]) -> None:
    run = lines((2.0, 0.3), (1.0, 0.5), (1.5, 0.6))
    plots.curves({"a": [run]}, Path("x.png"), METRICS, title="a$b_c$")
    (figure,) = drawn
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), loss.get_xlabel()) == ("loss, nats", "training step")
    # The dot is the last line of a panel; that of the accuracy is where the loss was lowest.
    assert [tuple(axis.lines[-1].get_xydata()[0]) for axis in (loss, accuracy)] == [(20, 1.0), (20, 0.5)]
    assert [axis.texts[0].get_text() for axis in (loss, accuracy)] == ["1", "0.5"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [TRAINING, "validation", "best step"]


def test_training_is_drawn_amid_the_steps_that_it_is_the_mean_of(drawn: list[Any]) -> None:
    plots.curves({"a": [lines((2.0, 0.3), (1.0, 0.5), (1.5, 0.6))]}, Path("x.png"), METRICS)
    assert drawn[0].axes[0].lines[0].get_xdata().tolist() == [5, 15, 25]


def test_few_points_are_dots_and_a_legend_has_what_is_drawn(drawn: list[Any]) -> None:
    once = lines((2.0, 0.3), (1.0, 0.5), (1.5, 0.6))[:1]
    later = [{key: line[key] for key in line if key != "train/loss"} for line in lines((2.0, 0.3), (1.0, 0.5))]
    plots.curves({"a": [once + later[1:]]}, Path("x.png"), METRICS)
    plots.curves({"a": [later], "b": [later]}, Path("x.png"), METRICS)
    assert drawn[0].axes[0].lines[0].get_marker() == "o"
    legends = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert legends == [[TRAINING, "validation", "best step"], ["a (best 1)", "b (best 1)", "validation", "best step"]]


def test_a_legend_of_many(drawn: list[Any]) -> None:
    first, second = lines((2.0, 0.3), (1.0, 0.5)), lines((3.0, 0.2), (2.0, 0.4))
    plots.curves({"_lr=1": [first, second], "lr=2": [second]}, Path("x.png"), METRICS, ("step", "time"))
    words = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert words == [
        " _lr=1 (best 1.5)", "lr=2 (best 2)", TRAINING, "validation", "best step", "lowest to highest seed"
    ]  # fmt: skip
    assert len(drawn[0].axes) == 4


def test_a_unit_has_one_row_in_all_panels_of_gates(drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # The second unit keeps the least, the first the most.
    z, r = np.array([[0.9, 0.1, 0.5]] * 4), np.array([[0.2, 0.3, 0.4]] * 4)
    monkeypatch.setattr(gate_maps, "save", lambda figure, path: drawn.append(figure))
    layers = [(name, types.SimpleNamespace(r=r, z=z)) for name in ("a", "b", "c")]
    assert gate_maps.draw(layers, Path("x.png"), "title") == [Path("x.png"), Path("x_2.png")]
    of_r, of_z = (axis.images[0].get_array() for axis in drawn[0].axes[:2])
    assert of_z[:, 0].tolist() == [0.1, 0.5, 0.9] and of_r[:, 0].tolist() == [0.3, 0.4, 0.2]
    memories = drawn[0].axes[2].lines[0]
    assert np.allclose(memories.get_xdata(), -1 / np.log([0.1, 0.5, 0.9]))
    assert memories.get_ydata().tolist() == [0, 1, 2]


def test_axes_of_values(drawn: list[Any]) -> None:
    numbers = {"optim.lr": [(1e-3, [1.0, 3.0]), (1e-2, [2.0])], "model.hidden": [(16.0, [1.0]), (32.0, [2.0])]}
    plots.against_values(numbers, "valid/loss", Path("x.png"))
    lr, hidden = drawn[0].axes
    assert (lr.get_xscale(), hidden.get_xscale()) == ("log", "linear")
    assert [text.get_text() for text in lr.get_xticklabels()] == ["0.001", "0.01"]
    assert lr.get_ylabel() == "best validation loss"
    # As in the tables: mean and standard deviation, here of 1 and 3.
    (bar,) = lr.containers
    assert np.allclose(bar.lines[2][0].get_segments()[0][:, 1], [2 - 2**0.5, 2 + 2**0.5])


def test_a_short_axis_of_powers_has_labels_between() -> None:
    with style.look():
        figure, axes = style.new_figure(1, 2)
        for axis, last in zip(axes[0], (9, 9000), strict=True):
            axis.plot([0.4, last], [0, 1])
            style.log_scale(axis, "x")
        figure.canvas.draw()
        found = [{text.get_text() for text in axis.get_xticklabels(minor=True)} - {""} for axis in axes[0]]
    assert {"0.5", "2", "5"} <= found[0] <= {"0.2", "0.5", "2", "5", "20", "50"} and found[1] == set()


@pytest.mark.parametrize(("seen", "said"), [(40, "the 40 hours it saw"), (72, "the last 48 of 72 hours it saw")])
def test_a_forecast_says_what_it_shows(seen: int, said: str, drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_plots, "save", lambda figure, path: drawn.append(figure))
    times = np.datetime64("2025-12-29T00") + np.arange(100)
    starts = (np.arange(0), np.arange(0), np.arange(72, 83))
    scale = {name: (0.0, 1.0) for name in "ab"}
    facts = SeriesFacts(("a", "b"), np.zeros((100, 2)), times, scale, 24, 3, (), starts, 70)
    off = np.broadcast_to(np.arange(11.0)[:, None, None], (11, 3, 2))
    made = Forecasts("test", facts, starts[2], off * 0, off[..., None], {"seasonal_naive": off}, seen)
    forecast_pictures.draw(Path("plots"), "mine", made)
    windows, errors = drawn
    titles = [axis.get_title() for axis in windows.axes]
    assert titles[:3] == ["better than 9 of 10\nMAE 1", "the median\nMAE 5", "worse than 9 of 10\nMAE 9"]
    # The words stand over the columns once.
    assert titles[3:] == ["MAE 1", "MAE 5", "MAE 9"]
    assert windows.legends[0].get_texts()[0].get_text() == said
    assert len(windows.axes[0].lines[0].get_xdata()) == min(seen, 48)
    axis = windows.axes[0].xaxis
    ticks = axis.get_major_formatter().format_ticks(axis.get_major_locator()())
    assert ticks[0].endswith(" Dec\n2025") and [tick for tick in ticks if tick.endswith("1 Jan\n2026")]
    assert errors.axes[0].get_xticks().tolist() == [1, 2, 3]


def config(target: str, kind: str = "digits", quantiles: tuple[float, ...] = (), best_by: str = "valid/loss") -> Any:
    """What is asked of one."""
    shape = types.SimpleNamespace(target=target, quantiles=quantiles)
    return types.SimpleNamespace(
        shape=shape, task=types.SimpleNamespace(kind=kind), train=types.SimpleNamespace(best_by=best_by)
    )


@pytest.mark.parametrize(
    ("configs", "loss", "best_by"),
    [
        ([config("class"), config("tags")], "loss, nats", "valid/loss"),
        ([config("class"), config("values")], "loss", "valid/loss"),
        ([config("values", "series", (0.1, 0.5, 0.9))], "pinball loss, standardised", "valid/loss"),
        ([config("values", "series")], "mean square error, standardised", "valid/loss"),
        ([config("class"), config("class", best_by="valid/accuracy")], "loss, nats", None),
    ],
)
def test_units(configs: list[Any], loss: str, best_by: str | None) -> None:
    found = plots.metrics_of(configs)
    assert (found.labels["loss"], found.best_by) == (loss, best_by)


@pytest.mark.parametrize(("name", "suffix"), [("talk", ".png"), ("paper", ".svg"), ("paper", ".pdf")])
def test_a_look_is_the_same_everywhere(name: style.Style, suffix: str, tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 3, "axes.grid": False, "svg.fonttype": "path"}):
        for path in (tmp_path / f"mine{suffix}", tmp_path / "new" / f"default{suffix}"):
            with style.look(name):
                figure, axes = style.new_figure(1, 1, name)
                (curve,) = axes[0, 0].plot([1, 10, 1000], [0, 1, 2], **style.line(8))
                style.log_scale(axes[0, 0], "x")
                style.legend_below(figure, {"$cost": curve})
                style.save(figure, path)
            matplotlib.rcdefaults()
    first, second = (path.read_bytes() for path in sorted(tmp_path.rglob(f"*{suffix}")))
    assert first == second
    if suffix == ".svg":
        # Text that can be searched, and no formula made of a name or of a power of ten.
        assert b">$cost<" in first and b">100<" in first and b"mathdefault" not in first
