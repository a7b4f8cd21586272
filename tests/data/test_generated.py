"""Data made as they are needed: the same for a key, of the announced shapes, and fixed where they have to be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.config.sections.base import Section
from gru_jax.config.sections.tasks.adding import AddingTask
from gru_jax.config.sections.tasks.copying import CopyingTask
from gru_jax.config.sections.tasks.formal import FormalTask
from gru_jax.config.sections.tasks.group_words import GroupWordsTask
from gru_jax.config.sections.tasks.k_hop import KHopTask
from gru_jax.config.sections.tasks.keep_nth import KeepNthTask
from gru_jax.config.sections.tasks.mqar import MQARTask
from gru_jax.config.sections.tasks.selective_copying import SelectiveCopyingTask
from gru_jax.data import generated
from gru_jax.data.dataset import Split
from gru_jax.training.step import data_key

SIZES = {"epoch": 100, "valid": 6, "batch": 2}
TASKS = [
    AddingTask(kind="adding", time=5, test=6, **SIZES),
    CopyingTask(kind="copying", blank=3, symbols=2, test=6, **SIZES),
    SelectiveCopyingTask(kind="selective_copying", length=7, memorize=3, test=6, **SIZES),
    FormalTask(
        kind="formal", language="modular_arithmetic", train_length=6, test_lengths=[8, 9], test_per_length=3, **SIZES
    ),
    KeepNthTask(kind="keep_nth", time=7, positions=2, test=6, **SIZES),
    MQARTask(kind="mqar", time=8, pairs=2, vocab=20, test=6, **SIZES),
]
SLOW = [
    GroupWordsTask(kind="group_words", length=4, test=6, **SIZES),
    KHopTask(kind="k_hop", time=9, test=6, **SIZES),
]


@pytest.mark.parametrize(
    "task", [*TASKS, *(pytest.param(task, marks=pytest.mark.slow) for task in SLOW)], ids=lambda task: task.kind
)
def test_splits_are_those_announced_and_training_is_a_function_of_the_key(task: Section) -> None:
    shape, data = task.shape(), task.load(None)
    make = jax.jit(data.train, static_argnums=1)
    first, again, other = (make(jax.random.key(seed), 6) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    for split in (other, data.valid, data.test):
        assert not np.array_equal(first.x, split.x)
    for split in (first, data.valid, data.test):
        n, time = split.x.shape[:2]
        of_target = {"class": (n,), "values": (n, shape.outputs), "tags": (n, time)}
        assert n == 6 and split.y.shape == of_target[shape.target]
        assert split.y.dtype == (np.float32 if shape.target == "values" else np.int32)
        if shape.tokens:
            assert split.x.ndim == 2 and split.x.dtype == np.int32
            assert split.x.min() >= 0 and split.x.max() < shape.features
        else:
            assert split.x.shape[2] == shape.features and split.x.dtype == np.float32
        if shape.target in ("class", "tags"):
            assert split.y.min() >= 0 and split.y.max() < shape.outputs
        assert split.lengths is None or (split.lengths.dtype == np.int32 and split.lengths.shape == (n,))
        assert split.asked is None or (split.asked.dtype == np.bool_ and split.asked.shape == (n, time))
    assert first.x.shape[1] == data.valid.x.shape[1] == shape.time
    assert (len(data.valid.y), len(data.test.y), shape.train) == (shape.valid, shape.test, 100)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((data.valid, data.test)))


def counting(key: jax.Array, examples: int) -> Split:
    x = jax.random.randint(key, (examples, 5), 0, 2, jnp.int32)
    return Split(x, jnp.sum(x, axis=1, dtype=jnp.int32))


def test_fixed_splits_do_not_follow_the_settings_of_the_process() -> None:
    made = generated.dataset(counting, valid=20, test=20, description="ones")
    assert not np.array_equal(made.valid.x, made.test.x)
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False), jax.enable_x64(True):
        assert generated.dataset(counting, valid=20, test=20, description="ones").fingerprint == made.fingerprint
    assert len(made.fingerprint) == 16


def test_a_test_split_made_in_parts_is_new_in_each() -> None:
    made = generated.dataset(counting, valid=20, test=40, description="ones", test_parts=2)
    assert made.test.x.shape == (40, 5) and not np.array_equal(made.test.x[:20], made.test.x[20:])
    assert np.array_equal(made.test.y, made.test.x.sum(axis=1))


def test_fixed_keys_are_not_those_of_training() -> None:
    fixed = {generated._VALID_KEY, generated._TEST_KEY}
    steps = jnp.arange(500)
    of_seed = jax.vmap(lambda seed: jax.vmap(lambda step: jax.random.fold_in(data_key(seed), step))(steps))
    keys = jax.jit(lambda seeds: jax.random.key_data(of_seed(seeds)))
    words = np.asarray(keys(np.arange(20, dtype=np.uint32))).reshape(-1, 2)
    seen = set(map(tuple, words.tolist()))
    assert len(fixed) == 2 and len(seen) == 10_000 and not fixed & seen


def test_fingerprint_sees_every_number() -> None:
    split = Split(np.arange(15, dtype=np.int32).reshape(3, 5), np.arange(3, dtype=np.int32))
    before = generated.fingerprint(split)
    for leaf in (split.x, split.y):
        changed = leaf.copy()
        changed.flat[0] += 1
        other = Split(changed, split.y) if leaf is split.x else Split(split.x, changed)
        assert generated.fingerprint(other) != before
    assert generated.fingerprint(Split(split.x, split.y.copy())) == before


def test_subsets_and_their_orders_are_equally_likely() -> None:
    count, below = 3, 5
    arguments = (20_000, count, below)
    draw = jax.jit(lambda key: (generated.distinct(key, *arguments), generated.in_random_order(key, *arguments)))
    drawn, ordered = jax.device_get(draw(jax.random.key(3)))
    assert drawn.dtype == ordered.dtype == np.int32
    orders, times = np.unique(ordered, axis=0, return_counts=True)
    assert list(map(tuple, orders.tolist())) == list(itertools.permutations(range(below), count))
    assert np.abs(times / 20_000 - 1 / 60).max() < 5 * np.sqrt(1 / 60 / 20_000)
    subsets, times = np.unique(drawn, axis=0, return_counts=True)
    assert list(map(tuple, subsets.tolist())) == list(itertools.combinations(range(below), count))
    share = 1 / len(subsets)
    assert np.abs(times / 20_000 - share).max() < 5 * np.sqrt(share * (1 - share) / 20_000)


def test_more_numbers_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"count must lie in \[0, below = 3\]; got 4"):
        generated.distinct(jax.random.key(0), 1, 4, 3)
