"""`gru_jax.nnx`: the GRU as Flax NNX modules. They hold parameters; what is computed stands elsewhere.

`GRU` is a whole layer or stack over time; `GRUCell` is one step, for flax's own `nnx.RNN` and `nnx.Bidirectional`.
"""

import difflib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import checks
from gru_jax.combinators import Layer
from gru_jax.layers.spec import GRUSpec
from gru_jax.types import Array, BoolArray, IntArray, Key, Params, State

__all__ = ["GRU", "Carry", "GRUCell"]


class Carry(nnx.Variable):
    """The state that a stateful `GRU` keeps between calls; None before the first."""


class GRU(nnx.Module):
    """A GRU layer or stack over time, as an NNX module.

    Args:
      in_features: I, the number of input features.
      hidden_features: H, the number of units of each layer and direction.
      rngs: `nnx.Rngs`; "params" initialises, "dropout" draws dropout masks. Needed unless `params` are given and there
        is no dropout.
      params: start from these, as `functional` returns them, instead of from fresh ones.
      deterministic: turns all dropout off; set by `module.eval()` and `module.train()`.
      **options: those of `gru_jax.layers.spec.GRUSpec`: num_layers, bidirectional, merge, dropout, input_dropout,
        recurrent_dropout, residual, norm, reset, activation, gate_activation, bias, heads, init, method, reverse,
        time_major, padding, stateful, dtype, param_dtype, state_dtype.

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
        self.spec = _spec("GRU", hidden_features, options)
        self.deterministic = deterministic
        if params is None:
            named = self.spec.init_names(_checked_rngs("GRU", rngs).params(), in_features)
        else:
            named = self.spec.given_names(params, in_features)
        self.rngs = nnx.data(_stream("GRU", _checked_rngs("GRU", rngs)).fork() if self.spec.random else None)
        for name, leaves in named.items():
            setattr(self, name, nnx.data(jax.tree.map(nnx.Param, leaves)))
        self.carry: Any = nnx.data(Carry(None) if self.spec.stateful else None)

    def __call__(
        self,
        x: Array,
        h0: State = None,
        *,
        lengths: IntArray | None = None,
        mask: BoolArray | None = None,
        resets: BoolArray | None = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Key | None = None,
        return_gates: bool = False,
        stats: bool = False,
    ) -> Any:
        """Runs the layer over time.

        Args:
          x: input, `[*batch, T, I]` (`[T, *batch, I]` with time_major).
          h0: states before the first step: `[*batch, H]`; a pair of them with two directions; a tuple with one entry a
            layer for several layers, or for one with a norm or a residual sum. Zeros, or the kept state of a stateful
            layer, when None.
          lengths: `[*batch]`, see `gru_jax.scan`.
          mask: `[*batch, T]`, True = use.
          resets: `[*batch, T]`, True = start from h0.
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
        if self.spec.stateful and h0 is None:
            h0 = self.spec.kept(self.carry.get_value(), x, "call reset_state() first")
        outputs = self.spec.run(
            self._named(),
            x,
            h0,
            lengths=lengths,
            mask=mask,
            resets=resets,
            return_gates=return_gates,
            stats=stats,
            **self._randomness(deterministic, rngs),
        )
        if self.spec.stateful:
            self.carry.set_value(outputs[1])
        return outputs

    def step(self, x: Array, h: State = None, *, rngs: nnx.Rngs | nnx.RngStream | Key | None = None) -> Any:
        """One step, for decoding: `[*batch, I]` and the states to `(y [*batch, H], states)`.

        Args:
          x: the input of one step, `[*batch, I]`.
          h: the states as the last call returned them; zeros when None.
          rngs: see the call.

        Returns:
          y: `[*batch, H]`.
          h: the states after the step.

        Raises:
          ValueError: for a layer that reads from the sequence's end.
        """
        return self.spec.run_step(self._named(), x, h, **self._randomness(None, rngs))

    def reset_state(self) -> None:
        """Forgets the kept state of a stateful layer: the next call starts from zeros."""
        if not self.spec.stateful:
            raise ValueError("GRU: reset_state needs a layer made with stateful=True; this one keeps no state")
        self.carry = nnx.data(Carry(None))

    def functional(self) -> tuple[Layer, Params]:
        """The same layer as functions and plain arrays: `layer, params` with `layer.apply(params, x)`."""
        return self.spec.layer, self.spec.from_names(self._named())

    def _named(self) -> dict[str, Any]:
        return {name: _values(getattr(self, name)) for name in self.spec.names}

    def _randomness(self, deterministic: bool | None, rngs: Any) -> dict[str, Any]:
        off = self.deterministic if deterministic is None else deterministic
        checks.flag("GRU", "deterministic", off)
        if off or not self.spec.random:
            return {"key": None, "deterministic": True}
        source = self.rngs if rngs is None else rngs
        if isinstance(source, nnx.Rngs):
            source = _stream("GRU", source)
        return {"key": source() if callable(source) else source, "deterministic": False}


