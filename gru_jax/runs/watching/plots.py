"""Pictures of runs: training curves, and a metric against lengths and against what was varied."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from gru_jax.config.config import Config
from gru_jax.data.dataset import BETTER_HIGHER
from gru_jax.runs.watching.style import COLOURS, Style, legend_below, line, log_scale, look, new_figure, save
from gru_jax.types import Options, Plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Curve: TypeAlias = Any
"""A `Line2D` of matplotlib, whose own types do not say that its data are numbers."""

_SPLITS: dict[str, tuple[str, Literal[":", "-"]]] = {
    "train": ("training (mean around a point)", ":"),
    "valid": ("validation", "-"),
}

AGAINST = {"step": ("step", "training step"), "epoch": ("epoch", "epoch"), "time": ("time_s", "training, seconds")}
"""What curves can be drawn against: name -> (key of a line, label)."""

Lines = Sequence[Mapping[str, Plain]]
"""Those of one `metrics.jsonl`."""

Lengths = tuple[np.ndarray, np.ndarray]
"""Lengths `[N]`, and a metric at each `[N]`."""


class Metrics(NamedTuple):
    """What is drawn, and what picks the best evaluation.

    Attributes:
        labels: metric -> what its axis says, with the unit; those that no run has are left out.
        best_by: such as "valid/loss"; None where the runs do not agree.
    """

    labels: Mapping[str, str]
    best_by: str | None


_LOSSES = {"class": "loss, nats", "tags": "loss, nats", "notes": "loss, nats", "values": "mean square error"}


def metrics_of(configs: Iterable[Config]) -> Metrics:
    """What the curves of runs with these configs show."""
    found = list(configs)
    losses = {_loss(config) for config in found}
    best_by = {config.train.best_by for config in found}
    labels = {"loss": losses.pop() if len(losses) == 1 else "loss", "accuracy": "accuracy", "macro_f1": "macro F1"}
    return Metrics(labels, best_by.pop() if len(best_by) == 1 else None)


def _loss(config: Config) -> str:
    loss = "pinball loss" if config.shape.quantiles else _LOSSES[config.shape.target]
    # A model of series has to do with deviations from a level; their scores are in the data's units.
    return f"{loss}, standardised" if config.task.kind == "series" else loss


def curves(
    runs: Mapping[str, Sequence[Lines]],
    path: Path,
    metrics: Metrics,
    against: Sequence[str] = ("step",),
    style: Style = "talk",
    title: str = "",
) -> None:
    """Loss, and accuracy where there is one, training dotted, validation solid, one colour a label.

    What is logged of the training is the mean since the line before: its point is drawn in the middle of the two.
    Of several seeds the line is their mean, in a band from the lowest to the highest, as far as half of them have come.
    Between its own points a seed is taken to go straight: at a second where one was evaluated, the others were not.
    A dot is where the metric that picks the best evaluation is at its best, of several seeds in the mean.

    Args:
        runs: label -> the lines of `metrics.jsonl` of each seed.
        path: picture to write; its suffix, one of `FORMATS`, says as what.
        metrics: what is drawn.
        against: what they are drawn against, a row each: names from `AGAINST`.
        style: for what.
        title: over the picture.
    """
    keys = {key for seeds in runs.values() for lines in seeds for line in lines for key in line}
    panels = [metric for metric in metrics.labels if f"valid/{metric}" in keys] or ["loss"]
    drawn: dict[str, dict[str, Curve]] = {}
    with look(style):
        figure, rows = new_figure(len(against), len(panels), style)
        for axes, x in zip(rows, against, strict=True):
            for axis, metric in zip(axes, panels, strict=True):
                for number, (label, seeds) in enumerate(runs.items()):
                    found = _draw_curves(axis, seeds, metric, AGAINST[x][0], line(number))
                    drawn.setdefault(label, {}).update(found)
                    _mark_best(axis, found, seeds, metrics.best_by, AGAINST[x][0], with_value=len(runs) == 1)
                if metric == "loss":
                    _log_where_wide(axis)
                axis.set(xlabel=AGAINST[x][1], ylabel=metrics.labels[metric])
        if title:
            figure.suptitle(title)
        legend_below(figure, _legend(runs, drawn, metrics.best_by))
        save(figure, path)


def _draw_curves(axis: "Axes", seeds: Sequence[Lines], metric: str, x: str, looks: Options) -> dict[str, Curve]:
    """Draws those of one label in a panel: split -> the line."""
    found = {}
    for split, (_, dashes) in _SPLITS.items():
        key = f"{split}/{metric}"
        lines = [amid(each, key, x) for each in seeds] if split == "train" else seeds
        places, low, mean, high = over_seeds(lines, key, x)
        if places.size:
            own = dict(looks) if split == "valid" else {"color": looks["color"], "alpha": 0.7}
            if split == "train" and places.size < 3:
                # Of so few points a dotted line shows nothing, or a dash that looks like many.
                own |= {"marker": "o", "markevery": 1, "markerfacecolor": "white"}
            elif places.size == 1:
                own |= {"marker": "o", "markevery": 1}
            (found[split],) = axis.plot(places, mean, linestyle=dashes, **own)
            if len(seeds) > 1:
                axis.fill_between(places, low, high, color=looks["color"], alpha=0.2, linewidth=0)
    return found


def _best(seeds: Sequence[Lines], best_by: str | None, x: str) -> tuple[float, float] | None:
    """Where the metric that picks is at its best, and its value there."""
    places, _, mean, _ = over_seeds(seeds, best_by or "", x)
    if not places.size:
        return None
    at = mean.argmax() if (best_by or "").endswith(BETTER_HIGHER) else mean.argmin()
    return float(places[at]), float(mean[at])


def _mark_best(
    axis: "Axes", found: Mapping[str, Curve], seeds: Sequence[Lines], best_by: str | None, x: str, with_value: bool
) -> None:
    best = _best(seeds, best_by, x)
    if best is None or "valid" not in found:
        return
    curve = found["valid"]
    value = float(np.interp(best[0], curve.get_xdata(), curve.get_ydata()))
    axis.plot([best[0]], [value], "o", color=curve.get_color(), markeredgecolor="white", zorder=5)
    if with_value:
        _say_beside(axis, best[0], value, curve)


def _say_beside(axis: "Axes", place: float, value: float, curve: Curve) -> None:
    """Says the value at a dot of a curve, above or below it, where less is drawn, and within the panel."""
    x = curve.get_xdata()
    along = (place - x[0]) / ((x[-1] - x[0]) or 1.0)
    # A text is a fifth of a panel wide.
    across = np.linspace(place - along * np.ptp(x) / 5, place + (1 - along) * np.ptp(x) / 5, 33)
    lines: Sequence[Curve] = axis.lines
    others = [np.interp(across, line.get_xdata(), line.get_ydata(), np.nan, np.nan) for line in lines]
    off = np.concatenate(others) - value
    below = np.sum(off < 0) < np.sum(off > 0)
    axis.annotate(
        f"{value:.4g}",
        (place, value),
        (0, -14 if below else 14),
        textcoords="offset points",
        ha="right" if along > 2 / 3 else "left" if along < 1 / 3 else "center",
        va="top" if below else "bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        zorder=6,
    )
    # Room for it.
    axis.margins(y=0.2)


def _log_where_wide(axis: "Axes") -> None:
    values = np.concatenate([np.zeros(0), *(np.asarray(curve.get_ydata(), float) for curve in axis.lines)])
    if values.size and values.min() > 0 and values.max() > 100 * values.min():
        log_scale(axis, "y")


def _legend(
    runs: Mapping[str, Sequence[Lines]], drawn: Mapping[str, Mapping[str, Curve]], best_by: str | None
) -> dict[str, "Artist"]:
    """What a legend says: label -> line."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = {label: found for label, found in drawn.items() if found}
    splits = [split for split in _SPLITS if any(split in found for found in shown.values())]
    if len(runs) == 1:
        handles = {_SPLITS[split][0]: next(iter(shown.values()))[split] for split in splits}
    else:
        best = {label: _best(runs[label], best_by, "step") for label in shown}
        said = {label: f"{label} (best {found[1]:.4g})" if found else label for label, found in best.items()}
        handles = {said[label]: found.get("valid", found.get("train")) for label, found in shown.items()}
        for split in splits:
            few = all(found[split].get_marker() == "o" for found in shown.values() if split in found)
            marks: Options = {"marker": "o"} if few else {}
            if few and split == "train":
                marks["markerfacecolor"] = "white"
            handles[_SPLITS[split][0]] = Line2D([], [], color="0.4", linestyle=_SPLITS[split][1], **marks)
    if any(_best(runs[label], best_by, "step") and "valid" in found for label, found in shown.items()):
        handles["best step"] = Line2D([], [], color="0.4", marker="o", markeredgecolor="white", linestyle="none")
    if any(len(seeds) > 1 for seeds in runs.values()):
        handles["lowest to highest seed"] = Patch(color="0.8")
    return handles


