"""What a run begins with: its newest checkpoint, the parameters of another run, or neither."""

from typing import NamedTuple

import jax

from gru_jax.data.dataset import Dataset
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.run_directory import RunError, require_same_data
from gru_jax.runs.plan import Run, fork_params
from gru_jax.runs.record import Record
from gru_jax.training.experiment import abstract_state, first_state, from_checkpoint
from gru_jax.training.step import TrainState

ANEW = "--fresh starts a new directory"


class Start(NamedTuple):
    """What a run begins with; the state is on the host, `saved_at` is the newest checkpoint's step, or -1."""

    record: Record
    state: TrainState
    saved_at: int


def start(run: Run, dataset: Dataset) -> Start:
    """The newest checkpoint of a run, the same one in every process, or the state before the first step.

    Args:
        run: its directory is read, not changed; its reporter is told of damage.
        dataset: of its task.

    Raises:
        RunError: the run cannot be continued.
        CheckpointError: it has checkpoints, and none can be read.
    """
    directory, record = run.directory, Record(run, dataset)
    forked = run.source and fork_params(run.source, run.experiment)
    lines = directory.metrics_lines() if run.group.first else []
    found = _agreed(run)
    if found is None:
        if directory.status() in ("preempted", "done"):
            raise RunError(
                f"{directory.path} is {directory.status()} but {directory.checkpoints} holds no"
                " checkpoint; --fresh starts a new directory",
                exit_code=1,
            )
        state = jax.device_get(first_state(run.experiment, forked))
        # A run from another one's parameters saves them before all else.
        return Start(record, state, -1 if forked is None else 0)
    require_same_data(directory.path, found.meta["fingerprint"], dataset.fingerprint, ANEW)
    kept, wanted = sum(line["step"] <= found.step for line in lines), found.meta.get("metrics_lines", 0)
    if kept < wanted and run.group.first:
        run.reporter.warn(f"{directory.metrics} has {kept} of the {wanted} lines up to step {found.step}")
    record.history = History.from_meta(found.meta["history"])
    record.best_params = found.best_params if record.history.best else None
    return Start(record, from_checkpoint(run.experiment, found.state, found.meta), found.step)


def _agreed(run: Run) -> Checkpoint | None:
    """The newest checkpoint that the first process can read, as this one reads it."""
    like, group, checkpoints = abstract_state(run.experiment), run.group, run.directory.checkpoints
    found = None
    if group.first:
        found, warnings = checkpoint.restore(checkpoints, like, like.evaluated)
        for warning in warnings:
            run.reporter.warn(warning)
    step = group.from_first(None if found is None else found.step)
    if not group.first and step is not None:
        found, _ = checkpoint.restore(checkpoints, like, like.evaluated, step)
        if found is None:
            raise RunError(f"process {group.index} does not see checkpoint {step} in {checkpoints}", 1)
    return found
