"""minGRU and minLSTM over time from their projected input by code that is compiled for this processor, in JAX."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells.minimal import MinGRU, MinLSTM
from gru_jax.scans.engines import foreign
from gru_jax.scans.engines.llvm import host, loops, minimal_passes
from gru_jax.scans.engines.llvm.minimal_passes import Plan
from gru_jax.scans.engines.llvm.plan import RESET, USED
from gru_jax.scans.engines.llvm.recurrence import PAST_CACHES
from gru_jax.scans.engines.registry import Around
from gru_jax.types import Array

Cell = MinGRU | MinLSTM
WORTH_A_THREAD = 2**15
"""Numbers of projected input from which on another thread is worth waking up."""


def takes(cell: Any) -> bool:
    """Whether the kernel knows a cell's equations; a class that is derived from one may have others."""
    return type(cell) in (MinGRU, MinLSTM)


def states(
    cell: Cell, u: Array, h0: Array, around: Around, *, reverse: bool, batch_leads: bool, cores: int
) -> Array:
    """The states of all steps.

    Args:
      cell: one that the kernel takes.
      u: float32 projected input, `[B, T, parts, H]`, or `[T, B, parts, H]`.
      h0: `[B, H]`.
      around: flags `[B, T]` or `[T, B]` of steps that are used, the state being held at others, and of resets, with
        the state after those.
      reverse: from the last step to the first.
      batch_leads: whether u is `[B, T, parts, H]`.
      cores: how many threads may work at a time.

    Returns:
      h, `[B, T, H]` or `[T, B, H]`.
    """
    at = 0 if batch_leads else 1
    flags, lie = _flags(around, at)

    def run(u: Array, h0: Array, *flags: Array) -> tuple[Array]:
        plan = _plan(cell, u, around, reverse, batch_leads, cores)
        results = [foreign.result(s, u.dtype, u) for s in ((*u.shape[:2], plan.units), h0.shape)]
        try:
            name = _forward(plan)
        except host.NoKernel as error:
            host.warn("Associative", error)
            return (_by_loop(cell, plan, u, h0, *flags),)
        return (jax.ffi.ffi_call(name, results)(u, h0, *flags)[0],)

    return foreign.mapped(run, (at, 0, *lie), (at,))(u, h0, *flags)[0]


def gradients(
    cell: Cell, u: Array, h0: Array, around: Around, h: Array, c: Array, *, reverse: bool, batch_leads: bool, cores: int
) -> tuple[Array, ...]:
    """The gradients of u, of h0 and, where there are resets, of the state after them, from those of the states, c.

    Args:
      cell, u, h0, around, reverse, batch_leads, cores: as for `states`.
      h: the states.
      c: their gradients.
    """
    at = 0 if batch_leads else 1
    flags, lie = _flags(around, at)
    of_states = 1 if around.reset is None else 2

    def run(u: Array, h0: Array, *rest: Array) -> tuple[Array, ...]:
        plan = _plan(cell, u, around, reverse, batch_leads, cores)
        results = [foreign.result(s, u.dtype, u) for s in (u.shape, *[h0.shape] * of_states)]
        try:
            name = _backward(plan)
        except host.NoKernel as error:
            host.warn("Associative", error)
            *flags, _, c = rest
            moving = (u, h0, *flags[1:])
            by_loop = lambda u, h0, *to: _by_loop(cell, plan, u, h0, *flags[:1], *to)  # noqa: E731
            return tuple(jax.vjp(by_loop, *moving)[1](c))
        # The projected input was made for this and nobody else: its gradient takes its place.
        return tuple(jax.ffi.ffi_call(name, results, input_output_aliases={0: 0})(u, h0, *rest))

    return tuple(foreign.mapped(run, (at, 0, *lie, at, at), (at, *[0] * of_states))(u, h0, *flags, h, c))


def _flags(around: Around, at: int) -> tuple[tuple[Array, ...], tuple[int, ...]]:
    """The flags as the kernel takes them, with the state after a reset, and where their batch is."""
    use, reset, to = around
    if reset is None or to is None:
        return (() if use is None else (use,)), (() if use is None else (at,))
    # Nothing happens before a step that is not used.
    used = jnp.ones_like(reset) if use is None else use
    bits = used.astype(jnp.uint8) * jnp.uint8(USED) + (reset & used).astype(jnp.uint8) * jnp.uint8(RESET)
    return (bits, to), (at, 0)


def _plan(cell: Cell, u: Array, around: Around, reverse: bool, batch_leads: bool, cores: int) -> Plan:
    batch, units = u.shape[0 if batch_leads else 1], u.shape[-1]
    lanes = host.host().lanes
    threads = min(cores, max(1, u.size // WORTH_A_THREAD), batch if batch > 1 else -(-units // 16))
    past_caches = 4 * u.size // cell.parts >= PAST_CACHES and units % lanes == 0
    positive = cell.form == "log"
    masked, resets = around.use is not None, around.reset is not None
    return Plan(lanes, cell.parts, positive, batch, units, batch_leads, reverse, masked, resets, threads, past_caches)


def _by_loop(cell: Cell, plan: Plan, u: Array, h0: Array, *flags: Array) -> Array:
    a, b = cell.coefficients(*jnp.moveaxis(u, 2, 0))
    has = lambda bit: jnp.broadcast_to((flags[0].astype(jnp.uint8) & jnp.uint8(bit))[..., None] != 0, b.shape)  # noqa: E731
    if plan.resets:
        there = jnp.broadcast_to(jnp.expand_dims(flags[1], 1 if plan.batch_leads else 0), b.shape)
        a, b = jnp.where(has(RESET), jnp.zeros_like(a), a), jnp.where(has(RESET), a * there + b, b)
    if plan.masked:
        a, b = jnp.where(has(USED), a, jnp.ones_like(a)), jnp.where(has(USED), b, jnp.zeros_like(b))
    turned = (lambda x: x) if plan.batch_leads else (lambda x: jnp.swapaxes(x, 0, 1))
    return turned(loops.recurrence(turned(a), turned(b), h0, reverse=plan.reverse))


@functools.cache
def _forward(plan: Plan) -> str:
    return host.register(host.Source(minimal_passes.FORWARD, plan, lambda: minimal_passes.write_forward(plan)))


@functools.cache
def _backward(plan: Plan) -> str:
    return host.register(host.Source(minimal_passes.BACKWARD, plan, lambda: minimal_passes.write_backward(plan)))
