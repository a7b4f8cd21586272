"""The backward pass of a loop over time that kept nothing but the states, piece by piece against time.

For all steps at once the gates, their derivatives and what is between them take many times the memory of the states.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import Cell, accumulator
from gru_jax.scans import masking, solve_by_steps
from gru_jax.scans.derivative import floating
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array, State, Tree


def piece_of(steps: int) -> int:
    """How many steps a piece has: about the square root, so that pieces and what lies between them take little each."""
    wanted = math.isqrt(steps)
    return max((k for k in range(wanted, 2 * wanted + 1) if steps % k == 0), default=wanted)


def gradients(
    cell: Cell, context: Context, steps: Steps, states: State, _: object, cotangent: State, *, reverse: bool,
    unroll: int,
) -> tuple[State, tuple[Context, Steps]]:
    """What gradients of the states give to all that made them, see `derivative.Recurrence`.

    Args:
      cell: any.
      context: what is the same at every step.
      steps: what differs, time leading and whole.
      states: after each step.
      cotangent: their gradients.
      reverse: whether time runs from the last index to the first.
      unroll: steps per iteration of the loops.

    Returns:
      The adjoints, `l_t = c_t + J_{t+1}^T l_{t+1}`, and the gradients of context and steps, in the same trees.
    """
    solver = solve_by_steps.by_scan(cell, reverse, unroll)
    moving, with_context = floating(context)

    def of_piece(carry: tuple[State, list[Array]], piece: Tree) -> tuple[Tree, Tree]:
        """From what reaches a piece's last state to what reaches the state before its first."""
        reaching, found = carry
        steps, states, before, c = piece
        c = jax.tree.map(lambda c, r: c.at[0 if reverse else -1].add(r.astype(c.dtype)), c, reaching)
        starts = context.time.before(states, before, reverse)
        adjoint, reaching = solver(context, steps, starts).transpose(c)
        here, with_steps = floating(steps)

        def all_steps(moving: list[Array], here: list[Array]) -> State:
            step = functools.partial(masking.F, cell)
            return jax.vmap(step, in_axes=(None, 0, 0))(with_context(moving), with_steps(here), starts)

        d_context, d_steps = jax.vjp(all_steps, moving, here)[1](adjoint)
        found = [a + d.astype(a.dtype) for a, d in zip(found, d_context, strict=True)]
        return on_same_axes(((reaching, found), carry))[0], (adjoint, d_steps)

    T = jax.tree.leaves(states)[0].shape[0]
    size = piece_of(T)
    whole = T - T % size
    # What is left over is what time reaches last.
    first = T - whole if reverse else 0
    cut = lambda tree, start, stop: jax.tree.map(lambda a: a[start:stop], tree)  # noqa: E731
    pieces = jax.tree.map(
        lambda a: a.reshape(whole // size, size, *a.shape[1:]), cut((steps, states, cotangent), first, first + whole)
    )
    ends = jax.tree.map(lambda a: a[:, 0 if reverse else -1], pieces[1])
    befores = context.time.before(ends, context.h0, reverse)
    wide = [jnp.zeros(a.shape, accumulator(a.dtype)) for a in moving]
    carry, _ = on_same_axes(((jax.tree.map(jnp.zeros_like, context.h0), wide), (context, steps, cotangent)))
    rest = None
    if whole < T:
        left = cut((steps, states, cotangent), 0, first) if reverse else cut((steps, states, cotangent), whole, T)
        carry, rest = of_piece(carry, (*left[:2], jax.tree.map(lambda a: a[0 if reverse else -1], ends), left[2]))
    carry, made = lax.scan(of_piece, carry, (*pieces[:2], befores, pieces[2]), reverse=not reverse)
    made = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), made)
    if rest is not None:
        made = jax.tree.map(lambda a, b: jnp.concatenate([b, a] if reverse else [a, b]), made, rest)
    reaching, found = carry
    d_context = with_context([a.astype(like.dtype) for a, like in zip(found, moving, strict=True)])
    d_context = d_context._replace(h0=jax.tree.map(jnp.add, d_context.h0, reaching))
    return made[0], (d_context, floating(steps)[1](made[1]))
