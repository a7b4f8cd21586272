"""Batches are a pure function of (key, step), and evaluation sees every example once."""

import jax
import numpy as np
import pytest

from gru_jax.data.batches import batch_indices, evaluation_batches
from gru_jax.data.dataset import Split, TaskShape

SHAPE = TaskShape(9, 9, 9, time=5, features=1, outputs=10)


@pytest.mark.parametrize(("examples", "size"), [(12, 4), (13, 4), (7, 7), (5, 1)])
def test_an_epoch_shows_no_example_twice(examples: int, size: int) -> None:
    key, per_epoch = jax.random.key(1), examples // size
    for epoch in range(3):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        rows = np.concatenate([batch_indices(key, step, examples, size) for step in steps])
        assert len(rows) == len(set(rows.tolist())) == per_epoch * size
        assert rows.min() >= 0 and rows.max() < examples


def test_order_depends_on_key_and_epoch_alone() -> None:
    first = batch_indices(jax.random.key(0), 5, 100, 10)
    assert np.array_equal(first, jax.jit(batch_indices, static_argnums=(2, 3))(jax.random.key(0), 5, 100, 10))
    assert not np.array_equal(first, batch_indices(jax.random.key(1), 5, 100, 10))
    assert not np.array_equal(first, batch_indices(jax.random.key(0), 15, 100, 10))


def test_order_under_vmap_over_seeds() -> None:
    seeds = np.arange(3, dtype=np.uint32)
    together = jax.vmap(lambda seed: batch_indices(jax.random.key(seed), 4, 20, 5))(seeds)
    alone = [batch_indices(jax.random.key(seed), 4, 20, 5) for seed in seeds]
    assert np.array_equal(together, np.stack(alone))


@pytest.mark.parametrize(("examples", "size"), [(10, 4), (8, 4), (3, 5)])
def test_evaluation_sees_every_example_once(examples: int, size: int) -> None:
    x = np.arange(examples, dtype=np.float32).reshape(examples, 1, 1)
    split = Split(x, np.arange(examples, dtype=np.int32))
    seen = []
    for batch, weight in evaluation_batches(split, SHAPE, size):
        assert batch.x.shape == (size, 1, 1) and weight.shape == (size,)
        assert np.array_equal(batch.x[:, 0, 0], batch.y)
        seen += batch.y[weight == 1].tolist()
        assert set(np.unique(weight)) <= {0, 1}
    assert seen == list(range(examples))
