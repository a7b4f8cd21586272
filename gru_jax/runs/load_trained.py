"""A trained model, read back from the directory of its run: to use it, and to evaluate it again."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.config.config import Config, config_hash
from gru_jax.config.loading import load_config
from gru_jax.data.dataset import Dataset, Split
from gru_jax.models import Model
from gru_jax.runs.answers import Answers
from gru_jax.runs.evaluation import split_metrics, split_sums
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.plan import prepare
from gru_jax.runs.predictions import class_names
from gru_jax.runs.scores import answered, confusion, scores
from gru_jax.training.devices import place
from gru_jax.training.experiment import Experiment, abstract_state, build, whole
from gru_jax.types import Params, Plain


class Trained(NamedTuple):
    """What a run has learnt.

    Attributes:
        config: the run's config; `config.task.load(config.data_root)` gives its data.
        model: the network with its output layer, a pair of pure functions `init` and `apply`.
        params: the parameters of the run's best evaluation, those that its test values belong to.
    """

    config: Config
    model: Model
    params: Params


def load(run_directory: str | Path) -> Trained:
    """Reads the best parameters from a run's newest whole checkpoint; also while the run goes on.

    Args:
        run_directory: what `gru-jax run` printed, or its `--out`.

    Returns:
        The config, the model and its parameters.

    Raises:
        RunError: there is no run, or it has no checkpoint yet.
        CheckpointError: there are checkpoints, and none can be read.

    Example:
        >>> load("nowhere")
        Traceback (most recent call last):
        gru_jax.runs.on_disk.run_directory.RunError: nowhere holds no run
    """
    directory = RunDirectory(Path(run_directory))
    if not directory.is_run():
        raise RunError(f"{directory.path} holds no run")
    experiment = build(directory.config())
    found = newest(directory, experiment)
    return Trained(experiment.config, experiment.model, jax.tree.map(jnp.asarray, found.best_params))


def newest(directory: RunDirectory, experiment: Experiment) -> Checkpoint:
    """The newest whole checkpoint of a run.

    Args:
        directory: of the run.
        experiment: of its config.

    Raises:
        RunError: there is none yet, or the task's Python file is not the one that the run was trained with.
        CheckpointError: there are checkpoints, and none can be read.
    """
    like = abstract_state(experiment)
    found, _ = checkpoint.restore(directory.checkpoints, like, like.evaluated)
    if found is None:
        raise RunError(f"{directory.path} holds no checkpoint yet")
    then = found.meta.get("config_hash")
    lost = [each for key, each in experiment.config.own_files.items() if not (directory.path / key).is_dir()]
    # Runs from before there was a copy have only their hash to tell.
    if lost and then not in (None, config_hash(experiment.config)):
        raise RunError(
            f"{lost[0].source.path} is not the file that {directory.path} was trained with (its config's hash is"
            f" {config_hash(experiment.config)}, and was {then}); put the old one there",
            exit_code=1,
        )
    return found


class Evaluated(NamedTuple):
    """A run's best parameters on a split.

    Attributes:
        config: the run's config.
        dataset: of its task.
        metrics: by their names in result.json, scores among them.
        answers: what the model said; None where there are too many answers to look at, or of notes.
        beside: of forecasts, what result.json has beside the scores: baselines and the like.
        verdict: of forecasts, whether they are better than the baselines, in words; else "".
    """

    config: Config
    dataset: Dataset
    metrics: dict[str, float]
    answers: Answers | None
    beside: dict[str, Plain]
    verdict: str

    def in_json(self) -> dict[str, Plain]:
        """The metrics, null where one is not finite; of classes and tags the confusion matrix and their names."""
        metrics = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        if self.answers is None or self.config.shape.target not in ("class", "tags"):
            return {"metrics": metrics, **self.beside}
        counts = confusion(self.answers.outputs, self.answers.y)
        names = class_names(self.dataset, self.config.shape)
        return {"metrics": metrics, "classes": names, "confusion": counts.tolist()}


def evaluate_run(
    run_directory: str | Path,
    split: str = "test",
    data_root: str | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> dict[str, float]:
    """The metrics of a run's best parameters on a split, see `evaluated`."""
    return evaluated(run_directory, split, data_root, note).metrics


def evaluated(
    run_directory: str | Path,
    split: str = "test",
    data_root: str | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> Evaluated:
    """A run's best parameters on a split, evaluated as the run evaluates them.

    Args:
        run_directory: as for `load`.
        split: "valid", "test", or "train" where it is not generated.
        data_root: where the data files are, in place of what the run's config says.
        note: is told what the user should know, such as that the task's file has changed since.

    Raises:
        RunError: there is no run, it has no checkpoint yet, the data are others than those it was trained on, or the
            training data are generated.
        CheckpointError: there are checkpoints, and none can be read.
        ConfigError: the model does not fit the devices that are here.
        DataMissing: the data are not here.
    """
    directory = RunDirectory(Path(run_directory))
    if not directory.is_run():
        raise RunError(f"{directory.path} holds no run")
    elsewhere = [] if data_root is None else [f"data_root={json.dumps(data_root)}"]
    loaded = load_config(directory.path / "config.yaml", elsewhere)
    config, experiment = loaded.config, prepare(loaded)
    found = newest(directory, experiment)
    for key, section in config.own_files.items():
        if section.changed():
            file = section.source.path
            copy = directory.path / key / file.name
            note(f"{file} has changed since, or is gone; evaluated with {copy}, as it was at the run's start")
    dataset = config.task.load(config.data_root)
    if found.meta["fingerprint"] != dataset.fingerprint:
        raise RunError(
            f"the data are not those that {directory.path} was trained on (fingerprint {found.meta['fingerprint']}, now"
            f" {dataset.fingerprint}); name the folder of the others with --data-root",
            exit_code=1,
        )
    part = getattr(dataset, split)
    if not isinstance(part, Split) and callable(part):
        raise RunError(f"the training data of {directory.path} are generated, others at each step; take another split")
    devices, parallel = jax.devices()[: config.parallel.devices], config.parallel
    placement = place(parallel.strategy, experiment.train_step, experiment.eval_step, devices, parallel.parts)
    params = placement.put_state(found.best_params)
    metrics, _ = split_metrics(experiment, split_sums(experiment, dataset, placement, params, split), split)
    told = answered(whole(experiment), dataset, found.best_params, split)
    metrics |= scores(told, dataset, config.shape, split)
    beside = {}
    if told is not None and dataset.series is not None:
        beside = forecasts.beside(forecasts.of(told, dataset, config.shape))
    return Evaluated(config, dataset, metrics, told, beside, forecasts.verdict(metrics | beside, split))
