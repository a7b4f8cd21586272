"""The step function over all of time at once, and its Jacobian in the shapes that a linear recurrence can solve.

States are handled as vectors `[T, *batch, S]`, whatever tree the cell carries.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gru_jax.cells.base import Cell, DiagonalCell, gifts
from gru_jax.scans import masking
from gru_jax.scans.linear import forms
from gru_jax.scans.linear.forms import DIAGONAL, MATRIX
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import TimeAxis, on_same_axes
from gru_jax.types import Array, Params, State, Tree

EXACT_UP_TO = 16
"""The largest blocks of a Jacobian that "auto" computes in full: O(T S n) memory for blocks of n."""

JOLTS = 4
"""Random changes of the parameters that the rounding of a step is estimated with, a power of 2."""

PROBES = 4
"""Random vectors with which the diagonal of an unknown cell's Jacobian is estimated."""


def orthogonal_signs(count: int) -> np.ndarray:
    """`[count, count]` signs, their columns orthogonal to each other: Hadamard's matrix, count a power of 2."""
    return np.array([[(-1) ** (a & b).bit_count() for b in range(count)] for a in range(count)])


def ravel(state: State) -> Array:
    """A state's leaves side by side on the last axis."""
    leaves = jax.tree.leaves(state)
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=-1)


def unravel(like: State) -> Callable[[Array], State]:
    """The inverse of `ravel` for states of this structure."""
    leaves, structure = jax.tree.flatten(like)
    ends = [sum(leaf.shape[-1] for leaf in leaves[: k + 1]) for k in range(len(leaves) - 1)]
    return lambda vector: jax.tree.unflatten(structure, jnp.split(vector, ends, axis=-1))


def block_size(cell: Cell, size: int) -> int:
    """The width of the blocks on the diagonal outside of which the Jacobian of the cell's step is zero."""
    own = gifts(cell).block_size
    return size if own is None else own


