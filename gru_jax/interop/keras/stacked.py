"""`StackedRNNCells` of Keras: cells on top of each other that act as one."""

from collections.abc import Iterator, Sequence
from typing import Self

from flax import nnx
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.attributes import Shape
from gru_jax.interop.keras.base import Layer
from gru_jax.interop.keras.cell import GRUCell
from gru_jax.types import Array, DType, Options, Tree


class StackedRNNCells(Layer):
    """Cells on top of each other, each of which reads the one before, `keras.layers.StackedRNNCells` of Keras 3.

    Args:
      cells: a list of `GRUCell`.
      name: of the layer; numbered when None.
      dtype: of the stack, see `GRU`; the cells have their own.
      trainable: False makes all weights no `nnx.Param`.

    Raises:
      TypeError, ValueError: for cells of another kind, or none.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import keras
      >>> cell = keras.layers.StackedRNNCells([keras.layers.GRUCell(4), keras.layers.GRUCell(5)])
      >>> output, states = cell(jnp.ones((2, 3)), cell.get_initial_state(2))
      >>> output.shape, [state.shape for [state] in states]
      ((2, 5), [(2, 4), (2, 5)])

    Source: keras.layers.StackedRNNCells of Keras 3.15.
    """

    who = "StackedRNNCells"
    rank = 2
    supports_masking = False
    input_spec = None

    def __init__(
        self, cells: Sequence[GRUCell], *, name: str | None = None, dtype: DType = None, trainable: bool = True
    ) -> None:
        if not isinstance(cells, list | tuple) or not cells or not all(isinstance(cell, GRUCell) for cell in cells):
            raise TypeError(
                f"{self.who}: cells must be a list of GRUCell of gru_jax.interop.keras; got {checks.described(cells)}"
            )
        super().__init__(name, dtype, trainable, None, 1)
        self.cells = nnx.List(cells)
        if not trainable:
            self.trainable = False

    def _cells(self) -> Iterator[GRUCell]:
        yield from self.cells

    @property
    def state_size(self) -> list[int]:
        """The number of units of each cell."""
        return [cell.units for cell in self.cells]

    @property
    def output_size(self) -> int:
        """The number of units of the last cell."""
        return self.cells[-1].units

    def build(self, input_shape: Shape) -> None:
        """Makes the weights of all cells.

        Args:
          input_shape: `(batch, features)`; the batch may be None.

        Raises:
          ValueError: when the number of features is unknown.
        """
        features = self._features(input_shape, 2)
        for cell in self.cells:
            cell.build((input_shape[0], features))
            features = cell.units
        self.built = True

    def get_initial_state(self, batch_size: int) -> list[list[Array]]:
        """Zeros, `[batch_size, H]`, each in a list of its own.

        Args:
          batch_size: B.
        """
        return [cell.get_initial_state(batch_size) for cell in self.cells]

    def __call__(
        self, inputs: ArrayLike, states: Sequence[Tree], training: bool | None = None
    ) -> tuple[Array, list[Tree]]:
        """One step of all cells.

        Args:
          inputs: `[B, I]`.
          states: a list with one for each cell, `[B, H]` or a list of it.
          training: whether dropout is on; None is what `train()`, `eval()` or `nnx.view` said last, off before.

        Returns:
          The last cell's state after the step, `[B, H]`, and all cells' states in the structure of `states`.

        Raises:
          TypeError, ValueError: for input that does not fit.
        """
        if not isinstance(states, list | tuple) or len(states) != len(self.cells):
            raise ValueError(
                f"{self.who}: states must be a list of {len(self.cells)} states, one for each cell;"
                f" got {checks.described(states)}"
            )
        x = self._input("inputs", inputs, 2, self.cells[0].kernel[...].shape[0] if self.built else None)
        self._build_for_call(x.shape)
        training, after = self._training(training), []
        for cell, state in zip(self.cells, states, strict=True):
            x, state = cell(x, state, training=training)
            after.append(state)
        return x, after

    def get_config(self) -> Options:
        """The options as a dict, equal to what Keras' layer of the same options gives."""
        cells = [identifiers.registered("keras.layers", "GRUCell", cell.get_config()) for cell in self.cells]
        return self._base_config() | {"cells": cells}

    @classmethod
    def from_config(cls, config: Options) -> Self:
        """The cells, with fresh weights, that a config describes; one of Keras works too.

        Args:
          config: what `get_config` returned.

        Raises:
          ValueError: when one of the cells is no GRUCell.
        """
        for cell in config["cells"]:
            checks.choice(cls.who, "cells", cell.get("class_name"), ("GRUCell",))
        return cls(**(dict(config) | {"cells": [GRUCell.from_config(cell["config"]) for cell in config["cells"]]}))
