"""`gru_jax.scan`: any cell over time, by any method, with one set of semantics."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells import gru_layout
from gru_jax.cells.base import Cell, Gates
from gru_jax.scans import derivative, masking, naive, scan_arguments, select
from gru_jax.scans.choices import Sizes
from gru_jax.scans.engines.registry import Asked, Needs
from gru_jax.scans.mesh_axes import left_to_xla
from gru_jax.scans.methods import time_sharded
from gru_jax.scans.methods.time_sharded import TimeSharded
from gru_jax.scans.scan_arguments import Options
from gru_jax.scans.select import Method
from gru_jax.scans.time_axis import TimeAxis, on_same_axes
from gru_jax.scans.trajectory import Stats, certain
from gru_jax.types import Array, BoolArray, DType, IntArray, Key, Params, State, Tree


@checks.suggesting
def scan(
    cell: Cell,
    params: Params,
    x: Array,
    h0: State = None,
    *,
    lengths: IntArray | None = None,
    mask: BoolArray | None = None,
    resets: BoolArray | None = None,
    reset_to: State = None,
    reverse: bool = False,
    time_major: bool = False,
    padding: str = "zero",
    method: str | Method = "auto",
    input_dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    key: Key | None = None,
    return_gates: bool = False,
    stats: bool = False,
    state_dtype: DType | None = None,
) -> Any:
    """Runs a cell over time.

        h_t = h_{t-1} where step t is masked, else step(params, project(x_t), reset_to if resets_t else h_{t-1})

    Args:
      cell: what one step computes, such as `GRU(hidden_size=64)`.
      params: its parameters, of x's dtype.
      x: input, `[*batch, T, I]`, floating point; any number of batch dimensions, none included.
      h0: state before the first step, `[*batch, H]`; `cell.initial_state`, most often zeros, when None.
      lengths: `[*batch]` whole numbers in [0, T]: steps from there on are masked. Under `jit`, where values cannot be
        checked, a length below 0 acts as 0 and one above T as T.
      mask: `[*batch, T]` booleans, True = use the step; holes and padding on the left are fine. Not with `lengths`.
      resets: `[*batch, T]` booleans, True where a new episode begins: before such a step, in the order of the run, the
        state becomes `cell.initial_state`, whatever h0 was, so that nothing of one episode reaches another, no gradient
        either. At a masked step a reset does nothing.
      reset_to: another state after resets, `[*batch, H]`, differentiable: a learned one, or h0. Not without `resets`.
      reverse: run from each sequence's last step to its first; outputs stay in original time order.
      time_major: the time axis leads in x, mask, resets and y: `[T, *batch, ...]`.
      padding: what y holds at masked steps: "zero", or "hold" for the state that is held there (as Keras).
      method: "auto", "sequential", "associative" (cells that are linear in their state), "newton" (all other cells),
        "naive" (a Python loop, the reference) or a method such as `Sequential(unroll=4)`.
      input_dropout: rate in [0, 1) at which input features are dropped, one mask for a sequence's every step.
      recurrent_dropout: the same for the state inside the recurrent products.
      key: random key, needed when a rate is above 0; or one for each sequence, `[*batch]`, which gives each the masks
        that it would have alone.
      return_gates: also return what the cell decided at each step.
      stats: also return how a parallel method did.
      state_dtype: of the state from step to step and of h_T; x's when None. With half-precision x float32 keeps what a
        slow unit adds in steps that are too small for its half-precision state; h0 may have either dtype.

    Returns:
      y: outputs, `[*batch, T, H]`.
      h_T: the state after the last step that was not masked, `[*batch, H]`; h0 where there was none.
      gates: with `return_gates` only: `Gates(r, z, n)`, each `[*batch, T, H]`, 0 at masked steps.
      stats: with `stats` only: `Stats(iterations, residual, error, converged, fell_back)`, each `[*batch]`; one step
        after another is always converged, after 0 iterations.

    Raises:
      TypeError, ValueError: for a wrong rank, shape, dtype, value or choice, before anything is computed.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gru_jax as gj
      >>> cell = gj.GRU(hidden_size=4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)), lengths=jnp.array([7, 5]))
      >>> y.shape, bool((y[1, 4] == h[1]).all()), float(abs(y[1, 5:]).max())
      ((2, 7, 4), True, 0.0)
    """
    options = Options(reverse, time_major, padding, input_dropout, recurrent_dropout, return_gates, stats, state_dtype)
    scan_arguments.check_options(cell, options)
    select.check(method, cell)
    params, original = gru_layout.apart(params)
    method, guess = time_sharded.hinted(method)
    x, h0, lengths, mask, resets, reset_to = scan_arguments.check_arrays(
        cell, params, x, h0, lengths, mask, resets, reset_to, time_major, state_dtype
    )
    if state_dtype is not None:
        options = options._replace(state_dtype=jnp.dtype(state_dtype) if state_dtype != x.dtype else None)
    scan_arguments.check_key(options, key, x.shape[1:-1] if time_major else x.shape[:-2])
    arrays = (params, x, h0, lengths, mask, resets, reset_to, key if input_dropout or recurrent_dropout else None)
    if method == "naive":
        if not isinstance(steps := x.shape[0] if time_major else x.shape[-2], int):
            raise ValueError(
                f"scan: method 'naive' needs a number of steps that is known; got {steps}; use method='sequential'"
            )
        params, x, h0, *flags, key = arrays
        named = {name: value for name, value in options._asdict().items() if name != "stats"}

        def by_hand(x: Array, params: Params, h0: State, flags: Tree, key: Key | None) -> Tree:
            each = dict(zip(("lengths", "mask", "resets", "reset_to"), flags, strict=True))
            return naive.scan(cell, params, x, h0, **named, **each, key=key)

        made = left_to_xla(by_hand, x, params, h0, flags, key, time_major=time_major)
        batch = x.shape[1:-1] if time_major else x.shape[:-2]
        return (*made, certain(batch, x.dtype)) if stats else made
    if guess is not None:
        what = "the states of all steps, as scan returned them"
        guess = scan_arguments.check_like("Newton", "init", cell, guess, x.shape[:-1], x.dtype, what)
        guess = jax.lax.stop_gradient(guess)
    return _run(cell, method, options, *arrays, guess, original)


# Compiled as a whole and cached by (cell, method, options, shapes), so that a call outside of jit costs no tracing.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(cell: Cell, method: str | Method, options: Options, *arrays: Tree) -> tuple[Tree, ...]:
    x = arrays[1]
    T, batch = (x.shape[0], x.shape[1:-1]) if options.time_major else (x.shape[-2], x.shape[:-2])
    sizes = Sizes(T, math.prod(batch), cell.output(cell.initial_state((), x.dtype)).shape[-1])
    lengths, mask, resets = (a is not None for a in arrays[3:6])
    asked = Asked(
        x.dtype, lengths, mask, resets, options.recurrent_dropout > 0,
        symbolic=not all(isinstance(size, int) for size in x.shape), other_state=options.state_dtype is not None,
    )  # fmt: skip
    method = select.resolve(method, cell, sizes, asked)
    whole: Callable[..., tuple[Tree, ...]] = functools.partial(_scan, cell, method, options)
    whole = derivative.saving_states(whole) if method.keeps_states() else whole
    if isinstance(method, TimeSharded):
        return whole(*arrays)
    params, x, *others = arrays
    run = lambda x, params, *others: whole(params, x, *others)  # noqa: E731
    return left_to_xla(run, x, params, *others, time_major=options.time_major)


def _scan(
    cell: Any,
    method: Method,
    options: Options,
    params: Params,
    x: Array,
    h0: State,
    lengths: IntArray | None,
    mask: BoolArray | None,
    resets: BoolArray | None,
    reset_to: State,
    key: Key | None,
    guess: State,
    original: gru_layout.Original | None,
) -> tuple[Tree, ...]:
    # Everything from the caller's arrays on happens in here, the transposition to leading time included: what is saved
    # for the backward pass are then the caller's arrays themselves, not copies of them.
    def to_time_major(a: Array | None, axis: int) -> Array | None:
        return a if a is None or options.time_major else jnp.moveaxis(a, axis, 0)

    def from_time_major(a: Array) -> Array:
        return a if options.time_major else jnp.moveaxis(a, 0, -2)

    x = jnp.asarray(x)
    T, batch = (x.shape[0], x.shape[1:-1]) if options.time_major else (x.shape[-2], x.shape[:-2])
    if h0 is None:
        h0 = cell.initial_state(batch, x.dtype)
    if resets is not None and reset_to is None:
        reset_to = cell.initial_state(batch, x.dtype)
    if options.state_dtype is not None:
        # Whatever a cell computes, the state it returns has the dtype of the one it was given.
        h0, reset_to, guess = jax.tree.map(lambda a: a.astype(options.state_dtype), (h0, reset_to, guess))
    if lengths is not None:
        mask = masking.from_lengths(lengths, T)
        mask = mask if options.time_major else jnp.moveaxis(mask, 0, -1)
    # Masked while it lies as the caller has it: a method that wants it so then meets nothing but two turns that cancel.
    # Where time is split, x and its flags come together on the mesh first.
    split = isinstance(method, TimeSharded)
    needs = getattr(method, "needs", Needs())
    as_it_is = split or needs.raw_x
    x = jnp.asarray(to_time_major(x if as_it_is else masking.zero_where_masked(mask, x), -2))
    use = to_time_major(mask, -1)
    hidden = cell.output(h0).shape[-1]
    rates = (options.input_dropout, options.recurrent_dropout)
    drop_x, drop_h = masking.dropout_masks(key, batch, (x.shape[-1], hidden), rates, x.dtype)
    resets, guess = to_time_major(resets, -1), jax.tree.map(lambda a: to_time_major(a, -2), guess)
    if isinstance(method, TimeSharded):
        method = method.fitted(x)
    if isinstance(method, TimeSharded):
        x, use, resets, guess = method.placed((x, use, resets, guess), by_steps=True)
        h0, reset_to, drop_x, drop_h = method.placed((h0, reset_to, drop_x, drop_h), by_steps=False)
    time = TimeAxis(batch_leads=not options.time_major)
    # Flags of steps say all there is to know, but not that they are of this kind.
    right_padded, original = lengths if needs.lengths else None, original if needs.original else None
    context = masking.Context(params, h0, drop_x, drop_h, time, reset_to, right_padded, original)
    steps = masking.Steps(masking.zero_where_masked(use, x) if split else x, use, resets, guess)

    if T == 0:
        empty = from_time_major(jnp.zeros((0, *batch, hidden), x.dtype))
        return _outputs(options, empty, h0, Gates(empty, empty, empty), certain(batch, x.dtype))
    context, steps = on_same_axes((context, steps))
    states, final, found = method.trajectory(cell, context, steps, options.reverse)
    y = cell.output(states).astype(x.dtype)
    zero = options.padding == "zero"
    y = from_time_major(masking.zero_where_masked(use, y) if zero and split else y)
    if zero and not split:
        y = masking.zero_where_masked(mask, y)
    seen = None
    if options.return_gates:
        starts = context.time.before(states, h0, options.reverse)
        hidden = steps._replace(x=masking.zero_where_masked(use, steps.x))
        seen = jax.vmap(functools.partial(masking.gates, cell, context))(hidden, starts)
        seen = jax.tree.map(lambda g: from_time_major(masking.zero_where_masked(use, g.astype(x.dtype))), seen)
    return _outputs(options, y, final, seen, found)


def _outputs(options: Options, y: Array, final: State, gates: Gates | None, stats: Stats) -> tuple[Tree, ...]:
    return y, final, *([gates] if options.return_gates else []), *([stats] if options.stats else [])