@dataclasses.dataclass(frozen=True)
class AllSteps:
    """The step function F for all t at once, `F_t(h_{t-1})`.

    Attributes:
      cell: whose steps they are.
      context: what is the same at every step.
      steps: time leading.
    """

    cell: Cell
    context: Context
    steps: Steps

    @property
    def time(self) -> TimeAxis:
        """Where the steps lie."""
        return self.context.time

    def before(self, states: Array, start: Array) -> Array:
        """The states before each step, from those after it."""
        return self.time.before(states, start, False)

    def __call__(self, starts: Array) -> Array:
        """`F_t(starts_t)` for every t, `[T, *batch, S]`."""
        pack = unravel(self.context.h0)
        step = lambda now, h: ravel(masking.F(self.cell, self.context, now, pack(h)))  # noqa: E731
        return jax.vmap(step)(self.steps, starts).astype(starts.dtype)

    def rounding(self, starts: Array) -> Array:
        """What each step's result may be off by for no other reason than rounding, `[T, *batch, S]`.

        A unit in the last place of the state, of one half where it is smaller, for the gates that it is made of are
        not; or what some two units in every parameter and one in the input would change: with large weights the sums
        inside a step are far larger than its result, and so are their errors.

        A step that leaves a state to the last bit as it is may have lost all that it should have done, for a gate that
        is rounded to 1. How much that is cannot be seen, but with half of every parameter, and so of the gate's
        argument, it can: about its root. At most that is two units, for nearer to 1 there is a number.
        """
        eps = float(jnp.finfo(starts.dtype).eps)
        params, x = self.context.params, self.steps.x

        def at(params: Params, x: Array) -> Array:
            context, steps = self.context._replace(params=params), self.steps._replace(x=x)
            return dataclasses.replace(self, context=context, steps=steps)(starts)

        def add(squares: Array, draw: tuple[Array, Array]) -> tuple[Array, None]:
            signs, number = draw
            by = _jolts(params, 2.5 * eps, 0, signs), _jolts(x, 1.25 * eps, number)
            return squares + jax.jvp(at, (params, x), by)[1] ** 2, None

        draws = jnp.asarray(orthogonal_signs(JOLTS), starts.dtype), jnp.arange(1, JOLTS + 1, dtype=jnp.int32)
        squares, _ = lax.scan(add, jnp.zeros_like(starts), draws)
        after = at(params, x)
        held, unit = after == starts, eps * jnp.maximum(jnp.abs(after), 0.5)
        root = at(jax.tree.map(lambda a: a * jnp.asarray(0.5, a.dtype) if _is_float(a) else a, params), x) - after
        unit = jnp.where(held, jnp.minimum(2 * unit, 4 * root**2), unit)
        lost = jnp.maximum(unit, jnp.sqrt(squares / JOLTS))
        # A masked step loses nothing.
        return masking.zero_where_masked(self.steps.use, lost)

    def linearize(self, starts: Array, jacobian: str) -> "Jacobian":
        """The derivative of all steps at `starts`; jacobian as for `gru_jax.Newton`, without "auto"."""
        # With a closed form where it is asked for one.
        cell, context, steps = cast(DiagonalCell, self.cell), self.context, self.steps
        pack = unravel(context.h0)
        if gifts(cell).linearize:
            at = jax.vmap(lambda now, h: masking.linearize(cell, context, now, pack(h)))(steps, starts)

            def tangent(v: Array) -> Array:
                move = lambda at, now, v: ravel(masking.tangent(cell, context, at, now, pack(v)))  # noqa: E731
                return jax.vmap(move)(at, steps, v)

            def cotangent(c: Array) -> Array:
                move = lambda at, now, c: ravel(masking.cotangent(cell, context, at, now, pack(c)))  # noqa: E731
                return jax.vmap(move)(at, steps, c)
        else:
            at = None
            push = jax.linearize(self.__call__, starts)[1]
            pull = jax.linear_transpose(push, starts)

            def tangent(v: Array) -> Array:
                # Unit vectors are the same on all devices, and `push` takes only what varies as the states do.
                return push(on_same_axes((v, starts))[0])

            def cotangent(c: Array) -> Array:
                return pull(c)[0]

        size = starts.shape[-1]
        width = block_size(cell, size)
        if jacobian == "dense" or width == 1:
            return Jacobian(tangent, cotangent, _blocks(tangent, starts, width), exact=True, time=context.time)
        if at is not None and gifts(cell).diagonal:
            diagonal = jax.vmap(lambda at, now: masking.diagonal(cell, context, at, now))(at, steps)
        else:
            diagonal = _estimated_diagonal(tangent, starts)
        return Jacobian(tangent, cotangent, diagonal, exact=False, time=context.time)


