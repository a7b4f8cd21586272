"""`Bidirectional` of Keras: a GRU from each end of the sequence, outputs joined."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.combinators import MERGES
from gru_jax.interop import neutral
from gru_jax.interop.keras import identifiers, policy
from gru_jax.interop.keras.attributes import Shape
from gru_jax.interop.keras.base import Layer
from gru_jax.interop.keras.cell import GRUCell
from gru_jax.interop.keras.gru import GRU, numpy_params
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.layers.nnx import GRU as NeutralLayer
from gru_jax.types import Array, DType, Options, Tree

MODES = {"sum": "sum", "mul": "mul", "ave": "mean", "concat": "concat", None: None}
"""Keras' merge modes, and what `gru_jax.combinators.MERGES` calls them."""


class Bidirectional(Layer):
    """A GRU over time in both directions, `keras.layers.Bidirectional` of Keras 3.

    The layer that is passed serves as a pattern: both directions are new layers with its options and fresh weights.
    Outputs at masked steps are 0 with return_sequences, as in Keras.

    Args:
      layer: a `GRU` of this package.
      merge_mode: "concat", "sum", "mul", "ave", or None for the pair of outputs.
      weights: arrays to start from, those of the forward direction first.
      backward_layer: a `GRU` for the other direction, itself used; its go_backwards must differ from the other's, and
        stateful, return_sequences and return_state must agree.
      input_shape: `(time, features)`: makes the weights at once, where Keras waits for the model.
      name: of the layer; numbered when None.
      dtype: of the outputs, see `GRU`; the directions have their own.
      trainable: False makes all weights no `nnx.Param`.
      activity_regularizer: a penalty on the outputs of the whole.
      rngs: `nnx.Rngs` to initialise the new directions with, in place of seeds.

    Raises:
      TypeError, ValueError: for layers or a merge mode that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import keras
      >>> bi = keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True), merge_mode="concat")
      >>> bi(jnp.ones((2, 7, 3))).shape, len(bi.get_weights())
      ((2, 7, 8), 6)

    Source: keras.layers.Bidirectional of Keras 3.15.
    """

    who = "Bidirectional"

    def __init__(
        self,
        layer: GRU,
        merge_mode: str | None = "concat",
        weights: Sequence[np.ndarray | Array] | None = None,
        backward_layer: GRU | None = None,
        *,
        input_shape: Shape | None = None,
        name: str | None = None,
        dtype: DType = None,
        trainable: bool = True,
        activity_regularizer: Identifier = None,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        for label, given in (("layer", layer), ("backward_layer", backward_layer)):
            if not isinstance(given, GRU) and (given is not None or label == "layer"):
                raise TypeError(
                    f"Bidirectional: {label} must be a GRU of gru_jax.interop.keras; got {checks.described(given)}"
                )
        checks.choice("Bidirectional", "merge_mode", merge_mode, MODES)
        outputs = 1 + (merge_mode is None) + 2 * layer.return_state
        super().__init__(name, dtype, trainable, activity_regularizer, outputs)
        self.merge_mode = merge_mode
        self.forward_layer = _like(layer, "forward", layer.go_backwards, rngs)
        if backward_layer is None:
            self.backward_layer = _like(layer, "backward", True, rngs)
        else:
            self.backward_layer = backward_layer
        for one in (self.forward_layer, self.backward_layer):
            one.use_cudnn = layer.use_cudnn
        self._check_directions()
        for one in (self.forward_layer, self.backward_layer):
            one.zero_output_for_mask = one.return_sequences
        if not trainable:
            self.trainable = False
        self._first_weights = None if weights is None else nnx.data([jnp.asarray(w) for w in weights])
        self._build_at_once(input_shape)

    def _check_directions(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                f"Bidirectional: the two directions must differ in go_backwards; got {forward.go_backwards} for both;"
                f" pass a layer with go_backwards=False and, if any, a backward_layer with go_backwards=True"
            )
        for attribute in ("stateful", "return_sequences", "return_state"):
            ours, theirs = getattr(forward, attribute), getattr(backward, attribute)
            if ours != theirs:
                raise ValueError(
                    f"Bidirectional: the two directions must agree in {attribute}; got {ours} for layer and"
                    f" {theirs} for backward_layer"
                )
        if self.merge_mode in ("sum", "mul", "ave") and forward.units != backward.units:
            raise ValueError(
                f"Bidirectional: merge_mode={self.merge_mode!r} needs outputs of one size; got {forward.units} units"
                f" forward and {backward.units} backward; use merge_mode='concat'"
            )

    def _cells(self) -> Iterator[GRUCell]:
        yield from (self.forward_layer.cell, self.backward_layer.cell)

    def _own_layers(self) -> Iterator[Layer]:
        yield from (self, self.forward_layer, self.backward_layer)

    @property
    def losses(self) -> list[Array]:
        """See `GRU`; the directions' before those of the whole."""
        return super().losses

    def build(self, input_shape: Shape, initial_state_shape: Tree = None) -> None:
        """Makes the weights of both directions.

        Args:
          input_shape: `(batch, time, features)`; batch (unless stateful) and time may be None.
          initial_state_shape: accepted as in Keras, and not needed.

        Raises:
          ValueError: when the number of features, or a stateful layer's batch, is unknown.
        """
        for one in (self.forward_layer, self.backward_layer):
            one.build(input_shape)
        self.built = True
        if self._first_weights is not None:
            first, self._first_weights = list(self._first_weights), None
            self.set_weights(first)

    def __call__(
        self,
        sequences: ArrayLike,
        initial_state: Sequence[Tree] | None = None,
        mask: ArrayLike | Sequence[ArrayLike] | None = None,
        training: bool | None = None,
    ) -> Any:
        """Runs both directions over the same sequences and mask.

        Args:
          sequences: `[B, T, I]`.
          initial_state: a list of the two states before the first step, forward and backward, each `[B, H]`; zeros, or
            the kept states of a stateful layer, when None.
          mask: `[B, T]`, True or 1 = use the step.
          training: whether dropout is on; None is what `train()`, `eval()` or `nnx.view` said last, off before.

        Returns:
          output: the joined last outputs `[B, 2H]` (`[B, H]` unless merge_mode is "concat"), with return_sequences
            those of every step, `[B, T, 2H]`, in original time order; with merge_mode None two outputs.
          states: with return_state only, after the outputs: the final states of both directions, each `[B, H]`.

        Raises:
          TypeError, ValueError: for input that does not fit.
        """
        starts = (None, None) if initial_state is None else initial_state
        if not isinstance(starts, list | tuple) or len(starts) != 2:
            raise ValueError(
                f"Bidirectional: initial_state must be a list of two states, [forward, backward];"
                f" got {checks.described(initial_state)}"
            )
        if not self.built:
            x = self._input("sequences", sequences, 3, None)
            self._build_for_call(x.shape)
        results = [
            one(sequences, initial_state=start, mask=mask, training=training)
            for one, start in zip((self.forward_layer, self.backward_layer), starts, strict=True)
        ]
        states: tuple[Array, ...] = ()
        if self.forward_layer.return_state:
            states = tuple(h for _, h in results)
            results = [y for y, _ in results]
        forward, backward = (y.astype(self.dtype_policy.compute) for y in results)
        if self.forward_layer.return_sequences:
            backward = jnp.flip(backward, 1)
        merged = MERGES[MODES[self.merge_mode]](forward, backward)
        outputs = merged if isinstance(merged, tuple) else (merged,)
        self._record_activity([*outputs, *states])
        everything = (*outputs, *states)
        return everything[0] if len(everything) == 1 else everything

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Tree = None) -> Any:
        """The shape of what a call returns, or the shapes of all of it.

        Args:
          sequences_shape: `(batch, time, features)`, None where unknown.
          initial_state_shape: accepted as in Keras, and not needed.
        """
        shapes = [one.compute_output_shape(sequences_shape) for one in (self.forward_layer, self.backward_layer)]
        states: tuple[Shape, ...] = ()
        if self.return_state:
            states = tuple(state for _, state in shapes)
            shapes = [shape for shape, _ in shapes]
        outputs = shapes if self.merge_mode is None else shapes[:1]
        if self.merge_mode == "concat":
            outputs = [(*shapes[0][:-1], shapes[0][-1] + shapes[1][-1])]
        everything = (*outputs, *states)
        return everything[0] if len(everything) == 1 else everything

    def compute_mask(self, inputs: object, mask: Tree) -> Tree:
        """The mask of the outputs, of both with merge_mode None; that of states, which would be None, is left out.

        Args:
          inputs: not looked at.
          mask: `[B, T]`, a list of one, or None.
        """
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        mask = mask if self.return_sequences else None
        return mask if self.merge_mode else (mask, mask)

    @property
    def states(self) -> tuple[Array, ...] | None:
        """The kept states of stateful directions."""
        pair = self.forward_layer.states, self.backward_layer.states
        return None if pair[0] is None or pair[1] is None else (*pair[0], *pair[1])

    def reset_state(self) -> None:
        """Sets the kept states of both directions to zeros.

        Raises:
          ValueError: when the layer is not stateful.
        """
        if not self.stateful:
            raise ValueError("Bidirectional: reset_state needs a layer with stateful=True; this one keeps no state")
        for one in (self.forward_layer, self.backward_layer):
            one.reset_state()

    def reset_states(self) -> None:
        """`reset_state`, by its older name."""
        self.reset_state()

    def to_layer(self, **options: Any) -> NeutralLayer:
        """A `gj.nnx.GRU` of two directions with the same weights and without dropout.

        Args:
          **options: of `gj.nnx.GRU` that say how it runs.

        Raises:
          ValueError: before the layer is built, or when the directions differ in more than their weights.
        """
        if not self.built:
            raise ValueError("Bidirectional: not built yet; call build((None, None, features)), or the layer, first")
        pair = (self.forward_layer, self.backward_layer)
        cell, other = (one.cell.options.neutral for one in pair)
        if cell != other:
            raise ValueError(
                f"Bidirectional: one layer needs directions of the same options; got {cell} and {other};"
                f" convert forward_layer and backward_layer one by one"
            )
        weights = neutral.Weights(cell, ((numpy_params(pair[0]), numpy_params(pair[1])),))
        own = {
            "merge": MODES[self.merge_mode],
            "reverse": pair[0].go_backwards,
            "padding": "zero" if pair[0].zero_output_for_mask else "hold",
            "stateful": self.stateful,
            "method": pair[0].method,
        }
        return neutral.module("Bidirectional", weights, own | options)

    def get_config(self) -> Options:
        """The options as a dict, equal to what Keras' layer of the same options gives."""
        layers = {"layer": self.forward_layer, "backward_layer": self.backward_layer}
        inner = {
            name: identifiers.registered("keras.layers", "GRU", one.get_config()) for name, one in layers.items()
        }
        return self._base_config() | {"merge_mode": self.merge_mode} | inner

    @classmethod
    def from_config(cls, config: Options) -> Self:
        """The layer, with fresh weights, that a config describes; one of Keras works too.

        Args:
          config: what `get_config` returned.

        Raises:
          ValueError: when a direction is no GRU.
        """
        layers = {}
        for name in ("layer", "backward_layer"):
            inner = config.get(name)
            if inner is None:
                continue
            if inner.get("class_name") != "GRU":
                raise ValueError(f"Bidirectional: {name} must be a GRU; the config has {inner.get('class_name')!r}")
            layers[name] = GRU.from_config(inner["config"])
        return cls(**(dict(config) | layers))

    stateful = property(lambda self: self.forward_layer.stateful, doc="Whether the directions keep their state.")
    return_sequences = property(lambda self: self.forward_layer.return_sequences, doc="Whether all steps come back.")
    return_state = property(lambda self: self.forward_layer.return_state, doc="Whether final states come back.")


def _like(layer: GRU, direction: str, go_backwards: bool, rngs: nnx.Rngs | None) -> GRU:
    """A layer with the same options, fresh weights and its direction's name."""
    config = layer.get_config()
    prefix = f"{direction}_"
    config |= {"go_backwards": go_backwards, "name": prefix + layer.name.removeprefix(prefix)}
    keys = layer.cell.unused_keys
    if rngs is None and keys:
        index = 0 if direction == "forward" else 1
        rngs = nnx.Rngs(params=jax.random.fold_in(keys[0], index), dropout=jax.random.fold_in(keys[1], index))
    extra = {"implementation": layer.cell.options.implementation, "rngs": rngs, "method": layer.method}
    made = GRU(**config, **extra)
    if layer._name is None:
        policy.make_automatic(made)
    return made
