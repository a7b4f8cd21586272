"""Solvers of the linear recurrence that the derivative states: `v_t = J_t v_{t-1} + b_t` and its transpose."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import Cell, ClosedFormCell, accumulator, gifts
from gru_jax.scans import masking
from gru_jax.scans.derivative import Solver
from gru_jax.scans.masking import Context, Steps
from gru_jax.types import State, Tree


def by_scan(cell: Cell, reverse: bool, unroll: int = 1) -> Callable[[Context, Steps, State], Solver]:
    """The recurrence step by step: one `lax.scan` forwards for tangents, one backwards for gradients.

    A cell with a closed-form `linearize` has its coefficients computed for all steps in one product beforehand;
    for any other, J_t is applied inside the loop by `jax.jvp` and `jax.vjp` of the step.

    Args:
      cell: whose step function is being differentiated.
      reverse: True when time runs from the last index to the first.
      unroll: steps per iteration of the loops.

    Returns:
      What makes the solver of `gru_jax.scans.derivative.Recurrence`.
    """
    closed_form, formed = gifts(cell).linearize, cast(ClosedFormCell, cell)

    def solver(context: Context, steps: Steps, starts: State) -> Solver:
        at = starts
        if closed_form:
            at = jax.vmap(lambda step, h: masking.linearize(formed, context, step, h))(steps, starts)

        def forward(at: Tree, step: Steps, v: State) -> State:
            if closed_form:
                return masking.tangent(formed, context, at, step, v)
            return jax.jvp(lambda h: masking.F(cell, context, step, h), (at,), (_cast(v, at),))[1]

        def backward(at: Tree, step: Steps, c: State) -> State:
            if closed_form:
                return masking.cotangent(formed, context, at, step, c)
            return jax.vjp(lambda h: masking.F(cell, context, step, h), at)[1](_cast(c, at))[0]

        def solve(b: State, v_0: State) -> State:
            def body(v: State, inputs: Tree) -> tuple[State, State]:
                at, step, b_t = inputs
                v = _add(_cast(forward(at, step, v), v), b_t)
                return v, _cast(v, b_t)

            def run(start: State) -> tuple[State, State]:
                return lax.scan(body, start, (at, steps, b), reverse=reverse, unroll=unroll)

            return context.time.relay(run, _widen(v_0), reverse)[1]

        def transpose(c: State) -> tuple[State, State]:
            def body(carry: State, inputs: Tree) -> tuple[State, State]:
                at, step, c_t = inputs
                adjoint = _add(carry, c_t)
                return _cast(backward(at, step, adjoint), carry), _cast(adjoint, c_t)

            end = jax.tree.map(jnp.zeros_like, context.h0)

            def run(start: State) -> tuple[State, State]:
                return lax.scan(body, start, (at, steps, c), reverse=not reverse, unroll=unroll)

            first, adjoints = context.time.relay(run, _widen(end), not reverse)
            return adjoints, context.time.only_first(_cast(first, end), reverse)

        return Solver(solve, transpose)

    return solver


def _widen(state: State) -> State:
    """What the loops carry sums over all of time, so it is kept in full precision whatever the states are."""
    return jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), state)


def _add(a: State, b: State) -> State:
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), a, b)


def _cast(a: State, like: State) -> State:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), a, like)
