"""The whole config of a run, what of it may change when the run is continued, and its hash."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gru_jax.checks import did_you_mean, listed
from gru_jax.config.sections import class_weights
from gru_jax.config.sections.base import (
    ALONE_IN_FILES,
    Count,
    Expected,
    Fraction,
    Interval,
    NonNegative,
    Section,
    interval_steps,
)
from gru_jax.config.sections.class_weights import ClassWeights
from gru_jax.config.sections.devices import DistributedConfig, ParallelConfig, PrecisionConfig
from gru_jax.config.sections.log import LogConfig
from gru_jax.config.sections.methods import AutoMethod, NewtonMethod
from gru_jax.config.sections.models import AnyModel
from gru_jax.config.sections.optim import Adam, AnyOptimizer, dotted, fits
from gru_jax.config.sections.python_file import PythonFile
from gru_jax.config.sections.sweep import SweepConfig
from gru_jax.config.sections.tasks import AnyTask
from gru_jax.data.dataset import BETTER_HIGHER, TARGET_METRICS, TaskShape, has_scores
from gru_jax.types import Plain


class EarlyStopConfig(Section):
    """Stop when `metric` has not improved for `patience` evaluations, or as soon as it is as good as `reached`.

    `metric` also picks the best parameters, those that are tested.
    """

    metric: Literal["valid/loss", "valid/accuracy", "valid/macro_f1", "valid/nll"] = "valid/loss"
    patience: Count = 10
    reached: NonNegative | None = None


class TrainConfig(Section):
    """How long to train, how often to look at the validation split, and what counts in the loss of training.

    `class_weights`: `balanced`, by the inverse of how often a class occurs, or a list. `label_smoothing`: the share of
    a label that is spread over all classes. The losses of the validation and test splits know neither.
    """

    epochs: Count = 10
    eval_every: Interval = "1 epoch"
    early_stop: EarlyStopConfig | None = None
    class_weights: ClassWeights = None
    label_smoothing: Fraction = 0.0

    @property
    def best_by(self) -> str:
        """The validation metric that picks the best parameters."""
        return (self.early_stop or EarlyStopConfig()).metric


class CheckpointConfig(Section):
    """How often to save, and how many checkpoints to keep."""

    every: Interval = "1 epoch"
    keep: Count = 2


class Config(Section):
    """One run.

    `schema`: the version of this format. `name` names the run and its directory, such as `digits/gru`. `seed` decides
    initial parameters, order of examples and dropout. `data_root`: where data files are.
    """

    schema_version: Annotated[int, Field(ge=1, le=1), Expected("1, the only version")] = Field(alias="schema")
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=128),
        Expected("a name such as 'digits/gru' (letters, digits, '_', '-', '.', '/')"),
    ]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    data_root: str | None = None
    task: Annotated[AnyTask, ALONE_IN_FILES]
    model: Annotated[AnyModel, ALONE_IN_FILES]
    optim: Annotated[AnyOptimizer, ALONE_IN_FILES] = Adam(kind="adam")
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    parallel: ParallelConfig = ParallelConfig()
    distributed: DistributedConfig = DistributedConfig()
    precision: PrecisionConfig = PrecisionConfig()
    sweep: SweepConfig | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training set; what does not fill a batch is left out."""
        return self.shape.train // self.task.batch

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.train.epochs * self.steps_per_epoch

    @property
    def shape(self) -> TaskShape:
        """The sizes of the task."""
        return self.task.shape()

    @property
    def newton(self) -> NewtonMethod | None:
        """Newton's method, where the run uses it: with time split over devices, "auto" stands for it."""
        if self.parallel.strategy == "time" and isinstance(self.model.method, AutoMethod):
            return NewtonMethod(kind="newton")
        return self.model.newton

    @property
    def own_files(self) -> dict[str, PythonFile]:
        """The sections, by their keys, that name a Python file of one's own."""
        return {each.place: each for each in (self.task, self.model) if isinstance(each, PythonFile)}

    def resolved(self) -> dict[str, Plain]:
        """Every key with its value, defaults included, as plain nested mappings."""
        return self.model_dump(mode="json", by_alias=True)


# A slip of the finger, or a machine that this library has not met: the splits of an evaluation are held whole.
MOST_NUMBERS = 2**33


