"""The recurrence step by step, under `jax.lax.scan`."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax import checks
from gru_jax.cells.base import Cell
from gru_jax.scans import backward, derivative, engines, masking
from gru_jax.scans.engines.xla import chunked
from gru_jax.scans.linear import solve_by_steps
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, certain, exact
from gru_jax.types import State

LEAST_IN_PIECES = 64
"""From how many steps on a backward pass from the states alone goes piece by piece; below, all steps are a piece."""


@checks.suggesting
@dataclasses.dataclass(frozen=True)
class Sequential:
    """One step after another: exact for every cell, O(T) time.

    Args:
      unroll: steps per iteration of the loop, with kernel "scan".
      kernel: what runs the loop: "scan" (`lax.scan`), "chunked" (chunks of time whose steps are written out, for cells
        with a closed-form derivative), "xla" for the better of the two. For `GRU(reset="after")` on a CPU, in float32
        and bfloat16, "llvm" (one call for the whole sequence, of code that is written for the processor at its first
        use; the fast one there). For `GRU` on a GPU or a TPU "pallas" (one kernel for the whole sequence, the
        recurrent matrix on the chip), "cudnn" (cuDNN's GRU, on a GPU, built at its first use: see `gru-jax
        build-kernels`), and "interpret-gpu" or "interpret-tpu", which run the Pallas kernels slowly on any backend. Or
        "auto".
      keep: what is stored for the backward pass, by "scan", "chunked" and "llvm": "states" (nothing but the states; the
        gates are computed again, for all steps or a chunk of them in one product), "gates" (with kernel "scan" what
        plain differentiation of the loop stores: the gates and more, nothing computed again, but gradients of
        parameters add up in their own dtype; with "chunked" the products, where the cell has them apart; with "llvm"
        the gates), or "auto".
      chunk: about how many steps are written out, with kernel "chunked", or "auto".
      checkpoint_every: for long sequences, keep one state in so many for the backward pass and run the steps
        between two of them again: memory for T / checkpoint_every + checkpoint_every steps where y itself is not used,
        for one more forward pass; None keeps what `keep` says of all steps.
      cores: with kernel "llvm", how many threads may work at a time, of those that XLA has, each on some of the
        sequences or, where there are few or the layer is wide, on some of the units; or "auto".
      hoist: with kernel "scan", True projects the input of all steps in one product before the loop, False each step's
        inside it (XLA's CPU code for a loop that slices a projected input does not vectorise), "auto" decides by
        backend.

    "auto" is decided in `gru_jax.scans.select`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.GRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> y, h = gj.scan(cell, params, jnp.ones((2, 7, 3)), method=gj.Sequential(unroll=4))
      >>> y.shape, h.shape
      ((2, 7, 4), (2, 4))
    """

    unroll: int = 1
    kernel: str = "auto"
    _: dataclasses.KW_ONLY
    keep: str = "auto"
    chunk: int | str = "auto"
    checkpoint_every: int | None = None
    hoist: bool | str = "auto"
    cores: int | str = "auto"

    def __post_init__(self) -> None:
        checks.positive("Sequential", "unroll", self.unroll)
        every = ("auto", "xla", "scan", "chunked", "llvm", "cudnn", *engines.PALLAS)
        checks.choice("Sequential", "kernel", self.kernel, every)
        if self.chunk != "auto":
            checks.positive("Sequential", "chunk", self.chunk)
        if self.checkpoint_every is not None:
            checks.positive("Sequential", "checkpoint_every", self.checkpoint_every)
        checks.choice("Sequential", "hoist", self.hoist, ("auto", True, False))
        if self.cores != "auto":
            checks.positive("Sequential", "cores", self.cores)
        checks.choice("Sequential", "keep", self.keep, ("auto", "states", "gates"))

    def trajectory(self, cell: Any, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps."""
        if self.checkpoint_every is not None and not context.time.split:
            return self._by_segments(cell, context, steps, reverse, self.checkpoint_every)

        def find(context: Context, steps: Steps) -> State:
            return self._find(cell, context, steps, reverse)

        if self.kernel == "chunked":
            return exact(context, self._by_chunks(cell, context, steps, reverse), reverse)
        if self.kernel == "llvm":
            # Imported here, like the kernels below: what is not used need not be there.
            from gru_jax.scans.engines.llvm import gru as llvm_gru

            keep, cores = self.keep == "gates", int(self.cores)
            return llvm_gru.trajectory(cell, context, steps, reverse, keep=keep, cores=cores)
        if self.kernel == "cudnn":
            from gru_jax.scans.engines import cudnn

            return cudnn.trajectory(cell, context, steps, reverse)
        if self.kernel in engines.PALLAS:
            from gru_jax.scans.engines.pallas import gru

            target = engines.target("Sequential", self.kernel)
            return exact(context, gru.states(cell, context, steps, reverse, target), reverse)
        if not self.keeps_states():
            return exact(context, find(context, steps), reverse)
        T = steps.x.shape[0]
        in_pieces = isinstance(T, int) and T >= LEAST_IN_PIECES and not context.time.split
        recurrence = derivative.Recurrence(
            functools.partial(masking.F, cell),
            reverse,
            solve_by_steps.by_scan(cell, reverse, self.unroll),
            functools.partial(backward.gradients, cell, reverse=reverse, unroll=self.unroll) if in_pieces else None,
        )
        return exact(context, derivative.differentiable(find, recurrence)(context, steps), reverse)

    @property
    def masks_input(self) -> bool:
        """Whether what x holds at masked steps is left to the method."""
        return self.kernel == "llvm"

    @property
    def reads_original(self) -> bool:
        """Whether parameters are read as the caller's framework lays them out, where that is known."""
        return self.kernel == "llvm"

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""
        if self.kernel in ("chunked", "llvm", "cudnn") or self.checkpoint_every is not None:
            return False
        return self.keep != "gates" or self.kernel in engines.PALLAS

    def _by_segments(self, cell: Cell, context: Context, steps: Steps, reverse: bool, length: int) -> Trajectory:
        """Segment after segment, each run again in the backward pass from the state before it."""
        within = dataclasses.replace(self, checkpoint_every=None)

        @jax.checkpoint
        def segment(h: State, context: Context, part: Steps) -> tuple[State, State]:
            found = within.trajectory(cell, context._replace(h0=h), part, reverse)
            return found.final, found.states

        T = steps.x.shape[0]
        whole = T - T % length
        # The rest is what time reaches last.
        first = T - whole if reverse else 0
        cut = lambda start, stop: jax.tree.map(lambda a: a[start:stop], steps)  # noqa: E731
        parts = jax.tree.map(lambda a: a.reshape(whole // length, length, *a.shape[1:]), cut(first, first + whole))
        h, found = lax.scan(lambda h, part: segment(h, context, part), context.h0, parts, reverse=reverse)
        states = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), found)
        if whole < T:
            h, rest = segment(h, context, cut(0, first) if reverse else cut(whole, T))
            ends = (rest, states) if reverse else (states, rest)
            states = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *ends)
        like = jax.tree.leaves(context.h0)[0]
        return Trajectory(states, h, certain(like.shape[:-1], like.dtype))

    def _by_chunks(self, cell: Any, context: Context, steps: Steps, reverse: bool) -> State:
        T, *batch = steps.x.shape[:-1]
        # How many sequences a symbolic batch has, under jax.export, decides nothing but how long chunks are.
        rows = math.prod(size if isinstance(size, int) else 1 for size in batch)
        chunk, batch_leads = int(self.chunk), context.time.batch_leads
        chunks = chunked.Chunks.of(chunk, T, rows, reverse, batch_leads)
        recurrence = derivative.Recurrence(
            functools.partial(masking.F, cell),
            reverse,
            solve_by_steps.by_scan(cell, reverse),
            functools.partial(chunked.gradients, cell, chunks=chunks),
        )
        find = functools.partial(chunked.find, cell, chunks=chunks)
        full = derivative.differentiable(functools.partial(find, keep=self.keep == "gates"), recurrence, aux=True)
        if self.keep != "gates":
            return full(context, steps)[0]
        # What is kept is nothing that a forward pass alone should have to write.
        alone = lambda context, steps: find(context, steps, keep=False)[0]  # noqa: E731
        return derivative.lean(alone, lambda context, steps: full(context, steps)[0])(context, steps)

    def _find(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> State:
        # A hoisted projection has used x up, so only the flags travel with it.
        if self.hoist is True:
            u = jax.vmap(lambda x: masking.project(cell, context, x))(steps.x)
            inputs: Any = (u, steps._replace(x=None))
        else:
            inputs = (None, steps)

        def body(h: State, now: tuple[Any, Steps]) -> tuple[State, State]:
            u, step = now
            u = masking.project(cell, context, step.x) if u is None else u
            h = masking.advance(cell, context, u, step, h)
            return h, h

        def run(start: State) -> tuple[State, State]:
            return lax.scan(body, start, inputs, reverse=reverse, unroll=self.unroll)

        return context.time.relay(run, context.h0, reverse)[1]


@dataclasses.dataclass(frozen=True)
class Lean:
    """One way where nothing is differentiated, another, which does more for a backward pass, where something is.

    Args:
      alone: what runs in a forward pass alone.
      differentiated: what runs otherwise.
    """

    alone: Sequential
    differentiated: Sequential

    def trajectory(self, cell: Any, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps."""

        def states(method: Sequential) -> Any:
            return lambda context, steps: method.trajectory(cell, context, steps, reverse).states

        found = derivative.lean(states(self.alone), states(self.differentiated))(context, steps)
        return exact(context, found, reverse)

    @property
    def masks_input(self) -> bool:
        """Whether what x holds at masked steps is left to both."""
        return self.alone.masks_input and self.differentiated.masks_input

    @property
    def reads_original(self) -> bool:
        """Whether one of them reads parameters as the caller's framework lays them out."""
        return self.alone.reads_original or self.differentiated.reads_original

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""
        return self.differentiated.keeps_states()
