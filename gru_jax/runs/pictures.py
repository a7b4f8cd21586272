"""Which pictures a run gets, drawn from its metrics, its best parameters and one test sequence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.config.config import config_hash
from gru_jax.data.batches import first_of
from gru_jax.data.dataset import Dataset
from gru_jax.runs.answers import Answers
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.forecasting import pictures as forecast_pictures
from gru_jax.runs.load_trained import newest
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.predictions import class_names
from gru_jax.runs.scores import answered, confusion
from gru_jax.runs.watching import confusion_matrix, plots
from gru_jax.training.experiment import Experiment, build
from gru_jax.types import Params


def draw(
    directory: RunDirectory, experiment: Experiment, dataset: Dataset, params: Params, told: Answers | None
) -> list[Path]:
    """Writes the pictures of a run; returns their paths.

    They are `plots/curves.png`; for a model with gates `plots/gates.png`; of classes and tags `plots/confusion.png`; of
    series `plots/forecast.png` and `plots/error_by_horizon.png`.

    Args:
        directory: of the run.
        experiment: its functions, whole.
        dataset: of its task.
        params: its best parameters.
        told: what they answer on the test split; None where that has no scores.
    """
    paths = [directory.plots / "curves.png"]
    plots.curves({experiment.config.name: [directory.metrics_lines()]}, paths[0])
    if experiment.config.model.kind == "gru":
        x, y = first_of(dataset.test, experiment.config.shape)
        outputs, layers = experiment.model.apply(params, jnp.asarray(x), deterministic=True, return_gates=True)
        title = f"{experiment.config.name}: first test sequence"
        if experiment.config.shape.target == "class":
            title += f", label {y}, predicted {outputs.argmax()}"
        paths.append(directory.plots / "gates.png")
        plots.gates(_named(layers), paths[1], title)
    if told is not None and experiment.config.shape.target in ("class", "tags"):
        names = class_names(dataset, experiment.config.shape)
        if len(names) <= confusion_matrix.MOST_CLASSES:
            paths.append(directory.plots / "confusion.png")
            confusion_matrix.draw(confusion(told.outputs, told.y), names, paths[-1], experiment.config.name)
    if told is not None and dataset.series is not None:
        made = forecasts.of(told, dataset, experiment.config.shape)
        paths += forecast_pictures.draw(directory.plots, experiment.config.name, made)
    return paths


def _named(layers: Any) -> list[tuple[str, Any]]:
    """(name, gates) of every layer and direction; directions come as pairs."""
    named = []
    for number, layer in enumerate(jax.device_get(layers), start=1):
        if hasattr(layer, "r"):
            named.append((f"layer {number}", layer))
        else:
            named += [(f"layer {number} {way}", part) for way, part in zip(("forward", "backward"), layer, strict=True)]
    return named


def redraw(runs: Sequence[Path], together: Path | None, against: str | None = None) -> list[Path]:
    """Draws the pictures of runs from what their directories hold.

    Args:
        runs: directories.
        together: also the curves of all runs in one picture, here; the seeds of one config share a colour.
        against: what these are drawn against, of `plots.AGAINST`; None for a row against the step and one against the
            seconds of training.

    Raises:
        RunError, CheckpointError, DataMissing: a directory holds no run, or none that can be drawn.
    """
    if together is not None:
        check_picture(together, "--out")
    paths: list[Path] = []
    groups: dict[tuple[str, str], dict[str, plots.Lines]] = {}
    for path in runs:
        directory = RunDirectory(path)
        if path.name.startswith(("sweep-", "stack-")) and len(runs) > 1 and not directory.is_run():
            continue  # beside the runs of a sweep lies what is of all of them
        if not path.exists():
            raise RunError(f"{path}: no such directory")
        if not directory.is_run() or not directory.metrics.exists():
            raise RunError(f"{path} holds no run; the pictures are drawn from its metrics.jsonl")
        config = directory.config()
        groups.setdefault((config.name, config_hash(config)), {})[str(path)] = directory.metrics_lines()
        experiment = build(config)
        found = newest(directory, experiment)
        dataset = config.task.load(config.data_root)
        told = answered(experiment, dataset, found.best_params, "test")
        paths += draw(directory, experiment, dataset, found.best_params, told)
    if together is not None:
        rows = ("step", "time") if against is None else (against,)
        plots.curves(dict(_labelled(group) for group in groups.values()), together, rows)
        paths.append(together)
    return paths


def _labelled(seeds: dict[str, plots.Lines]) -> tuple[str, list[plots.Lines]]:
    first = next(iter(seeds))
    label = first if len(seeds) == 1 else f"{first} and {len(seeds) - 1} more of its seeds"
    return label, list(seeds.values())


def check_picture(path: Path, option: str) -> None:
    """Raises RunError unless a picture may be written there."""
    if path.suffix.lower() not in plots.FORMATS:
        raise RunError(f"{path}: a picture ends in .png, .pdf or .svg")
    if path.is_dir():
        raise RunError(f"{path} is a directory; {option} names a picture")
