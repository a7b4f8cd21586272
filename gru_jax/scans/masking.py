"""Everything that happens around a cell's step, folded into one step function F, so that no method knows of it.

    F_t(h) = h                                               where the step is masked
           = step(params, project(x_t * drop_x), reset_to)   where the state is reset before the step
           = step(params, project(x_t * drop_x), h)          elsewhere

Inside the scans time is the leading axis of every per-step array.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from gru_jax.cells.base import (
    Cell,
    ClosedFormCell,
    DiagonalCell,
    Gates,
    LinearCell,
    LogLinearCell,
    ProductsCell,
    ShownCell,
)
from gru_jax.cells.gru_layout import Original
from gru_jax.checks import is_keys
from gru_jax.scans.time_axis import WHOLE, TimeAxis
from gru_jax.types import Array, BoolArray, DType, IntArray, Key, Params, Projected, State, Tree

Found = TypeVar("Found")


class Context(NamedTuple):
    """What is the same at every step.

    Attributes:
      params: the cell's parameters.
      h0: the state before the first step, `[*batch, H]`.
      drop_x: scaled input dropout mask, `[*batch, I]`, or None.
      drop_h: scaled recurrent dropout mask, `[*batch, H]`, or None.
      time: where the steps lie.
      reset_to: the state after a reset, `[*batch, H]`; None where there are no resets. Never h0 by itself, which in a
        part of a sequence is where another part ended.
      lengths: `[*batch]`, from where on steps are masked, where the flags `use` were made of that.
      original: what params were made of, for a method that reads it as it lies; None for all others.
    """

    params: Params
    h0: State
    drop_x: Array | None
    drop_h: Array | None
    time: TimeAxis = WHOLE
    reset_to: State = None
    lengths: IntArray | None = None
    original: Original | None = None


class Steps(NamedTuple):
    """What differs from step to step, time leading.

    Attributes:
      x: input, `[T, *batch, I]`.
      use: True where the step counts, `[T, *batch]`, or None when all do.
      reset: True where the state becomes `reset_to` before the step, `[T, *batch]`, or None.
      guess: what the states may be, for a method that starts from a guess, `[T, *batch, H]`, or None.
    """

    x: Tree
    use: BoolArray | None
    reset: BoolArray | None
    guess: State = None


def project(cell: Cell, context: Context, x: Array) -> Projected:
    """The projected input of one step, dropout included: `[*batch, I]` to what the cell's step takes."""
    return cell.project(context.params, x if context.drop_x is None else x * context.drop_x)


def advance(
    cell: Cell, context: Context, u: Projected, step: Steps, h: State, products: Array | None = None
) -> State:
    """F for an already projected input u; `step` holds the flags of this step, `products` what `products` made."""
    known = {} if products is None else {"products": products}
    after = cell.step(context.params, u, starts(context, step, h), *_drop(context), **known)
    return _end(step, after, h)


def products(cell: ProductsCell, context: Context, step: Steps, h: State) -> Array:
    """The recurrent products of a step, of a cell that has them apart."""
    return cell.products(context.params, starts(context, step, h), *_drop(context))


def F(cell: Cell, context: Context, step: Steps, h: State) -> State:
    """The whole step function of one time step: state before to state after, `[*batch, H]`."""
    return advance(cell, context, project(cell, context, step.x), step, h)


def affine(cell: LinearCell, context: Context, step: Steps) -> tuple[State, State]:
    """F of a cell that is linear in its state, as (a, b) of `a h + b`; a is `[*batch, H]`, or `[*batch, H, H]`.

    A reset is a = 0 and b = F(reset_to), a masked step a = 1 and b = 0.
    """
    a, b = cell.affine(context.params, project(cell, context, step.x))

    def folded(a: Array, b: Array, h0: Array, to: Array | None) -> tuple[Array, Array]:
        if b.shape != h0.shape or a.shape not in (b.shape, (*b.shape, b.shape[-1])):
            raise ValueError(
                f"{type(cell).__name__}.affine: a must be [*batch, H] or [*batch, H, H] and b [*batch, H], here"
                f" {list(h0.shape)}; got {list(a.shape)} and {list(b.shape)}; broadcast what is the same for all"
            )
        matrix = a.ndim > b.ndim
        if step.reset is not None and to is not None:
            old = to.astype(a.dtype)
            moved = (jnp.einsum("...ij,...j->...i", a, old) if matrix else a * old) + b
            b = _choose(step.reset, moved, b)
            a = jnp.where(_like(step.reset, a), jnp.zeros_like(a), a)
        if step.use is not None:
            same = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape) if matrix else jnp.ones_like(a)
            a = jnp.where(_like(step.use, a), a, same)
            b = _choose(step.use, b, jnp.zeros_like(b))
        return a, b

    structure: Any = jax.tree.structure(context.h0)
    to = jax.tree.map(lambda _: None, context.h0) if step.reset is None else context.reset_to
    pairs = map(folded, *(structure.flatten_up_to(part) for part in (a, b, context.h0, to)))
    each_a, each_b = zip(*pairs, strict=True)
    return structure.unflatten(each_a), structure.unflatten(each_b)


def log_affine(cell: LogLinearCell, context: Context, step: Steps) -> tuple[Array, Array]:
    """The same as `affine` in logarithms, for a cell whose states and coefficients are 0 at least."""
    a, b = cell.log_affine(context.params, project(cell, context, step.x))
    nothing = jnp.full_like(a, -jnp.inf)
    if step.reset is not None:
        moved = jnp.logaddexp(a + jnp.log(context.reset_to.astype(a.dtype)), b)
        a, b = _choose(step.reset, nothing, a), _choose(step.reset, moved, b)
    if step.use is not None:
        a, b = _choose(step.use, a, jnp.zeros_like(a)), _choose(step.use, b, nothing)
    return a, b


