"""Data made by a function of a random key: training makes them as it goes, validation and test are made once."""

import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data.dataset import Dataset, Generator, Split
from gru_jax.types import BoolArray, IntArray, Key, Tree

# Two words no seed stands for: `jax.random.key(seed)` has a first word of 0, and all that training folds into it
# comes out of the hash. They are part of every published number: never change them.
_VALID_KEY = (0x76616C69, 0x64617465)
_TEST_KEY = (0x74657374, 0x73706C74)


def dataset(
    generate: Generator,
    *,
    valid: int,
    test: int,
    description: str,
    generate_valid: Generator | None = None,
    generate_test: Generator | None = None,
    test_parts: int = 1,
) -> Dataset:
    """A dataset whose training sequences are new at every step.

    Validation and test are made here, from two keys of their own, and are the same in every run, with
    every seed and on every device.

    Args:
        generate: makes the sequences.
        valid, test: sequences in these splits.
        description: one line for people.
        generate_valid, generate_test: make the sequences of a split, where they are of another kind.
        test_parts: how many times the test's is called, for as many sequences each, so that memory is enough.

    Returns:
        A `Dataset` with `generate` as `train`, and numpy arrays in the other splits.

    Example:
        >>> def generate(key, examples):
        ...     x = jax.random.bernoulli(key, shape=(examples, 5)).astype(jnp.int32)
        ...     return Split(x, jnp.sum(x, axis=1))
        >>> made = dataset(generate, valid=2, test=3, description="counting ones")
        >>> made.test.x.shape, made.train(jax.random.key(0), 4).x.shape
        ((3, 5), (4, 5))
    """
    fixed = (
        _made(generate_valid or generate, _VALID_KEY, valid, 1),
        _made(generate_test or generate, _TEST_KEY, test, test_parts),
    )
    return Dataset(generate, *fixed, description, fingerprint(fixed))


def _made(generate: Generator, words: tuple[int, int], examples: int, parts: int) -> Split:
    # Not the process's default kind of key, which a setting changes.
    key = jax.random.wrap_key_data(jnp.array(words, jnp.uint32), impl="threefry2x32")
    make = jax.jit(generate, static_argnums=1)
    with jax.threefry_partitionable(True):
        if parts == 1:
            return jax.device_get(make(key, examples))
        made = [jax.device_get(make(jax.random.fold_in(key, part), examples // parts)) for part in range(parts)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *made)


def fingerprint(splits: Sequence[Tree]) -> str:
    """16 hex digits that change with any number in a pytree of arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(splits):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def distinct(key: Key, examples: int, count: int, below: int) -> IntArray:
    """Subsets of the whole numbers from 0, each as likely as any other.

    Args:
        key: random key.
        examples: how many subsets, N.
        count: numbers in each, K.
        below: the numbers are those in [0, below).

    Returns:
        `[N, K]` int32, ascending in every row.

    Raises:
        ValueError: there are fewer than `count` numbers.

    Example:
        >>> distinct(jax.random.key(0), 2, 3, 3).tolist()
        [[0, 1, 2], [0, 1, 2]]

    Source: J. Bentley and B. Floyd, A sample of brilliance, Communications of the ACM 30 (1987).
    """
    return jnp.sort(_subsets(key, examples, count, below), axis=1)


def in_random_order(key: Key, examples: int, count: int, below: int) -> IntArray:
    """As `distinct`, but every order of the numbers in a row as likely as any other."""
    of_subset, of_order = jax.random.split(key)
    subsets = _subsets(of_subset, examples, count, below)
    # Two of a row's K numbers share their 32 bits, and keep an order that is not random, once in 2**33 / K**2 rows.
    _, rows = jax.lax.sort((jax.random.bits(of_order, subsets.shape, jnp.uint32), subsets), dimension=1, num_keys=1)
    return rows


def _subsets(key: Key, examples: int, count: int, below: int) -> IntArray:
    """Floyd's way: no array of size `below` is made or sorted.

    The i-th draw is one of the first `below - count + i + 1` numbers, and stands for the last of them when it has
    been drawn before.
    """
    if not 0 <= count <= below:
        raise ValueError(f"distinct: count must lie in [0, below = {below}]; got {count}; ask for fewer numbers")
    last = jnp.arange(below - count, below, dtype=jnp.int32)
    draws = jax.random.randint(key, (examples, count), 0, last[None] + 1, jnp.int32)

    def add(i: IntArray, chosen: IntArray) -> IntArray:
        draw = draws[:, i]
        again = jnp.any(chosen == draw[:, None], axis=1)
        return chosen.at[:, i].set(jnp.where(again, last[i], draw))

    return jax.lax.fori_loop(0, count, add, jnp.full((examples, count), -1, jnp.int32))


def steps_before(lengths: IntArray, time: int) -> BoolArray:
    """`[N, T]`, True at the first `lengths` steps.

    Example:
        >>> steps_before(jnp.array([1, 3]), 3).tolist()
        [[True, False, False], [True, True, True]]
    """
    return jnp.arange(time, dtype=lengths.dtype)[None] < lengths[:, None]
