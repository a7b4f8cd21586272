"""`GRU`: Keras' layer, whose loop over time is `gj.scan`."""

import jax.numpy as jnp
import keras

from gru_jax.cells import GRU as Cell
from gru_jax.inside.keras.by_scan import ByScan, Run
from gru_jax.interop.keras.cell import laid_out, to_neutral
from gru_jax.interop.keras.dropout import DroppedGRU, DroppedParams
from gru_jax.types import Array


@keras.saving.register_keras_serializable("gru_jax")
class GRU(ByScan, keras.layers.GRU):
    """`keras.layers.GRU`, with all of its arguments, weights and numbers; only the loop over time is `gru_jax.scan`.

        z  = f(x W_z + b_z + h U_z + c_z)
        r  = f(x W_r + b_r + h U_r + c_r)
        n  = g(x W_n + b_n + r * (h U_n + c_n))       reset_after=True
        n  = g(x W_n + b_n + (r * h) U_n)             reset_after=False
        h' = (1 - z) * n + z * h

    What the scan does not serve is computed as Keras computes it: an activation that is no elementwise function of
    Keras or JAX, a `cell` that was exchanged, `unroll=True` with a mask, `use_cudnn=True`, input of whole numbers.

    Args:
      units: H, the number of units; this and all other arguments are those of `keras.layers.GRU`.

    Example:
      >>> import keras
      >>> from gru_jax.inside.keras import GRU
      >>> model = keras.Sequential([keras.layers.Embedding(20, 8), GRU(4), keras.layers.Dense(1)])
      >>> model.compile("adam", "mse")
      >>> model(keras.ops.ones((2, 7), "int32")).shape
      (2, 1)

    Source: keras.layers.GRU of Keras 3.
    """

    _cell_of_keras = keras.layers.GRUCell

    def _run(self, x: Array, states: list[Array], training: bool) -> Run | None:
        own, (h0,), names = self.cell, states, self._activations()
        if names is None:
            return None
        reset, bias = "after" if own.reset_after else "before", "full" if own.use_bias else "none"
        cell = Cell(own.units, reset=reset, activation=names[0], gate_activation=names[1], bias=bias)
        arrays = self._weights(h0.dtype)
        drop_x = own.get_dropout_mask(x[:, 0]) if training and own.dropout else None
        drop_h = own.get_recurrent_dropout_mask(h0) if training and own.recurrent_dropout else None
        if drop_x is not None and not isinstance(drop_x, list):
            x, drop_x = x * jnp.broadcast_to(drop_x[:, None], x.shape), None
        x = x.astype(h0.dtype)
        if drop_x is None and drop_h is None:
            made = laid_out(*arrays) if own.reset_after else to_neutral(*arrays, reset_after=False)
            return Run(cell, made, x, h0)
        masks = [None if drops is None else jnp.stack(drops).astype(h0.dtype) for drops in (drop_x, drop_h)]
        params = to_neutral(*arrays, reset_after=own.reset_after)
        return Run(DroppedGRU(cell), DroppedParams(params, *masks), x, h0)

    def _states(self, state: Array) -> list[Array]:
        return [state]
