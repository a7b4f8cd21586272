"""One run from its config to its result: where it goes, what it continues, how it ends."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from gru_jax.data.dataset import Dataset
from gru_jax.training import checkpoint, ending, run_directory
from gru_jax.training.checkpoint import Checkpoint
from gru_jax.training.config import Config, broken_device_rules, config_hash
from gru_jax.training.devices import place, time_mesh
from gru_jax.training.environment import environment
from gru_jax.training.experiment import (
    Experiment,
    abstract_state,
    build,
    first_state,
    from_checkpoint,
    to_checkpoint,
)
from gru_jax.training.history import History
from gru_jax.training.loading import LoadedConfig
from gru_jax.training.loop import Loop
from gru_jax.training.progress import Reporter
from gru_jax.training.run_directory import RunDirectory, RunError
from gru_jax.training.signals import StopRequest
from gru_jax.training.watchers import Watchers
from gru_jax.types import Params

DONE, DIVERGED, PREEMPTED = 0, 4, 75


class Start(NamedTuple):
    """What a run begins with, on the host; `saved_at` is the newest checkpoint's step, or -1."""

    state: Any
    best_params: Params | None
    history: History
    saved_at: int
    forked: bool = False


def prepare(loaded: LoadedConfig) -> Experiment:
    """The experiment of a config, checked against the devices that are here.

    Raises:
        ConfigError: the model cannot be built, or the batch cannot be split over the devices.
        RunError: there is no device at all.
    """
    config = loaded.config
    devices = _devices()
    broken = broken_device_rules(config, len(devices), devices[0].platform)
    if broken:
        raise loaded.error(broken)
    try:
        parallel = config.parallel
        mesh = time_mesh(devices[: parallel.devices], parallel.parts) if parallel.strategy == "time" else None
        experiment = build(config, mesh)
        abstract_state(experiment)
    except (TypeError, ValueError) as error:
        # The library's own checks speak of their arguments, which are named as the keys are.
        raise loaded.error([(("model",), str(error))]) from error
    return experiment


def _devices() -> list[jax.Device]:
    try:
        return jax.devices()
    except RuntimeError as error:
        raise RunError(f"jax finds no device: {error}", exit_code=1) from error


def run(loaded: LoadedConfig, *, out: Path | None, fresh: bool, fork: bool, reporter: Reporter) -> int:
    """Starts a run, or continues the one that its directory holds.

    Args:
        loaded: the config.
        out: the run's directory; None for `runs/<name>/<hash>-s<seed>`.
        fresh: start in a new, numbered directory if there is a run already.
        fork: start in a new, numbered directory from the best parameters of the run that is there.
        reporter: what speaks to the user.

    Returns:
        The exit code: 0 done, 4 diverged, 75 stopped by a signal after saving.

    Raises:
        ConfigError, DataMissing, RunError, CheckpointError: nothing was changed.
        OSError: something could not be written; what was there is whole.
    """
    experiment = prepare(loaded)
    config, devices = loaded.config, _devices()
    directory = RunDirectory(out or run_directory.default_path(config))
    try:
        directory.check_usable()
    except OSError as error:
        raise RunError(f"{directory.path} cannot be used: {error.strerror}") from error
    forked = _fork_params(directory, experiment) if fork else None
    if fresh or fork:
        directory = RunDirectory(run_directory.numbered(directory.path))
    notes = run_directory.compare(directory, config) if directory.is_run() else []
    if _is_finished(directory, config):
        return _show_finished(directory, reporter)
    checkpoint.require()
    dataset = config.task.load(config.data_root)
    try:
        directory.lock()
    except OSError as error:
        raise RunError(f"{directory.path} cannot be written: {error.strerror}") from error
    try:
        # Read before anything is written: a run that cannot be continued is left as it is.
        start = _start(directory, experiment, dataset, forked, reporter)
        reporter.note(f"run directory: {directory.path}")
        reporter.note(f"task: {dataset.description}")
        for note in loaded.notes():
            reporter.note(f"note: {note}")
        for note in notes:
            reporter.note(f"continuing with {note}")
        if any(note.startswith("train.epochs") for note in notes) and config.optim.schedule.kind != "constant":
            reporter.note(f"the {config.optim.schedule.kind} schedule now ends at step {config.total_steps}")
        if int(start.state.step) > 0:
            reporter.note(f"resuming at step {int(start.state.step)} of {config.total_steps}")
        return _train(loaded, experiment, dataset, directory, devices, start, reporter)
    finally:
        directory.unlock()


