"""minGRU and minLSTM over time from their projected input by code that is compiled for this processor, in JAX."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells.minimal import MinGRU, MinLSTM
from gru_jax.scans.engines import foreign
from gru_jax.scans.engines.llvm import host, loops, minimal_passes
from gru_jax.scans.engines.llvm.minimal_passes import Plan
from gru_jax.scans.engines.llvm.recurrence import PAST_CACHES
from gru_jax.types import Array, BoolArray

Cell = MinGRU | MinLSTM
WORTH_A_THREAD = 2**15
"""Numbers of projected input from which on another thread is worth waking up."""


def takes(cell: Any) -> bool:
    """Whether the kernel knows a cell's equations; a class that is derived from one may have others."""
    return type(cell) in (MinGRU, MinLSTM)


def states(
    cell: Cell, u: Array, h0: Array, use: BoolArray | None, *, reverse: bool, batch_leads: bool, cores: int
) -> Array:
    """The states of all steps.

    Args:
      cell: one that the kernel takes.
      u: float32 projected input, `[B, T, parts, H]`, or `[T, B, parts, H]`.
      h0: `[B, H]`.
      use: `[B, T]` or `[T, B]` flags; where one is False, the state is held.
      reverse: from the last step to the first.
      batch_leads: whether u is `[B, T, parts, H]`.
      cores: how many threads may work at a time.

    Returns:
      h, `[B, T, H]` or `[T, B, H]`.
    """
    at = 0 if batch_leads else 1
    flags = () if use is None else (use,)

    def run(u: Array, h0: Array, *flags: Array) -> tuple[Array]:
        plan = _plan(cell, u, bool(flags), reverse, batch_leads, cores)
        results = [foreign.result(s, u.dtype, u) for s in ((*u.shape[:2], plan.units), h0.shape)]
        try:
            name = _forward(plan)
        except host.NoKernel as error:
            host.warn("Associative", error)
            return (_by_loop(cell, plan, u, h0, *flags),)
        return (jax.ffi.ffi_call(name, results)(u, h0, *flags)[0],)

    return foreign.mapped(run, (at, 0, *(at for _ in flags)), (at,))(u, h0, *flags)[0]


def gradients(
    cell: Cell, u: Array, h0: Array, use: BoolArray | None, h: Array, c: Array, *, reverse: bool, batch_leads: bool,
    cores: int,
) -> tuple[Array, Array]:  # fmt: skip
    """The gradients of u and h0 from those of the states, c; other arguments as for `states`."""
    at = 0 if batch_leads else 1
    flags = () if use is None else (use,)

    def run(u: Array, h0: Array, *rest: Array) -> tuple[Array, Array]:
        plan = _plan(cell, u, bool(flags), reverse, batch_leads, cores)
        results = [foreign.result(s, u.dtype, u) for s in (u.shape, h0.shape)]
        try:
            name = _backward(plan)
        except host.NoKernel as error:
            host.warn("Associative", error)
            *use, _, c = rest
            d_u, d_h0 = jax.vjp(lambda u, h0: _by_loop(cell, plan, u, h0, *use), u, h0)[1](c)
            return d_u, d_h0
        # The projected input was made for this and nobody else: its gradient takes its place.
        d_u, d_h0 = jax.ffi.ffi_call(name, results, input_output_aliases={0: 0})(u, h0, *rest)
        return d_u, d_h0

    inputs = (at, 0, *(at for _ in flags), at, at)
    d_u, d_h0 = foreign.mapped(run, inputs, (at, 0))(u, h0, *flags, h, c)
    return d_u, d_h0


def _plan(cell: Cell, u: Array, masked: bool, reverse: bool, batch_leads: bool, cores: int) -> Plan:
    batch, units = u.shape[0 if batch_leads else 1], u.shape[-1]
    lanes = host.host().lanes
    threads = min(cores, max(1, u.size // WORTH_A_THREAD), batch if batch > 1 else -(-units // 16))
    past_caches = 4 * u.size // cell.parts >= PAST_CACHES and units % lanes == 0
    positive = cell.form == "log"
    return Plan(lanes, cell.parts, positive, batch, units, batch_leads, reverse, masked, threads, past_caches)


def _by_loop(cell: Cell, plan: Plan, u: Array, h0: Array, *flags: Array) -> Array:
    a, b = cell.coefficients(*jnp.moveaxis(u, 2, 0))
    for use in flags:
        a, b = jnp.where(use[..., None], a, jnp.ones_like(a)), jnp.where(use[..., None], b, jnp.zeros_like(b))
    turned = (lambda x: x) if plan.batch_leads else (lambda x: jnp.swapaxes(x, 0, 1))
    return turned(loops.recurrence(turned(a), turned(b), h0, reverse=plan.reverse))


@functools.cache
def _forward(plan: Plan) -> str:
    return host.register(minimal_passes.write_forward(plan), minimal_passes.FORWARD)


@functools.cache
def _backward(plan: Plan) -> str:
    return host.register(minimal_passes.write_backward(plan), minimal_passes.BACKWARD)
