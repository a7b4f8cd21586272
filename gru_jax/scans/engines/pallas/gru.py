"""The GRU's recurrence by the Pallas kernels: what a call of `scan` becomes for them, and back.

The kernels take one batch dimension, projected input and flags; here every other shape, `vmap` and derivative is
brought to that. The products of all steps at once, the projection and those of the backward pass, are XLA's.
"""

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import Cell
from gru_jax.cells.gru import GRU
from gru_jax.cells.gru_params import GRUParams
from gru_jax.scans import derivative, masking, solve_by_steps
from gru_jax.scans.derivative import Solver
from gru_jax.scans.engines.pallas.target import Target
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array, DType, Params, State, Tree


def refusal(cell: Cell, asked: Asked, target: Target) -> str | None:
    """What the kernels do not serve, as the end of a sentence; None where they serve all that is asked."""
    if not isinstance(cell, GRU):
        return f"{type(cell).__name__} (only GRU)"
    if (cell.activation, cell.gate_activation) != ("tanh", "sigmoid"):
        return "activations other than 'tanh' and 'sigmoid'"
    if jnp.dtype(asked.dtype).itemsize > 4:
        return "float64"
    if asked.symbolic:
        return "sizes that are not known"
    if asked.other_state:
        return "a state of another dtype than x"
    return str(reason) if (reason := _module(target).refusal(cell)) else None


def states(cell: GRU, context: Context, steps: Steps, reverse: bool, target: Target) -> Array:
    """The states after every step, `[T, *batch, H]`, differentiable in every mode."""
    if 0 in context.h0.shape:
        return jnp.zeros((steps.x.shape[0], *context.h0.shape), context.h0.dtype)

    def find(context: Context, steps: Steps) -> State:
        u = jax.vmap(lambda x: masking.project(cell, context, x))(steps.x)
        per_sequence = (context.h0, context.reset_to, context.drop_h)
        run = functools.partial(_states, cell=cell, reverse=reverse, target=target)
        return _of_one_batch(run, context.params, (u, steps.use, steps.reset), per_sequence)

    def solver(context: Context, steps: Steps, starts: State) -> Solver:
        by_steps = solve_by_steps.by_scan(cell, reverse)

        def transpose(context: Context, steps: Steps, starts: State, c: State) -> tuple[State, State]:
            at = jax.vmap(functools.partial(masking.linearize, cell, context))(steps, starts)
            run = functools.partial(_adjoints, cell=cell, reverse=reverse, target=target)
            flags = (steps.use, steps.reset)
            adjoint, first = _of_one_batch(run, context.params, (at, c, *flags), (context.drop_h,))
            return adjoint, first.astype(context.h0.dtype)

        def step_by_step(context: Context, steps: Steps, starts: State, c: State) -> tuple[State, State]:
            return by_steps(context, steps, starts).transpose(c)

        # A gradient of the gradient is that of the same recurrence step by step: the kernel's own has none.
        backwards = derivative.lean(transpose, step_by_step)
        return Solver(
            lambda b, v_0: by_steps(context, steps, starts).solve(b, v_0),
            lambda c: backwards(context, steps, starts, c),
        )

    recurrence = derivative.Recurrence(functools.partial(masking.F, cell), reverse, solver)
    return derivative.differentiable(find, recurrence)(context, steps)


def _states(params: Params, per_step: Tree, per_sequence: Tree, *, cell: GRU, reverse: bool, target: Target) -> Array:
    u, use, reset = per_step
    start, reset_to, drop = per_sequence
    matrices = _matrices(cell, params, start.dtype)
    return _module(target).states(
        u, matrices, _bias(cell, params), start, reset_to=reset_to, use=use, reset=reset, drop=drop,
        reset_mode=cell.reset, reverse=reverse, interpret=target.interpret,
    )  # fmt: skip


def _adjoints(
    params: Params, per_step: Tree, per_sequence: Tree, *, cell: GRU, reverse: bool, target: Target
) -> tuple[Array, Array]:
    at, c, use, reset = per_step
    return _module(target).adjoints(
        at, _matrices(cell, params, c.dtype), c, use=use, reset=reset, drop=per_sequence[0],
        reset_mode=cell.reset, reverse=reverse, interpret=target.interpret,
    )  # fmt: skip


