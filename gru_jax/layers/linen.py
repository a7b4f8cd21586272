"""`gru_jax.linen`: the GRU as Flax Linen modules. They hold parameters; what is computed stands elsewhere.

`GRU` is a whole layer or stack over time; `GRUCell` is one step, for flax's own `linen.RNN` and `linen.Bidirectional`.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.cells import GRUParams, Initializers
from gru_jax.combinators import Layer
from gru_jax.layers import options as taken
from gru_jax.layers.spec import GRUSpec
from gru_jax.scans import Method
from gru_jax.types import Activation, Array, BoolArray, DType, Function, IntArray, Key, Options, Params, State, Tree

__all__ = ["GRU", "GRUCell"]


class GRU(linen.Module):
    """A GRU layer or stack over time, as a Linen module.

    The options are those of `gru_jax.layers.spec.GRUSpec`, `hidden_features` first, but for `param_init`, which is
    its `init` (a Linen module has a method of that name); `deterministic` turns all dropout off. The number of input
    features is read from x when the parameters are made. Parameters stand under `params/layer_0/w_x`, with two
    directions under `params/layer_0/forward/w_x`. A stateful layer keeps its state in the collection "carry", which
    `init` makes, for `batch` sequences or else for as many as its x has: pass `mutable=["carry"]`. Dropout draws from
    the stream "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> layer = gj.linen.GRU(4, num_layers=2, bidirectional=True)
      >>> x = jnp.ones((2, 7, 3))
      >>> variables = layer.init(jax.random.key(0), x)
      >>> y, h_n = layer.apply(variables, x, lengths=jnp.array([7, 5]))
      >>> y.shape, h_n[1][0].shape
      ((2, 7, 8), (2, 4))
    """

    hidden_features: int
    _: dataclasses.KW_ONLY
    num_layers: int = 1
    bidirectional: bool = False
    merge: str | None = "concat"
    dropout: float = 0.0
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    residual: bool = False
    norm: str | None = None
    reset: str = "after"
    activation: Activation = "tanh"
    gate_activation: Activation = "sigmoid"
    bias: str = "full"
    heads: int = 1
    param_init: str | Initializers = "flax"
    method: str | Method = "auto"
    reverse: bool = False
    time_major: bool = False
    padding: str = "zero"
    stateful: bool = False
    batch: int | tuple[int, ...] = ()
    dtype: DType = None
    param_dtype: DType = jnp.float32
    state_dtype: DType = None
    deterministic: bool = False

    @property
    def spec(self) -> GRUSpec:
        """The options, validated."""
        names = [field.name for field in dataclasses.fields(GRUSpec) if field.name != "init"]
        options: Options = {name: getattr(self, name) for name in names}
        return GRUSpec(init=self.param_init, **options)

    @checks.suggesting
    @linen.compact
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
        return_gates: bool = False,
        stats: bool = False,
    ) -> Tree:
        """Runs the layer over time.

        Args:
          x: input, `[*batch, T, I]` (`[T, *batch, I]` with time_major).
          h0: states before the first step: `[*batch, H]`, or `[H]` for all sequences alike; a pair of them with two
            directions; a tuple with one entry a layer for several layers, or for one with a norm or a residual sum.
            Zeros, or the kept state of a stateful layer, when None.
          lengths: `[*batch]`, see `gru_jax.scan`.
          mask: `[*batch, T]`, True = use.
          resets: `[*batch, T]`, True where a new episode begins: before such a step the state is that of a fresh start,
            zeros, whatever h0 or the kept state is. With two directions the second sets out anew at each episode's
            last step.
          reset_to: another state after resets, of h0's structure, such as learned ones, or h0.
          deterministic: turns dropout off; the module's own setting when None.
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
        spec = self.spec
        named = self._named(spec, spec.input_size(x))
        if spec.stateful and h0 is None:
            h0 = self._kept(spec, x)
        outputs = spec.run(
            named,
            x,
            h0,
            lengths=lengths,
            mask=mask,
            resets=resets,
            reset_to=reset_to,
            return_gates=return_gates,
            stats=stats,
            **self._randomness(spec, deterministic),
        )
        # The state after `init` would be that of whatever x the parameters were made with.
        if spec.stateful and not self.is_initializing():
            if not self.is_mutable_collection("carry"):
                raise ValueError(
                    'GRU: a stateful layer changes its collection "carry"; call apply(..., mutable=["carry"])'
                )
            self.put_variable("carry", "state", spec.to_keep(outputs[1]))
        return outputs

    @checks.suggesting
    @linen.compact
    def step(
        self, x: Array, h: State = None, *, resets: BoolArray | None = None, reset_to: State = None
    ) -> Tree:
        """One step, for decoding and acting: `layer.apply(variables, x, h, method="step")`.

        Args:
          x: the input of one step, `[*batch, I]`.
          h: the states as the last call returned them; zeros when None.
          resets: `[*batch]`, True where a new episode begins with this step.
          reset_to: the state after resets, see the call.

        Returns:
          y: `[*batch, H]`.
          h: the states after the step.

        Raises:
          ValueError: for a layer that reads from the sequence's end.
        """
        named = self._named(self.spec, jnp.shape(x)[-1])
        return self.spec.run_step(named, x, h, resets, reset_to, **self._randomness(self.spec, None))

    def functional(self, variables: Mapping[str, Tree]) -> tuple[Layer, Params]:
        """The same layer as functions and plain arrays: `layer, params` with `layer.apply(params, x)`."""
        return self.spec.layer, self.spec.from_names(variables["params"])

    def _named(self, spec: GRUSpec, input_size: int) -> dict[str, Tree]:
        if self.has_variable("params", "layer_0"):
            if self.has_variable("params", f"layer_{spec.num_layers}"):
                raise ValueError(f"GRU: the parameters are those of more layers than num_layers={spec.num_layers}")
            return {name: self.get_variable("params", name) for name in spec.names}
        if not self.has_rng("params"):
            raise ValueError(
                "GRU: there are no parameters; pass what init returned to apply, {'params': {'layer_0': ...}}"
            )
        drawn = spec.init_names(self.make_rng("params"), input_size)
        return {name: self.param(name, lambda _, leaves=leaves: leaves) for name, leaves in drawn.items()}

    def _kept(self, spec: GRUSpec, x: ArrayLike) -> State:
        """Where a stateful layer starts: made by `init`, so that the variables' tree is whole before the first call."""
        if self.has_variable("carry", "state"):
            return spec.kept(self.get_variable("carry", "state"), x, "start without the collection 'carry'")
        if self.is_initializing():
            self.put_variable("carry", "state", spec.fresh_state(spec.batch or spec.batch_of(x)))
        return None

    def _randomness(self, spec: GRUSpec, deterministic: bool | None) -> Options:
        off = self.deterministic if deterministic is None else deterministic
        checks.flag("GRU", "deterministic", off)
        if off or not spec.random or self.is_initializing():
            return {"key": None, "deterministic": True}
        if not self.has_rng("dropout"):
            raise ValueError(
                'GRU: dropout needs a random key; pass rngs={"dropout": key} to apply, or deterministic=True'
            )
        return {"key": self.make_rng("dropout"), "deterministic": False}


