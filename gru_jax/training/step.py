"""One training step and one evaluation batch, as pure functions.

Everything random comes from `state.seed` and `state.step`, and the learning rate is part of the
state: a run continues from its state alone, and runs that differ in seed and rate are one
`jax.vmap`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gru_jax.data.dataset import Split, Target
from gru_jax.models import Model
from gru_jax.training.losses import Sums, losses_and_hits, no_sums, plus
from gru_jax.training.newton_sums import newton_sums
from gru_jax.training.optimizer import Average, OfRate
from gru_jax.training.precision import narrowed, widened
from gru_jax.types import Array, IntArray, Key, Params, Tree

_INIT, _DATA, _DROPOUT, _NOISE, _ROUNDING = 0, 1, 2, 3, 4


class TrainState(NamedTuple):
    """All that a training step changes or depends on, the data aside.

    Attributes:
        step: int32 scalar, steps done.
        seed: uint32 scalar.
        rate: float32 scalar, the peak learning rate.
        params: the model's.
        opt_state: the optimizer's, float32 also where the parameters are held in half precision.
        sums: totals since the last line of metrics.
        averaged: what is evaluated in place of the parameters, float32; None where these are.
    """

    step: IntArray
    seed: IntArray
    rate: Array
    params: Params
    opt_state: optax.OptState
    sums: Sums
    averaged: Params | None = None

    @property
    def evaluated(self) -> Params:
        """What is evaluated, tested and kept as the best."""
        return self.params if self.averaged is None else self.averaged


class Batch(NamedTuple):
    """Sequences of one step.

    Attributes:
        x: `[B, T, I]`, or `[B, T]` tokens.
        y: targets, see `gru_jax.data.dataset.Split`.
        weight: `[B]`, or, where every step has a target, `[B, T]`: 1 where it counts, 0 for padding.
        position: `[B]`, the position of each sequence in the batch; it picks the sequence's dropout
            masks, which are therefore the same however the batch is split over devices.
        lengths: `[B]`, steps of each; None when all have T.
    """

    x: Array
    y: Array
    weight: Array
    position: IntArray
    lengths: IntArray | None = None


def batch_of(split: Split, target: Target, weight: Array | np.ndarray | None = None, first: int = 0) -> Batch:
    """Sequences side by side as a batch.

    Args:
        split: `[B, ...]`.
        target: what is told of them.
        weight: `[B]`, 0 for those that only fill up the batch; None when all count.
        first: the position of the first one, where they are a share of a batch.
    """
    size = split.x.shape[0]
    weight = jnp.ones(size, jnp.float32) if weight is None else jnp.asarray(weight)
    if target in ("tags", "notes"):
        steps = jnp.arange(split.x.shape[1], dtype=jnp.int32)[None, :]
        counts = jnp.ones(split.x.shape[:2], bool) if split.asked is None else jnp.asarray(split.asked)
        if split.lengths is not None:
            counts = counts & (steps < jnp.asarray(split.lengths)[:, None])
        weight = weight[:, None] * counts.astype(jnp.float32)
    lengths = None if split.lengths is None else jnp.asarray(split.lengths)
    position = jnp.arange(first, first + size, dtype=jnp.int32)
    return Batch(jnp.asarray(split.x), jnp.asarray(split.y), weight, position, lengths)


def init_state(
    seed: IntArray,
    rate: Array,
    model: Model,
    optimizer: OfRate,
    average: Average | None = None,
    newton: bool = False,
    params: Params | None = None,
) -> TrainState:
    """The state before the first step, from scalars: `seed` uint32, `rate` float32; from other parameters, if given."""
    params = model.init(jax.random.fold_in(jax.random.key(seed), _INIT)) if params is None else params
    zero, wide = jnp.zeros((), jnp.int32), widened(params)
    averaged = None if average is None else wide
    return TrainState(zero, seed, rate, params, optimizer(rate).init(wide), no_sums(newton), averaged)


def data_key(seed: IntArray) -> Key:
    """The key that orders the training examples."""
    return jax.random.fold_in(jax.random.key(seed), _DATA)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Model,
    optimizer: OfRate,
    average: Average | None = None,
    schedule: Callable[[IntArray], Array],
    target: Target = "class",
    quantiles: tuple[float, ...] | None = None,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    weight_noise: float = 0.0,
    stochastic: bool = False,
    newton: bool = False,
    accumulate: int = 1,
    axis: str | None = None,
) -> TrainState:
    """One optimizer step.

    Args:
        state: the state before it.
        batch: the sequences; under `jax.pmap`, this device's share of them.
        model: the network with its output layer.
        optimizer: learning rate -> what makes of a gradient what is added to the parameters.
        average: what is evaluated in the place of the parameters; None where they are.
        schedule: step -> factor on `state.rate`.
        target: what the model tells, which decides the loss.
        quantiles: of values, see `TaskShape`.
        class_weights: `[O]` float32, what each class or tag counts in it, the smallest above 0 being 1: the loss is the
            mean that they weigh. None when all count the same.
        label_smoothing: the share of a label that is spread over all classes.
        weight_noise: standard deviation of normal noise on every parameter, drawn at each step, under which the
            gradient is taken.
        stochastic: whether the model draws dropout masks.
        newton: whether it runs Newton's method, whose statistics are then a part of the sums.
        accumulate: into how many parts the batch is cut, whose gradients are computed in turn and added up.
        axis: the mapped axis to average over, under `jax.pmap`.

    Returns:
        The state after it, the totals in `sums` grown by this step.
    """
    step_key = _step_key(state, _DROPOUT)

    def over_devices(total: Tree) -> Tree:
        return total if axis is None else jax.lax.psum(total, axis)

    # At least 1: a batch in which nothing is asked has the gradient 0.
    targets = over_devices(batch.weight.sum())
    counted = targets
    if class_weights is not None:
        counted = over_devices(_total(jnp.asarray(class_weights)[_counted(batch)], batch.weight))
    share = 1 / jnp.maximum(counted, 1)

    def mean_loss(params: Params, part: Batch) -> tuple[Array, tuple[Array, Array, Tree]]:
        # A key for each example, not jax.vmap over them, under which Newton's fallback would always be computed.
        keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(part.position) if stochastic else None
        answers = model.apply(
            params, part.x, lengths=part.lengths, key=keys, deterministic=not stochastic, **_asking(newton)
        )
        outputs, stats = answers if newton else (answers, None)
        losses, hits = losses_and_hits(outputs, _counted(part), target, quantiles, class_weights, label_smoothing)
        loss = _total(losses, part.weight)
        return loss * share, (loss, _total(hits, part.weight), stats)

    def of_part(part: Batch) -> tuple[tuple[Params, Array, Array], Tree]:
        (_, (loss, hits, stats)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params, part)
        return (widened(gradient), loss, hits), stats

    params = _noisy(state.params, _step_key(state, _NOISE), weight_noise) if weight_noise else state.params
    zero, wide = jnp.zeros((), jnp.float32), widened(state.params)
    if accumulate == 1:
        totals, stats = of_part(batch)
    else:
        totals, stats = _in_turn(of_part, (jax.tree.map(jnp.zeros_like, wide), zero, zero), batch, accumulate)
    gradient, loss, hits = over_devices(totals)
    rate = state.rate * jnp.asarray(schedule(state.step), jnp.float32)
    updates, opt_state = optimizer(rate).update(gradient, state.opt_state, wide, value=loss * share)
    wide = jax.tree.map(lambda p, u: p + u, wide, updates)
    averaged = None if average is None else average(state.averaged, wide, opt_state, state.step)
    params = narrowed(wide, state.params, _step_key(state, _ROUNDING))
    if class_weights is not None:
        # The mean that was minimized, for each of the targets, so that totals add up as ever.
        loss = loss * share * targets
    norm = optax.tree.norm(gradient)
    one = jnp.ones((), jnp.float32)
    bad = 1 - (jnp.isfinite(loss) & jnp.isfinite(norm)).astype(jnp.float32)
    solves = newton_sums(stats, jnp.ones((), jnp.float32), axis) if newton else None
    sums = plus(state.sums, Sums(loss, hits, targets, norm, one, bad, solves))
    return TrainState(state.step + 1, state.seed, state.rate, params, opt_state, sums, averaged)


def _in_turn(
    of_part: Callable[[Batch], tuple[Tree, Tree]], nothing: Tree, batch: Batch, parts: int
) -> tuple[Tree, Tree]:
    """The totals of the parts of a batch, added up from `nothing`, and their statistics, `[parts, B / parts]`."""
    cut = jax.tree.map(lambda a: _cut(a, parts), batch)

    def add(totals: Tree, index: IntArray) -> tuple[Tree, Tree]:
        part = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, 1, keepdims=False), cut)
        more, stats = of_part(part)
        return jax.tree.map(jnp.add, totals, more), stats

    return jax.lax.scan(add, nothing, jnp.arange(parts, dtype=jnp.int32))


def _cut(rows: Array, parts: int) -> Array:
    """`[B, ...]` as `[B / parts, parts, ...]`.

    A part is every so-many-th row: of a batch that is split over devices each device has its share in every part, and
    no row has to be moved to another one.
    """
    return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:])


def eval_step(
    params: Params,
    batch: Batch,
    *,
    model: Model,
    target: Target = "class",
    quantiles: tuple[float, ...] | None = None,
    newton: bool = False,
    axis: str | None = None,
) -> Sums:
    """The totals of one evaluation batch; what has weight 0 is padding."""
    answers = model.apply(params, batch.x, lengths=batch.lengths, deterministic=True, **_asking(newton))
    outputs, stats = answers if newton else (answers, None)
    losses, hits = losses_and_hits(outputs, _counted(batch), target, quantiles)
    zero = jnp.zeros((), jnp.float32)
    sums = Sums(_total(losses, batch.weight), _total(hits, batch.weight), batch.weight.sum(), zero, zero, zero)
    sums = sums if axis is None else jax.lax.psum(sums, axis)
    if not newton:
        return sums
    counts = batch.weight.reshape(batch.weight.shape[0], -1).max(axis=1)
    return sums._replace(newton=newton_sums(stats, counts, axis))


def _asking(newton: bool) -> dict[str, bool]:
    # Named only when asked for: a model of somebody's own need not know it.
    return {"stats": True} if newton else {}


def _counted(batch: Batch) -> Array:
    """The targets, 0 where they do not count: what stands in padding may not be finite, nor its gradient."""
    counts = batch.weight.reshape(*batch.weight.shape, *(1,) * (batch.y.ndim - batch.weight.ndim)) > 0
    return jnp.where(counts, batch.y, jnp.zeros_like(batch.y))


def _total(values: Array, weight: Array) -> Array:
    # Not a product alone: outputs for padding may not be finite.
    return jnp.where(weight > 0, values.astype(jnp.float32) * weight, 0).sum()


def _step_key(state: TrainState, purpose: int) -> Key:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(state.seed), purpose), state.step)


def _noisy(params: Params, key: Key, sd: float) -> Params:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    wide = widened(leaves)
    moved = [leaf + sd * jax.random.normal(k, leaf.shape, leaf.dtype) for leaf, k in zip(wide, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)
