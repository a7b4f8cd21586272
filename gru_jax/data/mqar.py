"""Multi-query associative recall: pairs of keys and values, then the keys again, to be answered by their values."""

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import IntArray, Key

# Weights of gaps are whole numbers, so that every device draws the same ones; their sum stays below 2**31.
_WEIGHTS = 2**28


def shape(time: int, vocab: int, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: `time` steps, a tag at those that ask."""
    return TaskShape(epoch, valid, test, time, vocab, vocab, target="tags", tokens=True)


def generator(
    time: int, pairs: int, vocab: int = 8192, power: float = 0.01, random_filler: bool = False
) -> Generator:
    """What makes sequences of multi-query associative recall.

    The first `2 * pairs` steps are key, value, key, value ...: keys differ and are tokens from 1 to
    `vocab // 2 - 1`, values differ and are tokens from `vocab // 2`. Each key comes once more, at the step
    `2 * pairs + 2 * gap`, and there its value is asked for. Gaps are drawn one after the other without
    replacement, gap g with weight `(g + 1) ** (power - 1)`; the keys take them in their order. The other
    steps hold token 0.

    Args:
        time: steps, T; even, and at least `4 * pairs`.
        pairs: of key and value.
        vocab: tokens; more than `time`.
        power: of the gaps; 1 makes all as likely.
        random_filler: any token, all as likely, in the place of every 0.

    Returns:
        A function of (key, N) whose splits have x and y `[N, T]`, int32, and `asked`.

    Raises:
        ValueError: `time`, `pairs` and `vocab` do not fit each other.

    Example:
        >>> make = jax.jit(generator(time=12, pairs=2, vocab=16), static_argnums=1)
        >>> x, y, _, asked = make(jax.random.key(0), 1)
        >>> value_of = dict(zip(x[0, :4:2].tolist(), x[0, 1:4:2].tolist()))
        >>> [value_of[key] for key in x[0][asked[0]].tolist()] == y[0][asked[0]].tolist()
        True

    Source: S. Arora et al., Zoology: measuring and improving recall in efficient language models (2023),
    `zoology/data/associative_recall.py` of HazyResearch/zoology; the paper's figure 2 has no random filler.
    There the training set is drawn once; here every training step draws anew.
    """
    for wrong, fact in (
        (pairs < 1, f"pairs must be at least 1; got {pairs}"),
        (time % 2 == 1, f"time must be even; got {time}"),
        (time < 4 * pairs, f"time must be at least 4 * pairs = {4 * pairs}; got {time}"),
        (vocab <= time, f"vocab must be more than time = {time}; got {vocab}"),
    ):
        if wrong:
            raise ValueError(f"mqar: {fact}")
    context, first_value = 2 * pairs, vocab // 2
    weights = gap_weights((time - context) // 2, power)

    def generate(key: Key, examples: int) -> Split:
        of_keys, of_values, of_gaps, of_filler = jax.random.split(key, 4)
        keys = 1 + generated.in_random_order(of_keys, examples, pairs, first_value - 1)
        values = first_value + generated.in_random_order(of_values, examples, pairs, vocab - first_value)
        places = context + 2 * _gaps(of_gaps, weights, examples, pairs)
        zeros = jnp.zeros((examples, time), jnp.int32)
        x = zeros.at[:, :context].set(jnp.stack([keys, values], axis=2).reshape(examples, context))
        x = jnp.put_along_axis(x, places, keys, axis=1, inplace=False)
        y = jnp.put_along_axis(zeros, places, values, axis=1, inplace=False)
        if random_filler:
            x = jnp.where(x == 0, jax.random.randint(of_filler, x.shape, 0, vocab, jnp.int32), x)
        return Split(x, y, asked=y > 0)

    return generate


def load(
    time: int, pairs: int, vocab: int = 8192, power: float = 0.01, random_filler: bool = False, *, valid: int, test: int
) -> Dataset:
    """The task's data; see `generator` for the arguments, `valid` and `test` are numbers of sequences."""
    description = (
        f"multi-query associative recall, {pairs} pairs in {time} steps, {vocab} tokens;"
        " training data made at each step"
    )
    generate = generator(time, pairs, vocab, power, random_filler)
    return generated.dataset(generate, valid=valid, test=test, description=description)


def gap_weights(gaps: int, power: float) -> np.ndarray:
    """Whole numbers in proportion to `(g + 1) ** (power - 1)`, within 1 of it: `[gaps]` int32."""
    weights = np.arange(1, gaps + 1, dtype=np.float64) ** (power - 1)
    return np.maximum(1, np.rint(weights / weights.sum() * _WEIGHTS)).astype(np.int32)


def _gaps(key: Key, weights: np.ndarray, examples: int, count: int) -> IntArray:
    """`[N, K]`, drawn without replacement, each in proportion to the weights of those that are left."""
    rows = jnp.arange(examples)

    def draw(left: IntArray, key: Key) -> tuple[IntArray, IntArray]:
        up_to = jnp.cumsum(left, axis=1, dtype=jnp.int32)
        point = jax.random.randint(key, (examples,), 0, up_to[:, -1], jnp.int32)
        gap = jnp.sum(up_to <= point[:, None], axis=1, dtype=jnp.int32)
        return left.at[rows, gap].set(0), gap

    start = jnp.broadcast_to(jnp.asarray(weights)[None], (examples, len(weights)))
    _, gaps = jax.lax.scan(draw, start, jax.random.split(key, count))
    return gaps.T
