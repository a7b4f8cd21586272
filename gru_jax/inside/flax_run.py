"""Flax's RNN by `gj.scan`: what flax computes, on padding and in either order of time, for both of its APIs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells import Cell, activations
from gru_jax.inside.joined import LSTM, LSTMState
from gru_jax.scans import Method, scan
from gru_jax.types import Activation, Array, BoolArray, DType, IntArray, Key, Options, Params, State, Tree

Returned: TypeAlias = Array | tuple[State, Array]
"""What flax's RNN returns: the outputs, or the pair (carry, outputs)."""


class Known(NamedTuple):
    """A cell of flax as one of this library.

    Attributes:
      cell: what computes the same.
      params: its parameters.
      dtype: the flax cell's; None promotes input and parameters to one.
      state_dtype: of the carry, where it is not that of the computation.
    """

    cell: Cell
    params: Params
    dtype: DType
    state_dtype: DType = None


class Call(NamedTuple):
    """One call of flax's RNN: its arguments, and its attributes for those that are None.

    Attributes:
      seq_lengths: `[*batch]`, or None.
      return_carry: whether the last carry is returned too.
      time_major: `[T, *batch, I]` instead of `[*batch, T, I]`.
      reverse: run from each sequence's end.
      keep_order: and return outputs in the order of the input.
      method: of `gru_jax.scan`.
    """

    seq_lengths: IntArray | None
    return_carry: bool
    time_major: bool
    reverse: bool
    keep_order: bool
    method: str | Method

    @classmethod
    def of(cls, rnn: Any, seq_lengths: IntArray | None, **given: bool | None) -> "Call":
        """The call of an RNN with these arguments."""
        flags = {name: bool(getattr(rnn, name) if flag is None else flag) for name, flag in given.items()}
        return cls(seq_lengths, method=rnn.method, **flags)

    def input_of_a_step(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of x without time."""
        return shape[1:] if self.time_major else (*shape[:-2], shape[-1])


class Ours(NamedTuple):
    """What flax's RNN has no word for, see `gru_jax.scan`; with any of it padding, too, is as it is there.

    Attributes:
      mask: `[*batch, T]`, or None.
      resets: `[*batch, T]`, or None.
      reset_to: the state after resets, of the carry's structure; a fresh one when None.
      padding: what stands in the outputs at padding, "zero" or "hold"; None for what flax has there.
      input_dropout: rate on the input, one mask for a sequence's every step.
      recurrent_dropout: the same for the state inside the recurrent products.
      key: what dropout masks are drawn from; None draws none.
    """

    mask: BoolArray | None = None
    resets: BoolArray | None = None
    reset_to: State = None
    padding: str | None = None
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    key: Key | None = None

    @property
    def random(self) -> bool:
        """Whether dropout is asked for."""
        return self.input_dropout > 0 or self.recurrent_dropout > 0

    @property
    def asked(self) -> list[str]:
        """The names of those that are in use."""
        flags, rates = self._fields[:4], self._fields[4:6]
        return [name for name in flags if getattr(self, name) is not None] + [n for n in rates if getattr(self, n) > 0]

    def checked(self) -> "Ours":
        """Itself; raises for what a module cannot be made with."""
        checks.rate("RNN", "input_dropout", self.input_dropout)
        checks.rate("RNN", "recurrent_dropout", self.recurrent_dropout)
        if self.padding is not None:
            checks.choice("RNN", "padding", self.padding, ("zero", "hold"))
        return self

    def refuse(self, cell: object) -> None:
        """Raises TypeError where anything is asked for, of a cell that is run as in flax."""
        if self.asked:
            raise TypeError(
                f"RNN: {' and '.join(self.asked)} need a cell that this library runs; {type(cell).__name__} as it is"
                f" called here runs as in flax; leave them out, or wrap a cell of gru_jax in Cell"
            )


def named(*functions: Activation) -> list[str] | None:
    """The names of activations, by identity; None where one has none: it might look at more than one element."""
    found = [activations.named(function) for function in functions]
    return [name for name in found if isinstance(name, str)] if all(isinstance(name, str) for name in found) else None


def promoted(
    known: Known, x: Array, promote: Callable[[tuple[Array, ...], DType], Sequence[Array]]
) -> tuple[Array, Known]:
    """Input and cell in the dtype that flax's cell computes in, which flax's own `promote` finds."""
    leaves, structure = jax.tree.flatten(known.params)
    x, *leaves = promote((x, *leaves), known.dtype)
    return x, known._replace(params=jax.tree.unflatten(structure, leaves))


def check_dtypes(dtype: DType, param_dtype: DType, state_dtype: DType) -> None:
    """Raises TypeError for a dtype of a `Cell` that is no floating-point one."""
    for name, one in (("dtype", dtype), ("param_dtype", param_dtype), ("state_dtype", state_dtype)):
        if one is not None or name == "param_dtype":
            checks.floating_dtype("Cell", one, name)


def carry_dtype(dtype: DType, param_dtype: DType, state_dtype: DType) -> DType:
    """Of the carry that a `Cell` begins with."""
    return state_dtype or dtype or param_dtype


def step(known: Known, carry: State, x: Array) -> tuple[State, Array]:
    """The carry after one step, and what is put out, in the dtype of x, which is that of the parameters."""
    h = jax.tree.map(lambda leaf: jnp.asarray(leaf, known.state_dtype or x.dtype), carry)
    after = known.cell.step(known.params, known.cell.project(known.params, x), h)
    after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, h)
    return after, known.cell.output(after).astype(x.dtype)


def fits(known: Known, call: Call, x: Array, carry: State) -> bool:
    """Whether `run` gives flax's numbers; a carry of another dtype or shape promotes, or is an error, in flax's way."""
    if x.ndim < 2 or 0 in x.shape or not jnp.issubdtype(x.dtype, jnp.floating):
        return False
    if call.seq_lengths is not None and call.return_carry and not (
        isinstance(known.cell, LSTM) or (known.state_dtype is None and _puts_out_state(known.cell))
    ):
        return False
    step = call.input_of_a_step(x.shape)
    fresh = functools.partial(known.cell.initial_state, step[:-1], known.state_dtype or x.dtype)
    wanted = jax.eval_shape(lambda: _carry(known.cell, fresh()))
    trees: list[object] = [jax.tree.structure(carry), jax.tree.structure(wanted)]
    if trees[0] != trees[1]:
        return False
    pairs = zip(jax.tree.leaves(carry), jax.tree.leaves(wanted), strict=True)
    return all((jnp.shape(h), jnp.result_type(h)) == (like.shape, like.dtype) for h, like in pairs)


def run(known: Known, call: Call, x: Array, carry: State, flip: Callable[..., Array]) -> Returned:
    """What flax's RNN returns: the outputs, after the last carry where that is asked for.

    Args:
      known: the cell and its parameters, of x's dtype.
      call: how it is called.
      x: `[*batch, T, I]`, `[T, *batch, I]` with time_major.
      carry: before the first step.
      flip: flax's `flip_sequences`.
    """
    lengths, cell = call.seq_lengths, known.cell

    def turned(a: Array) -> Array:
        return flip(a, lengths, num_batch_dims=x.ndim - 2, time_major=call.time_major)

    # flax runs on over the padding, so lengths say only how a sequence is turned and which carry is its last. Where
    # there are none nothing need be turned: the scan itself runs backwards.
    back = call.reverse and lengths is None
    at_length = lengths is not None and call.return_carry
    if at_length and isinstance(cell, LSTM):
        cell = dataclasses.replace(cell, both=True)
    start = turned(x) if call.reverse and not back else x
    how: Options = {"method": call.method, "state_dtype": known.state_dtype}
    carry = LSTMState(*carry) if isinstance(cell, LSTM) else carry
    y, carry = scan(cell, known.params, start, carry, reverse=back, time_major=call.time_major, **how)
    if at_length:
        carry, y = _last(cell, y, jnp.asarray(lengths), call.time_major)
    if call.reverse and call.keep_order != back:
        y = turned(y)
    return (_carry(cell, carry), y) if call.return_carry else y


def run_with(known: Known, call: Call, ours: Ours, x: Array, carry: State, flip: Callable[..., Array]) -> Returned:
    """What `run` returns, with options of `gru_jax.scan`; at padding the carry stays and `ours.padding` stands.

    Args:
      known, call, x, carry, flip: see `run`.
      ours: the options; their flags in the order of x.
    """

    def state(given: State) -> State:
        # A carry of flax's is a pair.
        return LSTMState(*given) if isinstance(known.cell, LSTM) and given is not None else given

    ours = ours._replace(reset_to=state(ours.reset_to), padding=ours.padding or "zero")
    if ours.key is None:
        ours = ours._replace(input_dropout=0.0, recurrent_dropout=0.0)
    y, carry = scan(
        known.cell,
        known.params,
        x,
        state(carry),
        lengths=call.seq_lengths,
        reverse=call.reverse,
        time_major=call.time_major,
        method=call.method,
        state_dtype=known.state_dtype,
        **ours._asdict(),
    )
    if call.reverse and not call.keep_order:
        y = flip(y, call.seq_lengths, num_batch_dims=x.ndim - 2, time_major=call.time_major)
    return (_carry(known.cell, carry), y) if call.return_carry else y


def _carry(cell: Cell, state: State) -> State:
    """What flax carries, from a state of the cell that computes the same."""
    return tuple(state) if isinstance(cell, LSTM) else state


def _last(cell: Cell, y: Array, lengths: IntArray, time_major: bool) -> tuple[State, Array]:
    """The states after as many steps as each sequence has, and the outputs."""
    states: Tree = cell.split(y) if isinstance(cell, LSTM) else y
    last = lengths.reshape(-1) - 1

    def at(h: Array) -> Array:
        steps = h if time_major else jnp.moveaxis(h, -2, 0)
        rows = steps.reshape(steps.shape[0], -1, steps.shape[-1])
        return rows[last, jnp.arange(rows.shape[1])].reshape(steps.shape[1:])

    return jax.tree.map(at, states), states.h if isinstance(cell, LSTM) else y


def _puts_out_state(cell: Cell) -> bool:
    h = cell.initial_state((), jnp.float32)
    return cell.output(h) is h