class GRUCell(linen.RNNCellBase):
    """One GRU step, for flax's own `linen.RNN` and `linen.Bidirectional`.

    The options are those of the cell in `gru_jax.layers.spec.GRUSpec`, with `param_init` for its `init`; or, as
    `flax.linen.GRUCell` calls them, features, gate_fn, activation_fn, kernel_init, recurrent_kernel_init and bias_init.

    Args:
      carry_init: `(key, shape, dtype) -> array`, what `initialize_carry` draws from; zeros when None.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> from flax import linen
      >>> rnn = linen.RNN(gj.linen.GRUCell(4))
      >>> y, variables = rnn.init_with_output(jax.random.key(0), jnp.ones((2, 7, 3)))
      >>> y.shape
      (2, 7, 4)
    """

    hidden_features: int
    _: dataclasses.KW_ONLY
    reset: str = "after"
    activation: Activation = "tanh"
    gate_activation: Activation = "sigmoid"
    bias: str = "full"
    heads: int = 1
    param_init: str | Initializers = "flax"
    dtype: DType = None
    param_dtype: DType = jnp.float32
    state_dtype: DType = None
    carry_init: Function | None = None

    @property
    def spec(self) -> GRUSpec:
        """The options, validated."""
        options = {name: getattr(self, "param_init" if name == "init" else name) for name in taken.OF_A_CELL}
        return GRUSpec(self.hidden_features, **options)

    @linen.compact
    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """One step.

        Args:
          carry: state, `[*batch, H]`.
          inputs: `[*batch, I]`.

        Returns:
          The new state twice: as carry and, in the dtype of the computation, as output.
        """
        spec = self.spec
        if self.has_variable("params", "w_x"):
            named: dict[str, Tree] = {name: self.get_variable("params", name) for name in GRUParams._fields}
        else:
            drawn = spec.init_names(self.make_rng("params"), inputs.shape[-1])["layer_0"]
            named = {name: self.param(name, lambda _, leaf=leaf: leaf) for name, leaf in drawn.items()}
        named = {name: leaf for name, leaf in named.items() if leaf is not None}
        return spec.run_cell(named, inputs, carry)

    @linen.nowrap
    def initialize_carry(self, rng: Key, input_shape: tuple[int, ...]) -> Array:
        """Zeros, `[*batch, H]`, for inputs of shape `[*batch, I]`; of the key only where there is a `carry_init`."""
        made = self.carry_init or (lambda _, *like: jnp.zeros(*like))
        return made(rng, (*input_shape[:-1], self.hidden_features), self.spec.carry_dtype)

    @property
    def num_feature_axes(self) -> int:
        """1: features are the last axis."""
        return 1


GRU.__init__ = taken.taking_flax_names("GRU", GRU.__init__)  # type: ignore[method-assign]
GRUCell.__init__ = taken.taking_flax_names("GRUCell", GRUCell.__init__)  # type: ignore[method-assign]
