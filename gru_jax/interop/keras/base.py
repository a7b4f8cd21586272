"""What GRU, GRUCell and Bidirectional share: weights in Keras' order, their penalties and their constraints."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors, nnx

from gru_jax import checks
from gru_jax.interop import arrays
from gru_jax.interop.keras import identifiers, policy, regularizers
from gru_jax.interop.keras.attributes import LayerAttributes, Shape
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.types import Array, DType, Options, Tree

KINDS = ("kernel", "recurrent", "bias")
"""The three weights, as the options are called: kernel_regularizer, recurrent_regularizer, ..."""

NAMES = {"kernel": "kernel", "recurrent": "recurrent_kernel", "bias": "bias"}
"""Their names as parameters."""


class Frozen(nnx.Variable[Array]):
    """A weight of a layer with trainable=False: no `nnx.Param`, so no gradient is taken."""


class Penalty(nnx.Variable[tuple[Array, ...]]):
    """What the activity regularizer made of the last call's outputs, a tuple of numbers."""


class Layer(LayerAttributes, nnx.Module):
    """The part of a Keras layer that has nothing to do with time."""

    who: ClassVar[str] = "Layer"
    rank: ClassVar[int] = 3
    """How many axes the input has."""

    def __init__(
        self, name: str | None, dtype: DType, trainable: bool, activity_regularizer: Identifier, outputs: int
    ) -> None:
        checks.flag(self.who, "trainable", trainable)
        self._name = None if name is None else policy.checked_name(self.who, name)
        if name is None:  # numbered in the order in which layers are made
            policy.automatic_name(self, self.who)
        self.dtype_policy = policy.get(self.who, dtype)
        self.activity_regularizer = regularizers.get(self.who, "activity_regularizer", activity_regularizer)
        self._trainable = trainable
        self.built = False
        # What flax's module.train(), module.eval() and nnx.view say. Keras has no such mode: until one of them speaks,
        # a call that says nothing about training drops nothing, and one that does is right.
        self.deterministic: bool | None = None
        # One entry an output from the start: its structure stays the same under jit.
        zeros = (jnp.zeros(()),) * outputs
        self.activity_losses: Any = nnx.data(Penalty(zeros) if self.activity_regularizer is not None else None)

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` calls, on a copy of the layer that shares its arrays.

        Args:
          deterministic: True turns dropout off and False on, in calls that do not say `training`; None leaves it.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def _training(self, training: bool | None) -> bool:
        """Whether dropout is on in this call."""
        if training is None:
            return self.deterministic is False
        return as_training(self.who, training)

    def _cells(self) -> Iterator[Any]:
        """The cells, each with the three weights, in Keras' order."""
        raise NotImplementedError

    def _own_layers(self) -> Iterator["Layer"]:
        """This layer and those inside."""
        yield self

    @property
    def weights(self) -> list[nnx.Variable[Array]]:
        """The variables in Keras' order: kernel, recurrent_kernel, bias; forward before backward."""
        return [getattr(cell, name) for cell in self._cells() for name in cell.weight_names()]

    @property
    def trainable_weights(self) -> list[nnx.Variable[Array]]:
        """Those of `weights` that are trained."""
        return [weight for weight in self.weights if isinstance(weight, nnx.Param)]

    @property
    def non_trainable_weights(self) -> list[nnx.Variable[Array]]:
        """Those of `weights` that are not."""
        return [weight for weight in self.weights if not isinstance(weight, nnx.Param)]

    @property
    def trainable(self) -> bool:
        """Whether the weights are trained. Setting it makes each an `nnx.Param` or a `Frozen`."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        checks.flag(self.who, "trainable", value)
        for layer in self._own_layers():
            layer._trainable = value
        for cell in self._cells():
            cell._trainable = value
            for name in cell.weight_names():
                kind = nnx.Param if value else Frozen
                setattr(cell, name, kind(getattr(cell, name)[...]))

    @property
    def dtype(self) -> str:
        """The name of the parameters' dtype."""
        return str(self.dtype_policy.variable)

    variable_dtype = dtype

    @property
    def compute_dtype(self) -> str:
        """The name of the dtype of the computation."""
        return str(self.dtype_policy.compute)

    input_dtype = compute_dtype

    def get_weights(self) -> list[np.ndarray]:
        """The weights as NumPy arrays, in Keras' order and layout; an empty list before the layer is built."""
        return [np.asarray(weight[...]) for weight in self.weights]

    def set_weights(self, weights: Sequence[np.ndarray | Array]) -> None:
        """Takes over weights in Keras' order and layout.

        Args:
          weights: arrays, as `get_weights` of this layer or of Keras' returns them.

        Raises:
          TypeError, ValueError: when the layer is not built, or the arrays do not fit; nothing is changed then.
        """
        if not self.built:
            raise self._unbuilt()
        if not isinstance(weights, Sequence) or isinstance(weights, str):
            raise TypeError(f"{self.who}: weights must be a list of arrays; got {checks.described(weights)}")
        own = self.weights
        if len(weights) != len(own):
            raise ValueError(
                f"{self.who}: the layer has {len(own)} weights; got {len(weights)}; pass what get_weights() of a layer"
                f" with the same options returned"
            )
        new = []
        for index, (weight, given) in enumerate(zip(own, weights, strict=True)):
            label = f"weights[{index}]"
            array = arrays.to_numpy(self.who, label, given)
            checks.shape(self.who, label, array.shape, weight[...].shape, "units, features and options must agree")
            new.append(jnp.asarray(array).astype(weight[...].dtype))
        for weight, value in zip(own, new, strict=True):
            weight.set_value(value)

    def load_weights(
        self,
        path: str | os.PathLike[str],
        layer: str | None = None,
        *,
        keras_version: str | None = None,
        reset_after: bool | None = None,
        recurrent_activation: Identifier = None,
    ) -> None:
        """Takes over the weights of a `.weights.h5`, `.keras` or `.h5` file of Keras.

        Args:
          path: the file.
          layer: the name of the layer in it; needed when it holds several.
          keras_version: of the Keras that wrote the file, such as "2.2.4", where the file does not say it.
          reset_after: of the saved layer, where nothing in the file says it.
          recurrent_activation: of the saved layer, likewise.

        Raises:
          FileNotFoundError, ValueError: when there is none that fits; nothing is changed then.
        """
        from gru_jax.interop.keras import files

        found = files.one(self.who, path, layer, keras_version)
        said = {"reset_after": reset_after, "activation": None, "recurrent_activation": recurrent_activation}
        found.check_fits(self.who, self, said)
        if not self.built:
            self.build((*[None] * (self.rank - 1), found.directions[0][0].shape[0]))
        self.set_weights([array for direction in found.directions for array in direction])

    def count_params(self) -> int:
        """How many numbers the weights hold.

        Raises:
          ValueError: before the layer is built.
        """
        if not self.built:
            raise self._unbuilt()
        return sum(weight[...].size for weight in self.weights)

    @property
    def losses(self) -> list[Array]:
        """The penalties: those of the last call's outputs, then those of the weights as they are now.

        Inside `nnx.grad` they are differentiable: `mse + sum(layer.losses)` has Keras' gradients.
        """
        layers = (layer for layer in self._own_layers() if layer.activity_losses is not None)
        of_outputs = [loss for layer in layers for loss in layer.activity_losses.get_value()]
        of_weights = [
            regularizer(getattr(cell, NAMES[kind])[...])
            for cell in self._cells()
            if cell._trainable
            for kind in KINDS
            if (regularizer := cell.options.regularizers[KINDS.index(kind)]) and NAMES[kind] in cell.weight_names()
        ]
        return of_outputs + of_weights

    def apply_constraints(self) -> None:
        """Projects every weight that has a constraint, as Keras does after each update."""
        for cell in self._cells():
            for name, constraint in cell.constraints().items():
                variable = getattr(cell, name)
                variable.set_value(constraint(variable[...]))

    def build(self, input_shape: Shape) -> None:
        """Makes the weights."""
        raise NotImplementedError

    def _unbuilt(self) -> ValueError:
        shape = "(None, None, features)" if self.rank == 3 else "(None, features)"
        return ValueError(f"{self.who}: not built yet; call build({shape}), or the layer, once first")

    def _build_for_call(self, shape: tuple[int, ...]) -> None:
        if self.built:
            return
        if not policy.at_top_level():
            raise ValueError(
                f"{self.who}: not built yet, and its first call stands inside a JAX transformation, where parameters"
                f" cannot be made; call build({shape}) before"
            )
        self.build(shape)

    def _build_at_once(self, input_shape: Shape | None) -> None:
        """For the constructor's input_shape, (time, features)."""
        if input_shape is None:
            return
        if not isinstance(input_shape, list | tuple) or len(input_shape) != 2:
            raise ValueError(
                f"{self.who}: input_shape must be (time, features), without the batch; got {input_shape!r}"
            )
        self.build((None, *input_shape))

    def _features(self, input_shape: Shape, rank: int) -> int:
        """The number of features of a shape that may hold None elsewhere."""
        good = isinstance(input_shape, Sequence) and not isinstance(input_shape, str) and len(input_shape) == rank
        features = input_shape[-1] if good else None
        if isinstance(features, bool) or not isinstance(features, int | np.integer) or features < 1:
            layout = "(batch, time, features)" if rank == 3 else "(batch, features)"
            raise ValueError(f"{self.who}: input_shape must be {layout} with a known number of features;"
                             f" got {input_shape!r}")  # fmt: skip
        return int(features)

    def _input(self, name: str, value: object, rank: int, features: int | None) -> Array:
        """An input of the right rank and number of features, in the dtype of the computation."""
        x = checks.as_array(self.who, name, value)
        layout = "[batch, time, features]" if rank == 3 else "[batch, features]"
        if x.ndim != rank:
            raise ValueError(f"{self.who}: {name} must have {rank} dimensions, {layout}; got shape {list(x.shape)}")
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise TypeError(f"{self.who}: {name} must be real numbers; got {x.dtype}")
        if features is not None and x.shape[-1] != features:
            raise ValueError(
                f"{self.who}: {name} has {x.shape[-1]} features but the kernel was made for {features};"
                f" pass an input of {features} features, or make another layer"
            )
        return x.astype(self.dtype_policy.compute)

    def _record_activity(self, outputs: Sequence[Array]) -> None:
        """Each output's penalty over the batch's size, for `losses`."""
        if self.activity_regularizer is None:
            return
        penalties = [self.activity_regularizer(y) for y in outputs]
        self._keep(self.activity_losses, tuple(p / max(1, y.shape[0]) for p, y in zip(penalties, outputs, strict=True)))

    def _keep(self, variable: nnx.Variable[Tree], value: Tree) -> None:
        """Sets what a call leaves behind, with a plain message where that is impossible."""
        try:
            variable.set_value(value)
        except errors.TraceContextError as error:
            raise ValueError(
                f"{self.who}: a call changes this layer ({type(variable).__name__}), which it cannot where the layer is"
                f" closed over by jax.jit or jax.grad; pass the layer as an argument to nnx.jit or nnx.grad"
            ) from error

    def _base_config(self) -> Options:
        config = {"name": self.name, "trainable": self._trainable, "dtype": self.dtype_policy.config()}
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers_config(self.activity_regularizer)
        return config

    def get_config(self) -> Options:
        """The options as a dict, equal to what Keras' layer of the same options gives."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Options) -> Self:
        """The layer, with fresh weights, that a config describes; one of Keras works too.

        Args:
          config: what `get_config` returned.
        """
        return cls(**config)


def regularizers_config(regularizer: object) -> object:
    """A regularizer as Keras writes it."""
    return identifiers.serialize(regularizer, "keras.regularizers", regularizers.KNOWN)


def as_mask(who: str, mask: object, x: Array) -> Array | None:
    """A mask `[B, T]` of booleans or of 0 and 1, or a list of one, as booleans."""
    if isinstance(mask, list | tuple) and len(mask) == 1:
        mask = mask[0]
    if mask is None:
        return None
    array = checks.as_array(who, "mask", mask)
    checks.shape(who, "mask", array.shape, x.shape[:2], "one entry for each step of each sequence of x, [batch, time]")
    return array.astype(jnp.bool_)


def as_state(who: str, name: str, state: object, shape: tuple[int, ...], dtype: DType) -> Array:
    """A state `[B, H]`, or a list of one, in the dtype of the computation."""
    if isinstance(state, list | tuple):
        if len(state) != 1:
            raise ValueError(f"{who}: {name} must be one array, or a list of one; got a list of {len(state)}")
        state = state[0]
    if isinstance(state, nnx.Variable):
        state = state[...]
    array = checks.as_array(who, name, state)
    checks.shape(who, name, array.shape, shape, "one row of units numbers for each sequence of the batch")
    return array.astype(dtype)


def as_training(who: str, training: object) -> bool:
    """Whether a call that says so has dropout on."""
    if isinstance(training, jax.core.Tracer):
        raise TypeError(f"{who}: training must be True or False while JAX traces; got a traced array; mark it static")
    if hasattr(training, "dtype"):
        training = np.asarray(training)  # compared with NumPy, for JAX would trace that inside jit
    if training not in (True, False):
        raise TypeError(f"{who}: training must be True, False or None; got {checks.described(training)}")
    return bool(training)
