"""`gru_jax.interop.torch`: torch.nn.GRU and its company in JAX, and torch's weights both ways.

Code written for torch runs after a change of its import: `from gru_jax.interop import torch as nn`. torch itself is
not imported, unless `read` meets a file that only torch can read.
"""

from typing import NoReturn

from gru_jax.interop.torch import utils as utils
from gru_jax.interop.torch.cell import GRUCell as GRUCell
from gru_jax.interop.torch.files import read as read
from gru_jax.interop.torch.gru import GRU as GRU
from gru_jax.interop.torch.packed import PackedSequence as PackedSequence
from gru_jax.interop.torch.packed import pack_padded_sequence as pack_padded_sequence
from gru_jax.interop.torch.packed import pad_packed_sequence as pad_packed_sequence
from gru_jax.interop.torch.sequences import invert_permutation as invert_permutation
from gru_jax.interop.torch.sequences import pack_sequence as pack_sequence
from gru_jax.interop.torch.sequences import pad_sequence as pad_sequence
from gru_jax.interop.torch.sequences import unpack_sequence as unpack_sequence
from gru_jax.interop.torch.sequences import unpad_sequence as unpad_sequence
from gru_jax.interop.torch.streams import manual_seed as manual_seed
from gru_jax.interop.torch.weights import export as export
from gru_jax.interop.torch.weights import load as load
from gru_jax.interop.torch.weights import save as save

__all__ = [
    "GRU",
    "GRUCell",
    "PackedSequence",
    "export",
    "invert_permutation",
    "load",
    "manual_seed",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "read",
    "save",
    "unpack_sequence",
    "unpad_sequence",
]


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"gru_jax.interop.torch has no {name}, only torch's GRU, GRUCell and packed sequences; take the rest of the"
        f" model from flax.nnx, which has Module, Linear, Dropout, ..."
    )
