"""What code reads off a Keras layer beside its weights: names, variables, options, shapes, masks."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import jax
from flax import nnx

from gru_jax.interop.keras import policy
from gru_jax.types import Array, Tree

Shape: TypeAlias = Sequence[int | None]
"""The sizes of an array's axes, None where one is unknown."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a layer takes.

    Attributes:
      ndim: the number of axes.
      shape: None, for any.
      dtype: None, for any.
      axes: the sizes that axes must have; none.
    """

    ndim: int
    shape: None = None
    dtype: None = None
    axes: dict[int, int] = dataclasses.field(default_factory=dict)


class LayerAttributes:
    """Of every layer."""

    who: ClassVar[str]
    supports_masking: ClassVar[bool] = True
    supports_jit: ClassVar[bool] = True
    autocast: ClassVar[bool] = True
    quantization_mode: ClassVar[None] = None
    input_spec: ClassVar[InputSpec | None] = InputSpec(ndim=3)
    _name: str | None
    compute_dtype: Any
    compute_output_shape: Any
    weights: Any
    trainable_weights: Any
    non_trainable_weights: Any

    def _cells(self) -> Iterator[Any]:
        raise NotImplementedError

    def _seeds(self) -> list[nnx.Variable[Array]]:
        return [variable for cell in self._cells() if cell.stream is not None for variable in cell.stream.variables()]

    @property
    def name(self) -> str:
        """The given name, or an automatic one: gru, gru_1, ...

        An automatic one belongs to the object, not to what `nnx.jit` compares, so that fresh layers share one program;
        a copy has another.
        """
        return self._name or policy.automatic_name(self, self.who)

    @name.setter
    def name(self, value: str) -> None:
        self._name = policy.checked_name(self.who, value)

    @property
    def trainable_variables(self) -> list[nnx.Variable[Array]]:
        """`trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[nnx.Variable[Array]]:
        """`non_trainable_weights`, then what dropout's masks are drawn from, where there is dropout."""
        return [*self.non_trainable_weights, *self._seeds()]

    @property
    def variables(self) -> list[nnx.Variable[Array]]:
        """`weights`, then what dropout's masks are drawn from."""
        return [*self.weights, *self._seeds()]

    @property
    def metrics(self) -> list[object]:
        """None: a layer counts nothing of its own."""
        return []

    metrics_variables = metrics

    def call(self, *args: object, **kwargs: object) -> Any:
        """What the layer is called with, by the name under which subclasses know it.

        Args:
          *args: of the call.
          **kwargs: likewise.
        """
        return self(*args, **kwargs)  # type: ignore[operator]

    def compute_output_spec(
        self, inputs: Array | jax.ShapeDtypeStruct, *args: object, **kwargs: object
    ) -> jax.ShapeDtypeStruct | tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of what a call returns, without computing it.

        Args:
          inputs: of which only the shape is looked at.
          *args: accepted as in the call.
          **kwargs: likewise.
        """
        shape = self.compute_output_shape(inputs.shape)
        if isinstance(shape[0], list | tuple):
            return tuple(jax.ShapeDtypeStruct(each, self.compute_dtype) for each in shape)
        return jax.ShapeDtypeStruct(shape, self.compute_dtype)

    def compute_mask(self, inputs: object, mask: Tree) -> Tree:
        """The mask of what comes out, that of what goes in.

        Args:
          inputs: not looked at.
          mask: `[B, T]`, a list of one, or None.
        """
        return mask


def _each(name: str) -> tuple[property, property, property]:
    """The attributes kernel_<name>, recurrent_<name> and bias_<name>."""

    def one(index: int) -> property:
        return property(lambda self: getattr(self._own_options(), f"{name}s")[index])

    return one(0), one(1), one(2)


class OptionAttributes:
    """Of a GRU and a GRUCell: the options under the names they are passed by."""

    def _own_options(self) -> Any:
        raise NotImplementedError

    kernel_initializer, recurrent_initializer, bias_initializer = _each("initializer")
    kernel_regularizer, recurrent_regularizer, bias_regularizer = _each("regularizer")
    kernel_constraint, recurrent_constraint, bias_constraint = _each("constraint")
    units = property(lambda self: self._own_options().units, doc="H.")
    activation = property(lambda self: self._own_options().activation, doc="Of the candidate state.")
    recurrent_activation = property(lambda self: self._own_options().recurrent_activation, doc="Of the gates.")
    use_bias = property(lambda self: self._own_options().use_bias, doc="Whether there are biases.")
    reset_after = property(lambda self: self._own_options().reset_after, doc="Where the reset gate is applied.")
    dropout = property(lambda self: self._own_options().dropout, doc="The rate on the input.")
    recurrent_dropout = property(lambda self: self._own_options().recurrent_dropout, doc="The rate on the state.")
    seed = property(lambda self: self._own_options().seed, doc="Of the dropout masks.")
    implementation = property(lambda self: self._own_options().implementation, doc="1: a dropout mask for each gate.")
