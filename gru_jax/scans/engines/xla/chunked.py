"""The recurrence step by step in chunks of time, forwards and backwards: the form that is fast on XLA's CPU backend.

What it rests on (measured in docs/performance.md):

- A kernel that reads a step through a dynamic slice does not vectorise there: the slice's start is loaded again for
  every number. Here a chunk is sliced once, its steps are written out, and their slices are static.
- The input of a chunk is projected in one product, small enough to stay in cache.
- The backward pass computes the gates of a chunk again from its states, in one product; what is left in turn is one
  product with the transposed matrix a step. Gradients of parameters are summed chunk by chunk.
- Steps that are written out are fused into one another, each computing all earlier ones again; what is `apart` is not.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import Cell, GradientsCell, accumulator, gifts
from gru_jax.scans import masking
from gru_jax.scans.engines.xla.no_fusion import apart
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array, Projected, State, Tree

Carry = TypeVar("Carry")

ROWS, MOST_ROWS = 128, 512
"""About how many rows, steps times sequences, the products of a chunk should have at least, to be worth a product, and
at most, so that they fit into a core's cache with all that is computed from them."""


class Kept(NamedTuple):
    """What a forward pass keeps beside the states, to spare the backward pass products.

    Attributes:
      u: projected inputs, `[T, *batch, G H]`.
      products: recurrent products, `[T, *batch, G H]`.
    """

    u: Array
    products: Array


