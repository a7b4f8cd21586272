"""The section `optim`: our four optimizers and those of optax, by `kind`, with clipping, decay, groups, an average.

The peak learning rate is no part of what is built: the training step says it at each step, so that runs with different
rates are one `jax.vmap`.
"""

import fnmatch
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

import optax
from optax import contrib
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from gru_jax.config.sections.base import (
    ALONE_IN_FILES,
    Fraction,
    NonNegative,
    Positive,
    Section,
    broken_rule,
)
from gru_jax.config.sections.by_name import given
from gru_jax.config.sections.from_signatures import section_for
from gru_jax.config.sections.schedules import SCHEDULES, AnySchedule, ConstantSchedule
from gru_jax.types import Function, Options

if TYPE_CHECKING:
    from jax.typing import ArrayLike

__all__ = ["OPTIMIZERS", "SCHEDULES", "AnyOptimizer", "Optimizer"]


def _check_rates(got: Any) -> dict[str, float]:
    named = isinstance(got, dict) and all(isinstance(name, str) and name for name in got)
    if not named or not all(type(factor) in (int, float) and 0 <= factor < float("inf") for factor in got.values()):
        expected = "names of parameters with factors >= 0, such as {embedding: 0.1, 'net.layers.0.*': 0}"
        raise PydanticCustomError("expected", "{expected}", {"expected": expected})
    return {name: float(factor) for name, factor in got.items()}


_Rates = Annotated[
    dict[str, float],
    BeforeValidator(_check_rates),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}),
]


