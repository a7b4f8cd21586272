"""The word problem of a finite group: the running product of its elements, told at every step."""

import itertools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import IntArray, Key

NAMES = re.compile(r"C[1-9][0-9]{0,2}|[AS][2-6]")
"""The groups: C1 to C999 are cyclic, S2 to S6 all permutations of so many points, A2 to A6 the even ones."""


def shape(group: str, length: int, test_length: int | None = None, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: a token for each element of the group, a tag at each of `length` steps."""
    order = len(products(group))
    return TaskShape(epoch, valid, test, length, order, order, target="tags", tokens=True)


def generator(group: str, length: int) -> Generator:
    """What makes words of a group and their running products.

        y_1 = x_1,   y_t = y_{t-1} x_t

    Every token is an element of the group, all as likely; see `products` for their numbers.

    Args:
        group: "A5", "S5", "C60" and others, see `NAMES`.
        length: steps, T.

    Returns:
        A function of (key, N) whose splits have x and y `[N, T]`, int32.

    Raises:
        ValueError: no such group, or no steps.

    Example:
        >>> x, y, *_ = generator("C60", length=3)(jax.random.key(0), 4)
        >>> (x.cumsum(axis=1) % 60 == y).all().item()
        True

    Source: W. Merrill, J. Petty and A. Sabharwal, The illusion of state in state-space models (2024),
    jopetty/word-problem, for A5, C60 and a third group of 60 elements. There words are drawn once, and a part of
    them is for training, with all words of two elements; here every training step draws anew.
    """
    if length < 1:
        raise ValueError(f"group words: length must be at least 1; got {length}")
    table = products(group)

    def generate(key: Key, examples: int) -> Split:
        x = jax.random.randint(key, (examples, length), 0, len(table), jnp.int32)
        return Split(x, _running(jnp.asarray(table), x))

    return generate


def load(group: str, length: int, test_length: int | None = None, *, valid: int, test: int) -> Dataset:
    """The task's data.

    Args:
        group: see `generator`.
        length: steps in training and validation.
        test_length: steps in the test; as many when None.
        valid, test: words in these splits.
    """
    longer = test_length or length
    description = f"words of {length} elements of {group} made at each step, {longer} in the test"
    return generated.dataset(
        generator(group, length),
        valid=valid,
        test=test,
        description=description,
        generate_test=generator(group, longer),
    )


def products(group: str) -> np.ndarray:
    """The table of products of a group: `[order, order]` int32, the number of `a b` in row a, column b.

    A permutation is numbered by its place in the dictionary, so that 0 changes nothing; `a b` is a first, then b. The
    product in a cyclic group is the sum of the numbers.

    Args:
        group: see `NAMES`.

    Raises:
        ValueError: no such group.

    Example:
        >>> len(products("A5")), products("C3").tolist()
        (60, [[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    """
    if not isinstance(group, str) or not NAMES.fullmatch(group):
        raise ValueError(f"group words: group must be C1 to C999, S2 to S6 or A2 to A6; got {group!r}")
    kind, size = group[0], int(group[1:])
    if kind == "C":
        numbers = np.arange(size, dtype=np.int32)
        return (numbers[:, None] + numbers) % np.int32(size)
    every = itertools.permutations(range(size))
    elements = np.array([each for each in every if kind == "S" or _even(each)], np.int32)
    both = elements[:, elements].transpose(1, 0, 2)  # [b, a] at point i: b of a(i), turned to [a, b]
    places = np.int32(size) ** np.arange(size - 1, -1, -1, dtype=np.int32)
    return np.searchsorted(elements @ places, both @ places).astype(np.int32)


def _even(permutation: Sequence[int]) -> bool:
    """Whether an even number of pairs is out of order."""
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0


def _running(table: IntArray, x: IntArray) -> IntArray:
    def step(product: IntArray, element: IntArray) -> tuple[IntArray, IntArray]:
        product = table[product, element]
        return product, product

    _, y = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.T)
    return y.T
