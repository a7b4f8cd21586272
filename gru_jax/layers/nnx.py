"""`gru_jax.nnx`: the GRU as Flax NNX modules. They hold parameters; what is computed stands elsewhere.

`GRU` is a whole layer or stack over time; `GRUCell` is one step, for flax's own `nnx.RNN` and `nnx.Bidirectional`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import cells, checks
from gru_jax.cells import GRUParams
from gru_jax.combinators import Layer
from gru_jax.layers import options as taken
from gru_jax.layers.random_streams import checked_rngs, dropout_stream
from gru_jax.layers.spec import GRUSpec
from gru_jax.types import Array, BoolArray, Function, IntArray, Key, Options, Params, State, Tree

__all__ = ["GRU", "Carry", "GRUCell"]


class Carry(nnx.Variable):
    """The state that a stateful `GRU` keeps between calls, in the structure of its final states; zeros at first."""


class GRU(nnx.Module):
    """A GRU layer or stack over time, as an NNX module.

    Args:
      in_features: I, the number of input features.
      hidden_features: H, the number of units of each layer and direction.
      rngs: `nnx.Rngs`; "params" initialises, "dropout" draws dropout masks. Needed unless `params` are given and there
        is no dropout.
      params: start from these, as `functional` returns them, instead of from fresh ones.
      deterministic: turns all dropout off; set by `module.eval()`, `module.train()` and `nnx.view`.
      **options: those of `gru_jax.layers.spec.GRUSpec`: num_layers, bidirectional, merge, dropout, input_dropout,
        recurrent_dropout, residual, norm, reset, activation, gate_activation, bias, heads, init, method, reverse,
        time_major, padding, stateful, batch, dtype, param_dtype, state_dtype.

    Parameters stand under `layer_0["w_x"]`, with two directions under `layer_0["forward"]["w_x"]`.

    Example:
      >>> import jax.numpy as jnp, gru_jax as gj
      >>> from flax import nnx
      >>> layer = gj.nnx.GRU(3, 4, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
      >>> y, h_n = layer(jnp.ones((2, 7, 3)), lengths=jnp.array([7, 5]))
      >>> y.shape, h_n[1][0].shape
      ((2, 7, 8), (2, 4))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        rngs: nnx.Rngs | None = None,
        params: Params = None,
        deterministic: bool = False,
        **options: Any,
    ) -> None:
        checks.positive("GRU", "in_features", in_features)
        checks.flag("GRU", "deterministic", deterministic)
        self.in_features = in_features
        found = taken.translated("GRU", options, taken.ALL, linen=False)
        self.spec = GRUSpec(hidden_features, **found)
        taken.warn_of_idle("GRU", self.spec.dropout, self.spec.num_layers, 6)  # four frames of flax's stand between
        self.deterministic = deterministic
        if params is None:
            named = self.spec.init_names(checked_rngs("GRU", rngs).params(), in_features)
        else:
            named = self.spec.given_names(params, in_features)
        self.rngs = nnx.data(dropout_stream("GRU", rngs).fork() if self.spec.random else None)
        for name, leaves in named.items():
            setattr(self, name, nnx.data(jax.tree.map(nnx.Param, leaves)))
        # Whole from here on: what holds the module (a checkpoint, the carry of nnx.scan, nnx.jit's cache) goes by its
        # tree, and a state that came with the first call would be another tree. No size but `batch` is missing for it.
        state = self.spec.fresh_state(self.spec.batch) if self.spec.stateful else None
        self.carry: Any = nnx.data(None if state is None else Carry(state))

    __signature__ = taken.Signature()

    @checks.suggesting
    def __call__(
        self,
        x: Array,
        h0: State = None,
        *,
        lengths: IntArray | None = None,
        mask: BoolArray | None = None,
        resets: BoolArray | None = None,
        reset_to: State = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Key | None = None,
        return_gates: bool = False,
        stats: bool = False,
    ) -> Tree:
        """Runs the layer over time.

        Args:
          x: input, `[*batch, T, I]` (`[T, *batch, I]` with time_major).
          h0: states before the first step: `[*batch, H]`, or `[H]` for all sequences alike; a pair of them with two
            directions; a tuple with one entry a layer for several layers, or for one with a norm or a residual sum. An
            `nnx.Param` is learned. Zeros, or the kept state of a stateful layer, when None.
          lengths: `[*batch]`, see `gru_jax.scan`.
          mask: `[*batch, T]`, True = use.
          resets: `[*batch, T]`, True where a new episode begins: before such a step the state is that of a fresh start,
            zeros, whatever h0 or the kept state is. With two directions the second sets out anew at each episode's
            last step.
          reset_to: another state after resets, of h0's structure, such as learned ones, or h0.
          deterministic: turns dropout off; the module's own setting when None.
          rngs: where dropout masks are drawn from instead of the module's own stream.
          return_gates: also return the gates of every step.
          stats: also return how a parallel method did.

        Returns:
          y: `[*batch, T, H]`, twice as wide for two concatenated directions.
          h_n: the final states, of h0's structure.
          gates: with return_gates only, `Gates` in the structure of h_n, each `[*batch, T, H]`.
          stats: with stats only, `Stats` in the structure of h_n, each `[*batch]`.

        Raises:
          TypeError, ValueError: for input that does not fit, before anything is computed.
        """
        h0 = _unwrapped(h0)
        if self.spec.stateful and h0 is None:
            h0 = self.spec.kept(self.carry.get_value(), x, "call reset_state(batch={batch}) to start over")
        outputs = self.spec.run(
            self._named(),
            x,
            h0,
            lengths=lengths,
            mask=mask,
            resets=resets,
            reset_to=_unwrapped(reset_to),
            return_gates=return_gates,
            stats=stats,
            **self._randomness(deterministic, rngs),
        )
        if self.spec.stateful:
            self.carry.set_value(self.spec.to_keep(outputs[1]))
        return outputs

    @checks.suggesting
    def step(
        self,
        x: Array,
        h: State = None,
        *,
        resets: BoolArray | None = None,
        reset_to: State = None,
        rngs: nnx.Rngs | nnx.RngStream | Key | None = None,
    ) -> Tree:
        """One step, for decoding and acting: `[*batch, I]` and the states to `(y [*batch, H], states)`.

        Args:
          x: the input of one step, `[*batch, I]`.
          h: the states as the last call returned them; zeros when None.
          resets: `[*batch]`, True where a new episode begins with this step.
          reset_to: the state after resets, see the call.
          rngs: see the call.

        Returns:
          y: `[*batch, H]`.
          h: the states after the step.

        Raises:
          ValueError: for a layer that reads from the sequence's end.
        """
        randomness = self._randomness(None, rngs)
        return self.spec.run_step(self._named(), x, _unwrapped(h), resets, _unwrapped(reset_to), **randomness)

    def reset_state(self, batch: int | tuple[int, ...] | None = None) -> None:
        """Sets the kept state of a stateful layer to zeros, where the next call then starts.

        Args:
          batch: how many sequences the next calls have, or their shape; as many as before when None.

        Raises:
          ValueError: for a layer that is not stateful.
        """
        if not self.spec.stateful:
            raise ValueError("GRU: reset_state needs a layer made with stateful=True; this one keeps no state")
        had = jax.tree.leaves(self.carry.get_value())[0].shape[:-1]
        self.carry.set_value(self.spec.fresh_state(had if batch is None else batch))

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` calls, on a copy of the module that shares its arrays.

        Args:
          deterministic: turns all dropout off; None leaves it as it is.
        """
        if deterministic is not None:
            checks.flag("GRU", "deterministic", deterministic)
            self.deterministic = deterministic

    def functional(self) -> tuple[Layer, Params]:
        """The same layer as functions and plain arrays: `layer, params` with `layer.apply(params, x)`."""
        return self.spec.layer, self.spec.from_names(self._named())

    def _named(self) -> dict[str, Tree]:
        return {name: _values(getattr(self, name)) for name in self.spec.names}

    def _randomness(self, deterministic: bool | None, rngs: nnx.Rngs | nnx.RngStream | Key | None) -> Options:
        off = self.deterministic if deterministic is None else deterministic
        checks.flag("GRU", "deterministic", off)
        if off or not self.spec.random:
            return {"key": None, "deterministic": True}
        source = self.rngs if rngs is None else rngs
        if isinstance(source, nnx.Rngs):
            source = dropout_stream("GRU", source)
        return {"key": source() if callable(source) else source, "deterministic": False}


class GRUCell(nnx.RNNCellBase):
    """One GRU step, for flax's own `nnx.RNN` and `nnx.Bidirectional`.

    Unlike `flax.nnx.GRUCell` it has the recurrent bias of the candidate, so weights of torch, Keras and flax.linen fit.

    Args:
      in_features: I, the number of input features.
      hidden_features: H, the number of units.
      rngs: `nnx.Rngs`; "params" initialises.
      **options: reset, activation, gate_activation, bias, heads, init, dtype, param_dtype, state_dtype of
        `gru_jax.layers.spec.GRUSpec`; or, as `flax.nnx.GRUCell` calls them, gate_fn, activation_fn, kernel_init,
        recurrent_kernel_init, bias_init, and carry_init, which `initialize_carry` then draws from.

    Example:
      >>> import jax.numpy as jnp, gru_jax as gj
      >>> from flax import nnx
      >>> rnn = nnx.RNN(gj.nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
      >>> rnn(jnp.ones((2, 7, 3))).shape
      (2, 7, 4)
    """

    def __init__(self, in_features: int, hidden_features: int, *, rngs: nnx.Rngs, **options: Any) -> None:
        checks.positive("GRUCell", "in_features", in_features)
        self.in_features = in_features
        self.carry_init = options.pop("carry_init", None)
        found = taken.translated("GRUCell", options, taken.OF_A_CELL, linen=False)
        self.spec = GRUSpec(hidden_features, **found)
        for name, leaf in self.spec.init_names(checked_rngs("GRUCell", rngs).params(), in_features)["layer_0"].items():
            setattr(self, name, nnx.Param(leaf))

    __signature__ = taken.Signature(taken.OF_A_CELL)

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """One step.

        Args:
          carry: state, `[*batch, H]`.
          inputs: `[*batch, I]`.

        Returns:
          The new state twice: as carry and, in the dtype of the computation, as output.
        """
        return self.spec.run_cell(self._named(), inputs, carry)

    def functional(self) -> tuple[cells.GRU, GRUParams]:
        """The same step as a cell and plain arrays: `cell, params` for `gru_jax.scan(cell, params, x)`."""
        return self.spec.cell, self.spec.from_names({"layer_0": self._named()})

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Function | None = None,
    ) -> Array:
        """Zeros, `[*batch, H]`, for inputs of shape `[*batch, I]`; `carry_init(key, shape, dtype)` when given."""
        carry_init = self.carry_init if carry_init is None else carry_init
        shape = (*input_shape[:-1], self.spec.hidden_features)
        if carry_init is None:
            return jnp.zeros(shape, self.spec.carry_dtype)
        if rngs is None:
            raise ValueError("GRUCell: carry_init draws from rngs; got rngs=None; pass rngs=nnx.Rngs(0)")
        key = rngs.carry() if isinstance(rngs, nnx.Rngs) else rngs()
        return carry_init(key, shape, self.spec.carry_dtype)

    def _named(self) -> dict[str, Array]:
        return {name: _values(getattr(self, name)) for name in GRUParams._fields if hasattr(self, name)}

    @property
    def num_feature_axes(self) -> int:
        """1: features are the last axis."""
        return 1


def _unwrapped(state: State) -> State:
    """States that may be an `nnx.Param`, learned ones, as plain arrays."""

    def is_variable(h: object) -> bool:
        return isinstance(h, nnx.Variable)

    return jax.tree.map(lambda h: h[...] if is_variable(h) else h, state, is_leaf=is_variable)


def _values(params: Tree) -> Tree:
    """Plain arrays from a dict (or a single one) of `nnx.Param`."""
    if isinstance(params, nnx.Variable):
        return params[...]
    return {name: _values(leaf) for name, leaf in params.items()}
