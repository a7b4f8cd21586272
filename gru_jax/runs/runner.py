"""One run from its config to its result: where it goes, what it continues, how it ends."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax import __version__
from gru_jax.config.config import Config, broken_device_rules, compared, config_hash, differences
from gru_jax.config.loading import LoadedConfig
from gru_jax.config.sections.devices import DistributedConfig
from gru_jax.data.dataset import Dataset
from gru_jax.runs import final_result
from gru_jax.runs.environment import environment
from gru_jax.runs.exit_codes import DIVERGED, DONE, STOPPED
from gru_jax.runs.loop import Loop
from gru_jax.runs.on_disk import checkpoint, run_directory
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.processes import ALONE, Group
from gru_jax.runs.resume import Start, fork_params, start
from gru_jax.runs.stop_request import StopRequest
from gru_jax.runs.watching import watchers
from gru_jax.runs.watching.progress import Mute, Reporter
from gru_jax.runs.watching.watchers import Watchers
from gru_jax.training.devices import place, time_mesh
from gru_jax.training.experiment import Experiment, abstract_state, build, to_checkpoint


def prepare(loaded: LoadedConfig) -> Experiment:
    """The experiment of a config, checked against the devices that are here.

    Raises:
        ConfigError: the model cannot be built, or the batch cannot be split over the devices.
        RunError: there is no device at all.
    """
    config = loaded.config
    devices = devices_here()
    broken = broken_device_rules(config, len(devices), devices[0].platform, jax.process_count())
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


def devices_here() -> list[jax.Device]:
    """The devices that jax has.

    Raises:
        RunError: there are none, or none of the kind that JAX_PLATFORMS names.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        # jax knows the name "cuda" without its plugin, and then only asserts that something came of it.
        said = str(error).partition("\n")[0].partition(" (set ")[0] or "none of the platforms asked for is here"
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        fix = f"; leave JAX_PLATFORMS={asked} out, or install the jax that goes with it" if asked else ""
        raise RunError(f"jax finds no device: {said}{fix}", exit_code=1) from error


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
    loaded = _by_group(loaded, group)
    _require_same_config(loaded.config, group)
    reporter = reporter if group.first else Mute()
    experiment = prepare(loaded)
    config, notes, where = loaded.config, [], None
    if group.first:
        directory = RunDirectory(out or run_directory.default_path(config))
        directory, source = _where(directory, experiment, fresh, fork)
        is_run, finished = directory.is_run(), _is_finished(directory, config)
        if is_run and (went_on := run_directory.went_on(directory, config)) and finished:
            reporter.note(f"this run went on to {went_on} epochs: what follows is of them; --fresh trains one as asked")
        else:
            notes = run_directory.compare(directory, config) if is_run else []
        code = _show_finished(directory, config, reporter) if finished else None
        # The other processes may have been started elsewhere.
        seen = Path if group.count == 1 else Path.absolute
        where = [str(seen(directory.path)), source and str(seen(Path(source))), code]
    path, source, code = group.from_first(where)
    if code is not None:
        return int(code)
    directory = RunDirectory(Path(path))
    forked = fork_params(RunDirectory(Path(source)), experiment) if source else None
    if group.first:
        checkpoint.require()
        watchers.require(config)
    dataset = config.task.load(config.data_root)
    _require_same_data(dataset, group)
    if group.first:
        try:
            directory.lock()
        except OSError as error:
            raise RunError(f"{directory.path} cannot be written: {error.strerror}") from error
    try:
        group.require_shared(directory.path)
        # Read before anything is written: a run that cannot be continued is left as it is.
        begun = start(directory, experiment, dataset, forked, reporter, group)
        reporter.note(f"run directory: {directory.path}")
        if source is not None:
            reporter.note(f"from the best parameters of {source}")
        reporter.note(f"task: {dataset.description}")
        if group.count > 1:
            reporter.note(f"{group.count} processes, {len(jax.devices())} devices, strategy {config.parallel.strategy}")
        for note in loaded.notes():
            reporter.note(f"note: {note}")
        for note in notes:
            reporter.note(f"continuing with {note}")
        if notes and (said := _other_rate(directory.config(), experiment, int(begun.state.step))):
            reporter.note(said)
        if int(begun.state.step) > 0:
            reporter.note(f"resuming at step {int(begun.state.step)} of {config.total_steps}")
        return _train(loaded, experiment, dataset, directory, begun, reporter, group)
    finally:
        directory.unlock()


def _other_rate(old: Config, experiment: Experiment, step: int) -> str:
    """What a schedule that ends later does to the rate of a run that goes on; "" where it does nothing."""
    config = experiment.config
    schedule, total = config.optim.schedule, config.total_steps
    if schedule.kind == "constant" or old.total_steps == total or step == 0:
        return ""
    before = schedule.build(old.total_steps, old.steps_per_epoch)
    rates = [config.optim.lr * float(of(jnp.int32(at))) for of, at in ((before, step - 1), (experiment.schedule, step))]
    said = f"the {schedule.kind} schedule now ends at step {total} in place of {old.total_steps}"
    return f"{said}: the rate goes from {rates[0]:.2g} at step {step} to {rates[1]:.2g} at step {step + 1}"


def _by_group(loaded: LoadedConfig, group: Group) -> LoadedConfig:
    """The config as this group of processes runs it; who they are is a matter of the command, not of the run."""
    if group is ALONE:
        require_alone(loaded)
    config = loaded.config
    update: dict[str, Any] = {"distributed": DistributedConfig()}
    if group.count > 1 and "strategy" not in config.parallel.model_fields_set:
        update["parallel"] = config.parallel.model_copy(update={"strategy": "data"})
    return loaded._replace(config=config.model_copy(update=update))


