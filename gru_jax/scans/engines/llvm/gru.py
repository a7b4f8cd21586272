"""A GRU over time by kernels that are compiled for this processor: what they serve, the trajectory, its gradients."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells import gru_layout
from gru_jax.cells.base import Cell
from gru_jax.cells.gru import GRU
from gru_jax.cells.gru_params import GRUParams
from gru_jax.scans import derivative, masking, solve_by_steps
from gru_jax.scans.engines import foreign
from gru_jax.scans.engines.batch import Rows
from gru_jax.scans.engines.llvm import gru_backward, gru_forward, host, loops
from gru_jax.scans.engines.llvm.plan import Plan
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, exact
from gru_jax.types import Array, State

DTYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))
"""Of x and the states; everything is computed in float32."""


def refusal(cell: Cell, asked: Asked) -> str | None:
    """What of a call the kernels do not serve, as the end of a sentence; None where they serve all of it.

    Raises:
      ValueError: where JAX does not run on a CPU.
    """
    backend = jax.default_backend()
    if backend != "cpu":
        raise ValueError(f"Sequential: kernel='llvm' needs a CPU; JAX runs on {backend} here; use kernel='auto'")
    if not isinstance(cell, GRU):
        return f"{type(cell).__name__} (only GRU)"
    reasons = {
        "reset='before' (its reset comes after the recurrent product)": cell.reset != "after",
        f"heads={cell.heads} (its recurrent matrix is dense)": cell.heads != 1,
        "activations other than 'tanh' and 'sigmoid'": (cell.activation, cell.gate_activation) != ("tanh", "sigmoid"),
        f"{jnp.dtype(asked.dtype).name} (only float32 and bfloat16)": jnp.dtype(asked.dtype) not in DTYPES,
        "resets": asked.resets,
        "recurrent dropout": asked.recurrent_dropout,
        "sizes that are not known": asked.symbolic,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is not None:
        return reason
    problem = host.problem()
    return None if problem is None else f"this machine: {problem}"


def trajectory(cell: GRU, context: Context, steps: Steps, reverse: bool, *, keep: bool, cores: int) -> Trajectory:
    """The states of all steps, differentiable in every mode.

    Args:
      cell: one that `refusal` has let pass.
      context: what is the same at every step.
      steps: what differs.
      reverse: whether time runs from each sequence's end to its beginning.
      keep: whether the gates are kept for the backward pass, or computed again there.
      cores: how many threads may work at a time.

    Returns:
      The states.
    """
    bfloat16 = context.h0.dtype == jnp.bfloat16
    layout = functools.partial(_Layout, cell, context.time.batch_leads, reverse, cores, bfloat16)
    recurrence = derivative.Recurrence(
        lambda context, step, h: masking.F(cell, context, _hidden(step), h),
        reverse,
        lambda context, steps, starts: solve_by_steps.by_scan(cell, reverse)(context, _hidden(steps), starts),
        functools.partial(_gradients, layout(keep=keep)),
    )
    full = derivative.differentiable(functools.partial(_find, layout(keep=keep)), recurrence, aux=True)
    if not keep:
        return exact(context, full(context, steps)[0], reverse)
    # The gates are nothing that a forward pass alone should have to write.
    alone = lambda context, steps: _find(layout(keep=False), context, steps)[0]  # noqa: E731
    states = derivative.lean(alone, lambda context, steps: full(context, steps)[0])(context, steps)
    return exact(context, states, reverse)


def forward(cell: GRU, context: Context, steps: Steps, reverse: bool, *, keep: bool, cores: int) -> tuple[Array, Any]:
    """The states, `[T, *batch, H]`, and what `backward` takes: the states and the gates as the kernels lay them out."""
    layout = _Layout(cell, context.time.batch_leads, reverse, cores, context.h0.dtype == jnp.bfloat16, keep)
    states, gates = _find(layout, context, steps)
    return states, (layout.rows.of(states), *gates)


def backward(
    cell: GRU, context: Context, steps: Steps, reverse: bool, kept: Any, cotangent: Array, *, keep: bool, cores: int
) -> tuple[Context, Steps]:
    """The gradients of all that made the states, from what `forward` kept and the gradients of the states."""
    layout = _Layout(cell, context.time.batch_leads, reverse, cores, context.h0.dtype == jnp.bfloat16, keep)
    states = layout.rows.back(kept[0], context.h0.shape[:-1])
    return _gradients(layout, context, steps, states, kept[1:], cotangent)[1]


class _Layout:
    """How a call's arrays lie, for the kernels: `[B, T, n]`, or `[T, B, n]`."""

    def __init__(
        self, cell: GRU, batch_leads: bool, reverse: bool, cores: int, bfloat16: bool, keep: bool
    ) -> None:
        self.cell, self.rows, self.reverse, self.cores = cell, Rows(batch_leads), reverse, cores
        self.bfloat16, self.keep = bfloat16, keep

    def plan(self, x: Array, masked: bool, *, backward: bool, weights: gru_layout.Layout = gru_layout.NEUTRAL) -> Plan:
        """The kernel for an input."""
        steps, batch = x.shape[1 - self.rows.axis], x.shape[self.rows.axis]
        return Plan.of(
            host.host(), steps=steps, batch=batch, features=x.shape[-1], units=self.cell.hidden_size,
            batch_leads=self.rows.batch_leads, reverse=self.reverse, bias=self.cell.bias, masked=masked,
            bfloat16=self.bfloat16, keep=self.keep, cores=self.cores, backward=backward, weights=weights,
        )  # fmt: skip


