"""What a run begins with: its newest checkpoint, the parameters of another run, or neither."""

from typing import Any, NamedTuple

import jax

from gru_jax.config import loading
from gru_jax.config.config import config_hash
from gru_jax.config.sections.tasks.python_file import PythonTask
from gru_jax.data.dataset import Dataset
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.processes import Group
from gru_jax.runs.watching.progress import Reporter
from gru_jax.training.experiment import Experiment, abstract_state, build, first_state, from_checkpoint
from gru_jax.types import Params


class Start(NamedTuple):
    """What a run begins with, on the host; `saved_at` is the newest checkpoint's step, or -1."""

    state: Any
    best_params: Params | None
    history: History
    saved_at: int
    forked: bool = False


def start(
    directory: RunDirectory,
    experiment: Experiment,
    dataset: Dataset,
    forked: Params | None,
    reporter: Reporter,
    group: Group,
) -> Start:
    """The newest checkpoint of a run, the same one in every process, or the state before the first step.

    Args:
        directory: of the run; read, not changed.
        experiment: of its config.
        dataset: of its task.
        forked: parameters to start from, where there is no checkpoint.
        reporter: what is told of damage.
        group: the processes of the run.

    Raises:
        RunError: the run cannot be continued.
        CheckpointError: it has checkpoints, and none can be read.
    """
    lines = directory.metrics_lines() if group.first else []
    found = _agreed(directory, experiment, reporter, group)
    if found is None:
        if directory.status() in ("preempted", "done"):
            raise RunError(
                f"{directory.path} is {directory.status()} but {directory.checkpoints} holds no"
                " checkpoint; --fresh starts a new directory",
                exit_code=1,
            )
        state = jax.device_get(first_state(experiment))
        if forked is not None:
            state = state._replace(params=forked)
        return Start(state, None, History(), -1, forked is not None)
    if found.meta["fingerprint"] != dataset.fingerprint:
        raise RunError(
            f"the data have changed since {directory.path} was started (fingerprint"
            f" {found.meta['fingerprint']}, now {dataset.fingerprint});"
            " --fresh starts a new directory",
            exit_code=1,
        )
    kept, wanted = sum(line["step"] <= found.step for line in lines), found.meta.get("metrics_lines", 0)
    if kept < wanted and group.first:
        reporter.warn(f"{directory.metrics} has {kept} of the {wanted} lines up to step {found.step}")
    history = History.from_meta(found.meta["history"])
    best = found.best_params if history.best else None
    return Start(from_checkpoint(experiment, found.state, found.meta), best, history, found.step)


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
    found, _ = checkpoint.restore(directory.checkpoints, like, like.params)
    if found is None:
        raise RunError(f"{directory.path} holds no checkpoint yet")
    task, then = experiment.config.task, found.meta.get("config_hash")
    kept = (directory.path / loading.TASK_FOLDER).is_dir()
    # Runs from before there was a copy have only their hash to tell.
    if isinstance(task, PythonTask) and not kept and then not in (None, config_hash(experiment.config)):
        raise RunError(
            f"{task.source.path} is not the file that {directory.path} was trained with (its config's hash is"
            f" {config_hash(experiment.config)}, and was {then}); put the old one there",
            exit_code=1,
        )
    return found


def fork_params(source: RunDirectory, experiment: Experiment) -> Params:
    """The best parameters of an existing run, to start another one from.

    Raises:
        RunError: there is no run, or its parameters do not fit.
    """
    if not source.is_run():
        raise RunError(f"--fork: {source.path} holds no run to start from")
    like = abstract_state(build(source.config()))
    wanted = abstract_state(experiment).params
    if [leaf.shape for leaf in jax.tree.leaves(like.params)] != [leaf.shape for leaf in jax.tree.leaves(wanted)]:
        raise RunError(f"--fork: the parameters of {source.path} do not fit the model of this config")
    found, _ = checkpoint.restore(source.checkpoints, like, like.params)
    if found is None:
        raise RunError(f"--fork: {source.path} holds no checkpoint to start from")
    # The run may have held them in another precision.
    pairs = zip(jax.tree.leaves(found.best_params), jax.tree.leaves(wanted), strict=True)
    return jax.tree.unflatten(jax.tree.structure(wanted), [leaf.astype(want.dtype) for leaf, want in pairs])


def _agreed(directory: RunDirectory, experiment: Experiment, reporter: Reporter, group: Group) -> Checkpoint | None:
    """The newest checkpoint that the first process can read, as this one reads it."""
    like = abstract_state(experiment)
    found = None
    if group.first:
        found, warnings = checkpoint.restore(directory.checkpoints, like, like.params)
        for warning in warnings:
            reporter.warn(warning)
    step = group.from_first(None if found is None else found.step)
    if not group.first and step is not None:
        found, _ = checkpoint.restore(directory.checkpoints, like, like.params, step)
        if found is None:
            raise RunError(f"process {group.index} does not see checkpoint {step} in {directory.checkpoints}", 1)
    return found
