"""Which sequences a step sees: a pure function of (seed, step), so resuming needs no state. And padding them."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from gru_jax.data.dataset import DataMissing, Example, Source, Split, TaskShape
from gru_jax.types import IntArray, Key

# Padding to a few lengths only, for each costs a compilation: the longest, and its halves down to this.
_SHORTEST = 256


def batch_indices(key: Key, step: IntArray, examples: int, size: int) -> IntArray:
    """The examples of one training step.

    Every epoch is a new permutation, drawn from `fold_in(key, epoch)`; the last `examples % size`
    of it are left out.

    Args:
        key: the key of the data stream.
        step: training step, from 0; a scalar, traced or not.
        examples: size of the training set.
        size: size of the batch.

    Returns:
        `[size]` indices in [0, examples).

    Example:
        >>> first, second = (batch_indices(jax.random.key(0), step, 6, 3) for step in (0, 1))
        >>> sorted([*first.tolist(), *second.tolist()])
        [0, 1, 2, 3, 4, 5]
    """
    per_epoch = examples // size
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), examples)
    return jax.lax.dynamic_slice_in_dim(order, (step % per_epoch) * size, size)


def taken(split: Split, rows: IntArray | np.ndarray | slice) -> Split:
    """Some of a split's sequences, by their numbers `[n]`."""
    return jax.tree.map(lambda leaf: leaf[rows], split)


def first_of(split: Split | Source, shape: TaskShape) -> Example:
    """The first sequence of a split, in the order of its task, without padding.

    Example:
        >>> split = Split(np.zeros((2, 5, 1), np.float32), np.array([1, 0]), np.array([3, 5]))
        >>> x, y = first_of(split, TaskShape(2, 2, 2, time=5, features=1, outputs=2))
        >>> x.shape, int(y)
        ((3, 1), 1)
    """
    if not isinstance(split, Split):
        example = split[0]
        split = padded([example], len(example.x), shape)
    x, y = np.asarray(split.x[0]), np.asarray(split.y[0])
    time = len(x) if split.lengths is None else int(split.lengths[0])
    return Example(x[:time], y[:time] if shape.target in ("tags", "notes") else y)


class SourceBatches:
    """Training batches of a source, in an order of its own for every seed and epoch.

    What does not fill a batch is left out of an epoch. `batches[step]` needs no batch before it.

    Args:
        source: where the sequences are.
        shape: of the task.
        size: of a batch.
        seed: of the order.
        share: which of a batch's sequences are read, and given; None for all.
    """

    def __init__(self, source: Source, shape: TaskShape, size: int, seed: int, share: slice | None = None) -> None:
        try:
            import grain
        except ImportError as error:
            raise DataMissing(
                "data in files are shuffled by grain, which is not installed;"
                " gru-jax[experiments] brings it: pip install '.[experiments]' in a clone"
            ) from error
        self._source, self._shape, self._size, self._share = source, shape, size, share
        self._order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()

    def __getitem__(self, step: int) -> Split:
        examples, size = len(self._source), self._size
        epoch, place = divmod(step, examples // size)
        first = epoch * examples + place * size
        rows = [int(self._order[i]) for i in range(first, first + size)]
        return _batch(self._source, rows, self._shape, self._share)


def evaluation_order(split: Split | Source) -> np.ndarray:
    """The places of the sequences of a split as they are evaluated: as they stand, or, of a source, by length."""
    if isinstance(split, Split):
        return np.arange(len(split.y))
    return np.argsort(split.lengths, kind="stable")


def evaluation_batches(
    split: Split | Source, shape: TaskShape, size: int, share: slice | None = None
) -> Iterator[tuple[Split, np.ndarray]]:
    """A split in batches of one size: every sequence once, sources from short to long.

    Args:
        split: the data.
        shape: of the task.
        size: of a batch.
        share: which of a batch's sequences are read, and given; None for all.

    Yields:
        (batch, weight `[size]` float32): the last batch is filled up with sequences of weight 0.
    """
    order = evaluation_order(split)
    examples = len(order)
    for start in range(0, examples, size):
        places = np.arange(start, start + size)
        weight = (places < examples).astype(np.float32)
        rows = order[np.minimum(places, examples - 1)]
        if isinstance(split, Split):
            yield taken(split, rows[share or slice(None)]), weight[share or slice(None)]
        else:
            yield _batch(split, rows.tolist(), shape, share), weight[share or slice(None)]


def _batch(source: Source, rows: list[int], shape: TaskShape, share: slice | None) -> Split:
    # As long as the whole batch needs: those who read other shares of it have to agree.
    time = padded_length(source.lengths, int(source.lengths[rows].max()))
    return padded([source[row] for row in rows[share or slice(None)]], time, shape)


def padded_length(lengths: np.ndarray, longest: int) -> int:
    """The number of steps that a batch is padded to, one of a few.

    Args:
        lengths: `[N]`, of all sequences.
        longest: of those in the batch.

    Example:
        >>> padded_length(np.array([100, 1793]), 800), padded_length(np.array([30, 160]), 40)
        (897, 160)
    """
    time = int(lengths.max())
    while time > _SHORTEST and -(-time // 2) >= longest:
        time = -(-time // 2)
    return time


def padded(examples: Sequence[Example], time: int, shape: TaskShape) -> Split:
    """Sequences of any lengths side by side, zeros after each.

    Args:
        examples: N of them.
        time: T, at least the longest.
        shape: of the task: what x and y are.

    Returns:
        A `Split` with lengths.
    """
    x = _side_by_side([example.x for example in examples], time, np.int32 if shape.tokens else np.float32)
    targets = [example.y for example in examples]
    dtype = np.int32 if shape.target in ("class", "tags") else np.float32
    y = _side_by_side(targets, time, dtype) if shape.target in ("tags", "notes") else np.stack(targets).astype(dtype)
    return Split(x, y, np.array([len(example.x) for example in examples], np.int32))


def _side_by_side(sequences: Sequence[np.ndarray], time: int, dtype: type[np.generic]) -> np.ndarray:
    made = np.zeros((len(sequences), time, *sequences[0].shape[1:]), dtype)
    for row, sequence in zip(made, sequences, strict=True):
        row[: len(sequence)] = sequence
    return made
