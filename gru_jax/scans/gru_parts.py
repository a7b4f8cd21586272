"""A GRU step by step on CPU, the batch in parts that run side by side on several cores, forwards and backwards.

The form is that of `chunked`: groups of steps, written out, whose input is projected in one product; the backward pass
computes a group's gates again from its states. What is different is that everything that takes up memory on the way is
named, for `side_by_side`. This is why it is written for one cell.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import accumulator
from gru_jax.cells.gru import GRU
from gru_jax.cells.gru_derivative import add
from gru_jax.cells.gru_params import GRUParams
from gru_jax.scans import side_by_side
from gru_jax.scans.apart import apart
from gru_jax.scans.chunked import Chunks
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array, BoolArray, DType

FEWEST_ROWS = 4
"""Of a part: a product of fewer rows takes as long as one of four."""


def serves(cell: Any, context: Context, steps: Steps) -> bool:
    """Whether this is written for a call: all products of a step come from h alone, no resets, no dropout."""
    plain = isinstance(cell, GRU) and cell.reset == "after" and cell.heads == 1
    full = accumulator(steps.x.dtype) == steps.x.dtype
    one_place = not context.time.split and context.reset_to is None
    return plain and full and one_place and steps.reset is None and context.drop_x is None and context.drop_h is None


class Part(NamedTuple):
    """Some rows of the batch, and how arrays lie.

    Attributes:
      first: the first row.
      rows: how many.
      batch_leads: whether arrays of all steps are `[B, T, H]`, and those of a group `[rows, size, H]`; else
        `[T, B, H]` and `[size, rows, H]`.
    """

    first: int
    rows: int
    batch_leads: bool

    @property
    def time(self) -> int:
        """The axis of time."""
        return 1 if self.batch_leads else 0

    def cut(self, a: Array, start: Array, size: int) -> Array:
        """The steps of a group from an array of all steps and rows."""
        # Unsigned: what JAX does for indices below zero would be one more operation, on memory of its own.
        first, zero = jnp.uint32(self.first), jnp.uint32(0)
        if self.batch_leads:
            return lax.dynamic_slice(a, (first, start, zero), (self.rows, size, a.shape[-1]))
        return lax.dynamic_slice(a, (start, first, zero), (size, self.rows, a.shape[-1]))

    def cut_flags(self, flags: BoolArray, start: Array, size: int) -> BoolArray:
        """The same from flags `[T, B]`, to `[size, rows]`."""
        return lax.dynamic_slice(flags, (start, jnp.uint32(self.first)), (size, self.rows))

    def at(self, a: Array, i: int) -> Array:
        """A step of a group, `[rows, H]`."""
        return lax.index_in_dim(a, i, self.time, keepdims=False)

    def put(self, a: Array, part: Array, start: Array) -> Array:
        """An array of all steps of this part with some of them written."""
        zero = jnp.uint32(0)
        return lax.dynamic_update_slice(a, part, (zero, start, zero) if self.batch_leads else (start, zero, zero))

    def empty(self, steps: int, width: int, dtype: DType) -> Array:
        """Room for all steps of this part."""
        shape = (self.rows, steps, width) if self.batch_leads else (steps, self.rows, width)
        return jnp.zeros(shape, dtype)

    def mine(self, a: Array) -> Array:
        """This part's rows of `[B, H]`."""
        return lax.slice_in_dim(a, self.first, self.first + self.rows)