def broken_rules(config: Config) -> list[tuple[tuple[str, ...], str]]:
    """(path, fact) for every rule that sections break together; needs no device, no data."""
    found: list[tuple[tuple[str, ...], str]] = []
    batch, train = config.task.batch, config.shape.train
    if batch > train:
        found.append((("task", "batch"), f"{batch} is more than the {train} training examples"))
    elif config.total_steps >= 2**31:
        found.append((("train", "epochs"), f"{config.total_steps} steps are more than can be counted"))
    accumulate = config.parallel.accumulate
    if batch % accumulate:
        fact = f"{accumulate} parts do not divide the batch of {batch} sequences evenly"
        found.append((("parallel", "accumulate"), fact))
    found += [(("optim", *path), fact) for path, fact in _broken_optim_rules(config)]
    shape = config.shape
    numbers = (shape.valid + shape.test) * shape.time * (1 if shape.tokens else shape.features)
    if numbers > MOST_NUMBERS:
        fact = f"the validation and test splits have {numbers:.1e} numbers, more than {MOST_NUMBERS:.1e}; make fewer"
        found.append((("task",), fact))
    metrics = TARGET_METRICS[shape.target]
    scored = shape.target in ("class", "tags") and has_scores(shape, shape.valid)
    best_by = config.train.best_by.removeprefix("valid/")
    if best_by not in (*metrics, *(["macro_f1"] if scored else [])):
        has = " and ".join(f"'valid/{name}'" for name in metrics)
        fact = f"task kind {config.task.kind!r} has {has}, not {config.train.best_by!r}"
        found.append((("train", "early_stop", "metric"), fact))
    reached = config.train.early_stop.reached if config.train.early_stop else None
    if best_by in BETTER_HIGHER and reached is not None and reached > 1:
        what = "an accuracy" if best_by == "accuracy" else "an F1"
        found.append((("train", "early_stop", "reached"), f"{what} is at most 1, got {reached:g}"))
    weighing = class_weights.broken_rules(config.train.class_weights, config.train.label_smoothing, shape)
    found += [(("train", key), fact) for key, fact in weighing]
    pick = config.sweep.pick if config.sweep is not None else None
    if pick is not None and pick.removeprefix("valid/") not in metrics:
        has = " and ".join(f"'valid/{name}'" for name in metrics)
        found.append((("sweep", "pick"), f"task kind {config.task.kind!r} has {has}, not {pick!r}"))
    found += [(("model", key), fact) for key, fact in config.model.broken_rules(config.shape)]
    if config.parallel.strategy == "single" and (config.parallel.devices or 1) > 1:
        fact = "strategy 'single' uses one device; choose 'data' or 'pmap'"
        found.append((("parallel", "devices"), fact))
    if config.parallel.strategy != "time" and config.parallel.parts is not None:
        fact = f"strategy {config.parallel.strategy!r} leaves time whole; choose 'time', or leave parts out"
        found.append((("parallel", "parts"), fact))
    if config.parallel.strategy == "time" and config.newton is not None and config.newton.window is not None:
        fact = "strategy 'time' solves the parts of time at once; leave window out"
        found.append((("model", "method", "window"), fact))
    return found or list(_unknown_parameters(config))