def _matrices(cell: GRU, params: GRUParams, dtype: DType) -> Array:
    """`[heads, H/heads, 3H/heads]`."""
    w_h = params.w_h if cell.heads > 1 else params.w_h[None]
    return w_h.astype(dtype)


def _bias(cell: GRU, params: GRUParams) -> Array | None:
    """`[3H]`: with bias="minimal" the gates have none inside."""
    if params.b_h is None or cell.bias == "full":
        return params.b_h
    return jnp.concatenate([jnp.zeros(2 * cell.hidden_size, params.b_h.dtype), params.b_h])


def _module(target: Target) -> ModuleType:
    if target.platform == "gpu":
        from gru_jax.scans.engines.pallas import gru_gpu

        return gru_gpu
    from gru_jax.scans.engines.pallas import gru_tpu

    return gru_tpu


def _of_one_batch(run: Callable[..., Tree], params: Params, per_step: Tree, per_sequence: Tree) -> Tree:
    """`run` with all batch dimensions made one, `[T, B, ...]` and `[B, ...]`, those that `jax.vmap` adds included.

    A kernel whose programs wait for each other must not have another batch of programs put beside it.
    """
    batch = jax.tree.leaves(per_step)[0].shape[1:-1]

    def flat(a: Array, leading: int) -> Array:
        return a.reshape(*a.shape[:leading], math.prod(batch), *a.shape[leading + len(batch) :])

    def whole(a: Array) -> Array:
        # [T, B, n], and what reaches the first state, [B, n].
        at = a.ndim - 2
        return a.reshape(*a.shape[:at], *batch, a.shape[-1])

    per_step = jax.tree.map(lambda a: flat(a, 1), per_step)
    per_sequence = jax.tree.map(lambda a: flat(a, 0), per_sequence)
    # Inside jax.shard_map a kernel takes and gives what varies over the mesh, parameters included.
    return jax.tree.map(whole, _folding(run)(*on_same_axes((params, per_step, per_sequence))))


def _folding(run: Callable[..., Tree]) -> Callable[..., Tree]:
    """`run(params, per_step, per_sequence)`, which under `jax.vmap` takes the new dimension into its batch."""

    @jax.custom_batching.custom_vmap
    def call(params: Params, per_step: Tree, per_sequence: Tree) -> Tree:
        return run(params, per_step, per_sequence)

    @call.def_vmap
    def rule(
        size: int, batched: Tree, params: Params, per_step: Tree, per_sequence: Tree
    ) -> tuple[Tree, Tree]:
        if any(jax.tree.leaves(batched[0])):
            # Sets of parameters one after the other: each fills the chip.
            moving, rejoin = _batched_leaves((params, per_step, per_sequence), batched)
            found = lax.map(lambda part: call(*rejoin(part)), moving)
            return found, jax.tree.map(lambda _: True, found)

        def folded(a: Array, is_batched: bool, leading: int) -> Array:
            a = a if is_batched else jnp.broadcast_to(a, (size, *a.shape))
            a = jnp.moveaxis(a, 0, leading)
            return a.reshape(*a.shape[:leading], size * a.shape[leading + 1], *a.shape[leading + 2 :])

        per_step = jax.tree.map(lambda a, b: folded(a, b, 1), per_step, batched[1])
        per_sequence = jax.tree.map(lambda a, b: folded(a, b, 0), per_sequence, batched[2])
        found = call(params, per_step, per_sequence)

        def parted(a: Array) -> Array:
            at = a.ndim - 2
            return jnp.moveaxis(a.reshape(*a.shape[:at], size, a.shape[at] // max(size, 1), a.shape[-1]), at, 0)

        found = jax.tree.map(parted, found)
        return found, jax.tree.map(lambda _: True, found)

    return call


def _batched_leaves(args: Tree, batched: Tree) -> tuple[list[Array], Callable[[list[Array]], Tree]]:
    """The leaves with a dimension of `vmap`, and a function that puts one of each back among the others."""
    leaves, structure = cast(tuple[list[Array], Any], jax.tree.flatten(args))
    flags = jax.tree.leaves(batched)

    def rejoin(parts: list[Array]) -> Tree:
        rest = iter(parts)
        return structure.unflatten([next(rest) if b else a for a, b in zip(leaves, flags, strict=True)])

    return [a for a, b in zip(leaves, flags, strict=True) if b], rejoin
