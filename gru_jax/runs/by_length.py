"""Accuracy against length: of a trained run on the test split, and on training sequences where they are made anew."""

import functools
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data.batches import evaluation_batches
from gru_jax.data.dataset import Source, Split, TaskShape
from gru_jax.models import Model
from gru_jax.runs.load_trained import load
from gru_jax.training.losses import losses_and_hits
from gru_jax.training.step import Batch, batch_of
from gru_jax.types import Array, Params

_TRAINING = 2048  # training sequences that are made for it


def of_run(run_directory: Path, data_root: str | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    """Accuracy by length of a run's best parameters.

    Args:
        run_directory: of the run.
        data_root: where the data files are, in place of what the run's config says.

    Returns:
        (lengths `[N]`, accuracy at each `[N]`, longest training sequence).

    Raises:
        RunError, CheckpointError, DataMissing: there is no run that could be read, or its data are not here.
    """
    config, model, params = load(run_directory)
    dataset = config.task.load(data_root or config.data_root)
    splits = [dataset.test]
    if callable(dataset.train):
        # A key of its own: training's come out of a hash of the seed.
        made = jax.jit(dataset.train, static_argnums=1)(jax.random.key(0), _TRAINING)
        splits.append(jax.device_get(made))
    return *accuracy_by_length(model, params, splits, config.shape, config.task.batch), config.shape.time


def accuracy_by_length(
    model: Model, params: Params, splits: Iterable[Split | Source], shape: TaskShape, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """How much of what is asked is right: by the length of the sequence, or, of tags, by the step they stand at.

    Args:
        model: whose `apply` is called.
        params: its parameters.
        splits: the sequences.
        shape: of the task, whose target is "class" or "tags".
        size: of a batch.

    Returns:
        The lengths at which something is asked, ascending, `[N]`, and the accuracy at each, `[N]`.
    """
    hits = jax.jit(functools.partial(_hits, model, shape))
    right, asked = np.zeros(0), np.zeros(0)
    for split in splits:
        for part, weight in evaluation_batches(split, shape, size):
            batch = batch_of(part, shape.target, weight)
            found, counts, time = np.asarray(hits(params, batch)), np.asarray(batch.weight), batch.x.shape[1]
            lengths = np.arange(1, time + 1) if shape.target == "tags" else batch.lengths
            lengths = np.broadcast_to(time if lengths is None else np.asarray(lengths), counts.shape).ravel()
            most = max(time + 1, len(asked))
            right = np.pad(right, (0, most - len(right))) + np.bincount(lengths, (found * counts).ravel(), most)
            asked = np.pad(asked, (0, most - len(asked))) + np.bincount(lengths, counts.ravel(), most)
    places = np.flatnonzero(asked)
    return places, right[places] / asked[places]


def _hits(model: Model, shape: TaskShape, params: Params, batch: Batch) -> Array:
    outputs = model.apply(params, batch.x, lengths=batch.lengths, deterministic=True)
    return losses_and_hits(outputs, jnp.where(batch.weight > 0, batch.y, jnp.zeros_like(batch.y)), shape.target)[1]