class Layout(NamedTuple):
    """How the caller's arrays become `[B, T, H]` or `[T, B, H]`, cut into parts, and how they are put together again.

    Attributes:
      chunks: how time is cut; its groups are what is written out.
      batch: the batch's dimensions.
      parts: the rows of each.
    """

    chunks: Chunks
    batch: tuple[int, ...]
    parts: list[Part]

    @classmethod
    def of(cls, chunks: Chunks, batch: tuple[int, ...], rows: int, cores: int) -> "Layout":
        """As many parts as there are cores for."""
        number = max(1, min(cores, rows // FEWEST_ROWS))
        ends = [rows * k // number for k in range(number + 1)]
        parts = [Part(a, b - a, chunks.batch_leads) for a, b in zip(ends, ends[1:], strict=False)]
        by_group = Chunks(chunks.group, chunks.group, chunks.steps, chunks.reverse, chunks.batch_leads)
        return cls(by_group, batch, parts)

    def stored(self, a: Array) -> Array:
        """`[T, *batch, H]` as it is stored here."""
        a, axes = self.chunks.whole(a), len(self.batch)
        if self.chunks.batch_leads:
            return a.reshape(-1, *a.shape[axes:])
        return a.reshape(a.shape[0], -1, a.shape[-1])

    def joined(self, each: list[Array]) -> Array:
        """The inverse, of the parts of an array."""
        a = jnp.concatenate(each, 0 if self.chunks.batch_leads else 1)
        T, width = self.chunks.steps, a.shape[-1]
        shape = (*self.batch, T, width) if self.chunks.batch_leads else (T, *self.batch, width)
        return self.chunks.back(a.reshape(shape))

    def flags(self, use: BoolArray | None) -> BoolArray | None:
        """`[T, *batch]` with one axis for the batch."""
        return None if use is None else use.reshape(self.chunks.steps, -1)


def find(cell: GRU, context: Context, steps: Steps, layout: Layout) -> Array:
    """The states after each step, `[T, *batch, H]`, of a call that this `serves`."""
    chunks, T, H = layout.chunks, layout.chunks.steps, cell.hidden_size
    h0, x, use = context.h0.reshape(-1, H), layout.stored(steps.x), layout.flags(steps.use)

    def run(start: Any, size: int, carry: Any) -> Any:
        idle, each = carry
        groups = [functools.partial(_group, cell, part, chunks.order(size)) for part in layout.parts]
        args = [(x, use, context.params, *one) for one in each]
        return side_by_side.run(groups, _unsigned(start), args, idle)[::-1]

    each = [(part.mine(h0), part.empty(T, H, h0.dtype)) for part in layout.parts]
    begin, _ = on_same_axes(((side_by_side.zero(h0), each), (context, steps)))
    _, found = chunks.forwards(run, begin)
    return layout.joined([states for _, states in found])


def _group(
    cell: GRU,
    part: Part,
    order: list[int],
    start: Array,
    x: Array,
    use: Any,
    params: GRUParams,
    h: Array,
    states: Array,
) -> Any:
    """A group's steps: the state after them and all states with theirs written; what was computed on the way."""
    here, flags = _cut(part, x, start, len(order)), _cut_flags(part, use, start, len(order))
    u = _projected(cell, params, here)
    on_the_way: list[Any] = [h, here, flags, u]
    for i in order:
        products = cell.products(params, h)
        after = cell.step(params, add(part.at(u, i), params.b_x), h, None, products)
        h = after if flags is None else _where(flags[i], after, h)
        states = part.put(states, jnp.expand_dims(h, part.time), start + jnp.uint32(i))
        on_the_way += [products, h]
    return (h, states), on_the_way


class Summed(NamedTuple):
    """What a backward pass carries from group to group.

    Attributes:
      adjoint: the gradient that reaches the state before the group, `[rows, H]`.
      params: the gradients of the parameters so far.
      x: the gradient of this part's input, `[rows, T, I]` or `[T, rows, I]`.
    """

    adjoint: Array
    params: GRUParams
    x: Array


def gradients(
    cell: GRU, context: Context, steps: Steps, states: Array, cotangent: Array, layout: Layout
) -> tuple[Context, Steps]:
    """What gradients of the states give to everything that made them: arguments and results as in `chunked`."""
    chunks, T, H = layout.chunks, layout.chunks.steps, cell.hidden_size
    params, h0 = context.params, context.h0.reshape(-1, H)
    x, found, c = (layout.stored(a) for a in (steps.x, states, cotangent))
    use = layout.flags(steps.use)
    # Sums of rows as products, for the reason that `sum_rows` has; made once, for memory of its own.
    ones = jnp.ones((chunks.group * max(part.rows for part in layout.parts),), h0.dtype)
    turned = apart(lambda params, ones: (params.w_x.T, cell.transposed(params, h0.dtype), ones))(params, ones)

    firsts = [jnp.expand_dims(part.mine(h0), part.time) for part in layout.parts]

    def run(start: Any, size: int, carry: Any) -> Any:
        idle, each = carry
        edge = start + size if chunks.reverse else start - 1
        at_edge = jnp.asarray(edge == T if chunks.reverse else edge < 0)
        where = _unsigned(start), _unsigned(jnp.clip(edge, 0, T - 1))
        groups = [functools.partial(_group_backwards, cell, part, chunks.order(size)) for part in layout.parts]
        args = [
            (x, use, found, c, first, at_edge, params, turned, one)
            for first, one in zip(firsts, each, strict=True)
        ]
        return side_by_side.run(groups, where, args, idle)[::-1]

    nothing = lambda part: Summed(  # noqa: E731
        jnp.zeros_like(part.mine(h0)), jax.tree.map(jnp.zeros_like, params), part.empty(T, x.shape[-1], x.dtype)
    )
    begin: Any = (side_by_side.zero(h0), [nothing(part) for part in layout.parts])
    begin, _ = on_same_axes((begin, (context, steps, states, cotangent)))
    _, each = chunks.backwards(run, begin)
    d_params = jax.tree.map(lambda *a: functools.reduce(jnp.add, a), *(one.params for one in each))
    d_h0 = jnp.concatenate([one.adjoint for one in each]).reshape(context.h0.shape)
    d_context = jax.tree.map(jnp.zeros_like, context)._replace(params=d_params, h0=d_h0)
    d_guess = jax.tree.map(jnp.zeros_like, steps.guess)
    return d_context, steps._replace(x=layout.joined([one.x for one in each]), guess=d_guess)


def _group_backwards(
    cell: GRU,
    part: Part,
    order: list[int],
    where: tuple[Array, Array],
    x: Array,
    use: Any,
    states: Array,
    cotangent: Array,
    h0: Array,
    at_edge: Array,
    params: GRUParams,
    turned: tuple[Array, Array, Array],
    summed: Summed,
) -> Any:
    """What a group adds, and what was computed on the way.

    Args:
      cell, part, order: which steps of which rows.
      where: the group's first step, and the step that is taken before it.
      x, use, states, cotangent: of all rows and steps.
      h0: of this part, as a single step.
      at_edge: whether no step is taken before the group.
      params: of the cell.
      turned: the transposed matrices of input and state, and ones for each row of a group.
      summed: what reaches this group from later ones.
    """
    (start, edge), size = where, len(order)
    here, c, flags = _cut(part, x, start, size), _cut(part, cotangent, start, size), _cut_flags(part, use, start, size)
    old, ends = apart(functools.partial(_before, part, order))(states, h0, start, edge, at_edge)
    u, products = _projected(cell, params, here), cell.products(params, old)
    linearized = apart(lambda params, u, old, p: cell.linearize_with_gates(params, add(u, params.b_x), old, None, p))
    at, gates = linearized(params, u, old, products)
    w_x_t, w_h_t, ones = turned

    adjoint = apart(lambda a, c: a + part.at(c, order[-1]))(summed.adjoint, c)
    all = jnp.zeros_like(c)
    chain: list[Any] = [adjoint]
    for i, earlier in zip(order[::-1], [*order[-2::-1], None], strict=True):
        at_products, gate_by_gate = apart(functools.partial(_at_products, part, i))(at, flags, adjoint)
        through = jnp.matmul(at_products, w_h_t)
        all = part.put(all, jnp.expand_dims(adjoint, part.time), jnp.uint32(i))
        adjoint = apart(functools.partial(_moved, part, i, earlier))(at, flags, c, adjoint, through)
        chain += [at_products, gate_by_gate, through, adjoint]

    each = apart(functools.partial(_at_gates, part))(at, flags, all)
    at_r, at_z, at_n, at_c = (a.reshape(-1, a.shape[-1]) for a in each)
    at_products, at_u = (apart(lambda *a: jnp.concatenate(a, -1))(at_r, at_z, last) for last in (at_n, at_c))
    d_w_h = jnp.matmul(old.reshape(-1, old.shape[-1]).T, at_products)
    d_w_x = jnp.matmul(here.reshape(-1, here.shape[-1]).T, at_u)
    d_x = jnp.matmul(at_u, w_x_t).reshape(here.shape)
    d_b_x = d_b_h = None
    if params.b_x is not None:
        ones = ones[: at_u.shape[0]]
        d_b_x, d_b_h = (jnp.matmul(ones, a) for a in (at_u, at_products if cell.bias == "full" else at_n))
    d_params = GRUParams(d_w_x, d_w_h, d_b_x, d_b_h)
    found = Summed(adjoint, jax.tree.map(jnp.add, summed.params, d_params), part.put(summed.x, d_x, start))
    on_the_way = (
        summed.adjoint, h0, at_edge, here, c, flags, old, ends, u, products, at, gates, chain, all, each,
        at_products, at_u, ones, d_params, d_x,
    )  # fmt: skip
    return found, on_the_way


def _projected(cell: GRU, params: GRUParams, x: Array) -> Array:
    """The projected input of a group without its bias: that would be one more pass over what the product wrote."""
    project = lambda params, x: cell.project(params._replace(b_x=None), x)  # noqa: E731
    # A product over a single feature is a multiplication to XLA, which would be done again in every step.
    return apart(project)(params, x) if x.shape[-1] == 1 else project(params, x)


def _before(part: Part, order: list[int], states: Array, h0: Array, start: Array, edge: Array, at_edge: Array) -> Any:
    """The states before each step of a group, and what was needed for the first of them."""
    found = part.cut(states, edge, 1)
    first = _where(at_edge, h0, found)
    if len(order) == 1:
        return first, found
    reverse = order[0] > order[-1]
    rest = part.cut(states, start + jnp.uint32(reverse), len(order) - 1)
    return jnp.concatenate([rest, first] if reverse else [first, rest], part.time), (found, first, rest)


def _at_products(part: Part, i: int, at: Any, flags: Any, adjoint: Array) -> tuple[Array, list[Array]]:
    """The gradient of a step's recurrent products, `[rows, 3H]`, and what it was put together from."""
    if flags is not None:
        adjoint = _where(flags[i], adjoint, jnp.zeros_like(adjoint))
    each = [part.at(k, i) * adjoint for k in (at.k_r, at.k_z, at.k_n)]
    return jnp.concatenate(each, -1), each


def _moved(
    part: Part, i: int, earlier: int | None, at: Any, flags: Any, c: Array, adjoint: Array, through: Array
) -> Array:
    """The gradient of the state before a step, `[rows, H]`, with what the loss gives to it."""
    moved = part.at(at.z, i) * adjoint + through
    if flags is not None:
        moved = _where(flags[i], moved, adjoint)
    return moved if earlier is None else moved + part.at(c, earlier)


def _at_gates(part: Part, at: Any, flags: Any, adjoint: Array) -> tuple[Array, ...]:
    """The gradients of what goes into r, z and n, from the state and from the input, of a group."""
    if flags is not None:
        adjoint = _where(flags.T if part.batch_leads else flags, adjoint, jnp.zeros_like(adjoint))
    return tuple(k * adjoint for k in (at.k_r, at.k_z, at.k_n, at.k_u))


def _cut(part: Part, a: Array, start: Array, size: int) -> Array:
    return apart(lambda a, start: part.cut(a, start, size))(a, start)


def _cut_flags(part: Part, flags: BoolArray | None, start: Array, size: int) -> BoolArray | None:
    return None if flags is None else apart(lambda flags, start: part.cut_flags(flags, start, size))(flags, start)


def _where(flag: BoolArray, yes: Array, no: Array) -> Array:
    """`flag`, `[rows]` or `[..., rows]` as the leading dimensions of `yes` are, chooses for whole rows."""
    # Not jnp.where: that is a call of its own, and in here stays one.
    return lax.select(lax.broadcast_in_dim(flag, yes.shape, tuple(range(flag.ndim))), yes, no)


def _unsigned(number: Any) -> Array:
    return jnp.asarray(number).astype(jnp.uint32)
