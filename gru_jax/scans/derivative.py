"""The one derivative of every method.

A method only finds the trajectory h_1 .. h_T of `h_t = F_t(h_{t-1})`. Its derivative does not depend on how it was
found: with J_t = dF_t/dh at the trajectory and B_t the derivative with respect to everything else (params, x, the state
after resets, dropout masks), tangents solve

    v_t = J_t v_{t-1} + B_t d,        v_0 = dh0

and gradients solve the transposed recurrence, backwards in time. The whole map from d to v is stated to JAX as one
linear solve, so forward mode, reverse mode and any mix of them follow, and the method's own loop is never
differentiated. Nothing is computed for it before a tangent or a cotangent is there to be mapped.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike

from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array, Function, State, Tree

Found = TypeVar("Found")

STATES = "gru_jax.states"
"""The name under which the trajectory is saved for the backward pass."""


class Recurrence(NamedTuple):
    """A step function F over time and the solver of its linearization.

    Attributes:
      step: `F(context, step, h)`, one step for the whole batch.
      reverse: True when time runs from the last index to the first.
      solver: makes a `Solver` from `(context, steps, starts)`, `starts` being the states before each step.
      gradients: `(context, steps, states, others, cotangent) -> (adjoint, (context, steps))`, all that a backward pass
        computes, of a method that has its own way; None for the solver and one pull back of all steps.
    """

    step: Callable[[Context, Steps, State], State]
    reverse: bool
    solver: Callable[[Context, Steps, State], "Solver"]
    gradients: Callable[[Context, Steps, State, State, Tree], tuple[State, tuple[Context, Steps]]] | None = None


class Solver(NamedTuple):
    """The linearized recurrence, solved in both directions of time.

    Attributes:
      solve: `(b, v_0) -> v` with `v_t = J_t v_{t-1} + b_t`.
      transpose: `c -> (l, l_0)` with `l_t = c_t + J_{t+1}^T l_{t+1}` and `l_0 = J_1^T l_1`.
    """

    solve: Callable[[State, State], State]
    transpose: Callable[[State], tuple[State, State]]


def differentiable(find: Function, recurrence: Recurrence, *, aux: bool = False) -> Function:
    """`find` with the derivative above instead of its own.

    Args:
      find: `(context, steps, *hints) -> states`, the trajectory `[T, *batch, H]` of `recurrence`; with aux
        `-> (states, others)`, what is looked at or spares work, which has no derivative of its own. Hints help to
        find it, and nothing depends on them.
      recurrence: what the trajectory solves.
      aux: whether `find` returns more than the states.

    Returns:
      A function of the same arguments and value as `find`, differentiable in every mode. Under `saving_states` its
      residuals are its arguments and the trajectory.
    """

    @jax.custom_jvp
    def trajectory(context: Context, steps: Steps, *hints: Tree) -> tuple[State, Tree]:
        return find(context, steps, *hints) if aux else (find(context, steps, *hints), ())

    @trajectory.defjvp
    def rule(primals: Tree, tangents: Tree) -> tuple[Tree, Tree]:
        context, steps, *hints = primals
        states, others = trajectory(context, steps, *hints)
        states = checkpoint_name(states, STATES)
        moving, rejoin = floating((context, steps))
        d, _ = floating(tangents[:2])
        h0_of = lambda moving: rejoin(moving)[0].h0  # noqa: E731
        before = functools.partial(context.time.before, reverse=recurrence.reverse)
        # Made where it is used, so that it is not kept beside the states.
        starts_now = lambda: before(states, context.h0)  # noqa: E731

        def all_steps(moving: list[Array], starts: State) -> State:
            context, steps = rejoin(moving)
            return jax.vmap(recurrence.step, in_axes=(None, 0, 0))(context, steps, starts)

        def system(unknown: tuple[State, list[Array]]) -> tuple[State, list[Array]]:
            """(v, d) to (v - J v_before - B d, d): with (0, d) on the right, v is the tangent that belongs to d."""
            v, d = unknown
            moved = jax.jvp(all_steps, (moving, starts_now()), (d, before(v, h0_of(d))))[1]
            # d itself; but what is differentiated once more has to be on every path here too, see _all_linear.
            one = 1 + _nothing(moving)
            return jax.tree.map(jnp.subtract, v, moved), [leaf * one.astype(leaf.dtype) for leaf in d]

        def solve(_: Function, right: tuple[State, list[Array]]) -> tuple[State, list[Array]]:
            b, d = right
            starts = starts_now()
            pushed = jax.jvp(lambda m: all_steps(m, starts), (moving,), (d,))[1]
            b = jax.tree.map(jnp.add, b, pushed)
            return recurrence.solver(context, steps, starts).solve(b, h0_of(d)), d

        def transpose_solve(_: Function, right: tuple[State, list[Array]]) -> tuple[State, list[Array]]:
            c, d = right
            if recurrence.gradients is not None:
                adjoint, pulled = recurrence.gradients(context, steps, states, others, c)
                return adjoint, [x + y for x, y in zip(d, floating(pulled)[0], strict=True)]
            x, starts = _not_before(c, (steps.x, starts_now()))
            steps_now = steps._replace(x=x)
            adjoint, first = recurrence.solver(context, steps_now, starts).transpose(c)
            moving_now, _ = floating((context, steps_now))
            pulled = jax.vjp(lambda m: all_steps(m, starts), moving_now)[1](adjoint)[0]
            (at_start,) = jax.linear_transpose(h0_of, moving)(first)
            return adjoint, [x + y + z for x, y, z in zip(d, pulled, at_start, strict=True)]

        v, _ = lax.custom_linear_solve(system, _all_linear(states, d), solve, transpose_solve)
        return (states, others), (v, jax.tree.map(_still, others))

    return trajectory if aux else lambda *args: trajectory(*args)[0]


def lean(find: Callable[..., Found], differentiable: Callable[..., Found]) -> Callable[..., Found]:
    """`find` where nothing is differentiated, `differentiable`, which keeps more, where something is.

    Args:
      find: such as `(context, steps) -> states`.
      differentiable: the same with a derivative, such as made by the function above.
    """

    @jax.custom_jvp
    def trajectory(*args: Tree) -> Found:
        return find(*args)

    @trajectory.defjvp
    def rule(primals: Tree, tangents: Tree) -> tuple[Found, Found]:
        return jax.jvp(differentiable, primals, tangents)

    return trajectory


def floating(tree: Tree) -> tuple[list[Array], Callable[[list[Array]], Tree]]:
    """The leaves of a tree that can move, and a function that puts such leaves back in their places."""
    leaves, structure = cast(tuple[list[Array], Any], jax.tree.flatten(tree))
    moves = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def rejoin(moving: list[Array]) -> Tree:
        rest = iter(moving)
        return structure.unflatten([next(rest) if m else leaf for m, leaf in zip(moves, leaves, strict=True)])

    return [leaf for m, leaf in zip(moves, leaves, strict=True) if m], rejoin


def _still(a: Array) -> ArrayLike:
    """The tangent of what does not move, be it floating or not."""
    if jnp.issubdtype(a.dtype, jnp.floating):
        return jnp.zeros_like(a)
    return on_same_axes((np.zeros(a.shape, jax.dtypes.float0), a))[0]


def _all_linear(states: State, d: list[Array]) -> tuple[State, list[Array]]:
    """`(0, d)`, every leaf of it a linear function of what is being differentiated.

    JAX can transpose a linear solve only with respect to its whole right side, but zeros are constants, and so are
    the tangents of arguments that nobody differentiates. A sum over nothing of every tangent is zero and linear;
    added, it costs nothing, for XLA sees that it is zero.
    """
    nothing = _nothing(d)
    zero_like = lambda a: jnp.broadcast_to(nothing.astype(a.dtype), a.shape)  # noqa: E731
    return jax.tree.map(zero_like, states), [leaf + zero_like(leaf) for leaf in d]


def _nothing(leaves: list[Array]) -> Array:
    """0, and for JAX a function of every leaf."""
    return jnp.sum(jnp.stack([jnp.sum(jnp.atleast_1d(leaf)[:0]).astype(jnp.float32) for leaf in leaves]))


def _not_before(cotangent: State, tree: Tree) -> Tree:
    """`tree`, arrays `[T, *batch, ...]`, to be used no earlier than the cotangent is there.

    What the backward pass computes again depends on nothing but saved values, so that a scheduler may compute it for
    all layers of a network at once, and XLA's CPU scheduler does, taking ten times the memory that was to be saved
    (its optimization barriers are gone by then). Adding a zero that is read off the cotangent makes it wait; each
    sequence has its own, so that a batch split over devices stays where it is.
    """
    rows = jax.tree.leaves(cotangent)[0][:1, ..., :1]
    # 0 for every number, NaN and infinity included, but not to an optimizer, which knows no ranges of floats.
    rows = jnp.minimum(jnp.abs(jnp.where(jnp.isnan(rows), jnp.zeros_like(rows), rows)), jnp.zeros_like(rows))
    return jax.tree.map(lambda leaf: leaf + jnp.broadcast_to(rows.astype(leaf.dtype), leaf.shape), tree)


def saving_states(function: Callable[..., Found]) -> Callable[..., Found]:
    """`function` with only its arguments and the trajectories inside it kept for the backward pass."""
    policy = jax.checkpoint_policies.save_only_these_names(STATES)
    return jax.checkpoint(function, policy=policy)