class Optimizer(Section):
    """What all optimizers share.

    The gradient is clipped first. `weight_decay` is then added to the gradient, times the parameters (as in torch);
    only those with a decay of their own, such as `adamw`, keep it apart from the moments. `weight_noise` is the
    standard deviation of normal noise on the parameters under which each gradient is taken. `rates`: factors on the
    learning rate of the parameters whose names fit, `*` for anything; of several that fit, the product. `ema`: the
    decay of a moving average of the parameters, which is what is evaluated, tested and kept as the best.
    """

    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    clip_norm: Positive | None = None
    weight_noise: NonNegative = 0.0
    schedule: Annotated[AnySchedule, ALONE_IN_FILES] = ConstantSchedule(kind="constant")
    rates: _Rates | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None

    decays: ClassVar[Literal["before", "after", "inside"]] = "before"
    """Where weight decay acts: on the gradient, on the direction, or in the way of the optimizer's own."""

    def chained(self, transform: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """Clipping and weight decay around what the optimizer is named for."""
        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        decay = [optax.add_decayed_weights(self.weight_decay)] if self.weight_decay and self.decays != "inside" else []
        parts = [transform, *decay] if self.decays == "after" else [*decay, transform]
        return optax.with_extra_args_support(optax.chain(*clip, *parts))


def dotted(path: tuple[Any, ...]) -> str:
    """The name of a parameter, of its path in the model's: `net.layers.0.w_h`."""
    import jax

    return jax.tree_util.keystr(path, simple=True, separator=".")


def fits(pattern: str, name: str) -> bool:
    """Whether the name of a parameter is one that is meant: `*` stands for anything, dots too."""
    return fnmatch.fnmatchcase(name, pattern)


class Plain(Optimizer):
    """An optimizer whose step is the learning rate times a direction that knows nothing of it."""

    def direction(self) -> optax.GradientTransformation:
        """Gradient -> direction of ascent, without the learning rate."""
        raise NotImplementedError


class Adam(Plain):
    """Kingma and Ba 2015."""

    kind: Literal["adam"]
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


class AdamW(Plain):
    """Adam with decoupled weight decay, Loshchilov and Hutter 2019."""

    kind: Literal["adamw"]
    weight_decay: NonNegative = 0.01
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8
    decays = "after"

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


class SGD(Plain):
    """Stochastic gradient descent, with momentum if asked for."""

    kind: Literal["sgd"]
    lr: Positive = 0.1
    momentum: Fraction = 0.0
    nesterov: bool = False

    def direction(self) -> optax.GradientTransformation:
        if self.momentum == 0:
            return optax.identity()
        return optax.trace(self.momentum, self.nesterov)


class RMSProp(Plain):
    """Hinton's RMSProp: the gradient over the root of its running mean square."""

    kind: Literal["rmsprop"]
    decay: Fraction = 0.9
    eps: Positive = 1e-8

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_rms(self.decay, self.eps)


class OfOptax(Optimizer):
    """An optimizer that optax exports, made for one learning rate."""

    make: ClassVar[Callable[..., optax.GradientTransformation]]

    def made(self, rate: "ArrayLike") -> optax.GradientTransformation:
        """Gradient -> what is added to the parameters, at this rate: a number, or a scalar array."""
        return given(self.make, self, learning_rate=rate, max_learning_rate=rate)

    @model_validator(mode="after")
    def _optax_takes_it(self) -> "OfOptax":
        try:
            self.made(self.lr)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise broken_rule("kind", f"optax does not take these values: {error}".replace("\n", " ")) from error
        return self


class ScheduleFree(OfOptax):
    """An optimizer that averages its own parameters, Defazio et al. 2024: the average is what is evaluated."""

    @model_validator(mode="after")
    def _one_average(self) -> "ScheduleFree":
        if self.ema is not None:
            raise broken_rule("ema", f"{getattr(self, 'kind', '')} has an average of its own; leave it out")
        return self


# What needs more than a gradient and a loss: a search along a line, second derivatives, a gradient for each example;
# and what has a random key in its state, of a dtype that NumPy does not know.
_MORE_THAN_A_GRADIENT = ("lbfgs", "sophia", "dpsgd", "noisy_sgd")
_DEPRECATED = ("optimistic_adam",)  # by optax, for optimistic_adam_v2
# What a signature does not say of its arguments.
_SAID: dict[str, dict[str, tuple[object, object]]] = {
    "polyak_sgd": {"variant": (Literal["sps", "sps+"], "sps")},
}
_RATE = ("learning_rate", "max_learning_rate")
_BESIDES = (*_RATE, "adam_learning_rate")  # `rates` says the same


def _of_optax() -> list[type[Optimizer]]:
    """A section for every function of optax that makes an optimizer of numbers alone, by its name."""
    found: list[type[Optimizer]] = []
    functions = {name: each for room in (contrib, optax) for name, each in vars(room).items() if callable(each)}
    for kind in sorted(functions.keys() - {"adam", "adamw", "sgd", "rmsprop", *_MORE_THAN_A_GRADIENT, *_DEPRECATED}):
        function = functions[kind]
        first = None if inspect.isclass(function) else _first_parameter(function)
        if kind.startswith(("_", "scale_by")) or first is None or first.name not in _RATE:
            continue
        found.append(_section_of(kind, function, first.default))
    return found


def _section_of(kind: str, function: Function, rate: object) -> type[Optimizer]:
    averages = kind.startswith("schedule_free")
    own: Options = dict(_SAID.get(kind, {}))
    if isinstance(rate, float):
        own["lr"] = (Positive, rate)
    if averages:
        own["b1"] = (Annotated[float, Field(gt=0, lt=1)], 0.9)  # it is divided by
    made: Any = section_for(kind, function, ScheduleFree if averages else OfOptax, _BESIDES, **own)
    made.make = staticmethod(function)
    if "weight_decay" in inspect.signature(function).parameters:
        made.decays = "inside"
    return made


def _first_parameter(function: Function) -> inspect.Parameter | None:
    try:
        return next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # an alias of types
        return None


OPTIMIZERS: tuple[type[Optimizer], ...] = (Adam, AdamW, SGD, RMSProp, *_of_optax())

if TYPE_CHECKING:
    AnyOptimizer = Optimizer
else:
    AnyOptimizer = Annotated[Union[OPTIMIZERS], Field(discriminator="kind")]  # noqa: UP007  # of a tuple