def amid(lines: Lines, key: str, x: str) -> Lines:
    """The lines with a metric that is a mean since the one before, each moved to the middle of the two.

    Args:
        lines: of one `metrics.jsonl`.
        key: the metric.
        x: what is moved.

    Example:
        >>> amid([{"step": 2, "train/loss": 3.0}, {"step": 3}, {"step": 6, "train/loss": 1.0}], "train/loss", "step")
        [{'step': 1.0, 'train/loss': 3.0}, {'step': 4.0, 'train/loss': 1.0}]
    """
    own = [line for line in lines if key in line and x in line]
    before = [0.0, *(line[x] for line in own)]
    return [{x: (line[x] + since) / 2, key: line[key]} for line, since in zip(own, before, strict=False)]


def over_seeds(seeds: Sequence[Lines], key: str, x: str = "step") -> tuple[np.ndarray, ...]:
    """A metric over seeds, at every place where one of them has a value and half of them have come.

    Args:
        seeds: the lines of `metrics.jsonl` of each.
        key: the metric.
        x: the key that it is looked at against; it grows from line to line.

    Returns:
        (places `[N]`; lowest, mean and highest value at each, `[N]`).
    """
    curves = [np.array([(line[x], line[key]) for line in lines if key in line and x in line]) for lines in seeds]
    began = [curve for curve in curves if curve.size]
    if not began:
        return (np.zeros(0),) * 4
    places = np.unique(np.concatenate([curve[:, 0] for curve in began]))
    values = np.stack([np.interp(places, curve[:, 0], curve[:, 1], np.nan, np.nan) for curve in began])
    enough = 2 * np.isfinite(values).sum(axis=0) >= len(seeds)
    values = values[:, enough]
    return places[enough], np.nanmin(values, axis=0), np.nanmean(values, axis=0), np.nanmax(values, axis=0)


