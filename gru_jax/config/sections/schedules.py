"""The section `optim.schedule`: factors on the peak learning rate, ours and those of optax, by `kind`."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

import optax
from optax import contrib
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gru_jax.config.sections.base import (
    INTERVAL_PATTERN,
    Interval,
    Section,
    interval_steps,
    is_interval,
)
from gru_jax.config.sections.from_signatures import section_for
from gru_jax.types import Function, Plain


def mixed_dtypes_allowed(function: Function) -> Function:
    """The function, where optax may multiply a float32 by its int32 counter and a matrix by a vector.

    It does; without this, training would fail for whoever sets jax to strict promotion.
    """
    import jax

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **options)

    return call


class Schedule(Section):
    """What all schedules have: factors on `lr`, which is the peak."""

    kind: str

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        """Step -> factor, for a run of `total` steps; `steps` tells those of an interval."""
        raise NotImplementedError

    def build(self, total: int, per_epoch: int) -> optax.Schedule:
        """Step -> factor on the peak rate, of a run of `total` steps, `per_epoch` of them in an epoch."""
        return mixed_dtypes_allowed(self.curve(total, functools.partial(interval_steps, steps_per_epoch=per_epoch)))

    def intervals(self) -> Iterator[tuple[str, str]]:
        """(key, interval) for every stretch of training that is told."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            each = list(value) if isinstance(value, dict | list) else [value]
            yield from ((name, text) for text in each if name != "kind" and is_interval(text))


class ConstantSchedule(Schedule):
    """The peak rate throughout."""

    kind: Literal["constant"]

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        return optax.constant_schedule(1.0)


class CosineSchedule(Schedule):
    """From the peak rate down to `final` times the peak, half a cosine over the whole run."""

    kind: Literal["cosine"]
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        return optax.cosine_decay_schedule(1.0, total, self.final)


class WarmupCosineSchedule(Schedule):
    """A straight line from 0 to the peak rate over `warmup`, then as `cosine`."""

    kind: Literal["warmup_cosine"]
    warmup: Interval = "1 epoch"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        warmup = steps(self.warmup)
        return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(total, warmup + 1), self.final)


class WSDSchedule(Schedule):
    """Warm-up, stable, decay: lines from 0 to the peak over `warmup` and to `final` times it over the last `decay`."""

    kind: Literal["wsd"]
    warmup: Interval = "1 epoch"
    decay: Interval = "1 epoch"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        warmup, decay = steps(self.warmup), steps(self.decay)
        pieces = [optax.linear_schedule(0.0, 1.0, warmup), optax.linear_schedule(1.0, self.final, decay)]
        return optax.join_schedules(pieces, [max(total - decay, warmup)])


def _check_intervals(got: object) -> list[str]:
    if isinstance(got, list) and 1 <= len(got) <= 1000 and all(map(is_interval, got)):
        return got
    raise PydanticCustomError("expected", "a list of intervals, such as [10 epochs, 20 epochs]")


_Intervals = Annotated[
    list[str],
    BeforeValidator(_check_intervals),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "pattern": INTERVAL_PATTERN},
            "minItems": 1,
            "maxItems": 1000,
        }
    ),
]


class SGDRSchedule(Schedule):
    """Warm restarts, Loshchilov and Hutter 2017: over each of `cycles` a cosine from the peak to `final` times it."""

    kind: Literal["sgdr"]
    cycles: _Intervals
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        cycle = {"init_value": 1.0, "peak_value": 1.0, "warmup_steps": 0, "end_value": self.final}
        return optax.sgdr_schedule([cycle | {"decay_steps": steps(each)} for each in self.cycles])


class PlateauSchedule(Schedule):
    """Times `factor` whenever the training loss, its mean over each `every`, has not fallen for `patience` of them.

    It never goes below `final` times the peak and rests for `cooldown` of them after each time; a fall is one by more
    than the share `rtol`.
    """

    kind: Literal["plateau"]
    every: Interval = "1 epoch"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=1, le=10**9)] = 10
    cooldown: Annotated[int, Field(ge=0, le=10**9)] = 0
    rtol: Annotated[float, Field(gt=0, le=1)] = 1e-4
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        return optax.constant_schedule(1.0)

    def watch(self, per_epoch: int) -> optax.GradientTransformationExtraArgs:
        """What is told each step's loss as `value`, and multiplies by its factor."""
        return contrib.reduce_on_plateau(
            self.factor, self.patience, self.rtol, 0.0, self.cooldown,
            interval_steps(self.every, per_epoch), self.final,
        )  # fmt: skip


