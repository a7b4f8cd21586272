"""The loops that XLA compiles as engines: they run every cell, everywhere."""

import functools
import math
from typing import Any

import jax
from jax import lax

from gru_jax.scans import backward, derivative, masking, solve_by_steps
from gru_jax.scans.engines.registry import Engine, How
from gru_jax.scans.engines.xla import chunked
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, exact
from gru_jax.types import Projected, State

LEAST_IN_PIECES = 64
"""From how many steps on a backward pass from the states alone goes piece by piece; below, all steps are a piece."""


class Loop(Engine):
    """`jax.lax.scan`."""

    in_one_place = False

    def __init__(self, name: str) -> None:
        self.name = name

    def keeps_states(self, keep_gates: bool) -> bool:
        """Unless plain differentiation is to keep what it likes."""
        return not keep_gates

    def trajectory(self, cell: Any, context: Context, steps: Steps, reverse: bool, how: How) -> Trajectory:
        """The states of all steps."""
        find = functools.partial(_find, cell, reverse, how)
        if how.keep_gates:
            return exact(context, find(context, steps), reverse)
        T = steps.x.shape[0]
        in_pieces = isinstance(T, int) and T >= LEAST_IN_PIECES and not context.time.split
        recurrence = derivative.Recurrence(
            functools.partial(masking.F, cell),
            reverse,
            solve_by_steps.by_scan(cell, reverse, how.unroll),
            functools.partial(backward.gradients, cell, reverse=reverse, unroll=how.unroll) if in_pieces else None,
        )
        return exact(context, derivative.differentiable(find, recurrence)(context, steps), reverse)


class Chunked(Engine):
    """Chunks of time whose steps are written out, for cells with a closed-form derivative."""

    def __init__(self, name: str) -> None:
        self.name = name

    def trajectory(self, cell: Any, context: Context, steps: Steps, reverse: bool, how: How) -> Trajectory:
        """The states of all steps."""
        T, *batch = steps.x.shape[:-1]
        # How many sequences a symbolic batch has, under jax.export, decides nothing but how long chunks are.
        rows = math.prod(size if isinstance(size, int) else 1 for size in batch)
        chunks = chunked.Chunks.of(how.chunk, T, rows, reverse, context.time.batch_leads)
        recurrence = derivative.Recurrence(
            functools.partial(masking.F, cell),
            reverse,
            solve_by_steps.by_scan(cell, reverse),
            functools.partial(chunked.gradients, cell, chunks=chunks),
        )
        find = functools.partial(chunked.find, cell, chunks=chunks)
        full = derivative.differentiable(functools.partial(find, keep=how.keep_gates), recurrence, aux=True)
        if not how.keep_gates:
            return exact(context, full(context, steps)[0], reverse)
        # What is kept is nothing that a forward pass alone should have to write.
        alone = lambda context, steps: find(context, steps, keep=False)[0]  # noqa: E731
        states = derivative.lean(alone, lambda context, steps: full(context, steps)[0])(context, steps)
        return exact(context, states, reverse)


def _find(cell: Any, reverse: bool, how: How, context: Context, steps: Steps) -> State:
    # A hoisted projection has used x up, so only the flags travel with it.
    inputs: Any = (None, steps)
    if how.hoist:
        inputs = (jax.vmap(lambda x: masking.project(cell, context, x))(steps.x), steps._replace(x=None))

    def body(h: State, now: tuple[Projected, Steps]) -> tuple[State, State]:
        u, step = now
        u = masking.project(cell, context, step.x) if u is None else u
        h = masking.advance(cell, context, u, step, h)
        return h, h

    def run(start: State) -> tuple[State, State]:
        return lax.scan(body, start, inputs, reverse=reverse, unroll=how.unroll)

    return context.time.relay(run, context.h0, reverse)[1]
