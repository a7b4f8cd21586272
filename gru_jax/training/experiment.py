"""A config made real: the model, the optimizer and the pure functions that the loop runs."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gru_jax.config.config import Config
from gru_jax.data.batches import SourceBatches, batch_indices, evaluation_batches, taken
from gru_jax.data.dataset import Dataset, Generator, Source, Split, Target, TaskShape
from gru_jax.models import Model
from gru_jax.training.losses import Sums
from gru_jax.training.newton_sums import from_meta
from gru_jax.training.optimizer import average_of, optimizer_of
from gru_jax.training.precision import in_precision
from gru_jax.training.step import Batch, TrainState, batch_of, data_key, eval_step, init_state, train_step
from gru_jax.types import Array, IntArray, Options, Params, Plain


class Experiment(NamedTuple):
    """The pure functions of one config.

    Attributes:
        config: what they were built from.
        model: the network with its output layer.
        init_state: `(seed, rate, params=None) -> TrainState`.
        train_step: `(state, batch, axis=None) -> TrainState`.
        eval_step: `(params, batch, axis=None) -> Sums`.
        schedule: `step -> factor` on the peak learning rate.
    """

    config: Config
    model: Model
    init_state: Callable[..., TrainState]
    train_step: Callable[..., TrainState]
    eval_step: Callable[..., Sums]
    schedule: Callable[[IntArray], Array]


def build(config: Config, mesh: Mesh | None = None) -> Experiment:
    """Builds the functions; loads no data and computes nothing.

    Args:
        config: of the run.
        mesh: where the time axis is split, axes "data" and "time"; None where it is whole.
    """
    model = in_precision(config.model.build(config.shape, mesh), config.precision)
    optimizer = optimizer_of(config.optim, config.steps_per_epoch)
    average = average_of(config.optim)
    schedule = config.optim.schedule.build(config.total_steps, config.steps_per_epoch)
    shape, newton = config.shape, config.newton is not None
    options: Options = {
        "model": model, "target": shape.target, "quantiles": shape.quantiles, "newton": newton,
    }  # fmt: skip
    return Experiment(
        config,
        model,
        functools.partial(init_state, model=model, optimizer=optimizer, average=average, newton=newton),
        functools.partial(
            train_step,
            optimizer=optimizer,
            average=average,
            schedule=schedule,
            label_smoothing=config.train.label_smoothing,
            weight_noise=config.optim.weight_noise,
            stochastic=config.model.stochastic,
            accumulate=config.parallel.accumulate,
            **options,
        ),
        functools.partial(eval_step, **options),
        schedule,
    )


def whole(experiment: Experiment) -> Experiment:
    """The functions without a mesh that splits the axis of time: one sequence does not fill one."""
    return experiment if experiment.config.parallel.strategy != "time" else build(experiment.config)


def first_state(experiment: Experiment, params: Params | None = None) -> TrainState:
    """The state of the config's seed and learning rate before the first step, from other parameters if given."""
    config = experiment.config
    seed, rate = jnp.asarray(config.seed, jnp.uint32), jnp.asarray(config.optim.lr, jnp.float32)
    return jax.jit(experiment.init_state)(seed, rate, params=params)


def abstract_state(experiment: Experiment) -> TrainState:
    """Shapes and dtypes of the state as checkpoints hold it; computes nothing."""
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    return to_checkpoint(jax.eval_shape(experiment.init_state, seed, rate))


def to_checkpoint(state: TrainState) -> TrainState:
    """The part of a state that no method adds to: a run may go on with another one.

    What is left out is `state.sums.newton`, which goes into the checkpoint's meta.
    """
    return state._replace(sums=state.sums._replace(newton=None))


def from_checkpoint(experiment: Experiment, state: TrainState, meta: dict[str, Plain]) -> TrainState:
    """The state of a checkpoint, for the method of this experiment."""
    if experiment.config.newton is None:
        return state
    return state._replace(sums=state.sums._replace(newton=from_meta(meta.get("newton"))))


def parameter_count(params: Params) -> int:
    """Numbers in a pytree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def train_batches(
    train: Split | Source | Generator, shape: TaskShape, size: int, seed: int, share: slice | None = None
) -> Callable[[int], Batch]:
    """The batch of every training step, a function of the step alone.

    Args:
        train: the training data.
        shape: of the task.
        size: sequences in a batch.
        seed: of the run; decides the order, and what is generated.
        share: which sequences of the batch are made, where several processes share it; None for all.
    """
    if not isinstance(train, Split) and not callable(train):
        of_source = SourceBatches(train, shape, size, seed, share)
        return lambda step: batch_of(of_source[step], shape.target, first=share.start if share else 0)
    made = functools.partial(batch_at, target=shape.target, size=size, share=share)
    if isinstance(train, Split):
        data, compiled = jax.device_put(train), jax.jit(made)
        return lambda step: compiled(data, jnp.uint32(seed), jnp.int32(step))
    generated = jax.jit(functools.partial(made, train))
    return lambda step: generated(jnp.uint32(seed), jnp.int32(step))


def batch_at(
    train: Split | Generator,
    seed: IntArray,
    step: IntArray,
    *,
    target: Target,
    size: int,
    share: slice | None = None,
) -> Batch:
    """The batch of a step, of data on the device or made there; pure, so that it may be mapped over seeds."""
    key, first = data_key(seed), share.start if share else 0
    if callable(train):
        whole = train(jax.random.fold_in(key, step), size)
        return batch_of(taken(whole, share) if share else whole, target, first=first)
    rows = batch_indices(key, step, train.y.shape[0], size)
    return batch_of(taken(train, rows[share] if share else rows), target, first=first)


def eval_batches(
    dataset: Dataset, split: str, shape: TaskShape, size: int, share: slice | None = None
) -> Iterator[Batch]:
    """The batches of an evaluation, or of each the sequences of a share."""
    for part, weight in evaluation_batches(getattr(dataset, split), shape, size, share):
        yield batch_of(part, shape.target, weight, first=share.start if share else 0)
