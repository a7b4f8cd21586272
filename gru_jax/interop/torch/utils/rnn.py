"""Packed sequences where torch's users import them from: `from gru_jax.interop.torch.utils.rnn import ...`."""

from gru_jax.interop.torch.packed import PackedSequence as PackedSequence
from gru_jax.interop.torch.packed import pack_padded_sequence as pack_padded_sequence
from gru_jax.interop.torch.packed import pad_packed_sequence as pad_packed_sequence
from gru_jax.interop.torch.sequences import invert_permutation as invert_permutation
from gru_jax.interop.torch.sequences import pack_sequence as pack_sequence
from gru_jax.interop.torch.sequences import pad_sequence as pad_sequence
from gru_jax.interop.torch.sequences import unpack_sequence as unpack_sequence
from gru_jax.interop.torch.sequences import unpad_sequence as unpad_sequence

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]
