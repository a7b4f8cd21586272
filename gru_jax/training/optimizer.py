"""The optimizer of a config as a function of the learning rate, and what it averages."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from gru_jax.config.sections.optim import Optimizer, Plain, ScheduleFree, dotted, fits
from gru_jax.config.sections.schedules import PlateauSchedule, mixed_dtypes_allowed
from gru_jax.types import Array, IntArray, Params, Tree

OfRate = Callable[[Array], optax.GradientTransformationExtraArgs]
"""Learning rate -> a transformation: gradient, and the loss as `value` -> what is added to the parameters."""


class Average(Protocol):
    """What is evaluated in the place of the parameters, after a step."""

    def __call__(self, averaged: Params, params: Params, opt_state: optax.OptState, step: IntArray) -> Params:
        """The average with these parameters in it, the result of the step of this number, from 0."""


def optimizer_of(optim: Optimizer, steps_per_epoch: int) -> OfRate:
    """The optimizer of a section.

    Its rate is an argument, and may be traced: a step of any rate is one program.

    Args:
        optim: the section.
        steps_per_epoch: batches in an epoch.

    Example:
        >>> from gru_jax.config.sections.optim import SGD
        >>> sgd = optimizer_of(SGD(kind="sgd"), 10)(jnp.float32(0.5))
        >>> params = jnp.array([1.0, 2.0])
        >>> sgd.update(jnp.array([1.0, -1.0]), sgd.init(params), params)[0]
        Array([-0.5,  0.5], dtype=float32)
    """

    def of_rate(rate: Array) -> optax.GradientTransformationExtraArgs:
        transform = _plain(optim, rate) if isinstance(optim, Plain) else _of_optax(optim, rate)
        return optax.GradientTransformationExtraArgs(
            mixed_dtypes_allowed(transform.init), mixed_dtypes_allowed(transform.update)
        )

    if isinstance(optim.schedule, PlateauSchedule):
        return _on_plateau(of_rate, optim.schedule.watch(steps_per_epoch))
    return of_rate


def factors(rates: Mapping[str, float], tree: Params) -> Params:
    """The factor on the rate of every parameter: the product of those whose names fit its own.

    Example:
        >>> factors({"net.*": 0.5, "*.w": 0.1}, {"net": {"w": 1.0, "b": 1.0}, "w": 1.0})
        {'net': {'b': 0.5, 'w': 0.05}, 'w': 1.0}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: math.prod((factor for name, factor in rates.items() if fits(name, dotted(path))), start=1.0),
        tree,
    )


def _plain(optim: Plain, rate: Array) -> optax.GradientTransformationExtraArgs:
    chain = optim.chained(optim.direction())

    def update(
        gradient: Params, state: optax.OptState, params: Params = None, **values: Tree
    ) -> tuple[Params, optax.OptState]:
        direction, state = chain.update(gradient, state, params, **values)
        if not optim.rates:
            return jax.tree.map(lambda d: -(rate.astype(d.dtype) * d), direction), state
        rates = factors(optim.rates, direction)
        return jax.tree.map(lambda d, factor: -((rate * factor).astype(d.dtype) * d), direction, rates), state

    return optax.GradientTransformationExtraArgs(chain.init, update)


def _of_optax(optim: Any, rate: Array) -> optax.GradientTransformationExtraArgs:
    if not optim.rates:
        return optim.chained(optim.made(rate))

    # A part of the parameters for each factor, with an optimizer of its own: not all are linear in the rate.
    def parts(params: Params) -> optax.GradientTransformationExtraArgs:
        rates = factors(optim.rates, params)
        made = {str(factor): optim.made(rate * factor) for factor in set(jax.tree.leaves(rates))}
        return optim.chained(optax.partition(made, jax.tree.map(str, rates)))

    def update(
        gradient: Params, state: optax.OptState, params: Params = None, **values: Tree
    ) -> tuple[Params, optax.OptState]:
        return parts(gradient).update(gradient, state, params, **values)

    return optax.GradientTransformationExtraArgs(lambda params: parts(params).init(params), update)


class Watched(NamedTuple):
    """The state of an optimizer whose rate falls when the loss does not.

    Attributes:
        inner: the optimizer's.
        plateau: of `optax.contrib.reduce_on_plateau`; its `scale` is the factor on the rate.
    """

    inner: optax.OptState
    plateau: contrib.ReduceLROnPlateauState


def _on_plateau(of_rate: OfRate, plateau: optax.GradientTransformationExtraArgs) -> OfRate:
    one = jnp.ones((), jnp.float32)

    def watched(rate: Array) -> optax.GradientTransformationExtraArgs:
        def init(params: Params) -> Watched:
            # The best loss so far is none; as infinity it could not be told from a run that has diverged.
            most = jnp.full((), jnp.finfo(jnp.float32).max, jnp.float32)
            return Watched(of_rate(rate).init(params), plateau.init(one)._replace(best_value=most))

        def update(gradient: Params, state: Watched, params: Params = None, *, value: Array) -> tuple[Params, Watched]:
            seen = mixed_dtypes_allowed(plateau.update)(one, state.plateau, value=value)[1]
            updates, inner = of_rate(rate * seen.scale).update(gradient, state.inner, params, value=value)
            return updates, Watched(inner, seen)

        return optax.GradientTransformationExtraArgs(init, update)

    return watched


def plateau_factor(opt_state: optax.OptState) -> Array | None:
    """The factor that a plateau has left of the rate; None with other schedules."""
    return opt_state.plateau.scale if isinstance(opt_state, Watched) else None


def average_of(optim: Optimizer) -> Average | None:
    """What is evaluated in the place of the parameters; None where they are."""
    if isinstance(optim, ScheduleFree):
        return _schedule_free
    return None if optim.ema is None else _moving_average(optim.ema)


def _moving_average(decay: float) -> Average:
    def average(averaged: Params, params: Params, opt_state: optax.OptState, step: IntArray) -> Params:
        # The weights of all steps so far sum to one: the first step's parameters are no start to be forgotten.
        share = (1 - decay) / -jnp.expm1((step + 1).astype(jnp.float32) * math.log(decay))
        return jax.tree.map(lambda a, p: a + share * (p - a), averaged, params)

    return average


def _schedule_free(averaged: Params, params: Params, opt_state: optax.OptState, step: IntArray) -> Params:
    def is_state(node: object) -> bool:
        return isinstance(node, contrib.ScheduleFreeState)

    for state in filter(is_state, jax.tree.leaves(opt_state, is_leaf=is_state)):
        # Of several groups of parameters, those that the state is not of have no `z`.
        params = jax.tree.map(
            lambda z, y, b1=state.b1: y if isinstance(z, optax.MaskedNode) else (y - (1 - b1) * z) / b1,
            state.z,
            params,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
    return params
