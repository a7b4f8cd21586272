"""`gru_jax.inside.nnx`: flax.nnx's RNN and Bidirectional, whose cells are run over time by this library.

    from gru_jax import inside
    rnn = inside.nnx.RNN(nnx.GRUCell(8, 32, rngs=rngs))          # was: nnx.RNN(...)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.nnx.nn.recurrent import flip_sequences
from jax import lax

from gru_jax import checks
from gru_jax.cells import GRU, GRUParams
from gru_jax.cells.base import Cell as AnyCell
from gru_jax.cells.base import fresh
from gru_jax.inside import flax_run
from gru_jax.inside.flax_run import Call, Known, Ours
from gru_jax.inside.joined import LSTM, Matrices, Simple, lstm_matrices
from gru_jax.layers import nnx as layers
from gru_jax.layers.random_streams import dropout_stream
from gru_jax.scans import Method
from gru_jax.types import Array, BoolArray, DType, IntArray, State, Tree

__all__ = ["RNN", "Bidirectional", "Cell"]


class RNN(nnx.RNN):
    """flax.nnx.RNN over this library's engines: flax's arguments, call, state and numbers.

    Run by them are flax's `GRUCell`, `LSTMCell`, `OptimizedLSTMCell` and `SimpleCell` as they are made, and of this
    library `gj.nnx.GRUCell` and `Cell`. Any other cell runs as in flax, and so do these where flax does what the
    engines do not: a carry of another dtype than the computation's, an activation without a name in
    `gru_jax.cells.activations`, layers inside a cell that were exchanged, `state_axes` or `broadcast_rngs` of your own.

    Args:
      cell: any `flax.nnx.RNNCellBase`.
      method: how the steps run over time, see `gru_jax.scan`.
      padding: what outputs hold at padding, "zero" or "hold"; None for those of a cell that runs on, as in flax.
      input_dropout: rate on the input, one mask for a sequence's every step; drawn from the stream "dropout" of rngs.
      recurrent_dropout: the same for the state inside the recurrent products.
      deterministic: turns dropout off; set by `module.eval()`, `module.train()` and `nnx.view`.
      **options: flax's: time_major, return_carry, reverse, keep_order, unroll, state_axes, broadcast_rngs, rngs.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from gru_jax import inside
      >>> cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
      >>> x, lengths = jnp.ones((2, 7, 3)), jnp.array([7, 5])
      >>> carry, y = inside.nnx.RNN(cell)(x, seq_lengths=lengths, return_carry=True)
      >>> theirs = nnx.RNN(cell)(x, seq_lengths=lengths, return_carry=True)
      >>> bool(jnp.allclose(carry, theirs[0], atol=1e-6)), bool(jnp.allclose(y, theirs[1], atol=1e-6))
      (True, True)

    Source: flax.nnx.RNN of flax 0.12.8.
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        *,
        method: str | Method = "auto",
        padding: str | None = None,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        deterministic: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(cell, nnx.Module) and isinstance(cell, AnyCell):
            raise TypeError(
                f"RNN: a cell of flax holds its parameters, {type(cell).__name__} does not; wrap it in"
                f" gj.inside.nnx.Cell(cell, in_features, rngs=rngs)"
            )
        super().__init__(cell, **options)
        checks.flag("RNN", "deterministic", deterministic)
        self.method, self.deterministic = method, deterministic
        self.ours = Ours(
            padding=padding, input_dropout=input_dropout, recurrent_dropout=recurrent_dropout
        ).checked()
        rngs = options.get("rngs")
        self.dropout_rngs = nnx.data(dropout_stream("RNN", rngs).fork() if self.ours.random else None)

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` calls, on a copy of the module that shares its arrays.

        Args:
          deterministic: turns all dropout off; None leaves it as it is.
        """
        if deterministic is not None:
            checks.flag("RNN", "deterministic", deterministic)
            self.deterministic = deterministic

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: State = None,
        seq_lengths: IntArray | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        mask: BoolArray | None = None,
        resets: BoolArray | None = None,
        reset_to: State = None,
        deterministic: bool | None = None,
    ) -> Any:
        """Runs the cell over time.

        Args:
          inputs: `[*batch, T, I]` (`[T, *batch, I]` with time_major), whole numbers too.
          initial_carry: before the first step; what the cell's `initialize_carry` makes when None.
          seq_lengths: `[*batch]`: the carry that is returned is that after as many steps. Outputs at padding are, as in
            flax, those of a cell that runs on.
          return_carry: return the last carry too; the module's own setting when None, as for those below.
          time_major: time is the leading axis.
          reverse: from each sequence's end.
          keep_order: outputs of a reversed run in the order of the inputs.
          rngs: what `initialize_carry` draws from, and, of `nnx.Rngs`, dropout.
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
        ours = self.ours._replace(mask=mask, resets=resets, reset_to=reset_to)
        known = _known(self.cell) if self._plain and jnp.ndim(inputs) > 1 else None
        if known is not None:
            x, known = flax_run.promoted(known, inputs, _promote)
            if ours.random and not (self.deterministic if deterministic is None else deterministic):
                stream: Any = rngs.dropout if isinstance(rngs, nnx.Rngs) else self.dropout_rngs
                ours = ours._replace(key=stream())
            rngs = self.rngs if rngs is None else rngs
            rngs = rngs.carry.fork() if isinstance(rngs, nnx.Rngs) else rngs
            if initial_carry is None:
                initial_carry = self.cell.initialize_carry(call.input_of_a_step(x.shape), rngs)
            if ours.asked:
                return flax_run.run_with(known, call, ours, x, initial_carry, flip_sequences)
            if flax_run.fits(known, call, x, initial_carry):
                return flax_run.run(known, call, x, initial_carry, flip_sequences)
        ours.refuse(self.cell)
        return super().__call__(
            inputs,
            initial_carry=initial_carry,
            seq_lengths=seq_lengths,
            return_carry=call.return_carry,
            time_major=call.time_major,
            reverse=call.reverse,
            keep_order=call.keep_order,
            rngs=rngs,
        )

    @property
    def _plain(self) -> bool:
        """Whether the cell's state is carried and its random numbers are split as flax does by itself."""
        by_itself: Any = {...: nnx.Carry}
        return self.broadcast_rngs is None and self.state_axes == nnx.StateAxes(by_itself)


class Bidirectional(nnx.Bidirectional):
    """flax.nnx.Bidirectional, as it is: what its two RNNs are says how they run.

    Args:
      forward_rnn: an `RNN` of this module, or flax's.
      backward_rnn: likewise, with a cell of its own.
      **options: flax's: merge_fn, time_major, return_carry, rngs.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from gru_jax import inside
      >>> rnns = [inside.nnx.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(seed))) for seed in (0, 1)]
      >>> inside.nnx.Bidirectional(*rnns)(jnp.ones((2, 7, 3)), seq_lengths=jnp.array([7, 5])).shape
      (2, 7, 8)

    Source: flax.nnx.Bidirectional of flax 0.12.8.
    """

    def __init__(self, forward_rnn: nnx.Module, backward_rnn: nnx.Module, **options: Any) -> None:
        super().__init__(forward_rnn, backward_rnn, **options)


class Cell(nnx.RNNCellBase):
    """Any cell of this library, such as `gj.MinGRU(4)`, as one of flax, for `RNN` and for flax's own.

    Args:
      cell: what one step computes.
      in_features: I, the number of input features.
      dtype: of the computation; when None, that which input and parameters promote to.
      param_dtype: of the parameters.
      state_dtype: of the carry; that of the computation when None.
      rngs: `nnx.Rngs`; "params" initialises.

    Example:
      >>> import jax.numpy as jnp, gru_jax as gj
      >>> from flax import nnx
      >>> cell = gj.inside.nnx.Cell(gj.MinGRU(4), 3, rngs=nnx.Rngs(0))
      >>> gj.inside.nnx.RNN(cell)(jnp.ones((2, 7, 3))).shape
      (2, 7, 4)
    """

    def __init__(
        self,
        cell: AnyCell,
        in_features: int,
        *,
        dtype: DType = None,
        param_dtype: DType = jnp.float32,
        state_dtype: DType = None,
        rngs: nnx.Rngs,
    ) -> None:
        if not isinstance(cell, AnyCell) or isinstance(cell, type):
            raise TypeError(f"Cell: cell must be one such as gj.MinGRU(4); got {checks.described(cell)}")
        checks.positive("Cell", "in_features", in_features)
        flax_run.check_dtypes(dtype, param_dtype, state_dtype)
        self.cell = cell
        self.dtype, self.param_dtype, self.state_dtype = dtype, param_dtype, state_dtype
        self.params = nnx.data(jax.tree.map(nnx.Param, fresh(cell.init, rngs.params(), in_features, param_dtype)))

    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """One step.

        Args:
          carry: the cell's state.
          inputs: `[*batch, I]`.

        Returns:
          The state after it, and what the cell puts out.
        """
        x, known = flax_run.promoted(_own(self), inputs, _promote)
        return flax_run.step(known, carry, x)

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: object = None, carry_init: object = None) -> State:
        """The cell's initial state, most often zeros, for inputs of shape `[*batch, I]`."""
        return self.cell.initial_state(
            tuple(input_shape[:-1]), flax_run.carry_dtype(self.dtype, self.param_dtype, self.state_dtype)
        )

    @property
    def num_feature_axes(self) -> int:
        """1: features are the last axis."""
        return 1


def _known(cell: nnx.Module) -> Known | None:
    """What is run by this library's engines; by its exact type, as a subclass may compute anything."""
    return _KNOWN[type(cell)](cell) if type(cell) in _KNOWN else None


def _gru(cell: nnx.GRUCell) -> Known | None:
    names, arrays = flax_run.named(cell.activation_fn, cell.gate_fn), _matrices(cell, ["dense_i"], ["dense_h"], "x")
    if names is None or arrays is None:
        return None
    gru = GRU(cell.hidden_features, activation=names[0], gate_activation=names[1], bias="minimal")
    no_bias = jnp.zeros(cell.hidden_features, arrays.b.dtype)
    return Known(gru, GRUParams(arrays.w_x, arrays.w_h, arrays.b, no_bias), cell.dtype)


def _lstm(cell: nnx.LSTMCell | nnx.OptimizedLSTMCell) -> Known | None:
    joined = type(cell) is nnx.OptimizedLSTMCell
    of_x, of_h = (["dense_i"], ["dense_h"]) if joined else (["ii", "if_", "ig", "io"], ["hi", "hf", "hg", "ho"])
    names, arrays = flax_run.named(cell.activation_fn, cell.gate_fn), _matrices(cell, of_x, of_h, "h")
    if names is None or arrays is None:
        return None
    return Known(LSTM(cell.hidden_features, names[1], names[0]), lstm_matrices(*arrays), cell.dtype)


def _simple(cell: nnx.SimpleCell) -> Known | None:
    names, arrays = flax_run.named(cell.activation_fn), _matrices(cell, ["dense_i"], ["dense_h"], "x")
    if names is None or arrays is None:
        return None
    return Known(Simple(cell.hidden_features, names[0], cell.residual), arrays, cell.dtype)


def _of_layers(cell: layers.GRUCell) -> Known:
    return Known(*cell.functional(), cell.spec.dtype, cell.spec.state_dtype)


def _own(cell: Cell) -> Known:
    def values(leaf: Tree) -> Tree:
        return leaf[...] if isinstance(leaf, nnx.Variable) else leaf

    params = jax.tree.map(values, cell.params, is_leaf=lambda a: isinstance(a, nnx.Variable))
    return Known(cell.cell, params, cell.dtype, cell.state_dtype)


_KNOWN: dict[type, Callable[[Any], Known | None]] = {
    nnx.GRUCell: _gru,
    nnx.LSTMCell: _lstm,
    nnx.OptimizedLSTMCell: _lstm,
    nnx.SimpleCell: _simple,
    layers.GRUCell: _of_layers,
    Cell: _own,
}


def _matrices(cell: Any, of_x: list[str], of_h: list[str], bias_of: str) -> Matrices | None:
    """The arrays of a cell's dense layers, side by side; None where one of them is not as flax's cell made it."""
    ins, outs = ([getattr(cell, name) for name in names] for names in (of_x, of_h))
    biased, bare = (ins, outs) if bias_of == "x" else (outs, ins)
    if not all(type(dense) is nnx.Linear for dense in (*ins, *outs)):
        return None
    options = {
        (d.dtype, d.precision, d.dot_general, d.promote_dtype, d.preferred_element_type, d.kernel.dtype)
        for d in (*ins, *outs)
    }
    made = {(cell.dtype, None, lax.dot_general, dtypes.promote_dtype, None, ins[0].kernel.dtype)}
    if options != made or any(d.bias is None for d in biased) or any(d.bias is not None for d in bare):
        return None
    w_x, w_h, b = (
        arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, -1)
        for arrays in ([d.kernel[...] for d in ins], [d.kernel[...] for d in outs], [d.bias[...] for d in biased])
    )
    return Matrices(w_x, w_h, b)


def _promote(arrays: tuple[Array, ...], dtype: DType) -> tuple[Array, ...]:
    return dtypes.promote_dtype(arrays, dtype=dtype)
