"""`keras.layers`, as Keras' users import it: `from gru_jax.interop.keras.layers import GRU`."""

from gru_jax.interop.keras.bidirectional import Bidirectional as Bidirectional
from gru_jax.interop.keras.cell import GRUCell as GRUCell
from gru_jax.interop.keras.gru import GRU as GRU

__all__ = ["GRU", "Bidirectional", "GRUCell"]
