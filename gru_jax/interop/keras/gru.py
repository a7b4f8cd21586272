"""`GRU` of Keras: a whole layer over time, with Keras' arguments, weights and outputs."""

from typing import Any, Self

import jax
from flax import nnx

from gru_jax import checks
from gru_jax.cells import GRUParams
from gru_jax.interop import neutral
from gru_jax.interop.keras import cell as cells
from gru_jax.interop.keras.attributes import OptionAttributes, Shape
from gru_jax.interop.keras.base import Layer
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.interop.keras.initializers import Initial
from gru_jax.interop.keras.rnn import FLAGS, RNN
from gru_jax.layers.nnx import GRU as NeutralLayer
from gru_jax.layers.nnx import Carry
from gru_jax.scans import Method, Sequential
from gru_jax.types import Array, DType, Options


class GRU(OptionAttributes, RNN):
    """A GRU layer over time, `keras.layers.GRU` of Keras 3.

    Equations and weights are those of `GRUCell`, which the layer holds as `cell`. Weights are made by the first call,
    or by `build((None, None, features))`.

    Args:
      units: H.
      activation: of the candidate state, one of Keras' names, None for linear, or a function.
      recurrent_activation: of the gates, likewise.
      use_bias: whether there are biases.
      kernel_initializer: a name, a config, an object of `initializers`, an array, or a function.
      recurrent_initializer: likewise.
      bias_initializer: likewise.
      kernel_regularizer: None, a name, a config, an object of `regularizers`, or a function to one number.
      recurrent_regularizer: likewise.
      bias_regularizer: likewise.
      activity_regularizer: the same for every array that a call returns; its value is divided by the batch's size.
      kernel_constraint: None, a name, a config, an object of `constraints`, or a function to the projected weight.
      recurrent_constraint: likewise.
      bias_constraint: likewise.
      dropout: rate on the input in [0, 1), one mask for a sequence's every step.
      recurrent_dropout: the same for the state inside the recurrent products, one mask for each gate.
      seed: of the dropout masks; the same masks as Keras on its JAX backend draws.
      return_sequences: return the output of every step instead of the last one.
      return_state: return the final state too.
      go_backwards: run from the end to the start; outputs come in the order in which they were computed.
      stateful: a call starts from the state in which the one before ended, until `reset_state`.
      unroll: all steps one after another in the program, without a loop; the numbers are the same.
      reset_after: whether the reset gate comes after the recurrent product.
      use_cudnn: True runs cuDNN's GRU, on a GPU, and is refused in the call elsewhere; False never does; "auto" where
        it was measured to be the fastest.
      input_shape: `(time, features)`: makes the weights at once, where Keras waits for the model.
      name: of the layer; numbered when None.
      dtype: "float32", another dtype, or a policy such as "mixed_bfloat16".
      trainable: False makes the weights no `nnx.Param`.
      zero_output_for_mask: outputs at masked steps are 0 instead of the state held there.
      implementation: 1 (or 0) draws an input dropout mask for each gate, 2 one for all.
      rngs: `nnx.Rngs` to initialise with ("params") and to draw masks from ("dropout"), in place of seeds.
      method: how the steps run over time, see `gru_jax.scan`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import numpy as np
      >>> from gru_jax.interop import keras
      >>> inputs = np.random.random((32, 10, 8))
      >>> gru = keras.layers.GRU(4, return_sequences=True, return_state=True)
      >>> whole_sequence_output, final_state = gru(inputs)
      >>> whole_sequence_output.shape, final_state.shape
      ((32, 10, 4), (32, 4))

    Source: keras.layers.GRU of Keras 3.15 on its JAX backend.
    """

    who = "GRU"

    def __init__(
        self,
        units: int,
        activation: Identifier = "tanh",
        recurrent_activation: Identifier = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initial = "glorot_uniform",
        recurrent_initializer: Initial = "orthogonal",
        bias_initializer: Initial = "zeros",
        kernel_regularizer: Identifier = None,
        recurrent_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        activity_regularizer: Identifier = None,
        kernel_constraint: Identifier = None,
        recurrent_constraint: Identifier = None,
        bias_constraint: Identifier = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        *,
        input_shape: Shape | None = None,
        name: str | None = None,
        dtype: DType = None,
        trainable: bool = True,
        zero_output_for_mask: bool = False,
        implementation: int = 2,
        rngs: nnx.Rngs | None = None,
        method: str | Method = "auto",
    ) -> None:
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        cells.checked(self.who, given)  # here, so that the messages speak of the GRU
        for flag in FLAGS:
            checks.flag(self.who, flag, given[flag])
            setattr(self, flag, given[flag])
        checks.choice(self.who, "use_cudnn", use_cudnn, ("auto", True, False))
        self.use_cudnn = use_cudnn
        self.method = method
        # Not by RNN's, which takes a cell: what is wrong is told as the GRU's before one is made.
        Layer.__init__(self, name, dtype, trainable, activity_regularizer, 1 + return_state)
        self.cell = cells.GRUCell(name="gru_cell", **{key: given[key] for key in cells.SHARED})
        self.carry: Any = nnx.data(Carry(None) if stateful else None)
        self._build_at_once(input_shape)

    @property
    def kernel(self) -> nnx.Variable[Array]:
        """W, `[I, 3H]`; `cell.kernel`."""
        return self.cell.kernel

    @property
    def recurrent_kernel(self) -> nnx.Variable[Array]:
        """U, `[H, 3H]`; `cell.recurrent_kernel`."""
        return self.cell.recurrent_kernel

    @property
    def bias(self) -> nnx.Variable[Array] | None:
        """`[2, 3H]`, with reset_after=False `[3H]`; None without biases; `cell.bias`."""
        return self.cell.bias if self.use_bias else None

    def _method(self, steps: int) -> str | Method:
        """The method, with `use_cudnn` and `unroll` in it where it decides nothing else."""
        if self.method != "auto" or (self.use_cudnn == "auto" and not self.unroll):
            return self.method
        if self.use_cudnn is True:
            return Sequential(kernel="cudnn")
        return Sequential(unroll=max(steps, 1) if self.unroll else 1, kernel="auto" if self.unroll else "xla")

    def to_layer(self, **options: Any) -> NeutralLayer:
        """A `gj.nnx.GRU` with the same weights and without dropout.

        It reads in the same direction, but its outputs always stand in original time order.

        Args:
          **options: of `gj.nnx.GRU` that say how it runs.

        Raises:
          ValueError: before the layer is built.
        """
        if not self.built:
            raise ValueError(f"{self.who}: not built yet; call build((None, None, features)), or the layer, once first")
        weights = neutral.Weights(self.cell.options.neutral, (numpy_params(self),))
        padding = "zero" if self.zero_output_for_mask else "hold"
        method = self.method if self.unroll else self._method(1)
        own = {"reverse": self.go_backwards, "padding": padding, "stateful": self.stateful, "method": method}
        return neutral.module(self.who, weights, own | options)

    def get_config(self) -> Options:
        """The options as a dict, equal to what Keras' layer of the same options gives."""
        config = self._base_config() | {flag: getattr(self, flag) for flag in FLAGS} | self.cell.options.config()
        config.setdefault("activity_regularizer", None)
        return config

    @classmethod
    def from_config(cls, config: Options) -> Self:
        """The layer, with fresh weights, that a config describes; one of Keras works too.

        Args:
          config: what `get_config` returned.
        """
        return cls(**config)

    def _check_cudnn(self) -> None:
        if self.use_cudnn is True and (self.method != "auto" or self.unroll):
            got = "unroll=True" if self.unroll else f"method={self.method!r}"
            raise ValueError(f"{self.who}: use_cudnn=True says how the layer runs, and so does {got}; pass one of them")
        if self.use_cudnn is True and jax.default_backend() != "gpu":
            raise ValueError(
                f"{self.who}: use_cudnn=True cannot be honoured: there is no cuDNN on the {jax.default_backend()}"
                f" backend; pass use_cudnn='auto'"
            )

    def _own_options(self) -> cells.Options:
        return self.cell.options


def numpy_params(layer: GRU) -> GRUParams:
    """A layer's weights in the neutral layout, as NumPy arrays."""
    return cells.to_neutral(*layer.cell.get_weights(), reset_after=layer.reset_after)
