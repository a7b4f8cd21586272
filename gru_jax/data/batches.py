"""Which examples a training step sees: a pure function of (key, step), so resuming needs no state.

Also the fixed-size, padded batches of an evaluation.
"""

from collections.abc import Iterator

import jax
import numpy as np

from gru_jax.data.dataset import Split
from gru_jax.types import IntArray, Key


def batch_indices(key: Key, step: IntArray, examples: int, size: int) -> IntArray:
    """The examples of one training step.

    Every epoch is a new permutation, drawn from `fold_in(key, epoch)`; the last `examples % size`
    of it are left out.

    Args:
        key: the key of the data stream.
        step: training step, from 0; a scalar, traced or not.
        examples: size of the training set.
        size: size of the batch.

    Returns:
        `[size]` indices in [0, examples).

    Example:
        >>> first, second = (batch_indices(jax.random.key(0), step, 6, 3) for step in (0, 1))
        >>> sorted([*first.tolist(), *second.tolist()])
        [0, 1, 2, 3, 4, 5]
    """
    per_epoch = examples // size
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), examples)
    return jax.lax.dynamic_slice_in_dim(order, (step % per_epoch) * size, size)


def evaluation_batches(split: Split, size: int) -> Iterator[tuple[Split, np.ndarray]]:
    """A split in order, in batches of one size.

    Yields:
        (batch, weight `[size]` float32): the last batch is filled up with examples of weight 0.
    """
    for start in range(0, len(split.y), size):
        rows = np.arange(start, start + size)
        weight = (rows < len(split.y)).astype(np.float32)
        rows = np.minimum(rows, len(split.y) - 1)
        yield Split(split.x[rows], split.y[rows]), weight