def _broken_optim_rules(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    schedule, per_epoch = config.optim.schedule, max(config.steps_per_epoch, 1)
    many = [each for each in schedule.intervals() if interval_steps(each[1], per_epoch) >= 2**31]
    yield from ((("schedule", key), f"{text} is more steps than can be counted") for key, text in many)
    if not many and config.total_steps < 2**31:
        try:
            schedule.build(max(config.total_steps, 1), per_epoch)
        except (ValueError, ArithmeticError) as error:
            yield ("schedule", "kind"), f"optax does not take these values: {error}".replace("\n", " ")


def _unknown_parameters(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with `optim.rates`: names that no parameter of the model has."""
    if not config.optim.rates:
        return
    names = parameter_names(config)
    for pattern in config.optim.rates:
        if not any(fits(pattern, name) for name in names):
            nearest = did_you_mean(pattern, names, f"they are {listed(names)}")
            yield ("optim", "rates"), f"no parameter is called {pattern!r}{nearest}"


def parameter_names(config: Config) -> list[str]:
    """The names of the model's parameters, `net.layers.0.w_h`; computes nothing."""
    import jax

    shapes = jax.eval_shape(config.model.build(config.shape).init, jax.random.key(0))
    return [dotted(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]


def broken_device_rules(
    config: Config, available: int, platform: str, processes: int = 1
) -> list[tuple[tuple[str, ...], str]]:
    """(path, fact) for every rule that the number of devices, in all processes, breaks."""
    if processes > 1 and config.parallel.strategy in ("single", "pmap"):
        fact = f"{config.parallel.strategy!r} is for one process, and these are {processes}; choose 'data' or 'time'"
        return [(("parallel", "strategy"), fact)]
    if processes > 1 and config.train.best_by == "valid/macro_f1":
        fact = "'valid/macro_f1' is computed by one process, and these are more; choose another metric"
        return [(("train", "early_stop", "metric"), fact)]
    if processes > 1 and config.parallel.devices not in (None, available):
        fact = f"{processes} processes use all of their {available} devices; leave it out"
        return [(("parallel", "devices"), fact)]
    if config.parallel.strategy == "single":
        return []
    devices = config.parallel.devices or available
    if devices > available:
        fact = f"{devices} devices are asked for, and jax has {available}"
        if platform == "cpu":
            fact += f"; XLA_FLAGS=--xla_force_host_platform_device_count={devices} makes so many of the CPU"
        return [(("parallel", "devices"), fact)]
    rows = devices
    if config.parallel.strategy == "time":
        parts = config.parallel.parts or devices
        if devices % parts:
            fact = f"{devices} devices do not make groups of {parts}"
            return [(("parallel", "parts"), fact)]
        if config.shape.time % parts:
            fact = f"the {config.shape.time} steps of a sequence do not split evenly over {parts} devices"
            return [(("parallel", "parts"), fact)]
        rows = devices // parts
    if config.task.batch % rows:
        fact = f"{config.task.batch} does not split evenly over {rows} devices"
        return [(("task", "batch"), fact)]
    share, accumulate = config.task.batch // rows, config.parallel.accumulate
    if share % accumulate:
        fact = f"{accumulate} parts do not divide the {share} sequences of each device evenly"
        return [(("parallel", "accumulate"), fact)]
    return []


# Keys that came after runs had been given their hashes: with these values they change nothing, and are left out.
_LATER_KEYS: dict[str, object] = {
    "train.early_stop.reached": None,
    "train.class_weights": None,
    "train.label_smoothing": 0.0,
    "optim.weight_noise": 0.0,
    "optim.rates": None,
    "optim.ema": None,
    "task.train_shortest": 1,
    "task.valid_lengths": None,
    "task.ask": False,
    "model.embedding": None,
    "model.tied": False,
    "precision": PrecisionConfig().model_dump(),
}


def _forget(values: dict[str, Plain], path: list[str], default: object) -> None:
    inner = values.get(path[0])
    if len(path) > 1 and isinstance(inner, dict):
        _forget(inner, path[1:], default)
    elif len(path) == 1 and path[0] in values and inner == default:
        del values[path[0]]


def config_hash(config: Config) -> str:
    """8 hex digits of everything that decides the numbers of a run, the seed aside."""
    outside = {"name", "seed", "data_root", "checkpoint", "log", "parallel", "distributed", "sweep"}
    deciding = {key: value for key, value in config.resolved().items() if key not in outside}
    for key, section in config.own_files.items():
        # Wherever it lies: what counts is what it says.
        deciding[key] |= {"file": Path(section.file).name, "source": section.source_hash}
    if config.task.kind in ("series", "sequences"):
        deciding["task"]["file"] = Path(config.task.file).name
    for path, default in _LATER_KEYS.items():
        _forget(deciding, path.split("."), default)
    # How the steps run over time changes the numbers by rounding alone, as the strategy does; only a tolerance of
    # one's own may change them by more.
    tol = deciding["model"].pop("method", {}).get("tol")
    if tol is not None:
        deciding["model"]["method.tol"] = tol
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]


def _flat(values: dict[str, Plain], prefix: str = "") -> dict[str, Plain]:
    flat: dict[str, Plain] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def compared(config: Config) -> dict[str, Plain]:
    """Every key, dotted, with its value; a Python file stands for what it says, not for where it lies."""
    flat = _flat(config.resolved())
    for key, section in config.own_files.items():
        flat[f"{key}.file"] = f"{Path(section.file).name} ({section.source_hash})"
    if config.task.kind in ("series", "sequences"):
        # Data have their fingerprint.
        flat["task.file"] = Path(config.task.file).name
    return flat


def changes(old: Config, new: Config) -> dict[str, tuple[Plain, Plain]]:
    """Keys that differ, with the old and the new value (None where a key is absent); a sweep is of no run."""
    return differences(compared(old), compared(new))


def differences(before: dict[str, Plain], after: dict[str, Plain]) -> dict[str, tuple[Plain, Plain]]:
    """`changes` of what is compared of two configs."""
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key.partition(".")[0] != "sweep"
    }


def is_free(key: str, old: object, new: object) -> bool:
    """Whether a run may be continued with the new value.

    It may when the value changes what is watched, or where and how it is computed, but not the numbers.
    """
    if key == "train.epochs":
        return isinstance(old, int) and isinstance(new, int) and new > old
    if key.startswith("model.method."):
        return key != "model.method.tol"
    return key.partition(".")[0] in ("log", "checkpoint", "parallel", "distributed", "data_root", "name")
