"""Which pictures a run gets, drawn from its metrics, its best parameters and one test sequence."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from gru_jax.cells import Gates
from gru_jax.config.config import Config
from gru_jax.data.batches import first_of
from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset
from gru_jax.runs.answers import Answers
from gru_jax.runs.comparison import groups_of
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.forecasting import pictures as forecast_pictures
from gru_jax.runs.load_trained import newest
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError, require_same_data
from gru_jax.runs.predictions import class_names
from gru_jax.runs.scores import answered, confusion
from gru_jax.runs.watching import confusion_matrix, gate_maps, plots
from gru_jax.runs.watching.style import FORMATS, Style
from gru_jax.training.experiment import Experiment, build
from gru_jax.types import Params, Tree


def draw(
    directory: RunDirectory,
    experiment: Experiment,
    dataset: Dataset,
    params: Params,
    told: Answers | None,
    style: Style = "talk",
    suffix: str = ".png",
) -> list[Path]:
    """Writes the pictures of a run; returns their paths.

    They are `plots/curves.png`; for a model with gates `plots/gates.png`, of many layers `gates_2.png` and so on; of
    classes and tags `plots/confusion.png`; of series `plots/forecast.png` and `plots/error_by_horizon.png`.

    Args:
        directory: of the run.
        experiment: its functions, whole.
        dataset: of its task.
        params: its best parameters.
        told: what they answer on the test split; None where that has no scores.
        style: for what they are.
        suffix: in place of .png, one of `FORMATS`.
    """
    config, shape = experiment.config, experiment.config.shape
    paths = [_curves(directory, config, style, suffix)]
    if config.model.kind == "gru":
        x, y = first_of(dataset.test, shape)
        outputs, layers = experiment.model.apply(params, jnp.asarray(x), deterministic=True, return_gates=True)
        title = f"{config.name}: gates over the first test sequence"
        if shape.target == "class":
            names = class_names(dataset, shape)
            title += f" (label {names[int(y)]}, predicted {names[int(outputs.argmax())]})"
        paths += gate_maps.draw(_named(layers), directory.plots / f"gates{suffix}", title, style)
    if told is not None and shape.target in ("class", "tags"):
        names = class_names(dataset, shape)
        if len(names) <= confusion_matrix.MOST_CLASSES:
            paths.append(directory.plots / f"confusion{suffix}")
            confusion_matrix.draw(confusion(told.outputs, told.y), names, paths[-1], config.name, style)
    if told is not None and dataset.series is not None:
        made = forecasts.of(told, dataset, shape)
        paths += forecast_pictures.draw(directory.plots, config.name, made, style, suffix)
    return paths


def _curves(directory: RunDirectory, config: Config, style: Style, suffix: str) -> Path:
    path, lines = directory.plots / f"curves{suffix}", [directory.metrics_lines()]
    plots.curves({config.name: lines}, path, plots.metrics_of([config]), style=style, title=config.name)
    return path


def _named(layers: Tree) -> list[tuple[str, Gates]]:
    """(name, gates) of every layer and direction; directions come as pairs."""
    named = []
    for number, layer in enumerate(jax.device_get(layers), start=1):
        if hasattr(layer, "r"):
            named.append((f"layer {number}", layer))
        else:
            named += [(f"layer {number} {way}", part) for way, part in zip(("forward", "backward"), layer, strict=True)]
    return named


def redraw(
    runs: Sequence[Path],
    together: Path | None,
    against: str | None = None,
    style: Style = "talk",
    suffix: str = ".png",
    missed: Callable[[str], object] = lambda text: None,
) -> list[Path]:
    """Draws the pictures of runs from what their directories hold; of a run without its data, its curves alone.

    Args:
        runs: directories.
        together: also the curves of all runs in one picture, here; the seeds of one config share a colour.
        against: what these are drawn against, of `plots.AGAINST`; None for a row against the step and one against the
            seconds of training.
        style: for what they are.
        suffix: of the pictures of each run, of `FORMATS`.
        missed: is told of each run of which curves alone were drawn.

    Raises:
        RunError, CheckpointError: a directory holds no run, or none that can be drawn.
    """
    if together is not None:
        check_picture(together, "--out")
    paths: list[Path] = []
    directories = run_directories(runs)
    for directory in directories:
        config = directory.config()
        experiment = build(config)
        found = newest(directory, experiment)
        try:
            dataset = config.task.load(config.data_root)
            then = found.meta["fingerprint"]
            require_same_data(directory.path, then, dataset.fingerprint, "the others are drawn from the data of then")
        except (DataMissing, DataDamaged, RunError) as error:
            paths.append(_curves(directory, config, style, suffix))
            missed(f"{directory.path}: of its pictures the curves alone were drawn: {error}")
            continue
        told = answered(experiment, dataset, found.best_params, "test")
        paths += draw(directory, experiment, dataset, found.best_params, told, style, suffix)
    if together is not None:
        groups = groups_of(directories)
        rows = ("step", "time") if against is None else (against,)
        curves = {group.label: [run.metrics_lines() for run in group.runs] for group in groups}
        plots.curves(curves, together, plots.metrics_of(group.config for group in groups), rows, style)
        paths.append(together)
    return paths


def run_directories(paths: Sequence[Path]) -> list[RunDirectory]:
    """The runs that lie there, each once; what is of a whole sweep and lies beside its runs is passed over.

    Raises:
        RunError: a directory is not there, or holds no run with metrics.
    """
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        directory = RunDirectory(path)
        if path.name.startswith(("sweep-", "stack-")) and len(paths) > 1 and not directory.is_run():
            continue
        if not path.exists():
            raise RunError(f"{path}: no such directory")
        if not directory.is_run() or not directory.metrics.exists():
            raise RunError(f"{path} holds no run; the pictures are drawn from its metrics.jsonl")
        found.setdefault(path.resolve(), directory)
    return list(found.values())


def check_picture(path: Path, option: str) -> None:
    """Raises RunError unless a picture may be written there."""
    if path.suffix.lower() not in FORMATS:
        raise RunError(f"{path}: a picture ends in .png, .pdf or .svg")
    if path.is_dir():
        raise RunError(f"{path} is a directory; {option} names a picture")
