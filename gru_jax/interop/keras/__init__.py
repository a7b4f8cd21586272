"""Keras' GRU layers and files, here: change the import, keep the code.

    from gru_jax.interop import keras

    gru = keras.layers.GRU(64, return_sequences=True)

Neither Keras nor h5py is imported until something of theirs is asked for.
"""

from typing import NoReturn

from gru_jax.interop.keras import constraints as constraints
from gru_jax.interop.keras import initializers as initializers
from gru_jax.interop.keras import layers as layers
from gru_jax.interop.keras import regularizers as regularizers
from gru_jax.interop.keras.base import Frozen as Frozen
from gru_jax.interop.keras.bidirectional import Bidirectional as Bidirectional
from gru_jax.interop.keras.cell import GRUCell as GRUCell
from gru_jax.interop.keras.gru import GRU as GRU
from gru_jax.interop.keras.projection import constraints_of as constraints_of
from gru_jax.interop.keras.rnn import RNN as RNN
from gru_jax.interop.keras.stacked import StackedRNNCells as StackedRNNCells
from gru_jax.interop.keras.time_distributed import TimeDistributed as TimeDistributed
from gru_jax.interop.keras.weights import export as export
from gru_jax.interop.keras.weights import load as load

__all__ = [
    "GRU",
    "RNN",
    "Bidirectional",
    "Frozen",
    "GRUCell",
    "StackedRNNCells",
    "TimeDistributed",
    "constraints",
    "constraints_of",
    "export",
    "initializers",
    "layers",
    "load",
    "regularizers",
]

def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"gru_jax.interop.keras has no {name}, only Keras' {', '.join(layers.__all__)} and what belongs to them;"
        f" take the rest of the model from flax.nnx, which has Module, Linear, Dropout, ..."
    )