def require_alone(loaded: LoadedConfig) -> None:
    """Raises ConfigError for a run that other processes are to take part in, where none can."""
    if loaded.config.distributed.mode != "off":
        fact = "only gru-jax run is made by several processes; leave it out, or 'off'"
        raise loaded.error([(("distributed", "mode"), fact)])


def _where(directory: RunDirectory, experiment: Experiment, fresh: bool, fork: bool) -> tuple[RunDirectory, str | None]:
    """The directory of the run, and the one whose parameters it starts from."""
    try:
        directory.check_usable()
    except OSError as error:
        raise RunError(f"{directory.path} cannot be used: {error.strerror}") from error
    source = str(directory.path) if fork else None
    if fork:
        fork_params(directory, experiment)
    return RunDirectory(run_directory.numbered(directory.path)) if fresh or fork else directory, source


def _require_same_config(config: Config, group: Group) -> None:
    """Raises RunError where this process would make another run than the first one, or by other code."""
    versions = {"gru_jax": __version__, "jax": jax.__version__}
    first, theirs = group.from_first([compared(config), versions])
    if group.first:
        return
    # Where the data lie is a matter of the machine; what they are is looked at when they are read.
    differ = {key: pair for key, pair in differences(first, compared(config)).items() if key != "data_root"}
    differ |= {key: (theirs[key], mine) for key, mine in versions.items() if theirs[key] != mine}
    if differ:
        lines = [f"  {key}: {mine!r}, there {there!r}" for key, (there, mine) in differ.items()]
        raise RunError(f"process {group.index} is told to make another run than process 0:\n" + "\n".join(lines))


def _require_same_data(dataset: Dataset, group: Group) -> None:
    first = group.from_first(dataset.fingerprint)
    if dataset.fingerprint != first:
        raise RunError(
            f"process {group.index} has other data than process 0 (fingerprint {dataset.fingerprint}, there {first})",
            exit_code=1,
        )


def _is_finished(directory: RunDirectory, config: Config) -> bool:
    status, result = directory.status(), directory.result()
    if result is None or status not in ("done", "diverged"):
        return False
    longer = config.total_steps > result["total_steps"]
    # One whose test values are there came to the end of its training, whatever they are.
    return not longer or result["stopped_early"] or "test/loss" not in result


def _show_finished(directory: RunDirectory, config: Config, reporter: Reporter) -> int:
    result = directory.result()
    assert result is not None
    reporter.note(f"run directory: {directory.path}")
    if result["status"] == "diverged":
        why = f" ({result['why']})" if "why" in result else ""
        reporter.note(f"this run diverged at step {result['steps']}{why}; --fresh starts a new directory")
    else:
        reporter.note("this run is finished; --fresh starts a new directory")
    reporter.result(result)
    if result["stopped_early"]:
        reporter.note(final_result.stopped_early(config, {"best_step": "an earlier one"} | result))
    return DIVERGED if result["status"] == "diverged" else DONE


def _train(
    loaded: LoadedConfig,
    experiment: Experiment,
    dataset: Dataset,
    directory: RunDirectory,
    begun: Start,
    reporter: Reporter,
    group: Group,
) -> int:
    config = loaded.config
    devices = devices_here()[: config.parallel.devices]
    strategy, parts = config.parallel.strategy, config.parallel.parts
    placement = place(strategy, experiment.train_step, experiment.eval_step, devices, parts)
    meta = {"fingerprint": dataset.fingerprint, "config_hash": config_hash(config)}
    with StopRequest() as stop:
        if group.first:
            if begun.forked:
                # Before config.yaml: no kill can leave a run that would start over from other parameters.
                params, first = begun.state.params, meta | {"history": begun.history.to_meta()}
                checkpoint.save(directory.checkpoints, Checkpoint(0, to_checkpoint(begun.state), params, first), keep=1)
            directory.write_inputs(loaded, environment(devices[: placement.devices]))
            directory.set_status("running")
            checkpoint.clean(directory.checkpoints, 0 if begun.forked else begun.saved_at)
        if begun.forked:
            begun = begun._replace(saved_at=0)
        watching = Watchers(config, directory, int(begun.state.step), reporter) if group.first else None
        loop = Loop(experiment, dataset, placement, directory, reporter, stop, meta, watching, group)
        outcome = loop.train(begun.state, begun.best_params, begun.history, begun.saved_at)
        if outcome.status == "preempted":
            if group.first:
                directory.set_status("preempted")
            reporter.note(f"stopped by a signal and saved at step {outcome.step}; the same command goes on")
            return STOPPED
        result = final_result.result(config, experiment, dataset, placement.devices, outcome)
        if outcome.status == "done":
            tested = loop.evaluate(placement.put_state(outcome.best_params), "test")
            result = final_result.with_test_values(result, tested)
        if group.first:
            directory.set_result(result)
            if outcome.status == "done":
                # One sequence does not fill a mesh.
                final_result.pictures(directory, build(config), dataset, outcome.best_params, reporter)
            directory.set_status(result["status"])
    reporter.result(result)
    if result["stopped_early"]:
        reporter.note(final_result.stopped_early(config, result))
    if result["status"] == "diverged":
        kept = checkpoint.steps(directory.checkpoints)
        reporter.warn(
            f"{result['why']}; "
            + (f"the last good checkpoint, step {kept[0]}, is kept" if kept else "no checkpoint was due before")
        )
        return DIVERGED
    return DONE
