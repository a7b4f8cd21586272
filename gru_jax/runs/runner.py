"""One run from its config to its result: plan, resume, train, result."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

from gru_jax.config.config import Config
from gru_jax.config.loading import LoadedConfig
from gru_jax.data.dataset import Dataset
from gru_jax.runs import final_result
from gru_jax.runs.environment import environment
from gru_jax.runs.exit_codes import DIVERGED, DONE, STOPPED
from gru_jax.runs.finished import require_data_of
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.loop import Loop, Trainees
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.run_directory import RunError
from gru_jax.runs.plan import Run, devices_here, plan, with_weights
from gru_jax.runs.processes import ALONE, Group
from gru_jax.runs.resume import ANEW, Start, start
from gru_jax.runs.stop_request import StopRequest
from gru_jax.runs.watching import watchers
from gru_jax.runs.watching.progress import Reporter
from gru_jax.training.devices import place
from gru_jax.training.experiment import Experiment
from gru_jax.types import Plain


def run(
    loaded: LoadedConfig, *, out: Path | None, fresh: bool, fork: bool, reporter: Reporter, group: Group = ALONE
) -> int:
    """Starts a run, or continues the one that its directory holds.

    Args:
        loaded: the config.
        out: the run's directory; None for `runs/<name>/<hash>-s<seed>`.
        fresh: start in a new, numbered directory if there is a run already.
        fork: start in a new, numbered directory from the best parameters of the run that is there.
        reporter: what speaks to the user.
        group: the processes that make the run; all of them call this.

    Returns:
        The exit code: 0 done, 4 diverged, 75 stopped by a signal after saving.

    Raises:
        ConfigError, DataMissing, RunError, CheckpointError: nothing was changed.
        OSError: something could not be written; what was there is whole.
    """
    planned = plan(loaded, out, fresh=fresh, fork=fork, reporter=reporter, group=group)
    if planned.result is not None:
        require_data_of(planned.config, {planned.directory.path: planned.result}, planned.reporter.note, ANEW)
        return _show_finished(planned, planned.result)
    if group.first:
        checkpoint.require()
        watchers.require(planned.config)
    dataset = _data(planned)
    planned = dataclasses.replace(planned, experiment=with_weights(loaded, planned.experiment, dataset))
    with _locked(planned):
        # Read before anything is written: a run that cannot be continued is left as it is.
        begun = start(planned, dataset)
        _show_begun(begun)
        return _train(begun)


def _show_finished(run: Run, result: final_result.Result) -> int:
    for note in run.notes:
        run.reporter.note(note)
    run.reporter.note(f"run directory: {run.directory.path}")
    if result["status"] == "diverged":
        why = f" ({result['why']})" if "why" in result else ""
        run.reporter.note(f"this run diverged at step {result['steps']}{why}; --fresh starts a new directory")
    else:
        run.reporter.note("this run is finished; --fresh starts a new directory")
    return _show_result(run, result)


def _show_result(run: Run, result: final_result.Result) -> int:
    """Shows a result; the exit code that goes with it."""
    run.reporter.result(result)
    if result["stopped_early"]:
        run.reporter.note(final_result.stopped_early(run.config, result))
    if verdict := forecasts.verdict(result):
        run.reporter.note(verdict)
    return DIVERGED if result["status"] == "diverged" else DONE


def _data(run: Run) -> Dataset:
    """The data of the run, which have to be the same in every process."""
    dataset, group = run.config.task.load(run.config.data_root), run.group
    first = group.from_first(dataset.fingerprint)
    if dataset.fingerprint != first:
        raise RunError(
            f"process {group.index} has other data than process 0 (fingerprint {dataset.fingerprint}, there {first})",
            exit_code=1,
        )
    return dataset


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Keeps every other live run out of the directory."""
    if run.group.first:
        try:
            run.directory.lock()
        except OSError as error:
            raise RunError(f"{run.directory.path} cannot be written: {error.strerror}") from error
    try:
        run.group.require_shared(run.directory.path)
        yield
    finally:
        run.directory.unlock()


def _show_begun(begun: Start) -> None:
    run, step = begun.record.run, int(begun.state.step)
    config, say = run.config, run.reporter.note
    say(f"run directory: {run.directory.path}")
    if run.source is not None:
        say(f"from the best parameters of {run.source.path}")
    say(f"task: {begun.record.dataset.description}")
    if run.group.count > 1:
        say(f"{run.group.count} processes, {len(jax.devices())} devices, strategy {config.parallel.strategy}")
    for note in [*(f"note: {note}" for note in run.loaded.notes()), *run.notes]:
        say(note)
    if run.notes and (said := _other_rate(run.directory.config(), run.experiment, step)):
        say(said)
    if step > 0:
        say(f"resuming at step {step} of {config.total_steps}")


def _other_rate(old: Config, experiment: Experiment, step: int) -> str:
    """What a schedule that ends later does to the rate of a run that goes on; "" where it does nothing."""
    config = experiment.config
    schedule, total = config.optim.schedule, config.total_steps
    if schedule.kind == "constant" or old.total_steps == total or step == 0:
        return ""
    before = schedule.build(old.total_steps, old.steps_per_epoch)
    rates = [config.optim.lr * float(of(jnp.int32(at))) for of, at in ((before, step - 1), (experiment.schedule, step))]
    if float(before(jnp.int32(step))) == float(experiment.schedule(jnp.int32(step))):
        return ""  # one that does not know where the run ends
    said = f"the {schedule.kind} schedule now ends at step {total} in place of {old.total_steps}"
    return f"{said}: the rate goes from {rates[0]:.2g} at step {step} to {rates[1]:.2g} at step {step + 1}"


def _train(begun: Start) -> int:
    run = begun.record.run
    parallel, steps = run.config.parallel, (run.experiment.train_step, run.experiment.eval_step)
    devices = devices_here()[: parallel.devices]
    placement = place(parallel.strategy, *steps, devices, parallel.parts)
    with StopRequest() as stop:
        if run.group.first:
            _begin(begun, environment(devices[: placement.devices]))
        (record,) = Loop(Trainees(begun.record, placement), stop).train(begun.state, begun.saved_at)
        if record.status == "preempted":
            if run.group.first:
                run.directory.set_status("preempted")
            run.reporter.note(f"stopped by a signal and saved at step {record.step}; the same command goes on")
            return STOPPED
        result = final_result.finish(record, placement)
    code = _show_result(run, result)
    if code == DIVERGED:
        kept = checkpoint.steps(run.directory.checkpoints)
        last = f"the last good checkpoint, step {kept[0]}, is kept" if kept else "no checkpoint was due before"
        run.reporter.warn(f"{result['why']}; {last}")
    return code


def _begin(begun: Start, here: dict[str, Plain]) -> None:
    """Writes what a run has before its first step."""
    run = begun.record.run
    if run.source is not None:
        # Before config.yaml: no kill can leave a run that would start over from other parameters.
        begun.record.save(0, begun.state)
    run.directory.write_inputs(run.loaded, here)
    run.directory.set_status("running")
    checkpoint.clean(run.directory.checkpoints, begun.saved_at)
