"""`TimeDistributed` of Keras: a layer of this package for every slice of an outer time axis."""

from collections.abc import Iterator
from typing import Self

import jax.numpy as jnp
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.attributes import Shape
from gru_jax.interop.keras.base import Layer
from gru_jax.interop.keras.bidirectional import Bidirectional
from gru_jax.interop.keras.cell import GRUCell
from gru_jax.interop.keras.gru import GRU
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.interop.keras.rnn import RNN
from gru_jax.types import Array, DType, Options

KINDS = {each.__name__: each for each in (GRU, RNN, Bidirectional)}


class TimeDistributed(Layer):
    """One layer for every slice of an axis before the time axis, `keras.layers.TimeDistributed` of Keras 3.

    Args:
      layer: a `GRU`, `RNN` or `Bidirectional` of this package with one output: without return_state, merged.
      name: of the layer; numbered when None.
      dtype: of the input; the layer inside has its own.
      trainable: False makes the weights no `nnx.Param`.
      activity_regularizer: a penalty on the outputs.

    Raises:
      TypeError, ValueError: for another layer, or one with several outputs.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import keras
      >>> sentences = keras.layers.TimeDistributed(keras.layers.GRU(4))
      >>> sentences(jnp.ones((2, 5, 7, 3))).shape
      (2, 5, 4)

    Source: keras.layers.TimeDistributed of Keras 3.15.
    """

    who = "TimeDistributed"
    rank = 4
    input_spec = None

    def __init__(
        self,
        layer: RNN | Bidirectional,
        *,
        name: str | None = None,
        dtype: DType = None,
        trainable: bool = True,
        activity_regularizer: Identifier = None,
    ) -> None:
        if not isinstance(layer, RNN | Bidirectional):
            raise TypeError(
                f"{self.who}: layer must be a GRU, RNN or Bidirectional of gru_jax.interop.keras;"
                f" got {checks.described(layer)}"
            )
        if layer.return_state or getattr(layer, "merge_mode", "") is None:
            raise ValueError(f"{self.who}: layer must have one output; got {layer.who} with several;"
                             f" leave out return_state and merge_mode=None")  # fmt: skip
        super().__init__(name, dtype, trainable, activity_regularizer, 1)
        self.layer = layer
        if not trainable:
            self.trainable = False

    def _cells(self) -> Iterator[GRUCell]:
        yield from self.layer._cells()

    def _own_layers(self) -> Iterator[Layer]:
        yield from (self, *self.layer._own_layers())

    def build(self, input_shape: Shape) -> None:
        """Makes the weights of the layer inside.

        Args:
          input_shape: `(batch, slices, time, features)`; all but the last may be None.

        Raises:
          ValueError: when the number of features is unknown.
        """
        self.layer.build(self._inner(input_shape))
        self.built = True

    def __call__(self, inputs: ArrayLike, mask: ArrayLike | None = None, training: bool | None = None) -> Array:
        """Runs the layer on each slice.

        Args:
          inputs: `[B, N, T, I]`.
          mask: `[B, N, T]`, True or 1 = use the step of that slice.
          training: whether dropout is on; None is what `train()`, `eval()` or `nnx.view` said last, off before.

        Returns:
          `[B, N, H]`, or with the layer's return_sequences `[B, N, T, H]`.

        Raises:
          TypeError, ValueError: for input that does not fit.
        """
        x = checks.as_array(self.who, "inputs", inputs)
        self._inner(x.shape)
        if mask is not None:
            mask = checks.as_array(self.who, "mask", mask)
            checks.shape(self.who, "mask", mask.shape, x.shape[:3], "one entry for each step of each slice")
        self._build_for_call(x.shape)
        training = self._training(training)
        B, N = x.shape[:2]
        if training or self.layer.stateful:  # slice after slice: each draws masks of its own, or goes on from the last
            parts = range(N)
            masks = [None if mask is None else mask[:, part] for part in parts]
            outputs = [self.layer(x[:, part], mask=masks[part], training=training) for part in parts]
            y = jnp.stack(outputs, 1)
        else:
            flat = None if mask is None else mask.reshape(B * N, *mask.shape[2:])
            y = self.layer(x.reshape(B * N, *x.shape[2:]), mask=flat, training=False)
            y = y.reshape(B, N, *y.shape[1:])
        self._record_activity([y])
        return y

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """The shape of what a call returns.

        Args:
          input_shape: `(batch, slices, time, features)`, None where unknown.
        """
        inner = self.layer.compute_output_shape(self._inner(input_shape))
        return (inner[0], input_shape[1], *inner[1:])

    def _inner(self, shape: Shape) -> tuple[int | None, ...]:
        """The shape of a slice."""
        if not isinstance(shape, list | tuple) or len(shape) != 4:
            raise ValueError(
                f"{self.who}: inputs must have 4 dimensions, [batch, slices, time, features]; got shape {shape!r}"
            )
        return (shape[0], *shape[2:])

    def get_config(self) -> Options:
        """The options as a dict, equal to what Keras' layer of the same options gives."""
        inner = identifiers.registered("keras.layers", self.layer.who, self.layer.get_config())
        return self._base_config() | {"layer": inner}

    @classmethod
    def from_config(cls, config: Options) -> Self:
        """The layer, with fresh weights inside, that a config describes; one of Keras works too.

        Args:
          config: what `get_config` returned.

        Raises:
          ValueError: when the layer inside is of another kind.
        """
        kind = config["layer"].get("class_name")
        checks.choice(cls.who, "layer", kind, KINDS)
        return cls(**(dict(config) | {"layer": KINDS[kind].from_config(config["layer"]["config"])}))
