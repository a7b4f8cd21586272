"""Batches are a pure function of (key, step), and evaluation sees every example once."""

import jax
import numpy as np
import pytest

from gru_jax.data.batches import SourceBatches, batch_indices, evaluation_batches, padded_length
from gru_jax.data.dataset import Sequences, Split, TaskShape

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


def source(count: int = 11) -> Sequences:
    """Sequences of 1 to `count` steps; each value tells its sequence, and each tag its step."""
    return Sequences(
        [np.full((n, 1), n, np.float32) for n in range(1, count + 1)],
        [np.arange(n, dtype=np.uint8) for n in range(1, count + 1)],
    )


TAGGED = TaskShape(11, 11, 11, time=11, features=1, outputs=11, target="tags")


def test_a_source_is_shown_once_in_an_epoch_and_in_another_order_in_the_next() -> None:
    batches = SourceBatches(source(), TAGGED, 3, seed=0)
    epochs = []
    for epoch in range(3):
        shown = [batches[step] for step in range(3 * epoch, 3 * epoch + 3)]
        epochs.append(np.concatenate([batch.lengths for batch in shown]).tolist())
        assert len(set(epochs[-1])) == 9
    assert epochs[0] != epochs[1] != epochs[2]
    # Any step at any time, and only the seed decides.
    again, other = SourceBatches(source(), TAGGED, 3, seed=0), SourceBatches(source(), TAGGED, 3, seed=1)
    assert np.array_equal(again[7].x, batches[7].x)
    assert [other[step].lengths.tolist() for step in range(3)] != [batches[step].lengths.tolist() for step in range(3)]


def test_sequences_are_padded_side_by_side() -> None:
    batch = SourceBatches(source(), TAGGED, 3, seed=2)[0]
    assert batch.x.shape == (3, 11, 1) and batch.y.shape == (3, 11)
    assert batch.x.dtype == np.float32 and batch.y.dtype == np.int32
    for x, y, length in zip(batch.x, batch.y, batch.lengths, strict=True):
        assert (x[:length] == length).all() and (x[length:] == 0).all()
        assert y[:length].tolist() == list(range(length)) and (y[length:] == 0).all()


@pytest.mark.parametrize("size", [4, 11, 20])
def test_evaluation_sees_every_sequence_of_a_source_once(size: int) -> None:
    seen = []
    for batch, weight in evaluation_batches(source(), TAGGED, size):
        assert len(batch.x) == size
        seen += batch.lengths[weight == 1].tolist()
    assert seen == list(range(1, 12))


def test_long_sequences_are_padded_to_few_lengths() -> None:
    lengths = np.array([3, 1000, 4000])
    found = {padded_length(lengths, longest) for longest in range(1, 4001)}
    assert found == {250, 500, 1000, 2000, 4000}
    assert all(padded_length(lengths, longest) >= longest for longest in range(1, 4001))
