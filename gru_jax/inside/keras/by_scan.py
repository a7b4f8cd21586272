"""What the layers of this package have in common: which of Keras' calls `gj.scan` serves, and what Keras gets back."""

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import keras

from gru_jax.cells import Cell
from gru_jax.inside.keras import activations
from gru_jax.scans import scan
from gru_jax.types import Activation, Array, BoolArray, DType, Params, State, Tree

KerasLayer: TypeAlias = Any
"""A layer of Keras, or a cell, which come without types."""


class Run(NamedTuple):
    """A call of a layer as one of `scan`.

    Attributes:
      cell: what computes the same as Keras' cell.
      params: its parameters, with the dropout masks that Keras drew for this call.
      x: `[B, T, I]`.
      h0: the state before the first step.
    """

    cell: Cell
    params: Params
    x: Array
    h0: State


class ByScan:
    """The steps of a recurrent layer of Keras by `scan`, and by Keras where it does not serve them."""

    cell: KerasLayer
    _cell_of_keras: type

    def inner_loop(
        self, sequences: Array, initial_state: Tree, mask: Tree, training: bool = False
    ) -> tuple[Array, Array, list[Array]]:
        """What Keras calls for the steps of a sequence.

        Args:
          sequences: `[B, T, I]`.
          initial_state: the states, each `[B, H]`; one, or a list.
          mask: `[B, T]`, True = use the step; a list of it, or None.
          training: whether dropout is on.

        Returns:
          The last output `[B, H]`, all outputs `[B, T, H]` and a list of the final states, each `[B, H]`.
        """
        states = list(initial_state) if isinstance(initial_state, list | tuple) else [initial_state]
        used = mask[0] if isinstance(mask, list | tuple) else mask
        run = self._run(sequences, states, training) if self._fits(sequences, states, used) else None
        if run is None:
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]
        layer: KerasLayer = self
        used = None if used is None else jnp.asarray(used).astype(bool)
        padding = "zero" if layer.zero_output_for_mask else "hold"
        back = layer.go_backwards
        y, state = scan(run.cell, run.params, run.x, run.h0, mask=used, reverse=back, padding=padding)
        last = h = run.cell.output(state)
        if used is not None and layer.zero_output_for_mask:
            reached = used[:, 0 if back else -1, None]
            last = jnp.where(jnp.broadcast_to(reached, h.shape), h, jnp.zeros_like(h))
        return last, jnp.flip(y, 1) if back else y, self._states(state)

    def _fits(self, x: Array, states: list[Array], mask: BoolArray | None) -> bool:
        """Whether nothing but the cell could stand against it."""
        layer: KerasLayer = self
        own = layer.cell
        of_keras: bool = type(own) is self._cell_of_keras
        return of_keras and not (
            layer.use_cudnn is True
            or 1.0 in (own.dropout, own.recurrent_dropout)  # where Keras' own ways differ from one another
            or not all(jnp.issubdtype(a.dtype, jnp.floating) for a in (x, *states))
            or len(states) != len(layer.state_size)
            or any(h.shape != (x.shape[0], own.units) or h.dtype != states[0].dtype for h in states)
            or x.shape[1] == 0
            or (mask is not None and (layer.unroll or mask.shape != x.shape[:2]))
        )

    def _run(self, x: Array, states: list[Array], training: bool) -> Run | None:
        """The call; None where Keras' own loop has to."""
        raise NotImplementedError

    def _states(self, state: State) -> list[Array]:
        """What Keras has for a state."""
        raise NotImplementedError

    def _activations(self) -> tuple[Activation, Activation] | None:
        """Of the candidate and of the gates; None where one is Keras' to run."""
        own = self.cell
        candidate, gate = activations.served(own.activation), activations.served(own.recurrent_activation)
        return None if candidate is None or gate is None else (candidate, gate)

    def _weights(self, dtype: DType) -> list[Array]:
        """Kernel, recurrent kernel and, where there is one, bias."""
        own = self.cell
        weights = [own.kernel, own.recurrent_kernel, *([own.bias] if own.use_bias else [])]
        return [keras.ops.convert_to_tensor(weight).astype(dtype) for weight in weights]