class GRUCell(nnx.RNNCellBase):
    """One GRU step, for flax's own `nnx.RNN` and `nnx.Bidirectional`.

    Unlike `flax.nnx.GRUCell` it has the recurrent bias of the candidate, so weights of torch, Keras and flax.linen fit.

    Args:
      in_features: I, the number of input features.
      hidden_features: H, the number of units.
      rngs: `nnx.Rngs`; "params" initialises.
      **options: reset, activation, gate_activation, bias, heads, init, dtype, param_dtype of
        `gru_jax.layers.spec.GRUSpec`.

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
        self.spec = _spec("GRUCell", hidden_features, options, CELL_OPTIONS)
        for name, leaf in self.spec.init_names(_checked_rngs("GRUCell", rngs).params(), in_features)["layer_0"].items():
            setattr(self, name, nnx.Param(leaf))

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """One step.

        Args:
          carry: state, `[*batch, H]`.
          inputs: `[*batch, I]`.

        Returns:
          The new state twice: as carry and as output.
        """
        named = {name: _values(getattr(self, name)) for name in ("w_x", "w_h", "b_x", "b_h") if hasattr(self, name)}
        h = self.spec.run_cell(named, inputs, carry)
        return h, h

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> Array:
        """Zeros, `[*batch, H]`, for inputs of shape `[*batch, I]`; `carry_init(key, shape, dtype)` when given."""
        shape = (*input_shape[:-1], self.spec.hidden_features)
        if carry_init is None:
            return jnp.zeros(shape, self.spec.dtype or self.spec.param_dtype)
        key = rngs.carry() if isinstance(rngs, nnx.Rngs) else rngs()
        return carry_init(key, shape, self.spec.dtype or self.spec.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """1: features are the last axis."""
        return 1


CELL_OPTIONS = ("reset", "activation", "gate_activation", "bias", "heads", "init", "dtype", "param_dtype")


def _spec(who: str, hidden_features: int, options: dict[str, Any], known: tuple[str, ...] = ()) -> GRUSpec:
    names = known or tuple(GRUSpec.__dataclass_fields__)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the options are {', '.join(names)}"
            raise TypeError(f"{who}: there is no option {name!r}{hint}")
    return GRUSpec(hidden_features, **options)


def _checked_rngs(who: str, rngs: Any) -> nnx.Rngs:
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"{who}: rngs must be nnx.Rngs; got {type(rngs).__name__}; pass rngs=nnx.Rngs(0)")
    return rngs


def _stream(who: str, rngs: nnx.Rngs) -> nnx.RngStream:
    """The stream that dropout masks are drawn from."""
    if "dropout" not in rngs and "default" not in rngs:
        raise ValueError(
            f"{who}: rngs has no stream for dropout; it has {', '.join(rngs) or 'none'};"
            f" pass nnx.Rngs(0), or nnx.Rngs(params=0, dropout=1)"
        )
    return rngs.dropout


def _values(params: Any) -> Any:
    """Plain arrays from a dict (or a single one) of `nnx.Param`."""
    if isinstance(params, nnx.Variable):
        return params[...]
    return {name: _values(leaf) for name, leaf in params.items()}