def against_length(
    panels: Mapping[str, Mapping[str, Sequence[Lengths]]], trained: int, path: Path, style: Style = "talk"
) -> None:
    """Accuracy against length, a panel each, in a band over the seeds; the lengths of training are shaded.

    Args:
        panels: title -> label -> (lengths, accuracy at each) of every seed, with the same lengths.
        trained: the longest in training.
        path: picture to write.
        style: for what.
    """
    with look(style):
        figure, axes = new_figure(1, len(panels), style)
        handles: dict[str, Artist] = {}
        for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
            handles["lengths of training"] = axis.axvspan(0, trained, color="0.9", zorder=0)
            for label, seeds in rows.items():
                looks = line(list(dict.fromkeys(each for row in panels.values() for each in row)).index(label))
                places, values = _binned(seeds[0][0], np.stack([accuracy for _, accuracy in seeds]))
                (handles[label],) = axis.plot(places, values.mean(axis=0), **looks)
                if len(seeds) > 1:
                    low, high = values.min(axis=0), values.max(axis=0)
                    axis.fill_between(places, low, high, color=looks["color"], alpha=0.2, linewidth=0)
            axis.set(title=title, xlabel="length, steps", ylabel="accuracy", ylim=(0, 1.02))
            axis.set_xlim(left=0)
        legend_below(figure, handles)
        save(figure, path)


def _binned(places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means over bins of neighbouring lengths, some 32 of them: a length alone has few sequences."""
    _, starts, counts = np.unique(places // max(1, places[-1] // 32), return_index=True, return_counts=True)
    return np.add.reduceat(places, starts) / counts, np.add.reduceat(values, starts, axis=1) / counts


def against_values(
    numbers: Mapping[str, Sequence[tuple[float, Sequence[float]]]], metric: str, path: Path, style: Style = "talk"
) -> None:
    """A metric against the values that keys took: a panel a key, a point a combination.

    A bar is the standard deviation over the seeds (n - 1), as in the tables.

    Args:
        numbers: key -> (its value, the metric of each seed) of every combination.
        metric: its name, such as "valid/loss".
        path: picture to write.
        style: for what.
    """
    with look(style):
        figure, axes = new_figure(1, len(numbers), style)
        for axis, (key, points) in zip(axes[0], numbers.items(), strict=True):
            values = np.array([value for value, _ in points])
            means = np.array([np.mean(seeds) for _, seeds in points])
            spread = [np.std(seeds, ddof=1) if len(seeds) > 1 else 0.0 for _, seeds in points]
            bars = axis.errorbar(values, means, yerr=spread, fmt="o", color=COLOURS[0], capsize=4)
            if values.min() > 0 and values.max() >= 10 * values.min():
                log_scale(axis, "x")
            _ticks_at(axis, values)
            axis.set(xlabel=key, ylabel=in_words(metric) if axis is axes[0, 0] else "")
        if any(len(seeds) > 1 for points in numbers.values() for _, seeds in points):
            legend_below(figure, {"mean over the seeds ± their standard deviation": bars})
        save(figure, path)


def _ticks_at(axis: "Axes", values: np.ndarray) -> None:
    """Puts the ticks where the values are, when these are few and apart."""
    from matplotlib.ticker import NullLocator

    places = np.unique(values)
    along = np.log(places) if axis.get_xscale() == "log" else places
    if 1 < len(places) <= 6 and np.diff(along).min() > 0.12 * np.ptp(along):
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.xaxis.set_minor_locator(NullLocator())


def in_words(metric: str) -> str:
    """A metric of a result, for an axis.

    Example:
        >>> in_words("valid/loss"), in_words("test/accuracy")
        ('best validation loss', 'test accuracy')
    """
    split, _, name = metric.partition("/")
    return f"{ {'valid': 'best validation', 'test': 'test', 'train': 'training'}.get(split, split)} {name}".strip()
