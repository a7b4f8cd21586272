"""Packed sequences: a batch of sequences of different lengths, laid out step by step without padding.

With sequences a b c and x the data are a x b c: step 0 of all sequences, step 1 of those that have one, and so on,
the longest sequence first.
"""

import json
from typing import Any, NamedTuple, SupportsIndex, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from gru_jax import checks
from gru_jax.interop.arrays import Weight
from gru_jax.interop.torch import tensors
from gru_jax.interop.torch.conversions import Conversions
from gru_jax.interop.torch.tensors import TensorLike, Whole
from gru_jax.types import Array


class _Fields(NamedTuple):
    data: Weight
    batch_sizes: np.ndarray
    sorted_indices: np.ndarray | None
    unsorted_indices: np.ndarray | None


class PackedSequence(Conversions, _Fields):
    """Sequences of different lengths without padding, as torch.nn.utils.rnn.PackedSequence.

    `data` is an array that JAX may trace. All else is NumPy's and static: under `jax.jit` the lengths are known, and
    another set of lengths compiles anew.

    Attributes:
      data: the steps of all sequences, `[sum of the lengths, *]`: step 0 of each, then step 1 of those that have one.
      batch_sizes: how many sequences have each step, `[longest length]`, never growing.
      sorted_indices: the order, longest first, in which `data` holds the sequences; None for the order they came in.
      unsorted_indices: the inverse permutation; follows from `sorted_indices` when left out.

    Raises:
      TypeError, ValueError: for batch sizes or indices that fit neither each other nor `data`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> nn.pack_sequence([jnp.array([1, 2, 3]), jnp.array([4])]).data.tolist()
      [1, 4, 2, 3]

    Source: behaves as torch 2.13.
    """

    def __new__(
        _cls,
        data: TensorLike,
        batch_sizes: Whole,
        sorted_indices: Whole | None = None,
        unsorted_indices: Whole | None = None,
    ) -> "PackedSequence":
        data = tensors.array("PackedSequence", "data", data)
        sizes = _whole("batch_sizes", batch_sizes)
        rows = data.shape[0] if data.ndim else 0
        if not sizes.size or sizes[-1] < 1 or (sizes[1:] > sizes[:-1]).any() or sizes.sum() != rows:
            raise ValueError(
                f"PackedSequence: batch_sizes must be whole numbers of at least 1 that never grow and add up to the"
                f" {rows} rows of data; got {sizes.tolist()}; make packed sequences with pack_padded_sequence"
            )
        order = _permutation("sorted_indices", sorted_indices, sizes[0])
        back = _permutation("unsorted_indices", unsorted_indices, sizes[0])
        if order is not None and back is None:
            back = np.argsort(order)
        if (order is None) != (back is None) or (order is not None and (order[back] != np.arange(sizes[0])).any()):
            raise ValueError("PackedSequence: unsorted_indices must be the inverse permutation of sorted_indices")
        return super().__new__(_cls, tensors.on_device("PackedSequence", "data", data), sizes, order, back)

    @property
    def lengths(self) -> np.ndarray:
        """The sequences' lengths in the order in which `data` holds them, longest first."""
        return (self.batch_sizes[:, None] > np.arange(self.batch_sizes[0])).sum(0)

    @property
    def rows(self) -> np.ndarray:
        """The place in data of each step and sequence, `[T, B]`; at padding that of the same step's first sequence."""
        places = np.arange(self.batch_sizes[0])
        inside = np.where(places < self.batch_sizes[:, None], places, 0)
        return tensors.offsets(self.batch_sizes)[:, None] + inside

    @property
    def places(self) -> np.ndarray:
        """The place among the `[T * B]` steps of the padded batch of each row of data: the inverse of `rows`."""
        batch = self.batch_sizes[0]
        return np.flatnonzero(np.arange(batch) < self.batch_sizes[:, None])

    # A tuple compares by ==, which of arrays is an array.

    def count(self, value: object) -> int:
        """How many of the four fields are `value`, arrays as a whole."""
        return sum(_same(one, value) for one in self)

    def index(self, value: object, start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> int:
        """The place of the first field that is `value`, arrays as a whole."""
        for place in range(len(self))[start:stop]:
            if _same(self[place], value):
                return place
        raise ValueError(f"PackedSequence: no field is the value; got {checks.described(value)}")

    def __contains__(self, value: object) -> bool:
        return bool(self.count(value))

    def with_data(self, data: Weight) -> "PackedSequence":
        """The same lengths and order with other data."""
        return _made(tuple(self[1:]), (data,))


def is_packed(given: Any) -> TypeGuard[PackedSequence]:
    """Whether something is a packed sequence, ours or torch's."""
    return isinstance(given, PackedSequence) or (type(given).__name__ == "PackedSequence" and len(given) == 4)


def _same(one: Weight, other: Any) -> bool:
    if one is None or other is None or getattr(one, "shape", None) != getattr(other, "shape", None):
        return one is other
    return bool(np.array_equal(one, other))


def _made(static: tuple[Any, ...], children: Any) -> PackedSequence:
    # No checks: while JAX transforms, data may be anything.
    return _Fields.__new__(PackedSequence, children[0], *static)


class _Static(tuple[Any, ...]):
    """The static fields, compared and hashed by their values, as JAX compares the structure of pytrees."""

    def _values(self) -> tuple[bytes | None, ...]:
        return tuple(None if field is None else field.tobytes() for field in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self._values() == other._values()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._values())


jax.tree_util.register_pytree_with_keys(
    PackedSequence,
    lambda packed: (((jax.tree_util.GetAttrKey("data"), packed.data),), _Static(packed[1:])),
    _made,
)
export.register_pytree_node_serialization(
    PackedSequence,
    serialized_name="gru_jax.PackedSequence",
    serialize_auxdata=lambda static: json.dumps([None if a is None else a.tolist() for a in static]).encode(),
    deserialize_auxdata=lambda written: _Static(None if a is None else np.array(a, int) for a in json.loads(written)),
)


def pack_padded_sequence(
    input: TensorLike, lengths: Whole, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """A padded batch without its padding.

    Args:
      input: `[T, B, *]` of any dtype (`[B, T, *]` with batch_first).
      lengths: `[B]` whole numbers in [1, T] that are known while JAX traces: a list, a NumPy array.
      batch_first: the batch axis leads.
      enforce_sorted: demand sequences in order of falling length; False sorts them, and everything that comes back,
        unpacked sequences and final states, is in the order of `input` again.

    Returns:
      A `PackedSequence`. Sequences of one length keep their order.

    Raises:
      TypeError, ValueError: for lengths that are traced, below 1, above T, unsorted, or not B of them.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> x = jnp.array([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
      >>> packed = nn.pack_padded_sequence(x, [2, 1, 3], batch_first=True, enforce_sorted=False)
      >>> packed.data.tolist(), packed.batch_sizes.tolist(), packed.sorted_indices.tolist()
      ([4, 1, 3, 5, 2, 6], [3, 2, 1], [2, 0, 1])

    Source: torch.nn.utils.rnn.pack_padded_sequence, which packs lengths above T too, to fail later.
    """
    who = "pack_padded_sequence"
    checks.flag(who, "batch_first", batch_first)
    checks.flag(who, "enforce_sorted", enforce_sorted)
    x = tensors.array(who, "input", input)
    if x.ndim < 2:
        layout = "[B, T, *]" if batch_first else "[T, B, *]"
        raise ValueError(f"{who}: input must have at least 2 dimensions, {layout}; got shape {list(x.shape)}")
    steps, batch = x.shape[:2][:: -1 if batch_first else 1]
    if not batch:
        raise ValueError(f"{who}: input has no sequences; got shape {list(x.shape)}; leave an empty batch out")
    found = tensors.lengths(who, lengths, batch, steps, steps)
    order = None if enforce_sorted else np.argsort(-found, kind="stable")
    if order is not None:
        found = found[order]
    elif (found[1:] > found[:-1]).any():
        raise ValueError(
            f"{who}: lengths must fall from the first sequence to the last; got {found[:9].tolist()}"
            f"{' and more' if batch > 9 else ''}; pass enforce_sorted=False to have them sorted"
        )
    sizes = (found > np.arange(found[0])[:, None]).sum(1)
    step = np.repeat(np.arange(len(sizes)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    sequence = place if order is None else order[place]
    flat = sequence * steps + step if batch_first else step * batch + sequence
    data = take(x.reshape(steps * batch, *x.shape[2:]), flat)
    return PackedSequence(data, sizes, order)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Array, np.ndarray]:
    """The padded batch of a packed sequence, in the order in which the sequences were packed.

    Args:
      sequence: a `PackedSequence`.
      batch_first: the batch axis of the result leads.
      padding_value: what it holds after each sequence's end.
      total_length: its number of time steps; the longest length when None.

    Returns:
      padded: `[T, B, *]` (`[B, T, *]` with batch_first).
      lengths: `[B]`, a NumPy array.

    Raises:
      TypeError, ValueError: for anything but a packed sequence, and a total length below the longest one.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> padded, lengths = nn.pad_packed_sequence(nn.pack_sequence([jnp.array([1., 2.]), jnp.array([3.])]))
      >>> padded.tolist(), lengths.tolist()
      ([[1.0, 3.0], [2.0, 0.0]], [2, 1])

    Source: torch.nn.utils.rnn.pad_packed_sequence.
    """
    who = "pad_packed_sequence"
    checks.flag(who, "batch_first", batch_first)
    tensors.number(who, "padding_value", padding_value)
    packed = unwrapped(who, "sequence", sequence)
    lengths, rows, longest = packed.lengths, packed.rows, len(packed.batch_sizes)
    if total_length is not None:
        checks.positive(who, "total_length", total_length)
        if total_length < longest:
            raise ValueError(
                f"{who}: total_length must be at least the longest length, {longest}; got {total_length}; leave it out"
            )
        rows = np.concatenate([rows, np.zeros((total_length - longest, rows.shape[1]), rows.dtype)])
    if packed.unsorted_indices is not None:
        lengths, rows = lengths[packed.unsorted_indices], rows[:, packed.unsorted_indices]
    used = np.arange(len(rows))[:, None] < lengths
    if batch_first:
        used, rows = used.T, rows.T
    return _padded(packed.data, rows, used, padding_value), lengths


def unwrapped(who: str, name: str, given: object) -> PackedSequence:
    """A packed sequence, ours or torch's, as ours."""
    if isinstance(given, PackedSequence):
        return given
    if is_packed(given):
        return PackedSequence(*given)
    got = checks.described(given)
    raise TypeError(f"{who}: {name} must be a PackedSequence; got {got}; make one with pack_sequence")


def take(data: Weight, rows: Weight) -> Weight:
    """Rows of data, by NumPy for NumPy's arrays: JAX would compile anew for every other set of lengths."""
    if isinstance(data, np.ndarray):
        return data[rows]
    # The rows are known and in range: clipping needs no masking, in which jnp.take would fill with NaN.
    return jnp.take(data, rows, axis=0, mode="clip")


@jax.jit
def _padded(data: Array, rows: Array, used: Array, value: float) -> Array:
    found = take(data, rows)
    used = jnp.broadcast_to(used.reshape(*used.shape, *[1] * (found.ndim - 2)), found.shape)
    return jnp.where(used, found, jnp.full_like(found, value))


def _whole(name: str, given: object) -> np.ndarray:
    found = tensors.whole("PackedSequence", name, given)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"PackedSequence: {name} must be whole numbers in one row; got {checks.described(found)}")
    return found.astype(np.int64)


def _permutation(name: str, given: object, size: int) -> np.ndarray | None:
    if given is None:
        return None
    found = _whole(name, given)
    if (np.sort(found) != np.arange(size)).any() if len(found) == size else True:
        raise ValueError(f"PackedSequence: {name} must be a permutation of the {size} sequences; got {found.tolist()}")
    return found