def _is_finished(directory: RunDirectory, config: Config) -> bool:
    status, result = directory.status(), directory.result()
    if result is None or status not in ("done", "diverged"):
        return False
    longer = config.total_steps > result["total_steps"]
    return not longer or result["status"] == "diverged" or result["stopped_early"]


def _show_finished(directory: RunDirectory, reporter: Reporter) -> int:
    result = directory.result()
    assert result is not None
    reporter.note(f"run directory: {directory.path}")
    if result["status"] == "diverged":
        reporter.note(f"this run diverged at step {result['steps']}; --fresh starts a new directory")
    else:
        reporter.note("this run is finished; --fresh starts a new directory")
    reporter.result(result)
    return DIVERGED if result["status"] == "diverged" else DONE


def _start(
    directory: RunDirectory,
    experiment: Experiment,
    dataset: Dataset,
    forked: Params | None,
    reporter: Reporter,
) -> Start:
    like = abstract_state(experiment)
    lines = directory.metrics_lines()
    found, warnings = checkpoint.restore(directory.checkpoints, like, like.params)
    for warning in warnings:
        reporter.warn(warning)
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
    if kept < wanted:
        reporter.warn(f"{directory.metrics} has {kept} of the {wanted} lines up to step {found.step}")
    history = History.from_meta(found.meta["history"])
    best = found.best_params if history.best else None
    return Start(from_checkpoint(experiment, found.state, found.meta), best, history, found.step)


def _fork_params(source: RunDirectory, experiment: Experiment) -> Params:
    """The best parameters of an existing run, to start another one from."""
    if not source.is_run():
        raise RunError(f"--fork: {source.path} holds no run to start from")
    like = abstract_state(build(source.config()))
    wanted = abstract_state(experiment).params
    if [leaf.shape for leaf in jax.tree.leaves(like.params)] != [leaf.shape for leaf in jax.tree.leaves(wanted)]:
        raise RunError(f"--fork: the parameters of {source.path} do not fit the model of this config")
    found, _ = checkpoint.restore(source.checkpoints, like, like.params)
    if found is None:
        raise RunError(f"--fork: {source.path} holds no checkpoint to start from")
    leaves = jax.tree.leaves(found.best_params)
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def _train(
    loaded: LoadedConfig,
    experiment: Experiment,
    dataset: Dataset,
    directory: RunDirectory,
    devices: list[jax.Device],
    start: Start,
    reporter: Reporter,
) -> int:
    config = loaded.config
    devices = devices[: config.parallel.devices]
    strategy, parts = config.parallel.strategy, config.parallel.parts
    placement = place(strategy, experiment.train_step, experiment.eval_step, devices, parts)
    meta = {"fingerprint": dataset.fingerprint, "config_hash": config_hash(config)}
    with StopRequest() as stop:
        if start.forked:
            # Before config.yaml: no kill can leave a run that would start over from other parameters.
            params, first = start.state.params, meta | {"history": start.history.to_meta()}
            checkpoint.save(directory.checkpoints, Checkpoint(0, to_checkpoint(start.state), params, first), keep=1)
            start = start._replace(saved_at=0)
        directory.write_inputs(loaded, environment(devices[: placement.devices]))
        directory.set_status("running")
        checkpoint.clean(directory.checkpoints, start.saved_at)
        watchers = Watchers(config, directory, int(start.state.step), reporter)
        loop = Loop(experiment, dataset, placement, directory, reporter, stop, meta, watchers)
        outcome = loop.train(start.state, start.best_params, start.history, start.saved_at)
        if outcome.status == "preempted":
            directory.set_status("preempted")
            reporter.note(f"stopped by a signal and saved at step {outcome.step}; the same command goes on")
            return PREEMPTED
        result = ending.result(config, experiment, dataset, placement.devices, outcome)
        if outcome.status == "done":
            result |= loop.evaluate(placement.put_state(outcome.best_params), "test")
        directory.set_result(result)
        if outcome.status == "done":
            # One sequence does not fill a mesh.
            ending.pictures(directory, build(config), dataset, outcome.best_params, reporter)
        directory.set_status(outcome.status)
    reporter.result(result)
    if outcome.status == "diverged":
        kept = checkpoint.steps(directory.checkpoints)
        reporter.warn(
            f"the loss or the state was not finite at step {outcome.step}; "
            + (f"the last good checkpoint, step {kept[0]}, is kept" if kept else "no checkpoint was due before")
        )
        return DIVERGED
    return DONE