def gates(cell: ShownCell, context: Context, step: Steps, h: State) -> Gates:
    """What the cell decides in the step from h."""
    u = project(cell, context, step.x)
    return cell.gates(context.params, u, starts(context, step, h), *_drop(context))


def linearize(cell: ClosedFormCell, context: Context, step: Steps, h: State) -> Tree:
    """The coefficients of dF/dh at (step, h), for `tangent` and `cotangent`; the cell has a closed form."""
    return linearize_projected(cell, context, project(cell, context, step.x), step, h)


def linearize_projected(
    cell: ClosedFormCell, context: Context, u: Projected, step: Steps, h: State, products: Array | None = None
) -> Tree:
    """The same for an already projected input u, and recurrent products where they are known."""
    known = {} if products is None else {"products": products}
    return cell.linearize(context.params, u, starts(context, step, h), *_drop(context), **known)


def tangent(cell: ClosedFormCell, context: Context, at: Tree, step: Steps, v: State) -> State:
    """`(dF/dh) v` with the coefficients of `linearize`."""
    moved = cell.tangent(context.params, at, _zero_where_reset(step, v), *_drop(context))
    return _end(step, moved, v)


def cotangent(
    cell: ClosedFormCell, context: Context, at: Tree, step: Steps, c: State, transposed: Tree = None
) -> State:
    """`(dF/dh)^T c` with the coefficients of `linearize`, and the cell's own transposed matrices where it has them."""
    known = {} if transposed is None else {"transposed": transposed}
    moved = cell.cotangent(context.params, at, c, *_drop(context), **known)
    return _end(step, _zero_where_reset(step, moved), c)


def diagonal(cell: DiagonalCell, context: Context, at: Tree, step: Steps) -> Array:
    """The diagonal of dF/dh with the coefficients of `linearize`, `[*batch, H]`."""
    d = cell.diagonal(context.params, at, *_drop(context))
    return _end(step, _zero_where_reset(step, d), jnp.ones_like(d))


def from_lengths(lengths: IntArray, steps: int) -> BoolArray:
    """`[*batch]` lengths to a mask `[T, *batch]`, True before each sequence's end."""
    time = jnp.arange(steps, dtype=lengths.dtype).reshape(-1, *(1,) * lengths.ndim)
    return jnp.broadcast_to(time, (steps, *lengths.shape)) < lengths[None]


def dropout_masks(
    key: Key | None, batch: tuple[int, ...], sizes: tuple[int, int], rates: tuple[float, float], dtype: DType
) -> tuple[Array | None, Array | None]:
    """The scaled masks for input and recurrent dropout: one a sequence, the same at every step (Gal, Keras).

    Args:
      key: random key, or keys `[*batch]`, which give each sequence the masks that it would have alone; not looked at
        when both rates are 0.
      batch: shape of the leading batch dimensions.
      sizes: (I, H).
      rates: (input, recurrent) dropout rates.
      dtype: of the masks.

    Returns:
      `[*batch, I]` and `[*batch, H]`, holding 0 or 1 / (1 - rate); None for a rate of 0.
    """
    if key is None or not any(rates):
        return None, None
    if is_keys(key):
        return each_key(lambda key: dropout_masks(key, (), sizes, rates, dtype), key)
    drawn = []
    for part, size, rate in zip(jax.random.split(key), sizes, rates, strict=True):
        keep = jax.random.bernoulli(part, 1 - rate, (*batch, size)) if rate else None
        drawn.append(None if keep is None else keep.astype(dtype) / jnp.asarray(1 - rate, dtype))
    return drawn[0], drawn[1]


def each_key(function: Callable[[Key], Found], key: Key) -> Found:
    """The function of a random key, or of each of an array of them, whose dimensions then lead in the result."""
    for _ in key.shape if is_keys(key) else ():
        function = jax.vmap(function)
    return function(key)


def zero_where_masked(use: BoolArray | None, a: Array) -> Array:
    """a with 0 at masked steps: nothing at a masked step is seen, not even a NaN."""
    return a if use is None else _choose(use, a, jnp.zeros_like(a))


def takes_dropout(cell: Cell) -> bool:
    """Whether the cell's step accepts a recurrent dropout mask."""
    return "drop" in inspect.signature(cell.step).parameters


def _drop(context: Context) -> tuple[Array, ...]:
    return () if context.drop_h is None else (context.drop_h,)


def starts(context: Context, step: Steps, h: State) -> State:
    """Where a step, or each of several, sets out from: the state after a reset where it is reset, h elsewhere."""
    if step.reset is None:
        return h
    to = jax.tree.map(lambda to, h: jnp.broadcast_to(to.astype(h.dtype), h.shape), context.reset_to, h)
    return _choose(step.reset, to, h)


def _zero_where_reset(step: Steps, v: State) -> State:
    """What of v passes from before a step to after it: nothing where it is reset."""
    return v if step.reset is None else _choose(step.reset, jax.tree.map(jnp.zeros_like, v), v)


def _end(step: Steps, after: State, h: State) -> State:
    """Where the step ends: h itself where it is masked."""
    return after if step.use is None else _choose(step.use, after, h)


def _choose(flag: BoolArray, yes: State, no: State) -> State:
    """`flag` chooses for whole rows: `[*batch]` against leaves `[*batch, H]`."""
    return jax.tree.map(lambda a, b: jnp.where(_like(flag, a), a, b), yes, no)


def _like(flag: BoolArray, a: Array) -> BoolArray:
    return jnp.broadcast_to(flag.reshape(flag.shape + (1,) * (a.ndim - flag.ndim)), a.shape)
