"""A linear recurrence over given factors by code that is compiled for this processor, in JAX."""

import functools
import math

import jax
import jax.numpy as jnp

from gru_jax.scans.engines import foreign
from gru_jax.scans.engines.llvm import host, loops, recurrence_passes
from gru_jax.scans.engines.llvm.recurrence_passes import Plan
from gru_jax.types import Array

PAST_CACHES = 2**20
"""Bytes of a result from which on it is written past the caches."""
WORTH_A_THREAD = 2**17
"""Numbers of an array from which on another thread is worth waking up."""


def states(a: Array, b: Array, h0: Array, *, reverse: bool, batch_leads: bool, cores: int) -> Array:
    """The states of `h_t = a_t h_{t-1} + b_t`.

    Args:
      a: float32 factors, `[B, T, H]`, or `[T, B, H]`.
      b: of the same shape.
      h0: `[B, H]`.
      reverse: from the last step to the first.
      batch_leads: whether it is `[B, T, H]`.
      cores: how many threads may work at a time.

    Returns:
      h, of a's shape.
    """

    def run(a: Array, b: Array, h0: Array) -> tuple[Array]:
        plan, shape = _plan(a, reverse, batch_leads, cores)
        given = a.reshape(shape), b.reshape(shape), h0.reshape(plan[1:3])
        try:
            name = _forward(plan)
        except host.NoKernel as error:
            host.warn("linear_scan", error)
            return (loops.recurrence(*given, reverse=reverse).reshape(a.shape),)
        return (jax.ffi.ffi_call(name, foreign.result(shape, a.dtype, a))(*given).reshape(a.shape),)

    at = 0 if batch_leads else 1
    return foreign.mapped(run, (at, at, 0), (at,))(a, b, h0)[0]


def gradients(
    a: Array, h0: Array, h: Array, c: Array, *, reverse: bool, batch_leads: bool, cores: int
) -> tuple[Array, Array, Array]:
    """The gradients of a, b and h0 from those of the states, c; arguments as for `states`."""

    def run(a: Array, h0: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        plan, shape = _plan(a, reverse, batch_leads, cores)
        results = [foreign.result(s, a.dtype, a) for s in (shape, shape, plan[1:3])]
        args = (a.reshape(shape), h0.reshape(plan[1:3]), h.reshape(shape), c.reshape(shape))
        try:
            name = _backward(plan)
        except host.NoKernel as error:
            host.warn("linear_scan", error)
            d_a, d_b, d_h0 = loops.recurrence_gradients(*args, reverse=reverse)
            return d_a.reshape(a.shape), d_b.reshape(a.shape), d_h0.reshape(h0.shape)
        # The gradient of the states is read where that of b is written, and nobody else has a use for it: the memory of
        # one array less to be asked for, which would be new pages. Where somebody has, XLA copies it first.
        alias = {len(args) - 1: 1}
        d_a, d_b, d_h0 = jax.ffi.ffi_call(name, results, input_output_aliases=alias)(*args)
        return d_a.reshape(a.shape), d_b.reshape(a.shape), d_h0.reshape(h0.shape)

    at = 0 if batch_leads else 1
    d_a, d_b, d_h0 = foreign.mapped(run, (at, 0, at, at), (at, at, 0))(a, h0, h, c)
    return d_a, d_b, d_h0


def refusal(dtype: jnp.dtype) -> str | None:
    """What of a call the kernel does not serve, as the end of a sentence; None where it serves it."""
    if jnp.dtype(dtype) != jnp.float32:
        return f"{jnp.dtype(dtype).name} (only float32)"
    problem = host.problem()
    return None if problem is None else f"this machine: {problem}"


def _plan(a: Array, reverse: bool, batch_leads: bool, cores: int) -> tuple[Plan, tuple[int, int, int]]:
    """The plan for `[B, T, H]`, or `[T, B, H]`, and the shape as which the passes see it."""
    sequences, steps, width = a.shape if batch_leads else (1, a.shape[0], math.prod(a.shape[1:]))
    enough = max(1, a.size // WORTH_A_THREAD)
    threads = min(cores, enough, sequences if sequences > 1 else -(-width // 16))
    lanes = host.host().lanes
    past_caches = 4 * a.size >= PAST_CACHES and width % lanes == 0
    return Plan(lanes, sequences, width, reverse, threads, past_caches), (sequences, steps, width)


@functools.cache
def _forward(plan: Plan) -> str:
    return host.register(host.Source(recurrence_passes.FORWARD, plan, lambda: recurrence_passes.write_forward(plan)))


@functools.cache
def _backward(plan: Plan) -> str:
    return host.register(host.Source(recurrence_passes.BACKWARD, plan, lambda: recurrence_passes.write_backward(plan)))
