"""A config made real: the model, the optimizer and the pure functions that the loop runs."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gru_jax.data.batches import batch_indices, evaluation_batches
from gru_jax.data.dataset import Dataset, Split
from gru_jax.models import Readout
from gru_jax.training.config import Config
from gru_jax.training.losses import Sums
from gru_jax.training.newton_sums import from_meta
from gru_jax.training.step import Batch, TrainState, data_key, eval_step, init_state, train_step
from gru_jax.types import Array, IntArray, Params


class Experiment(NamedTuple):
    """The pure functions of one config.

    Attributes:
        config: what they were built from.
        model: the network with its output layer.
        init_state: `(seed, rate) -> TrainState`.
        train_step: `(state, batch, axis=None) -> TrainState`.
        eval_step: `(params, batch, weight, axis=None) -> Sums`.
        schedule: `step -> factor` on the peak learning rate.
        train_batch: `(train split, seed, step) -> Batch`.
    """

    config: Config
    model: Readout
    init_state: Callable[[IntArray, Array], TrainState]
    train_step: Callable[..., TrainState]
    eval_step: Callable[..., Sums]
    schedule: Callable[[IntArray], Array]
    train_batch: Callable[[Split, IntArray, IntArray], Batch]


def build(config: Config, mesh: Mesh | None = None) -> Experiment:
    """Builds the functions; loads no data and computes nothing.

    Args:
        config: of the run.
        mesh: where the time axis is split, axes "data" and "time"; None where it is whole.
    """
    model = config.model.build(config.shape, mesh)
    optimizer = config.optim.build()
    schedule = config.optim.schedule.build(config.total_steps, config.steps_per_epoch)
    newton = config.newton is not None
    return Experiment(
        config,
        model,
        functools.partial(init_state, model=model, optimizer=optimizer, newton=newton),
        functools.partial(
            train_step,
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            stochastic=config.model.stochastic,
            newton=newton,
        ),
        functools.partial(eval_step, model=model, newton=newton),
        schedule,
        functools.partial(_train_batch, size=config.task.batch),
    )


def first_state(experiment: Experiment) -> TrainState:
    """The state of the config's seed and learning rate before the first step."""
    config = experiment.config
    seed, rate = jnp.asarray(config.seed, jnp.uint32), jnp.asarray(config.optim.lr, jnp.float32)
    return jax.jit(experiment.init_state)(seed, rate)


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


def from_checkpoint(experiment: Experiment, state: TrainState, meta: dict[str, Any]) -> TrainState:
    """The state of a checkpoint, for the method of this experiment."""
    if experiment.config.newton is None:
        return state
    return state._replace(sums=state.sums._replace(newton=from_meta(meta.get("newton"))))


def parameter_count(params: Params) -> int:
    """Numbers in a pytree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def eval_batches(dataset: Dataset, split: str, size: int) -> Iterator[tuple[Batch, np.ndarray]]:
    """The batches of an evaluation, each with its weights `[size]`."""
    for part, weight in evaluation_batches(getattr(dataset, split), size):
        position = jnp.arange(size, dtype=jnp.int32)
        yield Batch(jnp.asarray(part.x), jnp.asarray(part.y), position), weight


def _train_batch(train: Split, seed: Any, step: Any, *, size: int) -> Batch:
    rows = batch_indices(data_key(seed), step, train.y.shape[0], size)
    return Batch(train.x[rows], train.y[rows], jnp.arange(size, dtype=jnp.int32))
