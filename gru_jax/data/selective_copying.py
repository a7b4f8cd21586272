"""Selective copying: symbols strewn over a long sequence, to be told in their order at its end."""

import jax
import jax.numpy as jnp

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import Key


def shape(length: int, memorize: int, vocab: int, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: `length + memorize` steps, tags at the last `memorize` of them."""
    return TaskShape(epoch, valid, test, length + memorize, vocab, vocab, target="tags", tokens=True)


def generator(length: int, memorize: int = 16, vocab: int = 16) -> Generator:
    """What makes sequences of the selective copying task.

    The first `length` steps hold `memorize` symbols of 1 to `vocab - 2`, all as likely, at steps drawn
    without replacement, and the blank `vocab - 1` elsewhere. Then come `memorize` steps of 0, which ask for
    the symbols in their order. Only those count.

    Args:
        length: steps, L, that the symbols are strewn over.
        memorize: symbols, M, at most L.
        vocab: tokens, with 0, which asks, and the last one, the blank; at least 3.

    Returns:
        A function of (key, N) whose splits have x and y `[N, L + M]`, int32, and `asked`.

    Raises:
        ValueError: there are more symbols than steps, no symbols, or too few tokens.

    Example:
        >>> x, y, _, asked = generator(length=6, memorize=2)(jax.random.key(0), 1)
        >>> [token for token in x[0, :6].tolist() if token != 15] == y[0, 6:].tolist()
        True
        >>> asked[0].tolist()
        [False, False, False, False, False, False, True, True]

    Source: L. Feng et al., Were RNNs all we needed? (2024), `data/selective_copy.py` of BorealisAI/minRNNs.
    """
    if not 1 <= memorize <= length:
        raise ValueError(f"selective copying: memorize must lie in [1, length = {length}]; got {memorize}")
    if vocab < 3:
        raise ValueError(f"selective copying: vocab must be at least 3, two tokens being taken; got {vocab}")

    def generate(key: Key, examples: int) -> Split:
        of_symbols, of_places = jax.random.split(key)
        symbols = jax.random.randint(of_symbols, (examples, memorize), 1, vocab - 1, jnp.int32)
        places = generated.distinct(of_places, examples, memorize, length)
        blanks = jnp.full((examples, length), vocab - 1, jnp.int32)
        strewn = jnp.put_along_axis(blanks, places, symbols, axis=1, inplace=False)
        x = jnp.concatenate([strewn, jnp.zeros_like(symbols)], axis=1)
        y = jnp.concatenate([jnp.zeros_like(strewn), symbols], axis=1)
        asked = jnp.broadcast_to(jnp.arange(length + memorize)[None] >= length, y.shape)
        return Split(x, y, asked=asked)

    return generate


def load(length: int, memorize: int = 16, vocab: int = 16, *, valid: int, test: int) -> Dataset:
    """The task's data; see `generator` for the arguments, `valid` and `test` are numbers of sequences."""
    description = (
        f"selective copying, {memorize} symbols of {vocab - 2} kinds strewn over {length} steps;"
        " training data made at each step"
    )
    return generated.dataset(generator(length, memorize, vocab), valid=valid, test=test, description=description)
