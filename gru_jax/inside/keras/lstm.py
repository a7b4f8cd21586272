"""`LSTM`: Keras' layer, whose loop over time is `gj.scan`."""

import jax.numpy as jnp
import keras

from gru_jax.inside.joined import LSTM as Cell
from gru_jax.inside.joined import LSTMState, lstm_matrices
from gru_jax.inside.keras.by_scan import ByScan, Run
from gru_jax.types import Array


@keras.saving.register_keras_serializable("gru_jax")
class LSTM(ByScan, keras.layers.LSTM):
    """`keras.layers.LSTM`, with all of its arguments, weights and numbers; only the loop over time is `gru_jax.scan`.

        i, f, o = s(x W + b + h U),  g = a(x W + b + h U)
        c' = f * c + i * g
        h' = o * a(c')

    What the scan does not serve is computed as Keras computes it: what it leaves to Keras in a GRU, and dropout with a
    mask for each gate, which `recurrent_dropout` and `implementation=1` draw.

    Args:
      units: H, the number of units; this and all other arguments are those of `keras.layers.LSTM`.

    Example:
      >>> import keras
      >>> from gru_jax.inside.keras import LSTM
      >>> model = keras.Sequential([keras.layers.Embedding(20, 8), LSTM(4), keras.layers.Dense(1)])
      >>> model.compile("adam", "mse")
      >>> model(keras.ops.ones((2, 7), "int32")).shape
      (2, 1)

    Source: keras.layers.LSTM of Keras 3.
    """

    _cell_of_keras = keras.layers.LSTMCell

    def _run(self, x: Array, states: list[Array], training: bool) -> Run | None:
        own, (h, c), names = self.cell, states, self._activations()
        of_gates = getattr(own, "dropout_mask_count", None) is not None
        if names is None or (training and of_gates and (own.dropout or own.recurrent_dropout)):
            return None
        if training and own.dropout:
            x = x * jnp.broadcast_to(own.get_dropout_mask(x[:, 0])[:, None], x.shape)
        w_x, w_h, *b = self._weights(h.dtype)
        params = lstm_matrices(w_x, w_h, *(b or [jnp.zeros(4 * own.units, h.dtype)]))
        return Run(Cell(own.units, names[1], names[0]), params, x.astype(h.dtype), LSTMState(c, h))

    def _states(self, state: LSTMState) -> list[Array]:
        return [state.h, state.c]