class Chunks(NamedTuple):
    """How time is cut: into chunks, whose products are computed at once, and these into groups that are written out.

    Attributes:
      size: steps of a chunk.
      group: steps of a group.
      steps: T.
      reverse: whether time runs from the last index to the first.
      batch_leads: whether arrays of all steps are `[*batch, T, H]` here; a chunk of them is `[size, *batch, H]`.
    """

    size: int
    group: int
    steps: int
    reverse: bool
    batch_leads: bool

    @classmethod
    def of(cls, group: int, steps: int, batch: int, reverse: bool, batch_leads: bool) -> "Chunks":
        """Groups of about `group` steps, and chunks of about ROWS rows, so that nothing is left over where it can be.

        What is left over is one more form of the loop to compile.
        """
        group = _dividing(steps, min(group, max(4, MOST_ROWS // max(batch, 1))))
        groups = max(1, ROWS // max(batch * group, 1))
        return cls(group * _dividing(-(-steps // group), groups), group, steps, reverse, batch_leads)

    def groups(self, size: int) -> "Chunks":
        """How a chunk of so many steps is cut."""
        return Chunks(self.group, self.group, size, self.reverse, False)

    def whole(self, a: Array) -> Array:
        """An array `[T, *batch, H]`, or a chunk `[size, *batch, H]`, turned as it is stored here."""
        return jnp.moveaxis(a, 0, -2) if self.batch_leads else a

    def back(self, a: Array) -> Array:
        """The inverse of `whole`: time leads."""
        return jnp.moveaxis(a, -2, 0) if self.batch_leads else a

    def empty(self, a: Array) -> Array:
        """Room for all steps of something `[*batch, H]`."""
        T = (self.steps,)
        return jnp.zeros((*a.shape[:-1], *T, a.shape[-1]) if self.batch_leads else (*T, *a.shape), a.dtype)

    def cut(self, a: Array, start: Array | int, size: int) -> Array:
        """A chunk of an array of all steps."""
        return self.back(lax.dynamic_slice_in_dim(a, start, size, -2 if self.batch_leads else 0))

    def put(self, all: Array, chunk: Array, start: Array | int) -> Array:
        """An array of all steps with a chunk of it written."""
        axis = all.ndim - 2 if self.batch_leads else 0
        return lax.dynamic_update_slice_in_dim(all, self.whole(chunk), start, axis)

    def forwards(self, run: Callable[[Array | int, int, Carry], Carry], carry: Carry) -> Carry:
        """`run(start, size, carry)` for each chunk in the order of time; `start` is its lowest index."""
        whole, rest = divmod(self.steps, self.size)
        carry = self._loop(run, carry, range(whole))
        return run(0 if self.reverse else whole * self.size, rest, carry) if rest else carry

    def backwards(self, run: Callable[[Array | int, int, Carry], Carry], carry: Carry) -> Carry:
        """The same against the order of time."""
        whole, rest = divmod(self.steps, self.size)
        if rest:
            carry = run(0 if self.reverse else whole * self.size, rest, carry)
        return self._loop(run, carry, range(whole)[::-1])

    def order(self, size: int) -> list[int]:
        """The indices within a chunk in the order of time."""
        return list(range(size))[:: -1 if self.reverse else 1]

    def _loop(self, run: Callable[[Array | int, int, Carry], Carry], carry: Carry, chunks: range) -> Carry:
        def start(k: Array | int) -> Array | int:
            return self.steps - (k + 1) * self.size if self.reverse else k * self.size

        if len(chunks) == 1:
            return run(start(0), self.size, carry)
        if not chunks:
            return carry
        number = lambda j: chunks.start + chunks.step * j  # noqa: E731
        return lax.fori_loop(0, len(chunks), lambda j, carry: run(start(number(j)), self.size, carry), carry)


def find(cell: Any, context: Context, steps: Steps, chunks: Chunks, keep: bool) -> tuple[State, Kept | tuple[()]]:
    """The states after each step, `[T, *batch, H]`, and `Kept` with `keep`, () without."""
    x = chunks.whole(steps.x)
    flags = steps._replace(x=None, guess=None)

    def run(start: Array | int, size: int, carry: Tree) -> Tree:
        h, states, kept = carry
        here = _cut(flags, start, size)
        u = _projected(cell, context, chunks.cut(x, start, size))
        if keep:
            kept = kept._replace(u=_put(kept.u, u, start))

        def written_out(first: Array | int, size: int, carry: Tree) -> Tree:
            h, states, kept = carry
            # Apart, or a group's slice would be fused into the gates' kernels, as a step's would.
            u_here, flags_here = apart(lambda tree, first: _cut(tree, first, size))((u, here), first)
            for i in chunks.order(size):
                u_now, now = jax.tree.map(lambda a, i=i: a[i], (u_here, flags_here))
                products = masking.products(cell, context, now, h) if keep else None
                h = masking.advance(cell, context, u_now, now, h, products)
                # One by one: XLA's CPU code for putting steps together takes longer than writing each.
                write = lambda all, one, i=i: chunks.put(all, one[None], start + first + i)  # noqa: E731
                states = jax.tree.map(write, states, h)
                if products is not None:
                    kept = kept._replace(products=_put(kept.products, products[None], start + first + i))
            return h, states, kept

        return chunks.groups(size).forwards(written_out, (h, states, kept))

    room: Kept | tuple[()] = ()
    if keep:
        first = jax.tree.map(lambda a: a[0], steps)
        u = jax.eval_shape(lambda: masking.project(cell, context, first.x))
        products = jax.eval_shape(lambda: masking.products(cell, context, first, context.h0))
        room = Kept(*(jnp.zeros((chunks.steps, *a.shape), a.dtype) for a in (u, products)))
    begin, _ = on_same_axes(((context.h0, jax.tree.map(chunks.empty, context.h0), room), (context, steps)))
    _, found, kept = chunks.forwards(run, begin)
    return jax.tree.map(chunks.back, found), kept


def gradients(
    cell: GradientsCell, context: Context, steps: Steps, states: State, kept: Kept | tuple[()], cotangent: State,
    chunks: Chunks,
) -> tuple[State, tuple[Context, Steps]]:
    """What gradients of the states give to everything that made them, chunk by chunk against the order of time.

    Args:
      cell: one with `linearize`, `cotangent` and `pullback`.
      context: what is the same at every step.
      steps: what differs.
      states: as `find` found them.
      kept: what it kept, `Kept` or ().
      cotangent: gradients of the states, of the same shape.
      chunks: how time is cut.

    Returns:
      The adjoints, `l_t = c_t + J_{t+1}^T l_{t+1}`, and the gradients of context and steps, in the same trees.
    """
    wide = functools.partial(jax.tree.map, lambda a: a.astype(accumulator(a.dtype)) if _moves(a) else a)
    full = wide(context)
    transposed = apart(lambda params: cell.transposed(params, full.h0.dtype))(context.params)
    x, states, cotangent = chunks.whole(steps.x), chunks.whole(states), chunks.whole(cotangent)
    all_flags = steps._replace(x=None, guess=None)

    def run(start: Array | int, size: int, carry: Tree) -> Tree:
        adjoint, adjoints, d_context, d_x = carry
        flags, x_here = _cut(all_flags, start, size), chunks.cut(x, start, size)
        c = chunks.cut(cotangent, start, size).astype(full.h0.dtype)
        before = _before(chunks, states, context.h0, start, size)
        if kept:
            u, products = _cut(kept, start, size)
        else:
            u, products = _projected(cell, context, x_here), _products(cell, context, flags, before)
        at = apart(jax.vmap(functools.partial(masking.linearize_projected, cell, context)))(u, flags, before, products)
        adjoint, adjoint_here = _adjoints(cell, context, flags, at, c, transposed, adjoint, chunks.groups(size))
        d_context, d_x_here = _pulled(cell, context, x_here, flags, before, at, adjoint_here, d_context)
        adjoints = chunks.put(adjoints, adjoint_here.astype(adjoints.dtype), start)
        return adjoint, adjoints, d_context, chunks.put(d_x, d_x_here.astype(d_x.dtype), start)

    begin = (
        jnp.zeros_like(full.h0),
        jnp.zeros(cotangent.shape, cotangent.dtype),
        jax.tree.map(jnp.zeros_like, full),
        jnp.zeros(x.shape, x.dtype),
    )
    begin, _ = on_same_axes((begin, (context, steps, states, cotangent)))
    first, adjoints, d_context, d_x = chunks.backwards(run, begin)
    d_context = d_context._replace(h0=d_context.h0 + first)
    d_context = jax.tree.map(lambda d, like: d.astype(like.dtype), d_context, context)
    d_guess = jax.tree.map(jnp.zeros_like, steps.guess)
    return chunks.back(adjoints), (d_context, steps._replace(x=chunks.back(d_x), guess=d_guess))


def _adjoints(
    cell: GradientsCell, context: Context, flags: Steps, at: Tree, c: Array, transposed: Tree, reaching: Array,
    groups: Chunks,
) -> tuple[Array, Array]:
    """What reaches the state before a chunk, and the adjoints of its steps, from what reaches its last state."""

    def step(
        i: int, before: int | None, adjoint: Array, context: Context, flags: Steps, at: Tree, c: Array, transposed: Tree
    ) -> Array:
        at, now = jax.tree.map(lambda a: a[i], (at, flags))
        moved = masking.cotangent(cell, context, at, now, adjoint, transposed)
        return moved if before is None else moved + c[before]

    def written_out(flags: Steps, at: Tree, c: Array, reaching: Array) -> tuple[Array, Array]:
        order = groups.order(c.shape[0])
        found: dict[int, Array] = {}
        adjoint = apart(lambda a, c: a + c[order[-1]])(reaching, c)
        for i, before in zip(order[::-1], [*order[-2::-1], None], strict=True):
            found[i] = adjoint
            adjoint = apart(functools.partial(step, i, before))(adjoint, context, flags, at, c, transposed)
        return adjoint, _stacked(_in_order(found))

    if groups.steps <= groups.size:
        return written_out(flags, at, c, reaching)

    def run(start: Array | int, size: int, carry: Tree) -> Tree:
        adjoint, all = carry
        flags_here, at_here, c_here = _cut((flags, at, c), start, size)
        adjoint, part = written_out(flags_here, at_here, c_here, adjoint)
        return adjoint, _put(all, part, start)

    begin, _ = on_same_axes(((reaching, jnp.zeros_like(c)), (context, flags, at, c)))
    return groups.backwards(run, begin)


def _pulled(
    cell: GradientsCell, context: Context, x: Array, flags: Steps, before: Array, at: Tree, adjoint: Array,
    d_context: Context,
) -> tuple[Context, Array]:
    """The gradient of the context with what a chunk adds to it, and the gradient of the chunk's input."""
    start = masking.starts(context, flags, before)
    adjoint = masking.zero_where_masked(flags.use, adjoint)
    drop = () if context.drop_h is None else (jnp.broadcast_to(context.drop_h, before.shape),)
    d_drop_x, dropped = d_context.drop_x, x
    if context.drop_x is not None:
        drop_x = jnp.broadcast_to(context.drop_x, x.shape)
        dropped = x * drop_x
    d_params, d_x = cell.pullback(context.params, at, dropped, start, adjoint, *drop)
    if context.drop_x is not None:
        d_drop_x = d_drop_x + (d_x * x.astype(d_x.dtype)).sum(0)  # type: ignore[operator]
        d_x = d_x * drop_x.astype(d_x.dtype)
    if flags.reset is not None:
        moved = cell.cotangent(context.params, at, adjoint, *drop)
        reset = jnp.broadcast_to(flags.reset[..., None], moved.shape)
        moved = jnp.where(reset, moved, jnp.zeros_like(moved)).sum(0)
        d_context = d_context._replace(reset_to=d_context.reset_to + moved)
    d_params = jax.tree.map(jnp.add, d_context.params, d_params)
    return d_context._replace(params=d_params, drop_x=d_drop_x), d_x


def _projected(cell: Cell, context: Context, x: Array) -> Projected:
    """The projected input of a chunk, in one product."""
    project = jax.vmap(lambda context, x: masking.project(cell, context, x), in_axes=(None, 0))
    # A product over a single feature is a multiplication to XLA, which would be done again in every gate's kernel.
    return apart(project)(context, x) if x.shape[-1] == 1 else project(context, x)


def _products(cell: Any, context: Context, flags: Steps, before: Array) -> Array | None:
    """The recurrent products of a chunk's steps in one, where the cell has them apart from the rest of its step."""
    if not gifts(cell).products:
        return None
    return jax.vmap(functools.partial(masking.products, cell, context))(flags, before)


def _before(chunks: Chunks, states: Array, h0: Array, start: Array | int, size: int) -> Array:
    """The states before each step of a chunk."""
    last = chunks.steps - size
    if chunks.reverse:
        if not last:
            return jnp.concatenate([chunks.back(states)[1:], h0[None]])
        shifted = chunks.cut(states, jnp.minimum(start + 1, last), size)
        at_edge = lambda: jnp.concatenate([lax.slice_in_dim(shifted, 1, size), h0[None]])  # noqa: E731
        return lax.cond(start == last, at_edge, lambda: shifted)
    if not last:
        return jnp.concatenate([h0[None], chunks.back(states)[:-1]])
    shifted = chunks.cut(states, jnp.maximum(start - 1, 0), size)
    at_edge = lambda: jnp.concatenate([h0[None], lax.slice_in_dim(shifted, 0, size - 1)])  # noqa: E731
    return lax.cond(start == 0, at_edge, lambda: shifted)


def _cut(tree: Tree, start: Array | int, size: int) -> Tree:
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size), tree)


def _put(all: Array, part: Array, start: Array | int) -> Array:
    return lax.dynamic_update_slice_in_dim(all, part, start, 0)


def _dividing(number: int, wanted: int) -> int:
    """The divisor of `number` that is nearest to `wanted`, from half of it on; `wanted` itself where there is none."""
    near = [k for k in range(max(1, -(-wanted // 2)), wanted * 5 // 4 + 1) if number % k == 0]
    return min(near, key=lambda k: abs(k - wanted), default=wanted)


def _in_order(found: dict[int, Array]) -> list[Array]:
    return [found[i] for i in range(len(found))]


def _stacked(each: list[Array]) -> Array:
    return apart(lambda *each: jnp.stack(each))(*each)


def _moves(a: Array) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)
