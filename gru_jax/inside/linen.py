"""`gru_jax.inside.linen`: flax.linen's RNN and Bidirectional, whose cells are run over time by this library.

    from gru_jax import inside
    rnn = inside.linen.RNN(linen.GRUCell(32))          # was: linen.RNN(...)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.core import meta
from flax.linen import dtypes
from flax.linen.recurrent import flip_sequences

from gru_jax import checks
from gru_jax.cells import GRU, MGU, GRUParams, MGUParams
from gru_jax.cells.base import Cell as AnyCell
from gru_jax.cells.base import fresh
from gru_jax.inside import flax_run
from gru_jax.inside.flax_run import Call, Known, Ours
from gru_jax.inside.joined import LSTM, Matrices, Simple, lstm_matrices
from gru_jax.layers import linen as layers
from gru_jax.scans import Method
from gru_jax.types import Array, BoolArray, DType, IntArray, Key, Params, State

__all__ = ["RNN", "Bidirectional", "Cell"]


class RNN(linen.RNN):
    """flax.linen.RNN over this library's engines: flax's arguments, call, variables and numbers.

    Run by them are flax's `GRUCell`, `MGUCell`, `LSTMCell`, `OptimizedLSTMCell` and `SimpleCell`, and of this library
    `gj.linen.GRUCell` and `Cell`. Any other cell runs as in flax, and so do these where flax does what the engines do
    not: a carry of another dtype than the computation's, an activation without a name in `gru_jax.cells.activations`,
    `variable_axes` and the like of your own.

    Args:
      cell: any `flax.linen.RNNCellBase`.
      time_major: time is the leading axis, `[T, *batch, I]`.
      return_carry: return the last carry too, before the outputs.
      reverse: run from each sequence's end.
      keep_order: outputs of a reversed run in the order of the inputs.
      unroll: steps in one turn of flax's loop; other cells are not run by such a loop.
      variable_axes, variable_broadcast, variable_carry, split_rngs: flax's, for cells that are run as in flax.
      method: how the steps run over time, see `gru_jax.scan`.
      padding: what outputs hold at padding, "zero" or "hold"; None for those of a cell that runs on, as in flax.
      input_dropout: rate on the input, one mask for a sequence's every step; drawn from the stream "dropout".
      recurrent_dropout: the same for the state inside the recurrent products.
      deterministic: turns dropout off.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen
      >>> from gru_jax import inside
      >>> x, lengths = jnp.ones((2, 7, 3)), jnp.array([7, 5])
      >>> rnn = inside.linen.RNN(linen.GRUCell(4), return_carry=True)
      >>> variables = rnn.init(jax.random.key(0), x)
      >>> carry, y = rnn.apply(variables, x, seq_lengths=lengths)
      >>> theirs = linen.RNN(linen.GRUCell(4), return_carry=True).apply(variables, x, seq_lengths=lengths)
      >>> bool(jnp.allclose(carry, theirs[0], atol=1e-6)), bool(jnp.allclose(y, theirs[1], atol=1e-6))
      (True, True)

    Source: flax.linen.RNN of flax 0.12.8.
    """

    method: str | Method = "auto"
    padding: str | None = None
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    deterministic: bool = False

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: State = None,
        init_key: Key | None = None,
        seq_lengths: IntArray | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        mask: BoolArray | None = None,
        resets: BoolArray | None = None,
        reset_to: State = None,
        deterministic: bool | None = None,
    ) -> Any:
        """Runs the cell over time.

        Args:
          inputs: `[*batch, T, I]` (`[T, *batch, I]` with time_major), whole numbers too.
          initial_carry: before the first step; what the cell's `initialize_carry` makes when None.
          init_key: what that draws from; `jax.random.key(0)` when None.
          seq_lengths: `[*batch]`: the carry that is returned is that after as many steps. Outputs at padding are, as in
            flax, those of a cell that runs on.
          return_carry: return the last carry too; the module's own setting when None, as for those below.
          time_major: time is the leading axis.
          reverse: from each sequence's end.
          keep_order: outputs of a reversed run in the order of the inputs.
          mask: `[*batch, T]` (`[T, *batch]` with time_major), True = use. With it, and with each of what follows,
            the carry stays at padding as in `gru_jax.scan`, and outputs there are zeros, or what `padding` says.
          resets: of mask's shape, True where a new episode begins: before such a step the carry is a fresh one.
          reset_to: another carry after resets.
          deterministic: turns dropout off; the module's own setting when None.

        Returns:
          The outputs, `[*batch, T, H]`; with return_carry the pair (carry, outputs).

        Raises:
          TypeError: for options of `gru_jax.scan` with a cell that is run as in flax.
        """
        call = Call.of(
            self, seq_lengths, return_carry=return_carry, time_major=time_major, reverse=reverse, keep_order=keep_order
        )
        if self._plain and type(self.cell) in _KNOWN and jnp.ndim(inputs) > 1 and self.is_initializing():
            # One step makes the parameters that flax's loop would have made.
            step = call.input_of_a_step(jnp.shape(inputs))
            self.cell(self.cell.initialize_carry(jax.random.key(0), step), jnp.zeros(step, jnp.result_type(inputs)))
        ours = Ours(
            mask, resets, reset_to, self.padding, self.input_dropout, self.recurrent_dropout
        ).checked()
        known = _known(self.cell) if self._plain and jnp.ndim(inputs) > 1 else None
        if known is not None:
            x, known = flax_run.promoted(known, inputs, _promote)
            off = self.deterministic if deterministic is None else deterministic
            if ours.random and not off and not self.is_initializing():
                ours = ours._replace(key=self.make_rng("dropout"))
            if initial_carry is None:
                key = jax.random.key(0) if init_key is None else init_key
                initial_carry = self.cell.initialize_carry(key, call.input_of_a_step(x.shape))
            if ours.asked:
                return flax_run.run_with(known, call, ours, x, initial_carry, flip_sequences)
            if flax_run.fits(known, call, x, initial_carry):
                return flax_run.run(known, call, x, initial_carry, flip_sequences)
        ours.refuse(self.cell)
        return super().__call__(
            inputs,
            initial_carry=initial_carry,
            init_key=init_key,
            seq_lengths=seq_lengths,
            return_carry=call.return_carry,
            time_major=call.time_major,
            reverse=call.reverse,
            keep_order=call.keep_order,
        )

    @property
    def _plain(self) -> bool:
        """Whether parameters are every step's alike, and there is no other state, as flax has it by itself."""
        asked = (dict(self.variable_axes), self.variable_broadcast, self.variable_carry, dict(self.split_rngs))
        return asked == ({}, "params", False, {"params": False})


