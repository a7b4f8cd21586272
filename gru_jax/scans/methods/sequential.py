"""The recurrence step by step, under `jax.lax.scan`."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax import checks
from gru_jax.cells.base import Cell
from gru_jax.scans import derivative
from gru_jax.scans.engines import registry
from gru_jax.scans.engines.registry import How, Needs
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, certain, exact
from gru_jax.types import State


@checks.suggesting
@dataclasses.dataclass(frozen=True)
class Sequential:
    """One step after another: exact for every cell, O(T) time.

    Args:
      unroll: steps per iteration of the loop, with kernel "scan".
      kernel: what runs the loop: "scan" (`lax.scan`), "chunked" (chunks of time whose steps are written out, for cells
        with a closed-form derivative), "xla" for the better of the two. For `GRU`, `MGU`, `gj.LSTM` and
        `TanhRNN` on a CPU, in float32 and bfloat16, "llvm" (one call for the whole sequence, of code that is written
        for the processor at its first use; the fast one there). For `GRU` on a GPU or a TPU "pallas" (one kernel for
        the whole sequence, the recurrent matrix on the chip), "cudnn" (cuDNN's GRU, on a GPU, built at its first use:
        see `gru-jax build-kernels`), and "interpret-gpu" or "interpret-tpu", which run the Pallas kernels slowly on any
        backend. Or "auto".
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
        checks.choice("Sequential", "kernel", self.kernel, ("auto", "xla", *registry.STEPPING))
        if self.chunk != "auto":
            checks.positive("Sequential", "chunk", self.chunk)
        if self.checkpoint_every is not None:
            checks.positive("Sequential", "checkpoint_every", self.checkpoint_every)
        checks.choice("Sequential", "hoist", self.hoist, ("auto", True, False))
        if self.cores != "auto":
            checks.positive("Sequential", "cores", self.cores)
        checks.choice("Sequential", "keep", self.keep, ("auto", "states", "gates"))

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps."""
        if self.checkpoint_every is not None and not context.time.split:
            return self._by_segments(cell, context, steps, reverse, self.checkpoint_every)
        return registry.engine(self.kernel).trajectory(cell, context, steps, reverse, self.how)

    @property
    def how(self) -> How:
        """The options as an engine takes them."""
        chunk, cores = (1 if each == "auto" else int(each) for each in (self.chunk, self.cores))
        return How(self.keep == "gates", chunk, cores, self.unroll, self.hoist is True)

    @property
    def needs(self) -> Needs:
        """How the call's arrays are wanted."""
        return registry.engine(self.kernel).needs

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""
        return self.checkpoint_every is None and registry.engine(self.kernel).keeps_states(self.keep == "gates")

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


@dataclasses.dataclass(frozen=True)
class Lean:
    """One way where nothing is differentiated, another, which does more for a backward pass, where something is.

    Args:
      alone: what runs in a forward pass alone.
      differentiated: what runs otherwise.
    """

    alone: Sequential
    differentiated: Sequential

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps."""

        def states(method: Sequential) -> Callable[[Context, Steps], State]:
            return lambda context, steps: method.trajectory(cell, context, steps, reverse).states

        found = derivative.lean(states(self.alone), states(self.differentiated))(context, steps)
        return exact(context, found, reverse)

    @property
    def needs(self) -> Needs:
        """How both want the call's arrays."""
        return self.alone.needs & self.differentiated.needs

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""
        return self.differentiated.keeps_states()
