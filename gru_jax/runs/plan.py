"""What a run is, decided once: its config, its functions, its directory, and who takes part."""

import dataclasses
import functools
from pathlib import Path

import jax

from gru_jax import __version__
from gru_jax.config.config import Config, broken_device_rules, compared, config_hash, differences
from gru_jax.config.loading import LoadedConfig
from gru_jax.config.sections.devices import DistributedConfig
from gru_jax.config.sections.models.own_cell import PythonModel
from gru_jax.data.dataset import Dataset
from gru_jax.runs.on_disk import checkpoint, run_directory
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.processes import ALONE, Group
from gru_jax.runs.watching.progress import Mute, Reporter
from gru_jax.training.class_weights import weighed
from gru_jax.training.devices import time_mesh
from gru_jax.training.experiment import Experiment, abstract_state, build, whole
from gru_jax.types import Options, Params, Plain


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, from its plan to its result.

    Attributes:
        loaded: its config, and where that came from.
        experiment: the functions of the config, for the devices that are here.
        directory: where it is.
        reporter: what speaks to the user.
        group: the processes that make it.
        source: the run from whose best parameters it starts; None for none.
        result: of a run that has come to its end before; None of any other.
        notes: what the user is told of how it goes on; the first process has them.
    """

    loaded: LoadedConfig
    experiment: Experiment
    directory: RunDirectory
    reporter: Reporter
    group: Group = ALONE
    source: RunDirectory | None = None
    result: dict[str, Plain] | None = None
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """What decides its numbers, and what is watched."""
        return self.loaded.config

    @functools.cached_property
    def hash(self) -> str:
        """Of all that decides its numbers, the seed aside."""
        return config_hash(self.config)

    @functools.cached_property
    def whole(self) -> Experiment:
        """Its functions without a mesh."""
        return whole(self.experiment)


def plan(loaded: LoadedConfig, out: Path | None, *, fresh: bool, fork: bool, reporter: Reporter, group: Group) -> Run:
    """Looks at everything that can be looked at before the data are read; writes nothing.

    Args: as of `gru_jax.runs.runner.run`.

    Raises:
        ConfigError, RunError, CheckpointError: the run cannot be.
    """
    loaded = _by_group(loaded, group)
    _require_same_config(loaded.config, group)
    experiment = prepare(loaded)
    where: list[Plain] | None = None
    notes: list[str] = []
    if group.first:
        directory = RunDirectory(out or run_directory.default_path(loaded.config))
        directory, source = _where(directory, experiment, fresh, fork)
        result, notes = _found(directory, loaded.config)
        # The other processes may have been started elsewhere.
        seen = Path if group.count == 1 else Path.absolute
        where = [str(seen(directory.path)), source and str(seen(source)), result]
    path, forked, result = group.from_first(where)
    directory, origin = RunDirectory(Path(path)), RunDirectory(Path(forked)) if forked else None
    reporter = reporter if group.first else Mute()
    return Run(loaded, experiment, directory, reporter, group, origin, result, tuple(notes))


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
    if isinstance(config.model, PythonModel) and (misstep := config.model.misstep(config.shape)):
        raise loaded.error([(("model", "file"), misstep)])
    try:
        parallel = config.parallel
        mesh = time_mesh(devices[: parallel.devices], parallel.parts) if parallel.strategy == "time" else None
        experiment = build(config, mesh)
        abstract_state(experiment)
    except (TypeError, ValueError) as error:
        # The library's own checks speak of their arguments, which are named as the keys are.
        raise loaded.error([(("model",), str(error))]) from error
    return experiment


def with_weights(loaded: LoadedConfig, experiment: Experiment, dataset: Dataset) -> Experiment:
    """The experiment whose training step weighs classes as the config says.

    Raises:
        ConfigError: the weights are to be counted, and the training data are generated.
    """
    try:
        return weighed(experiment, dataset)
    except ValueError as error:
        raise loaded.error([(("train", "class_weights"), str(error))]) from error


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


def require_alone(loaded: LoadedConfig) -> None:
    """Raises ConfigError for a run that other processes are to take part in, where none can."""
    if loaded.config.distributed.mode != "off":
        fact = "only gru-jax run is made by several processes; leave it out, or 'off'"
        raise loaded.error([(("distributed", "mode"), fact)])


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
    found, _ = checkpoint.restore(source.checkpoints, like, like.evaluated)
    if found is None:
        raise RunError(f"--fork: {source.path} holds no checkpoint to start from")
    # The run may have held them in another precision.
    pairs = zip(jax.tree.leaves(found.best_params), jax.tree.leaves(wanted), strict=True)
    return jax.tree.unflatten(jax.tree.structure(wanted), [leaf.astype(want.dtype) for leaf, want in pairs])


def _by_group(loaded: LoadedConfig, group: Group) -> LoadedConfig:
    """The config as this group of processes runs it; who they are is a matter of the command, not of the run."""
    if group is ALONE:
        require_alone(loaded)
    config = loaded.config
    update: Options = {"distributed": DistributedConfig()}
    if group.count > 1 and "strategy" not in config.parallel.model_fields_set:
        update["parallel"] = config.parallel.model_copy(update={"strategy": "data"})
    return loaded._replace(config=config.model_copy(update=update))


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


def _where(
    directory: RunDirectory, experiment: Experiment, fresh: bool, fork: bool
) -> tuple[RunDirectory, Path | None]:
    """The directory of the run, and the one whose parameters it starts from."""
    try:
        directory.check_usable()
    except OSError as error:
        raise RunError(f"{directory.path} cannot be used: {error.strerror}") from error
    source = directory.path if fork else None
    if fork:
        fork_params(directory, experiment)
    return RunDirectory(run_directory.numbered(directory.path)) if fresh or fork else directory, source


def _found(directory: RunDirectory, config: Config) -> tuple[dict[str, Plain] | None, list[str]]:
    """The result of a run that is there and has come to its end, and notes on what this config changes about it."""
    if not directory.is_run():
        return None, []
    result = _end_of(directory, config)
    if result is not None and (went_on := run_directory.went_on(directory, config)):
        note = f"this run went on to {went_on} epochs: what follows is of them; --fresh trains one as asked"
        return result, [note]
    notes = run_directory.compare(directory, config)
    return result, [] if result is not None else [f"continuing with {note}" for note in notes]


def _end_of(directory: RunDirectory, config: Config) -> dict[str, Plain] | None:
    status, result = directory.status(), directory.result()
    if result is None or status not in ("done", "diverged"):
        return None
    longer = config.total_steps > result["total_steps"]
    # One whose test values are there came to the end of its training, whatever they are.
    return result if not longer or result["stopped_early"] or "test/loss" not in result else None
