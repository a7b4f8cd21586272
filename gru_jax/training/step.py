"""One training step and one evaluation batch, as pure functions.

Everything random comes from `state.seed` and `state.step`, and the learning rate is part of the
state: a run continues from its state alone, and runs that differ in seed and rate are one
`jax.vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gru_jax.models import Readout
from gru_jax.training.losses import Sums, correct, cross_entropy, no_sums, plus
from gru_jax.training.newton_sums import newton_sums
from gru_jax.types import Array, IntArray, Key, Params

_INIT, _DATA, _DROPOUT = 0, 1, 2


class TrainState(NamedTuple):
    """All that a training step changes or depends on, the data aside.

    Attributes:
        step: int32 scalar, steps done.
        seed: uint32 scalar.
        rate: float32 scalar, the peak learning rate.
        params: the model's.
        opt_state: the optimizer's.
        sums: totals since the last line of metrics.
    """

    step: IntArray
    seed: IntArray
    rate: Array
    params: Params
    opt_state: optax.OptState
    sums: Sums


class Batch(NamedTuple):
    """Examples of one step.

    Attributes:
        x: `[B, T, I]`.
        y: `[B]`, class numbers.
        position: `[B]`, the position of each example in the batch; it picks the example's dropout
            masks, which are therefore the same however the batch is split over devices.
    """

    x: Array
    y: IntArray
    position: IntArray


def init_state(
    seed: IntArray, rate: Array, model: Readout, optimizer: optax.GradientTransformation, newton: bool = False
) -> TrainState:
    """The state before the first step, from scalars: `seed` uint32, `rate` float32."""
    params = model.init(jax.random.fold_in(jax.random.key(seed), _INIT))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, seed, rate, params, optimizer.init(params), no_sums(newton))


def data_key(seed: IntArray) -> Key:
    """The key that orders the training examples."""
    return jax.random.fold_in(jax.random.key(seed), _DATA)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Readout,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[IntArray], Array],
    stochastic: bool = False,
    newton: bool = False,
    axis: str | None = None,
) -> TrainState:
    """One optimizer step.

    Args:
        state: the state before it.
        batch: the examples; under `jax.pmap`, this device's share of them.
        model: the network with its output layer.
        optimizer: gradient -> direction of ascent, without a learning rate.
        schedule: step -> factor on `state.rate`.
        stochastic: whether the model draws dropout masks.
        newton: whether it runs Newton's method, whose statistics are then a part of the sums.
        axis: the mapped axis to average over, under `jax.pmap`.

    Returns:
        The state after it, the totals in `sums` grown by this step.
    """
    step_key = jax.random.fold_in(jax.random.key(state.seed), _DROPOUT)
    step_key = jax.random.fold_in(step_key, state.step)

    # A key for each example, not jax.vmap over them, under which Newton's fallback would always be computed.
    keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(batch.position) if stochastic else None

    def mean_loss(params: Params) -> tuple[Array, tuple[Array, Array, Any]]:
        answers = model.apply(params, batch.x, key=keys, deterministic=not stochastic, stats=newton)
        logits, stats = answers if newton else (answers, None)
        loss = cross_entropy(logits, batch.y)
        return loss.mean(), (loss.sum(), correct(logits, batch.y).sum(), stats)

    (_, (loss, hits, stats)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    examples = jnp.asarray(batch.y.size, jnp.float32)
    if axis is not None:
        gradient = jax.lax.pmean(gradient, axis)
        loss, hits, examples = jax.lax.psum((loss, hits, examples), axis)
    direction, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    rate = state.rate * jnp.asarray(schedule(state.step), jnp.float32)
    params = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, state.params, direction)
    norm = optax.tree.norm(gradient)
    one = jnp.ones((), jnp.float32)
    bad = 1 - (jnp.isfinite(loss) & jnp.isfinite(norm)).astype(jnp.float32)
    solves = newton_sums(stats, jnp.ones(batch.y.shape, jnp.float32), axis) if newton else None
    sums = plus(state.sums, Sums(loss, hits, examples, norm, one, bad, solves))
    return TrainState(state.step + 1, state.seed, state.rate, params, opt_state, sums)


def eval_step(
    params: Params, batch: Batch, weight: Array, *, model: Readout, newton: bool = False, axis: str | None = None
) -> Sums:
    """The totals of one evaluation batch; examples of weight 0 are padding."""
    answers = model.apply(params, batch.x, deterministic=True, stats=newton)
    logits, stats = answers if newton else (answers, None)
    loss = (cross_entropy(logits, batch.y) * weight).sum()
    hits = (correct(logits, batch.y) * weight).sum()
    zero = jnp.zeros((), jnp.float32)
    sums = Sums(loss, hits, weight.sum(), zero, zero, zero)
    sums = sums if axis is None else jax.lax.psum(sums, axis)
    return sums._replace(newton=newton_sums(stats, weight, axis)) if newton else sums
