"""The adding problem: a sequence of random numbers, two of them marked; tell their sum."""

from typing import Literal

import jax
import jax.numpy as jnp

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import Key

Marks = Literal["anywhere", "halves"]
"""Where the two marks are: anywhere, or one in each half of the sequence."""


def shape(time: int, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: two numbers at each of `time` steps, one number to tell."""
    return TaskShape(epoch, valid, test, time, features=2, outputs=1, target="values")


def generator(time: int, marks: Marks = "anywhere") -> Generator:
    """What makes sequences of the adding problem.

    `x[t] = (u_t, m_t)` with u_t uniform in [0, 1) and m_t = 1 at two steps, 0 elsewhere; `y = sum_t u_t m_t`.
    Telling 1 for every sequence has a mean squared error of 1/6.

    Args:
        time: steps, T, at least 2.
        marks: `"anywhere"`, all pairs of different steps as likely, or `"halves"`, one in the first
            `T // 2` steps and one in the others.

    Returns:
        A function of (key, N) whose splits have x `[N, T, 2]` and y `[N, 1]`, float32.

    Raises:
        ValueError: there are fewer than two steps, or no such kind of marks.

    Example:
        >>> x, y, *_ = jax.jit(generator(time=10), static_argnums=1)(jax.random.key(0), 3)
        >>> x.shape, x[:, :, 1].sum(axis=1).tolist()
        ((3, 10, 2), [2.0, 2.0, 2.0])

    Source: S. Hochreiter and J. Schmidhuber, Long short-term memory (1997), in the form of locuslab/TCN,
    `adding_problem/utils.py`, which marks anywhere. There the training set is drawn once; here every
    training step draws anew.
    """
    if time < 2:
        raise ValueError(f"adding: two marks need a time of at least 2 steps; got {time}")
    if marks not in ("anywhere", "halves"):
        raise ValueError(f"adding: marks must be one of 'anywhere', 'halves'; got {marks!r}")

    def generate(key: Key, examples: int) -> Split:
        of_numbers, of_marks = jax.random.split(key)
        numbers = jax.random.uniform(of_numbers, (examples, time), jnp.float32)
        if marks == "anywhere":
            places = generated.distinct(of_marks, examples, 2, time)
        else:
            half = time // 2
            least, beyond = jnp.array([[0, half]], jnp.int32), jnp.array([[half, time]], jnp.int32)
            places = jax.random.randint(of_marks, (examples, 2), least, beyond, jnp.int32)
        marked = jnp.any(jnp.arange(time, dtype=jnp.int32)[None, :, None] == places[:, None, :], axis=2)
        y = jnp.sum(jnp.take_along_axis(numbers, places, axis=1), axis=1, keepdims=True)
        return Split(jnp.stack([numbers, marked.astype(jnp.float32)], axis=2), y)

    return generate


def load(time: int, marks: Marks = "anywhere", *, valid: int, test: int) -> Dataset:
    """The task's data; see `generator` for the arguments, `valid` and `test` are numbers of sequences."""
    where = {"anywhere": "anywhere", "halves": "one in each half"}[marks]
    description = f"adding problem, {time} steps, two marks {where}; training data made at each step"
    return generated.dataset(generator(time, marks), valid=valid, test=test, description=description)