class Bidirectional(linen.Bidirectional):
    """flax.linen.Bidirectional, as it is: what its two RNNs are says how they run.

    Args:
      forward_rnn: an `RNN` of this module, or flax's.
      backward_rnn: likewise, with a cell of its own.
      merge_fn: of the two directions' outputs; side by side when it is not given.
      time_major: time is the leading axis.
      return_carry: return the pair of last carries too.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen
      >>> from gru_jax import inside
      >>> both = inside.linen.Bidirectional(*(inside.linen.RNN(linen.GRUCell(4)) for _ in range(2)))
      >>> y, variables = both.init_with_output(jax.random.key(0), jnp.ones((2, 7, 3)))
      >>> y.shape, sorted(variables["params"])
      ((2, 7, 8), ['backward_rnn', 'forward_rnn'])

    Source: flax.linen.Bidirectional of flax 0.12.8.
    """


class Cell(linen.RNNCellBase):
    """Any cell of this library, such as `gj.MinGRU(4)`, as one of flax, for `RNN` and for flax's own.

    Args:
      cell: what one step computes.
      dtype: of the computation; when None, that which input and parameters promote to.
      param_dtype: of the parameters.
      state_dtype: of the carry; that of the computation when None.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> rnn = gj.inside.linen.RNN(gj.inside.linen.Cell(gj.MinGRU(4)))
      >>> y, variables = rnn.init_with_output(jax.random.key(0), jnp.ones((2, 7, 3)))
      >>> y.shape
      (2, 7, 4)
    """

    cell: AnyCell
    param_dtype: DType = jnp.float32
    dtype: DType = None
    state_dtype: DType = None

    @linen.compact
    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """One step.

        Args:
          carry: the cell's state.
          inputs: `[*batch, I]`.

        Returns:
          The state after it, and what the cell puts out.
        """
        flax_run.check_dtypes(self.dtype, self.param_dtype, self.state_dtype)
        features, dtype = jnp.shape(inputs)[-1], self.param_dtype
        params = self.param("cell", lambda key: fresh(self.cell.init, key, features, dtype))
        known = Known(self.cell, params, self.dtype, self.state_dtype)
        x, known = flax_run.promoted(known, inputs, _promote)
        return flax_run.step(known, carry, x)

    @linen.nowrap
    def initialize_carry(self, rng: Key, input_shape: tuple[int, ...]) -> State:
        """The cell's initial state, most often zeros, for inputs of shape `[*batch, I]`."""
        if not isinstance(self.cell, AnyCell):
            raise TypeError(f"Cell: cell must be one such as gj.MinGRU(4); got {checks.described(self.cell)}")
        return self.cell.initial_state(
            tuple(input_shape[:-1]), flax_run.carry_dtype(self.dtype, self.param_dtype, self.state_dtype)
        )

    @property
    def num_feature_axes(self) -> int:
        """1: features are the last axis."""
        return 1


