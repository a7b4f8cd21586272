"""The one derivative of every method.

A method only finds the trajectory h_1 .. h_T of `h_t = F_t(h_{t-1})`. Its derivative does not depend on how it was
found: with J_t = dF_t/dh at the trajectory, tangents solve

    v_t = J_t v_{t-1} + b_t,        b_t = the tangent of F_t with respect to params, x and h0, all t at once,

and gradients solve the transposed recurrence, backwards in time. Both are stated to JAX as one linear solve, so
forward mode, reverse mode and any mix of them follow, and the method's own loop is never differentiated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from gru_jax.scans.masking import Context, Steps
from gru_jax.types import State

STATES = "gru_jax.states"
"""The name under which the trajectory is saved for the backward pass."""


class Recurrence(NamedTuple):
    """A step function F over time and the solver of its linearization.

    Attributes:
      step: `F(context, step, h)`, one step for the whole batch.
      reverse: True when time runs from the last index to the first.
      solver: `(recurrence, context, steps, before) -> (solve, transpose_solve)`, each `(matvec, b) -> v`
        as `jax.lax.custom_linear_solve` takes them; `before` are the states before each step.
    """

    step: Callable[[Context, Steps, State], State]
    reverse: bool
    solver: Callable[..., tuple[Callable[..., State], Callable[..., State]]]


def before(states: State, h0: State, reverse: bool) -> State:
    """The states before each step, from the states after it, `[T, *batch, H]`."""

    def shift(h: Any, first: Any) -> Any:
        return jnp.concatenate([h[1:], first[None]] if reverse else [first[None], h[:-1]])

    return jax.tree.map(shift, states, h0)


def differentiable(find: Callable[[Context, Steps], State], recurrence: Recurrence) -> Callable[..., State]:
    """`find` with the derivative above instead of its own.

    Args:
      find: `(context, steps) -> states`, the trajectory `[T, *batch, H]` of `recurrence`.
      recurrence: what the trajectory solves.

    Returns:
      A function of the same arguments and value as `find`, differentiable in every mode. Under `saving_states` its
      residuals are its arguments and the trajectory.
    """

    @jax.custom_jvp
    def trajectory(context: Context, steps: Steps) -> State:
        return find(context, steps)

    @trajectory.defjvp
    def rule(primals: tuple[Context, Steps], tangents: tuple[Context, Steps]) -> tuple[State, State]:
        context, steps = primals
        d_context, d_steps = tangents
        states = checkpoint_name(trajectory(context, steps), STATES)
        starts = before(states, context.h0, recurrence.reverse)
        all_steps = jax.vmap(recurrence.step, in_axes=(None, 0, 0))
        zeros = jax.tree.map(jnp.zeros_like, states)
        d_starts = before(zeros, d_context.h0, recurrence.reverse)
        b = jax.jvp(all_steps, (context, steps, starts), (d_context, d_steps, d_starts))[1]

        def residual(v: State) -> State:
            """v_t - J_t v_{t-1} for all t: the linear system whose right side is b."""
            earlier = before(v, jax.tree.map(jnp.zeros_like, context.h0), recurrence.reverse)
            moved = jax.jvp(lambda h: all_steps(context, steps, h), (starts,), (earlier,))[1]
            return jax.tree.map(jnp.subtract, v, moved)

        solve, transpose_solve = recurrence.solver(recurrence, context, steps, starts)
        return states, lax.custom_linear_solve(residual, b, solve, transpose_solve)

    return trajectory


def saving_states(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with only its arguments and the trajectories inside it kept for the backward pass."""
    policy = jax.checkpoint_policies.save_only_these_names(STATES)
    return jax.checkpoint(function, policy=policy)
