"""Keep the n-th: which token stood at one early step, asked at the end."""

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import Key


def shape(time: int, vocab: int, positions: int = 0, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: a token is a number, or, beside a position, one-hot."""
    return TaskShape(epoch, valid, test, time, vocab + positions, vocab, tokens=not positions)


def generator(time: int, nth: int = 5, vocab: int = 128, positions: int = 0) -> Generator:
    """What makes sequences of the keep-nth task: uniform tokens, `y = x_n`.

    Args:
        time: steps, T.
        nth: n, counted from 1.
        vocab: tokens, V.
        positions: P, numbers at each step that say which it is, see `encoded`; 0 for none.

    Returns:
        A function of (key, N) whose splits have y `[N]` int32 and x `[N, T]` int32, or, with positions,
        `[N, T, V + P]` float32: the token one-hot, then its position.

    Raises:
        ValueError: `nth` is no step, there are no tokens, or positions are odd.

    Example:
        >>> x, y, *_ = generator(time=7, nth=3)(jax.random.key(0), 2)
        >>> x[:, 2].tolist() == y.tolist()
        True

    Source: F. Danieli et al., ParaRNN (2025), arXiv:2510.21450, with n = 5, V = 128, T = 100, and positions added to
    the embeddings; that the answer is read at the last step is ours.
    """
    if not 1 <= nth <= time:
        raise ValueError(f"keep-nth: nth must lie in [1, time = {time}]; got {nth}")
    if vocab < 1 or positions < 0 or positions % 2:
        raise ValueError(f"keep-nth: vocab must be positive, positions even; got {vocab} and {positions}")
    places = encoded(time, positions)

    def generate(key: Key, examples: int) -> Split:
        tokens = jax.random.randint(key, (examples, time), 0, vocab, jnp.int32)
        y = tokens[:, nth - 1]
        if not positions:
            return Split(tokens, y)
        one_hot = jax.nn.one_hot(tokens, vocab, dtype=jnp.float32)
        of_all = jnp.broadcast_to(jnp.asarray(places), (examples, time, positions))
        return Split(jnp.concatenate([one_hot, of_all], axis=2), y)

    return generate


def load(time: int, nth: int = 5, vocab: int = 128, positions: int = 0, *, valid: int, test: int) -> Dataset:
    """The task's data; see `generator` for the arguments, `valid` and `test` are numbers of sequences."""
    description = f"the token of step {nth} among {time} of {vocab} kinds; training data made at each step"
    generate = generator(time, nth, vocab, positions)
    return generated.dataset(generate, valid=valid, test=test, description=description)


def encoded(time: int, positions: int) -> np.ndarray:
    """Sines and cosines of the step, of wavelengths from 2 pi to 10,000 times that: `[T, P]` float32.

    Example:
        >>> [round(number, 2) for number in encoded(3, 4)[1].tolist()]
        [0.84, 0.01, 0.54, 1.0]

    Source: A. Vaswani et al., Attention is all you need (2017), section 3.5.
    """
    rates = 10_000.0 ** (-np.arange(positions // 2) / max(positions // 2, 1))
    angles = np.arange(time)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
