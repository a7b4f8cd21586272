"""The options of a GRU layer, validated once, and what its Flax holders share: parameter names, dtypes, the call."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.between import NORMS, Norm
from gru_jax.cells import GRU, GRUParams, Initializers
from gru_jax.cells.base import accumulator
from gru_jax.combinators import MERGES, Layer, StackParams, bidirectional, recurrent, stack
from gru_jax.scans import Method
from gru_jax.types import Activation, Array, BoolArray, DType, Key, Params, State, Tree


@dataclasses.dataclass(frozen=True)
class GRUSpec:
    """Every option of `gru_jax.nnx.GRU` and `gru_jax.linen.GRU`.

    Args:
      hidden_features: H, the number of units of each layer and direction.
      num_layers: layers on top of each other.
      bidirectional: a second GRU in each layer, run from the sequence's end.
      merge: how the two directions' outputs are joined: "concat", "sum", "mul", "mean", or, for the pair, None.
      dropout: rate on the outputs of all layers but the last, drawn anew at every step (as torch).
      input_dropout: rate on each layer's input, one mask for a sequence's every step (as Keras).
      recurrent_dropout: the same for the state inside the recurrent products.
      residual: add each layer's input to its output where the sizes agree (see `gru_jax.stack`).
      norm: "layer" or "rms" normalises each layer's output.
      reset: "after" or "before", see `gru_jax.GRU`.
      activation: of the candidate state.
      gate_activation: of the gates.
      bias: "full", "minimal" or "none".
      heads: blocks of the recurrent matrix; 1 is dense, H is diagonal.
      init: "flax", "keras", "torch" or `Initializers`.
      method: how the steps run over time, see `gru_jax.scan`.
      reverse: run from each sequence's end to its start.
      time_major: arrays are `[T, *batch, ...]`.
      padding: what y holds at masked steps, "zero" or "hold".
      stateful: the state after a call is where the next one starts, until `reset_state`.
      batch: of a stateful layer, how many sequences it keeps states of, or their shape. With it the kept state has its
        final shape from the start, which checkpoints, `nnx.scan` and a single trace of `nnx.jit` need; without it the
        state is `[H]`, every sequence's, until the first call.
      dtype: of the computation; when None, that which x, numbers of any kind, and the parameters promote to.
      param_dtype: of the parameters.
      state_dtype: of the state from step to step, and of the final states, see `gru_jax.scan`; that of the computation
        when None.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.
    """

    hidden_features: int
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
    init: str | Initializers = "flax"
    method: str | Method = "auto"
    reverse: bool = False
    time_major: bool = False
    padding: str = "zero"
    stateful: bool = False
    batch: int | tuple[int, ...] = ()
    dtype: DType = None
    param_dtype: DType = jnp.float32
    state_dtype: DType = None

    def __post_init__(self) -> None:
        checks.positive("GRU", "hidden_features", self.hidden_features)
        checks.positive("GRU", "num_layers", self.num_layers)
        for name in ("bidirectional", "residual", "reverse", "time_major", "stateful"):
            checks.flag("GRU", name, getattr(self, name))
        for name in ("dropout", "input_dropout", "recurrent_dropout"):
            checks.rate("GRU", name, getattr(self, name))
        checks.floating_dtype("GRU", self.param_dtype)
        if self.dtype is not None:
            checks.floating_dtype("GRU", self.dtype)
        for size in self.batch_shape:
            checks.positive("GRU", "batch", size)
        if self.batch != () and not self.stateful:
            raise ValueError(
                f"GRU: batch says how many states a stateful layer keeps; got batch={self.batch!r} and stateful=False;"
                f" leave it out, or set stateful=True"
            )
        if self.state_dtype is not None:
            checks.floating_dtype("GRU", self.state_dtype, "state_dtype")
        checks.choice("GRU", "merge", self.merge, MERGES)
        checks.choice("GRU", "norm", self.norm, NORMS)
        checks.choice("GRU", "padding", self.padding, ("zero", "hold"))
        if self.bidirectional and self.merge is None and (self.num_layers > 1 or self.norm or self.residual):
            raise ValueError(
                "GRU: merge=None gives a pair of outputs, which neither another layer, a norm nor a residual sum takes;"
                " use merge='concat', or one plain layer"
            )
        self.cell  # noqa: B018  the cell checks its own options

    @functools.cached_property
    def cell(self) -> GRU:
        """The cell that every layer runs."""
        return GRU(
            self.hidden_features,
            reset=self.reset,
            activation=self.activation,
            gate_activation=self.gate_activation,
            bias=self.bias,
            heads=self.heads,
            init=self.init,
        )

    @property
    def layer(self) -> Layer:
        """The same layer as functions; its params are what `from_names` gives."""
        return _layer(self)

    @property
    def random(self) -> bool:
        """Whether a call that is not deterministic draws random numbers."""
        return bool((self.dropout and self.num_layers > 1) or self.input_dropout or self.recurrent_dropout)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """`batch` as a shape."""
        return self.batch if isinstance(self.batch, tuple) else (self.batch,)

    @property
    def names(self) -> tuple[str, ...]:
        """The top-level names of the parameters."""
        kinds = ("layer",) if self.norm is None else ("layer", "norm")
        return tuple(f"{kind}_{index}" for kind in kinds for index in range(self.num_layers))

    def init_names(self, key: Key, input_size: int) -> dict[str, Tree]:
        """Fresh parameters under their names, see `to_names`."""
        return self.to_names(self.layer.init(key, input_size, self.param_dtype))

    def given_names(self, params: Params, input_size: int) -> dict[str, Tree]:
        """Given parameters under their names; raises TypeError or ValueError when they do not fit the options."""
        for leaf in jax.tree.leaves(params):
            if not hasattr(leaf, "dtype"):
                raise TypeError(
                    f"GRU: params must be arrays, as functional() or init returns them; got {checks.described(leaf)}"
                )
        if self.norm is None and isinstance(params, StackParams) and params.norms:
            raise ValueError("GRU: params hold norms but norm is None; pass norm='layer' or 'rms', as they are")
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
        x = jax.ShapeDtypeStruct((1, 1, input_size), dtypes.pop() if len(dtypes) == 1 else jnp.float32)
        jax.eval_shape(functools.partial(self.layer.apply, deterministic=True), params, x)
        return self.to_names(jax.tree.map(jnp.asarray, params))

    def to_names(self, params: Params) -> dict[str, Tree]:
        """Parameters as nested dicts: `layer_0/w_x`, or `layer_0/forward/w_x`, and `norm_0/scale`."""
        layers: Tree = (params,)
        norms: Tree = ()
        if not self._alone:
            layers, norms = params if isinstance(params, StackParams) else (params, ())
        named = {}
        for index, layer in enumerate(layers):
            named[f"layer_{index}"] = (
                {"forward": _present(layer[0]), "backward": _present(layer[1])}
                if self.bidirectional
                else _present(layer)
            )
        return named | {f"norm_{index}": _present(norm) for index, norm in enumerate(norms)}

    def from_names(self, named: Mapping[str, Tree]) -> Params:
        """The inverse of `to_names`: what `layer.apply` takes."""

        def gru(leaves: Mapping[str, Array]) -> GRUParams:
            return GRUParams(leaves["w_x"], leaves["w_h"], leaves.get("b_x"), leaves.get("b_h"))

        try:
            each = [named[f"layer_{index}"] for index in range(self.num_layers)]
            layers = tuple((gru(p["forward"]), gru(p["backward"])) if self.bidirectional else gru(p) for p in each)
            norms = [named[f"norm_{index}"] for index in range(self.num_layers if self.norm is not None else 0)]
            scales = tuple(Norm(norm["scale"], norm.get("bias")) for norm in norms)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"GRU: the parameters do not fit num_layers={self.num_layers}, bidirectional={self.bidirectional},"
                f" norm={self.norm!r}; got {', '.join(named) or 'none'} ({error} is missing); make them with this"
                f" layer's init"
            ) from error
        return layers[0] if self._alone else StackParams(layers, scales)

    def run(
        self,
        named: Mapping[str, Tree],
        x: Array,
        h0: State,
        *,
        key: Key | None,
        deterministic: bool,
        reset_to: State = None,
        **options: Any,
    ) -> Tree:
        """The call of both holders: the layer's `apply` on named parameters, all in one dtype."""
        x = checks.real("GRU", "x", x)
        params = self.from_names(named)
        # `[H]` is every sequence's: a learned state, or that of a stateful layer that knows no batch yet.
        shape = (*self.batch_of(x), self.hidden_features)
        h0, reset_to = (
            jax.tree.map(lambda h, name=name: _for_all(checks.real("GRU", name, h), shape), state)
            for name, state in (("h0", h0), ("reset_to", reset_to))
        )
        dtype = self.dtype if self.dtype is not None else _promoted(x, params)
        cast = functools.partial(jax.tree.map, lambda a: jnp.asarray(a).astype(dtype))
        state_cast = functools.partial(jax.tree.map, lambda h: h.astype(self.state_dtype or dtype))
        return self.layer.apply(
            cast(params),
            cast(x),
            state_cast(h0),
            reset_to=state_cast(reset_to),
            key=key,
            deterministic=deterministic or not self.random,
            reverse=self.reverse,
            time_major=self.time_major,
            padding=self.padding,
            **options,
        )

    def run_step(
        self, named: Mapping[str, Tree], x: Array, h: State, resets: BoolArray | None, reset_to: State, **options: Any
    ) -> Tree:
        """One step, `[*batch, I]`, for decoding: the call on a sequence of length 1."""
        if self.bidirectional or self.reverse:
            raise ValueError(
                "GRU: a layer that reads from the sequence's end cannot be stepped; call it on the whole x"
            )
        axis = 0 if self.time_major else -2
        x = checks.real("GRU", "x", x)
        if resets is not None:
            resets = checks.boolean("GRU", "resets", resets)
            checks.shape("GRU", "resets", resets.shape, x.shape[:-1], "one flag for each sequence of x")
            options["resets"] = jnp.expand_dims(resets, 0 if self.time_major else -1)
        y, *rest = self.run(named, jnp.expand_dims(x, axis), h, reset_to=reset_to, **options)
        return y.squeeze(axis), *rest

    def run_cell(self, named: Mapping[str, Tree], x: Array, h: State) -> tuple[Array, Array]:
        """The state after one step of the cell alone, and what it puts out, in the dtype of the computation."""
        x, h = checks.real("GRUCell", "inputs", x), checks.real("GRUCell", "carry", h)
        params = self.from_names({"layer_0": named})
        self.cell.check_params(params, x.shape[-1])
        fix = "make it with initialize_carry(rng, inputs.shape)"
        checks.shape("GRUCell", "carry", h.shape, (*x.shape[:-1], self.hidden_features), fix)
        dtype = self.dtype if self.dtype is not None else _promoted(x, params)
        params, x = jax.tree.map(lambda a: a.astype(dtype), (params, x))
        h = self.cell.step(params, self.cell.project(params, x), h.astype(self.state_dtype or dtype))
        return h, h.astype(dtype)

    @property
    def carry_dtype(self) -> DType:
        """Of the state that a cell alone begins with."""
        return self.state_dtype or self.dtype or self.param_dtype

    def input_size(self, x: object) -> int:
        """I, read from an input that may still be wrong."""
        x = checks.real("GRU", "x", x)
        if x.ndim < 2:
            layout = "[T, *batch, I]" if self.time_major else "[*batch, T, I]"
            raise ValueError(f"GRU: x must have at least 2 dimensions, {layout}; got shape {list(x.shape)}")
        return x.shape[-1]

    def fresh_state(self, batch: int | tuple[int, ...]) -> State:
        """Zeros in the structure of the final states, `[*batch, H]` each: what a stateful layer keeps at first."""
        shape = batch if isinstance(batch, tuple) else (batch,)
        zeros = jnp.zeros((*shape, self.hidden_features), self._state_dtype)
        one = (zeros, zeros) if self.bidirectional else zeros
        return one if self._alone else (one,) * self.num_layers

    def kept(self, state: State, x: ArrayLike, fix: str) -> State:
        """The state that a stateful layer kept; raises ValueError when it is for another batch."""
        batch, had = self.batch_of(x), jax.tree.leaves(state)[0].shape[:-1]
        if had not in (batch, ()):
            fix = fix.format(batch=batch[0] if len(batch) == 1 else batch)
            raise ValueError(
                f"GRU: the kept state is for batch {list(had)} but x has batch {list(batch)}; {fix}, or pass h0"
            )
        return state

    def to_keep(self, state: State) -> State:
        """The final states in the dtype of those that are kept."""
        return jax.tree.map(lambda h: h.astype(self._state_dtype), state)

    @property
    def _state_dtype(self) -> DType:
        """Fixed as the shape is; float32 at least where calls may compute in it."""
        return self.state_dtype or self.dtype or accumulator(self.param_dtype)

    def batch_of(self, x: ArrayLike) -> tuple[int, ...]:
        """The leading sizes of x that are not time."""
        return tuple(jnp.shape(x)[1:-1] if self.time_major else jnp.shape(x)[:-2])

    @property
    def _alone(self) -> bool:
        """One layer and nothing around it: states and gates then come without the stack's tuple."""
        return self.num_layers == 1 and not self.residual and self.norm is None


# Not kept on the spec, which modules carry with them when they are pickled: functions cannot be.
@functools.lru_cache(maxsize=256)
def _layer(spec: GRUSpec) -> Layer:
    rnn = recurrent(
        spec.cell,
        method=spec.method,
        input_dropout=spec.input_dropout,
        recurrent_dropout=spec.recurrent_dropout,
        state_dtype=spec.state_dtype,
    )
    one = bidirectional(rnn, merge=spec.merge) if spec.bidirectional else rnn
    if spec._alone:
        return one
    dropout = spec.dropout if spec.num_layers > 1 else 0.0
    return stack(*[one] * spec.num_layers, dropout=dropout, residual=spec.residual, norm=spec.norm)


def _present(leaves: GRUParams | Norm) -> dict[str, Array]:
    return {name: leaf for name, leaf in leaves._asdict().items() if leaf is not None}


def _for_all(state: Array, shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(state, shape) if state.shape == shape[-1:] else state


def _promoted(x: Array, params: Params) -> DType:
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(x, *jax.tree.leaves(params))
