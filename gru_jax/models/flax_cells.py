"""Flax's own LSTM and tanh RNN as cells: what a GRU is compared with, with no line of their equations written anew."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from gru_jax import checks
from gru_jax.cells.base import Dense, Equations, accumulator
from gru_jax.types import Array, DType, Key, Params, Tree, exportable


@exportable("LSTMState")
class LSTMState(NamedTuple):
    """What an LSTM carries from step to step, in the order of flax's carry.

    Attributes:
      c: the cell's memory, `[*batch, H]`.
      h: its output, `[*batch, H]`.
    """

    c: Array
    h: Array


@checks.suggesting
@dataclasses.dataclass(frozen=True)
class LSTM:
    """Long short-term memory, as `flax.linen.OptimizedLSTMCell` computes it.

        i, f, o = sigmoid(x w_xi + h w_hi + b_i), and likewise with f and o
        g       = tanh(x w_xg + h w_hg + b_g)
        c'      = f * c + i * g
        h'      = o * tanh(c')

    The parameters are flax's own, for a module `linen.OptimizedLSTMCell(hidden_size)`. There is neither recurrent
    dropout nor a look at the gates. With peepholes each gate sees its own unit's memory, i and f that before the step,
    o that after it: `i = sigmoid(... + p_i * c)`, `o = sigmoid(... + p_o * c')`.

    Args:
      hidden_size: H, the number of units.
      forget_bias: added to the forget gate's bias, which flax starts from 0, by `init` alone; 1 remembers from the
        first update on.
      peepholes: whether there are p_i, p_f and p_o, `params["peepholes"]` `[3, H]`, zeros at first. No machine code is
        written for them.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.LSTM(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, (c, h) = gj.scan(cell, params, jnp.ones((2, 7, 3)))
      >>> y.shape, bool((y[:, -1] == h).all())
      ((2, 7, 4), True)

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; flax.linen.OptimizedLSTMCell. The
    peepholes: Gers and Schmidhuber 2000, as in Graves 2013.
    """

    hidden_size: int
    forget_bias: float = 0.0
    peepholes: bool = False

    def __post_init__(self) -> None:
        checks.positive("LSTM", "hidden_size", self.hidden_size)
        checks.flag("LSTM", "peepholes", self.peepholes)
        got = self.forget_bias
        if isinstance(got, bool) or not isinstance(got, int | float) or not math.isfinite(got):
            raise TypeError(f"LSTM: forget_bias must be a plain finite number; got {got!r}; pass 1.0 to remember")

    def init(self, key: Key, input_size: int, dtype: DType = jnp.float32) -> Params:
        """Fresh parameters, as flax draws them, for `input_size` input features."""
        params = _fresh("LSTM", self, key, input_size, dtype)
        if self.forget_bias:
            forget = params["hf"]
            params = {**params, "hf": {**forget, "bias": forget["bias"] + jnp.asarray(self.forget_bias, dtype)}}
        return {**params, "peepholes": jnp.zeros((3, self.hidden_size), dtype)} if self.peepholes else params

    def check_params(self, params: Params, features: int) -> None:
        """Raises unless these are the parameters of flax's module for `features` input features."""
        _check(self, params, features)

    def project(self, params: Params, x: Array) -> Array:
        """The input itself: flax's step takes it as it is."""
        return x

    def step(self, params: Params, u: Array, state: LSTMState) -> LSTMState:
        """One step: u `[*batch, I]` and the state before it to the state after it."""
        params, u = _as(state.h, (params, u))
        if self.peepholes:
            return self._with_peepholes(params, u, state)
        return LSTMState(*self._module().apply({"params": params}, (state.c, state.h), u)[0])

    def initial_state(self, batch: tuple[int, ...], dtype: DType = jnp.float32) -> LSTMState:
        """Zeros, each `[*batch, H]`."""
        zeros = jnp.zeros((*batch, self.hidden_size), dtype)
        return LSTMState(zeros, zeros)

    def output(self, state: LSTMState) -> Array:
        """h, `[*batch, H]`."""
        return state.h

    def _with_peepholes(self, params: Params, u: Array, state: LSTMState) -> LSTMState:
        dense = self.dense(params)
        sums = u @ dense.w_x + state.h @ dense.w_h
        bias = jnp.concatenate([params[f"h{gate}"]["bias"] for gate in "ifog"], -1)
        i, f, o, g = jnp.split(sums + jnp.broadcast_to(bias, sums.shape), 4, axis=-1)
        p_i, p_f, p_o = (jnp.broadcast_to(p, state.c.shape) for p in params["peepholes"])
        c = jax.nn.sigmoid(f + p_f * state.c) * state.c + jax.nn.sigmoid(i + p_i * state.c) * jnp.tanh(g)
        return LSTMState(c, jax.nn.sigmoid(o + p_o * c) * jnp.tanh(c))

    @property
    def equations(self) -> Equations:
        """Those above."""
        return Equations("lstm with peepholes" if self.peepholes else "lstm", "sigmoid", "tanh")

    def dense(self, params: Params) -> Dense:
        """The parameters as those equations take them: i, f, o and g side by side."""
        side_by_side = lambda what, of: jnp.concatenate([params[f"{of}{gate}"][what] for gate in "ifog"], -1)  # noqa: E731
        return Dense(side_by_side("kernel", "i"), side_by_side("kernel", "h"), side_by_side("bias", "h"), None)

    def _module(self, dtype: DType = jnp.float32) -> linen.OptimizedLSTMCell:
        # Without a parent: the cell is none of the parts of a module in whose method it may run.
        return linen.OptimizedLSTMCell(self.hidden_size, param_dtype=dtype, parent=None)


@checks.suggesting
@dataclasses.dataclass(frozen=True)
class TanhRNN:
    """The simplest recurrent cell, as `flax.linen.SimpleCell` computes it.

        h' = tanh(x w_x + b + h w_h)

    The parameters are flax's own, for a module `linen.SimpleCell(hidden_size)`.

    Args:
      hidden_size: H, the number of units.

    Raises:
      TypeError, ValueError: for a size that is no whole number of at least 1.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.TanhRNN(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)))
      >>> y.shape, h.shape
      ((2, 7, 4), (2, 4))

    Source: Elman 1990; flax.linen.SimpleCell.
    """

    hidden_size: int

    def __post_init__(self) -> None:
        checks.positive("TanhRNN", "hidden_size", self.hidden_size)

    def init(self, key: Key, input_size: int, dtype: DType = jnp.float32) -> Params:
        """Fresh parameters, as flax draws them, for `input_size` input features."""
        return _fresh("TanhRNN", self, key, input_size, dtype)

    def check_params(self, params: Params, features: int) -> None:
        """Raises unless these are the parameters of flax's module for `features` input features."""
        _check(self, params, features)

    def project(self, params: Params, x: Array) -> Array:
        """The input itself: flax's step takes it as it is."""
        return x

    def step(self, params: Params, u: Array, h: Array) -> Array:
        """One step: u `[*batch, I]` and h `[*batch, H]` to the next state."""
        params, u = _as(h, (params, u))
        return self._module().apply({"params": params}, h, u)[0]

    def initial_state(self, batch: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        """Zeros, `[*batch, H]`."""
        return jnp.zeros((*batch, self.hidden_size), dtype)

    def output(self, h: Array) -> Array:
        """The state itself, `[*batch, H]`."""
        return h

    @property
    def equations(self) -> Equations:
        """That above."""
        return Equations("tanh rnn", "sigmoid", "tanh")

    def dense(self, params: Params) -> Dense:
        """The parameters as that equation takes them."""
        return Dense(params["i"]["kernel"], params["h"]["kernel"], params["i"]["bias"], None)

    def _module(self, dtype: DType = jnp.float32) -> linen.SimpleCell:
        return linen.SimpleCell(self.hidden_size, param_dtype=dtype, parent=None)


def _fresh(who: str, cell: "LSTM | TanhRNN", key: Key, input_size: int, dtype: DType) -> Params:
    checks.positive(who, "input_size", input_size)
    checks.random_key(who, key)
    checks.floating_dtype(who, dtype)
    # Orthogonal matrices are not drawn in half precision.
    full = accumulator(dtype)
    state = cell.initial_state((), full)
    carry = tuple(state) if isinstance(state, tuple) else state
    drawn = cell._module(full).init(key, carry, jnp.zeros(input_size, full))["params"]
    return jax.tree.map(lambda p: p.astype(dtype), drawn)


def _as(h: Array, tree: Tree) -> Tree:
    """Arrays in the dtype of the state: Newton's method solves half precision in single, and flax converts nothing."""
    return jax.tree.map(lambda a: a.astype(h.dtype), tree)


def _check(cell: LSTM | TanhRNN, params: Params, features: int) -> None:
    """Compares structure and shapes with what `init` makes; flax would speak of them only from inside the scan."""
    name = type(cell).__name__
    expected = jax.eval_shape(lambda key: cell.init(key, features), jax.random.key(0))
    shapes, wanted = ({jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
                       for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (params, expected))
    for where in wanted | shapes:
        if shapes.get(where) != wanted.get(where):
            raise ValueError(
                f"{name}: for {features} input features and hidden_size={cell.hidden_size}, params.{where} must be"
                f" {_said(wanted.get(where))}; got {_said(shapes.get(where))}; make params with this cell's init"
            )


def _said(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"an array of shape {list(shape)}"
