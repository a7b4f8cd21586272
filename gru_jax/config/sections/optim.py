"""The section `optim`: optax optimizers, learning-rate schedules and clipping, by `kind`.

The peak learning rate is no part of the built optimizer: the training step multiplies by it, so
that runs with different rates are one `jax.vmap`.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from gru_jax.config.sections.base import (
    ALONE_IN_FILES,
    Fraction,
    Interval,
    NonNegative,
    Positive,
    Section,
    interval_steps,
    members,
)

if TYPE_CHECKING:
    import optax


def _mixed_dtypes_allowed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, where optax may multiply a float32 by its int32 counter.

    It does; without this, training would fail for whoever sets jax to strict promotion.
    """
    import jax

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **options)

    return call


class ConstantSchedule(Section):
    """The peak rate throughout."""

    kind: Literal["constant"]

    def build(self, total: int, per_epoch: int) -> "optax.Schedule":
        import optax

        return optax.constant_schedule(1.0)


class CosineSchedule(Section):
    """From the peak rate down to `final` times the peak, half a cosine over the whole run."""

    kind: Literal["cosine"]
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def build(self, total: int, per_epoch: int) -> "optax.Schedule":
        import optax

        return _mixed_dtypes_allowed(optax.cosine_decay_schedule(1.0, total, self.final))


class WarmupCosineSchedule(Section):
    """A straight line from 0 to the peak rate over `warmup`, then as `cosine`."""

    kind: Literal["warmup_cosine"]
    warmup: Interval = "1 epoch"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def build(self, total: int, per_epoch: int) -> "optax.Schedule":
        import optax

        warmup = interval_steps(self.warmup, per_epoch)
        total = max(total, warmup + 1)
        schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, total, self.final)
        return _mixed_dtypes_allowed(schedule)


AnySchedule = Annotated[ConstantSchedule | CosineSchedule | WarmupCosineSchedule, Field(discriminator="kind")]
SCHEDULES = members(AnySchedule)


class Optimizer(Section):
    """What all optimizers share.

    The gradient is clipped first. `weight_decay` is then added to the gradient, times the
    parameters (as in torch); only `adamw` keeps it apart from the moments. `weight_noise` is the standard deviation
    of normal noise on the parameters under which each gradient is taken.
    """

    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    clip_norm: Positive | None = None
    weight_noise: NonNegative = 0.0
    schedule: Annotated[AnySchedule, ALONE_IN_FILES] = ConstantSchedule(kind="constant")

    def direction(self) -> "optax.GradientTransformation":
        """Gradient -> direction of ascent, without the learning rate."""
        raise NotImplementedError

    def build(self) -> "optax.GradientTransformation":
        """Clipping, weight decay and direction; the training step applies the learning rate."""
        import optax

        parts = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        decay = [optax.add_decayed_weights(self.weight_decay)] if self.weight_decay else []
        decoupled = isinstance(self, AdamW)
        parts += [self.direction(), *decay] if decoupled else [*decay, self.direction()]
        chain = optax.chain(*parts)
        return chain._replace(update=_mixed_dtypes_allowed(chain.update))


class Adam(Optimizer):
    """Kingma and Ba 2015."""

    kind: Literal["adam"]
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8

    def direction(self) -> "optax.GradientTransformation":
        import optax

        return optax.scale_by_adam(self.b1, self.b2, self.eps)


class AdamW(Optimizer):
    """Adam with decoupled weight decay, Loshchilov and Hutter 2019."""

    kind: Literal["adamw"]
    weight_decay: NonNegative = 0.01
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8

    def direction(self) -> "optax.GradientTransformation":
        import optax

        return optax.scale_by_adam(self.b1, self.b2, self.eps)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for."""

    kind: Literal["sgd"]
    lr: Positive = 0.1
    momentum: Fraction = 0.0
    nesterov: bool = False

    def direction(self) -> "optax.GradientTransformation":
        import optax

        if self.momentum == 0:
            return optax.identity()
        return optax.trace(self.momentum, self.nesterov)


class RMSProp(Optimizer):
    """Hinton's RMSProp: the gradient over the root of its running mean square."""

    kind: Literal["rmsprop"]
    decay: Fraction = 0.9
    eps: Positive = 1e-8

    def direction(self) -> "optax.GradientTransformation":
        import optax

        return optax.scale_by_rms(self.decay, self.eps)


AnyOptimizer = Annotated[Adam | AdamW | SGD | RMSProp, Field(discriminator="kind")]
OPTIMIZERS = members(AnyOptimizer)
