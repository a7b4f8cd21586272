"""`GRU`: Keras' layer, whose loop over time is `gj.scan`."""

from typing import Any

import jax
import jax.numpy as jnp
import keras

from gru_jax.cells import GRU as Cell
from gru_jax.inside.keras import activations
from gru_jax.interop.keras.cell import laid_out, to_neutral
from gru_jax.interop.keras.dropout import DroppedGRU, DroppedParams
from gru_jax.scans import scan


@keras.saving.register_keras_serializable("gru_jax")
class GRU(keras.layers.GRU):
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

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
        """What Keras calls for the steps of a sequence.

        Args:
          sequences: `[B, T, I]`.
          initial_state: `[B, H]`, or a list of it.
          mask: `[B, T]`, True = use the step; a list of it, or None.
          training: whether dropout is on.

        Returns:
          The last output `[B, H]`, all outputs `[B, T, H]` and a list of the final state `[B, H]`.
        """
        h0, used = _first(initial_state), _first(mask)
        cell = self._served(sequences, h0, used)
        if cell is None:
            return super().inner_loop(sequences, initial_state, mask, training)
        used = None if used is None else jnp.asarray(used).astype(bool)
        cell, params, x = self._runnable(cell, sequences, h0, training)
        padding = "zero" if self.zero_output_for_mask else "hold"
        y, h = scan(cell, params, x.astype(h0.dtype), h0, mask=used, reverse=self.go_backwards, padding=padding)
        last = h
        if used is not None and self.zero_output_for_mask:
            reached = used[:, 0 if self.go_backwards else -1, None]
            last = jnp.where(jnp.broadcast_to(reached, h.shape), h, jnp.zeros_like(h))
        return last, jnp.flip(y, 1) if self.go_backwards else y, [h]

    def _served(self, x: Any, h0: Any, mask: Any) -> Cell | None:
        """The cell that the scan runs; None where Keras' own loop has to."""
        own = self.cell
        if (
            type(own) is not keras.layers.GRUCell
            or self.use_cudnn is True
            or 1.0 in (own.dropout, own.recurrent_dropout)  # where Keras' own ways differ from one another
            or not (jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(h0.dtype, jnp.floating))
            or h0.shape != (x.shape[0], own.units)
            or x.shape[1] == 0
            or (mask is not None and (self.unroll or mask.shape != x.shape[:2]))
        ):
            return None
        candidate, gate = activations.served(own.activation), activations.served(own.recurrent_activation)
        if candidate is None or gate is None:
            return None
        reset, bias = "after" if own.reset_after else "before", "full" if own.use_bias else "none"
        return Cell(own.units, reset=reset, activation=candidate, gate_activation=gate, bias=bias)

    def _runnable(self, cell: Cell, x: Any, h0: jax.Array, training: Any) -> tuple[Any, Any, Any]:
        """A cell, parameters and input for `scan`, with the masks that Keras drew for this call."""
        own = self.cell
        weights = [own.kernel, own.recurrent_kernel, *([own.bias] if own.use_bias else [])]
        arrays = [keras.ops.convert_to_tensor(weight).astype(h0.dtype) for weight in weights]
        drop_x = own.get_dropout_mask(x[:, 0]) if training and own.dropout else None
        drop_h = own.get_recurrent_dropout_mask(h0) if training and own.recurrent_dropout else None
        if drop_x is not None and not isinstance(drop_x, list):
            x, drop_x = x * jnp.broadcast_to(drop_x[:, None], x.shape), None
        if drop_x is None and drop_h is None:
            made = laid_out(*arrays) if cell.reset == "after" else to_neutral(*arrays, reset_after=False)
            return cell, made, x
        masks = [None if drops is None else jnp.stack(drops).astype(h0.dtype) for drops in (drop_x, drop_h)]
        params = to_neutral(*arrays, reset_after=cell.reset == "after")
        return DroppedGRU(cell), DroppedParams(params, *masks), x


def _first(given: Any) -> Any:
    return given[0] if isinstance(given, list | tuple) else given
