"""Where the steps of a sequence lie: all in one place, or in equal parts on the devices along an axis of a mesh.

Whatever looks from one step to another goes through a `TimeAxis`: the states before each step, the end of the
sequence, a maximum over time, a state handed from part to part. Everything else is the same either way.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gru_jax.types import Array, State, Tree


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TimeAxis:
    """The time axis of arrays `[T, *batch, ...]`; inside `jax.shard_map`, of their parts `[T / parts, *batch, ...]`.

    Args:
      mesh_axis: the mesh axis over which time is split; None where it is whole.
      parts: the number of devices along it.
      backwards: whether the first part of time lies on the last device, each part being turned around.
      batch_leads: whether the caller's arrays are `[*batch, T, ...]`, so that a method which cuts time into chunks does
        better to turn each chunk than the whole.
    """

    mesh_axis: str | None = None
    parts: int = 1
    backwards: bool = False
    batch_leads: bool = False

    @property
    def split(self) -> bool:
        """Whether there is more than one part."""
        return self.mesh_axis is not None

    def flipped(self) -> "TimeAxis":
        """The axis of the same arrays, each turned around where it lies."""
        return dataclasses.replace(self, backwards=not self.backwards)

    def before(self, states: State, h0: State, reverse: bool) -> State:
        """The states before each step, from the states after it, `[T, *batch, H]`."""
        first = self.handed_on(jax.tree.map(lambda h: h[0 if reverse else -1], states), h0, reverse)

        def shift(h: Array, first: Array) -> Array:
            return jnp.concatenate([h[1:], first[None]] if reverse else [first[None], h[:-1]])

        return jax.tree.map(shift, states, first)

    def following(self, a: Array, reverse: bool) -> Array:
        """What belongs to the next step, at each step; zeros at the last."""
        return self.before(a, jnp.zeros_like(a[0]), not reverse)

    def end(self, states: State, reverse: bool) -> State:
        """The state after the last step, the same on every device."""
        ends = jax.tree.map(lambda h: h[0 if reverse else -1], states)
        if not self.split:
            return ends
        last = self.place(reverse) == self.parts - 1
        return jax.tree.map(lambda h: lax.psum(jnp.where(last, h, jnp.zeros_like(h)), self.mesh_axis), ends)

    def from_edge(self, a: Array, *, last: bool) -> Array:
        """What the last part has, or the first, on every device."""
        if not self.split:
            return a
        there = self.place(False) == (self.parts - 1 if last else 0)
        return on_same_axes((lax.psum(jnp.where(there, a, jnp.zeros_like(a)), self.mesh_axis), a))[0]

    def only_first(self, tree: Tree, reverse: bool) -> Tree:
        """`tree` on the part that time begins with, zeros on the others."""
        if not self.split:
            return tree
        return jax.tree.map(lambda a: jnp.where(self.place(reverse) == 0, a, jnp.zeros_like(a)), tree)

    def largest(self, a: Array, axis: int | tuple[int, ...] = (0, -1)) -> Array:
        """The largest element of each sequence, `[T, *batch, S]` to `[*batch]`; infinity where one is NaN.

        With axis 0 that of each unit of it, `[*batch, S]`.
        """
        # XLA's CPU code for a maximum over a large array can lose NaN.
        seen = jnp.where(jnp.isnan(a), jnp.full_like(a, jnp.inf), a).max(axis, initial=0)
        return on_same_axes((lax.pmax(seen, self.mesh_axis), a))[0] if self.split else seen

    def known_to_all(self, a: Array) -> Array:
        """What is the same on all parts, as JAX has to be told."""
        whole = a.astype(jnp.int32) if a.dtype == bool else a
        return lax.pmax(whole, self.mesh_axis).astype(a.dtype) if self.split else a

    def any(self, flag: Array) -> Array:
        """Whether there is a True in any part, of any sequence; one answer for all devices, which stay together."""
        return agreed(flag.any()) if self.split else flag.any()

    def place(self, reverse: bool) -> Array:
        """How many parts come before this one."""
        index = lax.axis_index(self.mesh_axis)
        return index if reverse == self.backwards else self.parts - 1 - index

    def numbered(self, number: Array) -> Array:
        """Another number on each part, made of one that they share."""
        return number * self.parts + lax.axis_index(self.mesh_axis) if self.split else number

    def received(self, tree: Tree, reverse: bool, distance: int = 1) -> Tree:
        """What the part so far before this one gives; zeros where there is none."""
        pairs = [(k, k + distance) for k in range(self.parts - distance)]
        if reverse != self.backwards:
            pairs = [(self.parts - 1 - a, self.parts - 1 - b) for a, b in pairs]
        return lax.ppermute(tree, self.mesh_axis, pairs)

    def handed_on(self, end: Tree, first: Tree, reverse: bool) -> Tree:
        """What the part before this one ended with; `first` on the part that time begins with."""
        if not self.split:
            return first
        begins = self.place(reverse) == 0
        return jax.tree.map(lambda a, b: jnp.where(begins, a, b), first, self.received(end, reverse))

    def relay(self, run: Callable[[State], tuple[State, Tree]], start: State, reverse: bool) -> tuple[State, Tree]:
        """One part after the other: `run(start) -> (end, outputs)`, the end of each being the start of the next.

        All parts run at once, again and again, each with what has reached it: after k rounds k parts are right.
        """
        if not self.split:
            return run(start)

        def round(_: Array, begin: State) -> State:
            end = on_same_axes((run(begin)[0], begin))[0]
            return self.handed_on(end, start, reverse)

        return run(lax.fori_loop(0, self.parts - 1, round, start))


WHOLE = TimeAxis()
"""The time axis of an array that lies in one place."""


def on_same_axes(tree: Tree) -> Tree:
    """`tree`, every number in it varying over the same mesh axes, inside `jax.shard_map`; as it is elsewhere.

    A state that starts the same on all devices and ends differently on each has no type that a loop could carry.
    """
    axes: frozenset[str] = frozenset().union(*(_axes(leaf) for leaf in jax.tree.leaves(tree)))

    def spread(leaf: ArrayLike) -> ArrayLike:
        missing = tuple(sorted(axes - _axes(leaf)))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(spread, tree) if axes else tree


def agreed(flag: Array) -> Array:
    """Whether a flag is True on any device that may have another one."""
    axes = tuple(sorted(_axes(flag)))
    return lax.pmax(flag.astype(jnp.int32), axes) > 0 if axes else flag


def _axes(leaf: ArrayLike) -> frozenset[str]:
    # jax.typeof calls it so since 0.10; without the attribute there is nothing to agree on.
    kind = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return frozenset() if kind is None else frozenset(kind.varying)