def _check_boundaries(got: Plain) -> dict[str, float]:
    numbers = isinstance(got, dict) and all(type(factor) in (int, float) and factor >= 0 for factor in got.values())
    if not numbers or not got or not all(map(is_interval, got)):
        expected = "intervals since the start with factors >= 0, such as {20 epochs: 0.1}"
        raise PydanticCustomError("expected", "{expected}", {"expected": expected})
    return {at: float(factor) for at, factor in got.items()}


_Boundaries = Annotated[
    dict[str, float],
    BeforeValidator(_check_boundaries),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": INTERVAL_PATTERN},
            "additionalProperties": {"type": "number", "minimum": 0},
        }
    ),
]


class OfOptax(Schedule):
    """A schedule of optax with the peak at 1: steps are intervals, null is all of them, or, where it begins, none."""

    function: ClassVar[Callable[..., optax.Schedule]]

    def curve(self, total: int, steps: Callable[[str], int]) -> optax.Schedule:
        return self.function(**dict(self._arguments(total, steps)))

    def _arguments(self, total: int, steps: Callable[[str], int]) -> Iterator[tuple[str, Plain]]:
        names = inspect.signature(self.function).parameters
        for name in names:
            value: Plain = getattr(self, name, None)
            if name == "peak_value" or (name == "init_value" and "peak_value" not in names):
                yield name, 1.0
            elif name.endswith("_steps"):
                yield name, total if value is None else steps(value)
            elif name.endswith("_begin"):
                yield name, 0 if value is None else steps(value)
            elif name == "boundaries_and_scales":
                yield name, {steps(at): factor for at, factor in value.items()}
            else:
                yield name, value


_Share = Annotated[float, Field(ge=0)]
_KEYS: dict[str, tuple[object, object]] = {
    "decay_steps": (Interval | None, None),
    "transition_steps": (Interval | None, None),
    "transition_begin": (Interval | None, None),
    "warmup_steps": (Interval, "1 epoch"),
    "end_value": (_Share, 0.0),
    "power": (_Share, 1.0),
    "decay_rate": (Annotated[float, Field(gt=0)], ...),
    "pct_start": (Annotated[float, Field(gt=0, lt=1)], 0.3),
    "boundaries_and_scales": (_Boundaries, ...),
    "interpolate_type": (Literal["linear", "cosine"], "linear"),
}


def _of_optax(name: str) -> type[Schedule]:
    function = getattr(optax, name)
    names = inspect.signature(function).parameters
    own = {key: field for key, field in _KEYS.items() if key in names}
    besides = {"peak_value"} if "peak_value" in names else {"init_value"}
    if "init_value" in names and "peak_value" in names:
        own["init_value"] = (_Share, 0.0)
    if "exponential" in name:
        own["end_value"] = (_Share | None, None)
    kind = name.removesuffix("_schedule")
    made: Any = section_for(kind, function, OfOptax, besides, **own)
    made.function = staticmethod(function)
    return made


_OWN = (ConstantSchedule, CosineSchedule, WarmupCosineSchedule, WSDSchedule, SGDRSchedule, PlateauSchedule)
# What is made of other schedules, as `wsd` and `sgdr` are, and a constant.
_NOT_BY_NUMBERS = ("constant_schedule", "join_schedules", "sgdr_schedule")
_NAMES = sorted(
    name
    for name, function in vars(optax).items()
    if inspect.isfunction(function) and name not in _NOT_BY_NUMBERS
    if inspect.signature(function).return_annotation == optax.Schedule
)
SCHEDULES: tuple[type[Schedule], ...] = (*_OWN, *map(_of_optax, _NAMES))

if TYPE_CHECKING:
    AnySchedule = Schedule
else:
    AnySchedule = Annotated[Union[SCHEDULES], Field(discriminator="kind")]  # noqa: UP007  # of a tuple