@dataclasses.dataclass(frozen=True)
class Jacobian:
    """dF_t/dh for all t.

    Attributes:
      tangent: `v -> J v` for all t, `[T, *batch, S]`.
      cotangent: `c -> J^T c`.
      kept: the part of J that a linear recurrence solves with: its diagonal `[T, *batch, S]`, or blocks of it
        `[T, *batch, k, n, n]`.
      exact: whether that part is all of J.
      time: where the steps lie.
    """

    tangent: Callable[[Array], Array]
    cotangent: Callable[[Array], Array]
    kept: Array
    exact: bool
    time: TimeAxis

    def times_kept(self, v: Array) -> Array:
        """The kept part of J times v."""
        if self._diagonal(v):
            return self.kept * v
        return MATRIX.apply(self.kept, self._cut(v)).reshape(v.shape)

    def kept_transposed_times(self, c: Array) -> Array:
        """The kept part of J^T times c."""
        if self._diagonal(c):
            return self.kept * c
        return MATRIX.apply(jnp.swapaxes(self.kept, -1, -2), self._cut(c)).reshape(c.shape)

    def diagonal(self, like: Array) -> Array:
        """The diagonal of the kept part, `[T, *batch, S]`."""
        return self.kept if self._diagonal(like) else jnp.diagonal(self.kept, axis1=-2, axis2=-1).reshape(like.shape)

    def solve(self, b: Array, v_0: Array, kernel: str, damping: Array | None = None) -> Array:
        """v of `v_t = K v_{t-1} + b_t`, K the kept part, scaled by 1 / (1 + damping), `[*batch]`, if there is one."""
        kept = self.kept
        if damping is not None:
            scale = (1 / (1 + damping)).reshape(1, *damping.shape, *(1,) * (kept.ndim - 1 - damping.ndim))
            kept = kept * jnp.broadcast_to(scale, kept.shape)
        if self._diagonal(b):
            return forms.run(DIAGONAL, kept, b, v_0, kernel=kernel, time=self.time)
        h = forms.run(MATRIX, kept, self._cut(b), self._cut(v_0), kernel=kernel, time=self.time)
        return h.reshape(b.shape)

    def solve_transposed(self, c: Array, kernel: str) -> Array:
        """l of `l_t = c_t + K_{t+1}^T l_{t+1}`."""
        if self._diagonal(c):
            return forms.transposed(DIAGONAL, self.kept, c, kernel=kernel, time=self.time)
        return forms.transposed(MATRIX, self.kept, self._cut(c), kernel=kernel, time=self.time).reshape(c.shape)

    def _diagonal(self, v: Array) -> bool:
        return self.kept.ndim == v.ndim

    def _cut(self, v: Array) -> Array:
        n = self.kept.shape[-1]
        return v.reshape(*v.shape[:-1], v.shape[-1] // n, n)


def _blocks(tangent: Callable[[Array], Array], like: Array, width: int) -> Array:
    """The blocks `[T, *batch, k, n, n]` of a block-diagonal Jacobian, from n products with it; `[.., S]` for n = 1."""
    size = like.shape[-1]
    if width == 1:
        return tangent(jnp.ones_like(like))
    units = jnp.tile(jnp.eye(width, dtype=like.dtype), (1, size // width))
    columns = jax.vmap(lambda unit: tangent(jnp.broadcast_to(unit, like.shape)))(units)
    columns = columns.reshape(width, *like.shape[:-1], size // width, width)
    return jnp.moveaxis(columns, 0, -1)


def _estimated_diagonal(tangent: Callable[[Array], Array], like: Array) -> Array:
    """An unbiased estimate of the diagonal: the mean of `v * J v` over vectors of random signs."""
    shape = (PROBES, *like.shape[-1:])
    signs = jax.random.rademacher(jax.random.key(0), shape, like.dtype)
    probe = lambda v: v * tangent(v)  # noqa: E731
    return jax.vmap(lambda v: probe(jnp.broadcast_to(v, like.shape)))(signs).mean(0)


def _jolts(tree: Tree, size: float, number: Array | int, signs: Array | None = None) -> Tree:
    """Every number times `size` and a random sign, the same signs for the same `number`; zero for what is no float.

    With `signs`, `[JOLTS]`, rows of matrices and vectors, one after the other, take one more sign each: the terms of a
    sum over inputs and states have orthogonal signs over the draws then. Of two terms that cancel, random ones would
    now and then find in no draw what is left of their rounding.
    """
    structure: Any
    leaves, structure = jax.tree.flatten(tree)
    key, jolts, row = jax.random.fold_in(jax.random.key(2), number), [], 0
    for k, a in enumerate(leaves):
        if not _is_float(a):
            jolts.append(np.zeros(a.shape, jax.dtypes.float0))
            continue
        jolt = a * jax.random.rademacher(jax.random.fold_in(key, k), a.shape, a.dtype) * jnp.asarray(size, a.dtype)
        rows = 1 if a.ndim < 2 else a.shape[-2]
        if signs is not None:
            own = signs.astype(a.dtype)[(row + np.arange(rows)) % JOLTS]
            jolt = jolt * jnp.broadcast_to(own[:, None] if a.ndim > 1 else own, a.shape)
        jolts.append(jolt)
        row += rows
    return structure.unflatten(jolts)


def _is_float(a: Array) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)
