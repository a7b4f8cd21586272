"""`keras.layers`, as Keras' users import it: `from gru_jax.interop.keras.layers import GRU`."""

from typing import NoReturn

from gru_jax.interop.keras.bidirectional import Bidirectional as Bidirectional
from gru_jax.interop.keras.cell import GRUCell as GRUCell
from gru_jax.interop.keras.gru import GRU as GRU
from gru_jax.interop.keras.rnn import RNN as RNN
from gru_jax.interop.keras.stacked import StackedRNNCells as StackedRNNCells
from gru_jax.interop.keras.time_distributed import TimeDistributed as TimeDistributed

__all__ = ["GRU", "RNN", "Bidirectional", "GRUCell", "StackedRNNCells", "TimeDistributed"]

def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"gru_jax.interop.keras.layers has no {name}, only Keras' {', '.join(__all__)};"
        f" take the rest of the model from flax.nnx, which has Module, Linear, Dropout, ..."
    )