def _find(layout: _Layout, context: Context, steps: Steps) -> tuple[State, Any]:
    """The states, and the gates where they are to be kept."""
    batch, T = context.h0.shape[:-1], steps.x.shape[0]
    if not math.prod(batch):
        return jnp.zeros((T, *context.h0.shape), context.h0.dtype), ()
    weights = context.original or gru_layout.Original(context.params, gru_layout.NEUTRAL)
    x, h0, params = _inputs(layout, weights.arrays, context.h0, context.drop_x, steps.x)
    given = (x, h0, *_present(params), *_flags(layout, steps))
    masked, at = steps.use is not None, layout.rows.axis

    def run(*args: Array) -> tuple[Array, ...]:
        x, h0 = args[:2]
        plan = layout.plan(x, masked, backward=False, weights=weights.layout)
        try:
            name, scratch = _forward(plan)
        except host.NoKernel as error:
            host.warn("Sequential", error)
            return loops.gru_forward(plan, *args)
        results = [foreign.result((*x.shape[:2], plan.units), x.dtype, x)]
        if plan.keep:
            shape = (x.shape[1 - at], x.shape[at], plan.blocks, 4, plan.lanes)
            results.append(foreign.result(shape, x.dtype, x))
        results.append(foreign.result((scratch,), x.dtype, x))
        return tuple(jax.ffi.ffi_call(name, results)(*args))[:-1]

    inputs = (at, 0, *(None for _ in _present(params)), *([at] if masked else []))
    states, *gates = foreign.mapped(run, inputs, (at, *([1] if layout.keep else [])))(*given)
    return layout.rows.back(states, batch).astype(context.h0.dtype), (*gates,)


def _gradients(
    layout: _Layout, context: Context, steps: Steps, states: State, gates: Any, cotangent: State
) -> tuple[State, tuple[Context, Steps]]:
    """What gradients of the states give to everything that made them."""
    nothing = jax.tree.map(jnp.zeros_like, context), jax.tree.map(jnp.zeros_like, steps)
    batch = context.h0.shape[:-1]
    if not math.prod(batch):
        return cotangent, nothing
    # Of use, and so computed, only where a gradient is differentiated once more.
    starts = context.time.before(states, context.h0, layout.reverse)
    solve = solve_by_steps.by_scan(layout.cell, layout.reverse)
    adjoint, _ = solve(context, _hidden(steps), starts).transpose(cotangent)
    prepare = functools.partial(_inputs, layout)
    (x, h0, params), pull = jax.vjp(prepare, context.params, context.h0, context.drop_x, steps.x)
    parameters = _present(params._replace(b_x=None, b_h=None) if layout.keep else params)
    masked, at = steps.use is not None, layout.rows.axis

    def run(*args: Array) -> tuple[Array, ...]:
        x, h0, w_x, w_h = args[:4]
        plan = layout.plan(x, masked, backward=True)
        try:
            name, scratch = _backward(plan)
        except host.NoKernel as error:
            host.warn("Sequential", error)
            return loops.gru_backward(plan, *args)
        shapes = (x.shape, h0.shape, w_x.shape, w_h.shape, (2, w_x.shape[-1]), (scratch,))
        results = [foreign.result(shape, x.dtype, x) for shape in shapes]
        return tuple(jax.ffi.ffi_call(name, results)(*args))[:-1]

    states, cotangent = (layout.rows.of(a.astype(jnp.float32)) for a in (states, cotangent))
    given = (x, h0, *parameters, *_flags(layout, steps), states, *gates, cotangent)
    inputs = (
        at, 0, *(None for _ in parameters), *([at] if masked else []), at, *([1] if layout.keep else []), at,
    )  # fmt: skip
    d_x, d_h0, d_w_x, d_w_h, d_b = foreign.mapped(run, inputs, (at, 0, None, None, None))(*given)
    b_x, b_h = (None, None) if params.b_x is None else d_b
    if layout.cell.bias == "minimal":
        b_h = d_b[1, 2 * layout.cell.hidden_size :]
    d_params, d_h0, d_drop_x, d_x = pull((d_x, d_h0, GRUParams(d_w_x, d_w_h, b_x, b_h)))
    d_context, d_steps = nothing
    return adjoint, (d_context._replace(params=d_params, h0=d_h0, drop_x=d_drop_x), d_steps._replace(x=d_x))


def _hidden(steps: Steps) -> Steps:
    """With 0 where x is masked: the kernels do not look there, and so it was left as it is."""
    return steps._replace(x=masking.zero_where_masked(steps.use, steps.x))


def _inputs(
    layout: _Layout, params: GRUParams, h0: Array, drop_x: Array | None, x: Array
) -> tuple[Array, Array, GRUParams]:
    """x, h0 and the parameters as the kernels take them."""
    x = x if drop_x is None else x * jnp.broadcast_to(drop_x, x.shape)
    given = layout.rows.of(x), h0.reshape(-1, h0.shape[-1]), params
    return jax.tree.map(lambda a: a.astype(jnp.float32), given)


def _flags(layout: _Layout, steps: Steps) -> tuple[Array, ...]:
    return () if steps.use is None else (layout.rows.flag(steps.use),)


def _present(params: GRUParams) -> tuple[Array, ...]:
    return tuple(a for a in params if a is not None)


@functools.cache
def _forward(plan: Plan) -> tuple[str, int]:
    """The name of a compiled kernel, and its scratch memory."""
    program, scratch = gru_forward.write(plan)
    return host.register(program, gru_forward.NAME), scratch


@functools.cache
def _backward(plan: Plan) -> tuple[str, int]:
    program, scratch = gru_backward.write(plan)
    return host.register(program, gru_backward.NAME), scratch
