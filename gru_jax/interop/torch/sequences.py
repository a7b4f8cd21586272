"""Lists of sequences of different lengths: padded, packed, and back."""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.interop.arrays import Weight
from gru_jax.interop.torch import packed, tensors
from gru_jax.interop.torch.packed import PackedSequence
from gru_jax.interop.torch.tensors import TensorLike, Whole
from gru_jax.types import Array


def pad_sequence(
    sequences: Iterable[TensorLike], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Array:
    """Sequences of different lengths as one padded batch.

    Args:
      sequences: arrays `[length, *]`, one at least, alike in all but the first axis.
      batch_first: the batch axis of the result leads.
      padding_value: what it holds beside a shorter sequence.
      padding_side: "right", after the sequence, or "left", before it.

    Returns:
      `[T, B, *]` (`[B, T, *]` with batch_first), T being the longest length.

    Raises:
      TypeError, ValueError: for no sequences, or sequences that differ in dtype or in another axis than the first.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> nn.pad_sequence([jnp.array([1, 2]), jnp.array([3])], batch_first=True).tolist()
      [[1, 2], [3, 0]]

    Source: torch.nn.utils.rnn.pad_sequence.
    """
    checks.flag("pad_sequence", "batch_first", batch_first)
    tensors.number("pad_sequence", "padding_value", padding_value)
    checks.choice("pad_sequence", "padding_side", padding_side, ("right", "left"))
    found = _alike("pad_sequence", sequences)
    longest = max(len(x) for x in found)

    # By NumPy for NumPy's arrays: JAX would compile anew for every other length.
    xp = np if all(isinstance(x, np.ndarray) for x in found) else jnp

    def padded(x: Weight) -> Weight:
        missing = xp.full((longest - len(x), *x.shape[1:]), padding_value, x.dtype)
        return xp.concatenate([x, missing] if padding_side == "right" else [missing, x])

    batch = xp.stack([padded(x) for x in found], axis=0 if batch_first else 1)
    return tensors.on_device("pad_sequence", "sequences", batch)


def unpad_sequence(padded_sequences: TensorLike, lengths: Whole, batch_first: bool = False) -> list[Array]:
    """The sequences of a padded batch, as a list: the inverse of `pad_sequence`.

    Args:
      padded_sequences: `[T, B, *]` (`[B, T, *]` with batch_first).
      lengths: `[B]` whole numbers in [0, T] that are known while JAX traces.
      batch_first: the batch axis leads.

    Returns:
      B arrays `[length, *]`.

    Raises:
      TypeError, ValueError: for lengths that are traced, out of range, or not B of them.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> [x.tolist() for x in nn.unpad_sequence(jnp.array([[1, 3], [2, 0]]), [2, 1])]
      [[1, 2], [3]]

    Source: torch.nn.utils.rnn.unpad_sequence, which turns its argument around in place; this leaves it as it is.
    """
    who = "unpad_sequence"
    checks.flag(who, "batch_first", batch_first)
    x = tensors.array(who, "padded_sequences", padded_sequences)
    if x.ndim < 2:
        raise ValueError(f"{who}: padded_sequences must have at least 2 dimensions; got shape {list(x.shape)}")
    if not batch_first:
        x = x.swapaxes(0, 1)
    found = tensors.lengths(who, lengths, x.shape[0], x.shape[1], x.shape[1], least=0)
    each = (one[:length] for one, length in zip(x, found.tolist(), strict=True))
    return [tensors.on_device(who, "padded_sequences", one) for one in each]


def pack_sequence(sequences: Iterable[TensorLike], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences of different lengths as a packed sequence.

    Args:
      sequences: arrays `[length, *]`, one at least, none empty, alike in all but the first axis.
      enforce_sorted: demand sequences in order of falling length; False sorts them, see `pack_padded_sequence`.

    Returns:
      A `PackedSequence`.

    Raises:
      TypeError, ValueError: as `pad_sequence` and `pack_padded_sequence`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> packed = nn.pack_sequence([jnp.array([1, 2, 3]), jnp.array([4, 5]), jnp.array([6])])
      >>> packed.data.tolist(), packed.batch_sizes.tolist()
      ([1, 4, 6, 2, 5, 3], [3, 2, 1])

    Source: torch.nn.utils.rnn.pack_sequence.
    """
    found = _alike("pack_sequence", sequences)
    lengths = [len(x) for x in found]
    return packed.pack_padded_sequence(pad_sequence(found), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Array]:
    """The sequences of a packed sequence, as a list in the order in which they were packed.

    Args:
      packed_sequences: a `PackedSequence`.

    Returns:
      Arrays `[length, *]`.

    Raises:
      TypeError: for anything but a packed sequence.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> packed = nn.pack_sequence([jnp.array([4]), jnp.array([1, 2])], enforce_sorted=False)
      >>> [x.tolist() for x in nn.unpack_sequence(packed)]
      [[4], [1, 2]]

    Source: torch.nn.utils.rnn.unpack_sequence.
    """
    whole = packed.unwrapped("unpack_sequence", "packed_sequences", packed_sequences)
    return unpad_sequence(*packed.pad_packed_sequence(whole, batch_first=True), batch_first=True)


def invert_permutation(permutation: Whole | None) -> np.ndarray | None:
    """The inverse of a permutation, such as that between sorted and unsorted indices; None for None.

    Args:
      permutation: whole numbers, each of 0, 1, ... once.

    Returns:
      The inverse, a NumPy array.

    Raises:
      TypeError, ValueError: for anything else.

    Example:
      >>> from gru_jax.interop import torch as nn
      >>> nn.invert_permutation([2, 0, 1]).tolist()
      [1, 2, 0]

    Source: torch.nn.utils.rnn.invert_permutation.
    """
    if permutation is None:
        return None
    found = tensors.whole("invert_permutation", "permutation", permutation)
    if found.ndim != 1 or (np.sort(found) != np.arange(len(found))).any():
        raise ValueError(
            f"invert_permutation: permutation must hold each of 0, 1, ... once; got {checks.described(permutation)}"
        )
    return np.argsort(found)


def _alike(who: str, sequences: object) -> list[np.ndarray | Array]:
    if not isinstance(sequences, Iterable):
        raise TypeError(f"{who}: sequences must be a list of arrays; got {checks.described(sequences)}")
    found: list[np.ndarray | Array] = []
    for index, one in enumerate(sequences):
        name = f"sequence {index}"
        x = tensors.array(who, name, one)
        if not x.ndim:
            raise ValueError(f"{who}: {name} must have a time axis; got a single number")
        if found and (x.shape[1:], x.dtype) != (found[0].shape[1:], found[0].dtype):
            first = f"{found[0].dtype} of shape {list(found[0].shape)}"
            raise ValueError(
                f"{who}: sequences may differ in their first axis alone; sequence 0 is {first}, {name} is {x.dtype} of"
                f" shape {list(x.shape)}"
            )
        found.append(x)
    if not found:
        raise ValueError(f"{who}: needs at least one sequence; got none")
    return found
