"""Copying memory: a few symbols, a long blank, and then the symbols are to be told again."""

import jax
import jax.numpy as jnp

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import Key

TOKENS = 10
"""0 is the blank, 1 to 8 are symbols, 9 asks for them."""


def shape(blank: int, symbols: int, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: `blank + 2 * symbols` steps, a tag at each."""
    return TaskShape(epoch, valid, test, blank + 2 * symbols, TOKENS, TOKENS, target="tags", tokens=True)


def generator(blank: int, symbols: int = 10) -> Generator:
    """What makes sequences of the copying memory task.

    With S symbols and a blank of T steps: x is the symbols, T - 1 zeros and S + 1 nines, y is T + S zeros
    and the symbols. All steps count. A predictor without memory does no better than
    `S ln 8 / (T + 2 S)` nats a step; one that holds all ten tokens for equally likely has ln 10.

    Args:
        blank: T, at least 1.
        symbols: S, each one of 1 to 8, all as likely.

    Returns:
        A function of (key, N) whose splits have x and y `[N, T + 2 S]`, int32.

    Raises:
        ValueError: `blank` or `symbols` is below 1.

    Example:
        >>> x, y, *_ = generator(blank=3, symbols=2)(jax.random.key(1), 1)
        >>> x[0, 2:].tolist(), y[0, :5].tolist(), x[0, :2].tolist() == y[0, 5:].tolist()
        ([0, 0, 9, 9, 9], [0, 0, 0, 0, 0], True)

    Source: M. Arjovsky, A. Shah and Y. Bengio, Unitary evolution recurrent neural networks (2016), in the
    form of locuslab/TCN, `copy_memory/utils.py`. There a network reads the token's number as one feature,
    here it reads a token; and there the training set is drawn once, here every training step draws anew.
    """
    if min(blank, symbols) < 1:
        raise ValueError(f"copying: blank and symbols must be at least 1; got {blank} and {symbols}")

    def generate(key: Key, examples: int) -> Split:
        remembered = jax.random.randint(key, (examples, symbols), 1, 9, jnp.int32)
        zeros = jnp.zeros((examples, blank - 1), jnp.int32)
        nines = jnp.full((examples, symbols + 1), 9, jnp.int32)
        x = jnp.concatenate([remembered, zeros, nines], axis=1)
        y = jnp.concatenate([jnp.zeros((examples, blank + symbols), jnp.int32), remembered], axis=1)
        return Split(x, y)

    return generate


def load(blank: int, symbols: int = 10, *, valid: int, test: int) -> Dataset:
    """The task's data; see `generator` for the arguments, `valid` and `test` are numbers of sequences."""
    description = f"copying memory, {symbols} symbols, blank of {blank} steps; training data made at each step"
    return generated.dataset(generator(blank, symbols), valid=valid, test=test, description=description)
