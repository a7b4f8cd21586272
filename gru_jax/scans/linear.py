"""Solvers of the linear recurrence that the derivative states: `v_t = J_t v_{t-1} + b_t` and its transpose."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import Cell, accumulator
from gru_jax.scans import masking
from gru_jax.scans.masking import Context, Steps
from gru_jax.types import State

Solver = Callable[..., tuple[Callable[..., State], Callable[..., State]]]


def by_scan(cell: Cell, unroll: int = 1) -> Solver:
    """The recurrence step by step: one `lax.scan` forwards for tangents, one backwards for gradients.

    A cell with a closed-form `linearize` has its coefficients computed for all steps in one product beforehand;
    for any other, J_t is applied inside the loop by `jax.jvp` and `jax.vjp` of the step.

    Args:
      cell: whose step function is being differentiated.
      unroll: steps per iteration of the loops.

    Returns:
      A solver for `gru_jax.scans.derivative.Recurrence`.
    """
    closed_form = hasattr(cell, "linearize")

    def solver(recurrence: Any, context: Context, steps: Steps, starts: State) -> Any:
        def coefficients() -> Any:
            if not closed_form:
                return starts
            at = jax.vmap(lambda s, h: masking.linearize(cell, context, s, h))
            return at(steps, starts)

        def forward(at: Any, step: Steps, v: State) -> State:
            if closed_form:
                return masking.tangent(cell, context, at, step, v)
            return jax.jvp(lambda h: recurrence.step(context, step, h), (at,), (_cast(v, at),))[1]

        def backward(at: Any, step: Steps, c: State) -> State:
            if closed_form:
                return masking.cotangent(cell, context, at, step, c)
            return jax.vjp(lambda h: recurrence.step(context, step, h), at)[1](_cast(c, at))[0]

        def solve(_: Any, b: State) -> State:
            def body(v: State, inputs: Any) -> tuple[State, State]:
                at, step, b_t = inputs
                v = _add(_cast(forward(at, step, v), v), b_t)
                return v, _cast(v, b_t)

            return _scan(body, b, (coefficients(), steps, b), recurrence.reverse, unroll)

        def transpose_solve(_: Any, c: State) -> State:
            def body(carry: State, inputs: Any) -> tuple[State, State]:
                at, step, c_t = inputs
                adjoint = _add(carry, c_t)
                return _cast(backward(at, step, adjoint), carry), _cast(adjoint, c_t)

            return _scan(body, c, (coefficients(), steps, c), not recurrence.reverse, unroll)

        return solve, transpose_solve

    return solver


def _scan(body: Callable[..., Any], like: State, inputs: Any, reverse: bool, unroll: int) -> State:
    # The carry sums over all of time, so it is kept in full precision whatever the states are.
    start = jax.tree.map(lambda a: jnp.zeros(a.shape[1:], accumulator(a.dtype)), like)
    return lax.scan(body, start, inputs, reverse=reverse, unroll=unroll)[1]


def _add(a: State, b: State) -> State:
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), a, b)


def _cast(a: State, like: State) -> State:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), a, like)
