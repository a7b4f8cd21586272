"""Pictures of a run: training curves, and the gates over one sequence."""

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.runs.on_disk.json_files import write_bytes

# The first import ever on a machine announces that it builds a font cache.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

FORMATS = (".png", ".pdf", ".svg")
_PANELS = {"loss": "loss", "accuracy": "accuracy"}
_TRAIN, _VALID = ":", "-"

AGAINST = {"step": ("step", "step"), "epoch": ("epoch", "epoch"), "time": ("time_s", "training, seconds")}
"""What curves can be drawn against: name -> (key of a line, label)."""

Lines = Sequence[Mapping[str, Any]]
"""Those of one `metrics.jsonl`."""

Lengths = tuple[np.ndarray, np.ndarray]
"""Lengths `[N]`, and a metric at each `[N]`."""


def _figure(width: float, height: float) -> Any:
    # Not pyplot: no global state, no display, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def curves(runs: Mapping[str, Sequence[Lines]], path: Path, against: Sequence[str] = ("step",)) -> None:
    """Loss, and accuracy where there is one, training dotted, validation solid, one colour a label.

    Of several seeds the line is their mean, in a band from the lowest to the highest, as far as half of them have come.
    Between its own points a seed is taken to go straight: at a second where one was evaluated, the others were not.

    Args:
        runs: label -> the lines of `metrics.jsonl` of each seed.
        path: picture to write; its suffix, one of `FORMATS`, says as what.
        against: what they are drawn against, a row each: names from `AGAINST`.
    """
    keys = {key for seeds in runs.values() for lines in seeds for line in lines for key in line}
    panels = {metric: label for metric, label in _PANELS.items() if f"valid/{metric}" in keys} or {"loss": "loss"}
    figure = _figure(5 * len(panels), 4 * len(against))
    rows = figure.subplots(len(against), len(panels), squeeze=False)
    for axes, x in zip(rows, against, strict=True):
        for axis, (metric, label) in zip(axes, panels.items(), strict=True):
            drawn = _draw_curves(axis, runs, metric, AGAINST[x][0])
            axis.set(xlabel=AGAINST[x][1], ylabel=label)
            if metric == "loss" and drawn and min(drawn) > 0 and max(drawn) > 100 * min(drawn):
                axis.set_yscale("log")
            axis.grid(alpha=0.3)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize="small")
    if len(runs) == 1:
        figure.suptitle(next(iter(runs)))
    _save(figure, path)


def _draw_curves(axis: Any, runs: Mapping[str, Sequence[Lines]], metric: str, x: str) -> list[float]:
    """Draws one panel; the values in it."""
    drawn: list[float] = []
    for number, (name, seeds) in enumerate(runs.items()):
        for split, style in (("train", _TRAIN), ("valid", _VALID)):
            places, low, mean, high = over_seeds(seeds, f"{split}/{metric}", x)
            if not places.size:
                continue
            # The dotted one of the same colour needs no second entry where there are many.
            said = split if len(runs) == 1 else name if split == "valid" else None
            axis.plot(places, mean, style, color=f"C{number}", label=said, linewidth=1)
            if len(seeds) > 1:
                axis.fill_between(places, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
            drawn += [*low, *high]
    return drawn


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


def against_length(panels: Mapping[str, Mapping[str, Sequence[Lengths]]], trained: int, path: Path) -> None:
    """Accuracy against length, a panel each, in a band over the seeds; the lengths of training are shaded.

    Args:
        panels: title -> label -> (lengths, accuracy at each) of every seed, with the same lengths.
        trained: the longest in training.
        path: picture to write.
    """
    figure = _figure(5 * len(panels), 4)
    for axis, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axis.axvspan(0, trained, color="0.9", label="lengths of training")
        for label, seeds in rows.items():
            places, values = _binned(seeds[0][0], np.stack([accuracy for _, accuracy in seeds]))
            (line,) = axis.plot(places, values.mean(axis=0), label=label, linewidth=1)
            if len(seeds) > 1:
                low, high = values.min(axis=0), values.max(axis=0)
                axis.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set(title=title, xlabel="length", ylabel="accuracy", ylim=(0, 1.02))
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    _save(figure, path)


def _binned(places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means over bins of neighbouring lengths, some 32 of them: a length alone has few sequences."""
    _, starts, counts = np.unique(places // max(1, places[-1] // 32), return_index=True, return_counts=True)
    return np.add.reduceat(places, starts) / counts, np.add.reduceat(values, starts, axis=1) / counts


def against_values(numbers: Mapping[str, Sequence[tuple[float, Sequence[float]]]], metric: str, path: Path) -> None:
    """A metric against the values that keys took: a panel a key, a point a combination, a bar over its seeds.

    Args:
        numbers: key -> (its value, the metric of each seed) of every combination.
        metric: its name.
        path: picture to write.
    """
    figure = _figure(4 * len(numbers), 4)
    for axis, (key, points) in zip(figure.subplots(1, len(numbers), squeeze=False)[0], numbers.items(), strict=True):
        values = np.array([value for value, _ in points])
        means = np.array([np.mean(seeds) for _, seeds in points])
        spread = [means - [min(seeds) for _, seeds in points], [max(seeds) for _, seeds in points] - means]
        axis.errorbar(values, means, yerr=spread, fmt="o", markersize=4, linewidth=1)
        if values.min() > 0 and values.max() > 20 * values.min():
            axis.set_xscale("log")
        axis.set(xlabel=key, ylabel=metric)
        axis.grid(alpha=0.3)
    _save(figure, path)


def gates(layers: Sequence[Any], path: Path, title: str) -> None:
    """Reset and update gates over one sequence as heat maps, and the time constants they amount to.

    Args:
        layers: (name, gates) of each layer and direction; `gates.r` and `gates.z` are `[T, H]`.
        path: PNG to write.
        title: over the picture.
    """
    figure = _figure(12, 2.8 * len(layers))
    axes = figure.subplots(len(layers), 3, squeeze=False)
    for row, (name, layer) in zip(axes, layers, strict=True):
        for axis, gate, said in (
            (row[0], layer.r, "reset r"),
            (row[1], layer.z, "update z (1 keeps)"),
        ):
            values = np.asarray(gate).T
            # Units sorted by their mean, so that slow and fast ones stand apart.
            image = axis.imshow(
                values[np.argsort(values.mean(axis=1))],
                aspect="auto",
                vmin=0,
                vmax=1,
                cmap="viridis",
                interpolation="nearest",
            )
            axis.set(title=f"{name}: {said}", xlabel="time step", ylabel="unit, by its mean")
            figure.colorbar(image, ax=axis)
        mean_z = np.asarray(layer.z).mean(axis=0).clip(1e-6, 1 - 1e-6)
        row[2].hist(-1 / np.log(mean_z), bins=20)
        row[2].set(title=f"{name}: time constants", xlabel="-1 / log(mean z), steps", ylabel="units")
    figure.suptitle(title)
    _save(figure, path)
