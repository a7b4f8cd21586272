"""The arguments of `gru_jax.scan`, checked before anything is computed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.cells.base import Cell, gifts
from gru_jax.scans import masking
from gru_jax.types import Array, DType, Params, State


class Options(NamedTuple):
    """The static options of one call of `scan`."""

    reverse: bool
    time_major: bool
    padding: str
    input_dropout: float
    recurrent_dropout: float
    return_gates: bool
    stats: bool
    state_dtype: DType = None


def check_options(cell: object, options: Options) -> None:
    """Raises for a cell that is none, and for options of the wrong type or value."""
    if not isinstance(cell, Cell) or isinstance(cell, type):
        raise TypeError(
            f"scan: cell must be a cell such as gj.GRU(hidden_size=64), with init, project, step, initial_state and"
            f" output; got {checks.described(cell)}"
        )
    try:
        hash(cell)
    except TypeError as error:
        raise TypeError(
            f"scan: a cell must be hashable, being a static argument under jit; got {type(cell).__name__} ({error});"
            f" make it a frozen dataclass of hashable options"
        ) from error
    for name in ("reverse", "time_major", "return_gates", "stats"):
        checks.flag("scan", name, getattr(options, name))
    checks.choice("scan", "padding", options.padding, ("zero", "hold"))
    for name in ("input_dropout", "recurrent_dropout"):
        checks.rate("scan", name, getattr(options, name))
    if options.state_dtype is not None:
        checks.floating_dtype("scan", options.state_dtype, "state_dtype")
    if options.recurrent_dropout and not masking.takes_dropout(cell):
        raise ValueError(
            f"scan: recurrent_dropout needs a cell whose step takes a dropout mask, step(params, u, h, drop);"
            f" {type(cell).__name__}.step does not; set recurrent_dropout=0"
        )
    if options.input_dropout and not gifts(cell).input_dropout:
        raise ValueError(
            f"scan: input_dropout scales numbers of x, and {type(cell).__name__}'s are masks and times too; set"
            f" input_dropout=0, and drop values of the series itself"
        )
    if options.return_gates and not gifts(cell).gates:
        raise ValueError(f"scan: return_gates needs a cell with a method gates; {type(cell).__name__} has none")


def check_key(options: Options, key: object, batch: tuple[int, ...]) -> None:
    """Raises where dropout lacks its key."""
    names = [name for name in ("input_dropout", "recurrent_dropout") if getattr(options, name)]
    checks.key_for_dropout("scan", names, key, off="set the rate to 0", batch=batch)


def check_arrays(
    cell: Any,
    params: Params,
    x: ArrayLike,
    h0: State,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    resets: ArrayLike | None,
    reset_to: State,
    time_major: bool,
    wide: DType,
) -> tuple[Array, State, Array | None, Array | None, Array | None, State]:
    """x, h0, lengths, mask, resets and reset_to as arrays; raises for a wrong rank, shape, dtype or value."""
    x = checks.floating("scan", "x", x)
    layout = "[T, *batch, I]" if time_major else "[*batch, T, I]"
    if x.ndim < 2:
        raise ValueError(
            f"scan: x must have at least 2 dimensions, {layout}; got shape {list(x.shape)};"
            f" for a single step use cell.step"
        )
    T, batch = (x.shape[0], x.shape[1:-1]) if time_major else (x.shape[-2], x.shape[:-2])
    if gifts(cell).checks_params:
        cell.check_params(params, x.shape[-1])
    for leaf in jax.tree.leaves(params):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            checks.same_dtype("scan", "params", jnp.asarray(leaf), x.dtype, "x")
    if h0 is not None:
        h0 = _check_state("h0", cell, h0, batch, _either(h0, x.dtype, wide))
    if reset_to is not None:
        if resets is None:
            raise ValueError(
                "scan: reset_to is the state after resets; got it without resets; pass resets, or h0 for the state"
                " before the first step"
            )
        reset_to = _check_state("reset_to", cell, reset_to, batch, _either(reset_to, x.dtype, wide))
    if lengths is not None and mask is not None:
        raise ValueError("scan: got both lengths and mask; pass one: mask & (arange(T) < lengths[:, None]) is both")
    per_step = (T, *batch) if time_major else (*batch, T)
    flags = []
    for name, flag in (("mask", mask), ("resets", resets)):
        if flag is not None:
            flag = checks.boolean("scan", name, flag)
            where = "[T, *batch]" if time_major else "[*batch, T]"
            checks.shape("scan", name, flag.shape, per_step, f"one flag for each step of x, {where}")
        flags.append(flag)
    if lengths is not None:
        lengths = checks.lengths("scan", lengths, batch, T)
    return x, h0, lengths, flags[0], flags[1], reset_to


def _either(state: State, dtype: DType, wide: DType) -> DType:
    """The dtype that a state is to have: that of x, or `state_dtype` where all of it has that."""
    dtypes = {getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(state)}
    return wide if wide is not None and dtypes == {jnp.dtype(wide)} else dtype


def _check_state(name: str, cell: Any, state: State, batch: tuple[int, ...], dtype: DType) -> State:
    checked = check_like("scan", name, cell, state, batch, dtype, "[*batch, H]")
    if gifts(cell).checks_state:
        cell.check_state(state, name)  # as it was given: inside jit a NumPy array that became one of JAX is traced
    return checked


def check_like(
    who: str, name: str, cell: Cell, state: State, shape: tuple[int, ...], dtype: DType, what: str
) -> State:
    """Raises unless `state` is one of the cell with these leading dimensions."""
    expected = jax.eval_shape(lambda: cell.initial_state(shape, dtype))
    got_tree, want_tree = str(jax.tree.structure(state)), str(jax.tree.structure(expected))
    if got_tree != want_tree:
        raise TypeError(f"{who}: {name} must be {want_tree}, as cell.initial_state makes it; got {got_tree}")
    state = jax.tree.map(lambda h: checks.floating(who, name, h), state)
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        fix = what
        if got.shape == want.shape[-1:]:
            fix += f"; jnp.broadcast_to({name}, {want.shape}) gives every sequence the same"
        checks.shape(who, name, got.shape, want.shape, fix)
        checks.same_dtype(who, name, got, dtype, "x")
    return state
