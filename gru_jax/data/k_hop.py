"""k hops: from each token back to what followed it the last time, and again from there."""

import jax
import jax.numpy as jnp

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import IntArray, Key


def shape(time: int, vocab: int, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: `time` steps, a tag at those that have an answer."""
    return TaskShape(epoch, valid, test, time, vocab, vocab, target="tags", tokens=True)


def generator(time: int, hops: int = 1, vocab: int = 10) -> Generator:
    """What makes sequences of the k-hop task.

    With `hop(t)` the step after the last one before t that has the token of t,

        y_t = x[hop(hop(... t))]                         `hops` times

    Tokens are drawn uniformly. A step from which some hop leads nowhere is not asked; y is 0 there.

    Args:
        time: steps, T.
        hops: k; 1 is the induction head.
        vocab: tokens, V.

    Returns:
        A function of (key, N) whose splits have x and y `[N, T]`, int32, and `asked`.

    Raises:
        ValueError: an argument is too small.

    Example:
        >>> x, y, _, asked = generator(time=8, vocab=2)(jax.random.key(3), 1)
        >>> x[0].tolist(), y[0].tolist()
        ([1, 1, 1, 0, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0, 0, 1])
        >>> asked[0].astype(int).tolist()
        [0, 1, 1, 0, 1, 1, 1, 1]

    Source: C. Sanford, D. Hsu and M. Telgarsky, Transformers, parallel computation, and logarithmic depth (2024),
    arXiv:2402.09268. F. Danieli et al., ParaRNN (2025), arXiv:2510.21450, have (k, V) of (1, 10) and (2, 5), T = 100,
    and do not say how tokens are drawn and what a step without an answer is worth.
    """
    for name, number, least in (("time", time, 2), ("hops", hops, 1), ("vocab", vocab, 1)):
        if number < least:
            raise ValueError(f"k-hop: {name} must be at least {least}; got {number}")

    def generate(key: Key, examples: int) -> Split:
        x = jax.random.randint(key, (examples, time), 0, vocab, jnp.int32)
        hop = _hop(x, vocab)
        place = hop
        for _ in range(hops - 1):
            place = jnp.where(place < 0, place, jnp.take_along_axis(hop, jnp.maximum(place, 0), axis=1))
        asked = place >= 0
        return Split(x, jnp.where(asked, jnp.take_along_axis(x, jnp.maximum(place, 0), axis=1), 0), asked=asked)

    return generate


def load(time: int, hops: int = 1, vocab: int = 10, *, valid: int, test: int) -> Dataset:
    """The task's data; see `generator` for the arguments, `valid` and `test` are numbers of sequences."""
    description = f"{hops}-hop, {vocab} tokens, {time} steps; training data made at each step"
    return generated.dataset(generator(time, hops, vocab), valid=valid, test=test, description=description)


def _hop(x: IntArray, vocab: int) -> IntArray:
    """`[N, T]`, the step after the last one before with the same token, -1 where there is none."""
    rows = jnp.arange(x.shape[0])

    def step(after: IntArray, now: tuple[IntArray, IntArray]) -> tuple[IntArray, IntArray]:
        t, token = now
        return after.at[rows, token].set(t + 1), after[rows, token]

    steps = jnp.arange(x.shape[1], dtype=jnp.int32)
    _, hop = jax.lax.scan(step, jnp.full((x.shape[0], vocab), -1, jnp.int32), (steps, x.T))
    return hop.T