def _known(cell: linen.RNNCellBase) -> Known | None:
    """What is run by this library's engines; by its exact type, as a subclass may compute anything."""
    if type(cell) not in _KNOWN:
        return None
    params = meta.unbox(cell.variables.get("params", {}))
    return _KNOWN[type(cell)](cell, params) if params else None


def _gru(cell: linen.GRUCell, params: Params) -> Known | None:
    names = flax_run.named(cell.activation_fn, cell.gate_fn)
    arrays = _matrices(params, ["ir", "iz", "in"], ["hr", "hz", "hn"], bias_of="x")
    if names is None or arrays is None:
        return None
    gru = GRU(cell.features, activation=names[0], gate_activation=names[1], bias="minimal")
    return Known(gru, GRUParams(*arrays, params["hn"]["bias"]), cell.dtype)


def _mgu(cell: linen.MGUCell, params: Params) -> Known | None:
    names = flax_run.named(cell.activation_fn, cell.gate_fn)
    arrays = _matrices(params, ["if", "in"], ["hf", "hn"], bias_of="x")
    if names is None or arrays is None:
        return None
    mgu = MGU(cell.features, reset_gate=cell.reset_gate, activation=names[0], gate_activation=names[1])
    return Known(mgu, MGUParams(*arrays, params["hn"].get("bias")), cell.dtype)


def _lstm(cell: linen.LSTMCell | linen.OptimizedLSTMCell, params: Params) -> Known | None:
    names = flax_run.named(cell.activation_fn, cell.gate_fn)
    arrays = _matrices(params, ["ii", "if", "ig", "io"], ["hi", "hf", "hg", "ho"], bias_of="h")
    if names is None or arrays is None:
        return None
    return Known(LSTM(cell.features, names[1], names[0]), lstm_matrices(*arrays), cell.dtype)


def _simple(cell: linen.SimpleCell, params: Params) -> Known | None:
    names, arrays = flax_run.named(cell.activation_fn), _matrices(params, ["i"], ["h"], bias_of="x")
    if names is None or arrays is None:
        return None
    return Known(Simple(cell.features, names[0], cell.residual), arrays, cell.dtype)


def _of_layers(cell: layers.GRUCell, params: Params) -> Known:
    return Known(cell.spec.cell, cell.spec.from_names({"layer_0": params}), cell.dtype, cell.state_dtype)


def _own(cell: Cell, params: Params) -> Known:
    return Known(cell.cell, params["cell"], cell.dtype, cell.state_dtype)


_KNOWN: dict[type, Callable[[Any, Params], Known | None]] = {
    linen.GRUCell: _gru,
    linen.MGUCell: _mgu,
    linen.LSTMCell: _lstm,
    linen.OptimizedLSTMCell: _lstm,
    linen.SimpleCell: _simple,
    layers.GRUCell: _of_layers,
    Cell: _own,
}


def _matrices(params: Params, of_x: list[str], of_h: list[str], *, bias_of: str) -> Matrices | None:
    """The arrays of a cell's dense layers, side by side; None where flax would compute in more than one dtype."""
    if len({jnp.result_type(leaf) for leaf in jax.tree.leaves(params)}) > 1:
        return None
    w_x, w_h, b = (
        jnp.concatenate([params[name][leaf] for name in names], -1)
        for names, leaf in ((of_x, "kernel"), (of_h, "kernel"), (of_x if bias_of == "x" else of_h, "bias"))
    )
    return Matrices(w_x, w_h, b)


def _promote(arrays: tuple[Array, ...], dtype: DType) -> tuple[Array, ...]:
    return tuple(dtypes.promote_dtype(*arrays, dtype=dtype))
