"""Machine code for a CPU as an engine."""

from typing import Any

import jax
import jax.numpy as jnp

from gru_jax.cells.base import Cell
from gru_jax.scans.engines import llvm
from gru_jax.scans.engines.registry import Around, Asked, How, LinearEngine, Needs, usable_cores
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory
from gru_jax.types import Array, DType


class MachineCode(LinearEngine):
    """Code that is written for the processor at its first use; llvmlite is imported only then."""

    needs = Needs(raw_x=True, original=True)
    two_passes = True

    def __init__(self, name: str) -> None:
        self.name = name

    def refusal(self, cell: Cell, asked: Asked) -> str | None:
        """What of a call it does not serve."""
        if (reason := llvm.missing()) is not None:
            return reason
        from gru_jax.scans.engines.llvm import gated

        return gated.refusal(cell, asked)

    def trajectory(self, cell: Any, context: Context, steps: Steps, reverse: bool, how: How) -> Trajectory:
        """The states of all steps."""
        from gru_jax.scans.engines.llvm import gated

        return gated.trajectory(cell, context, steps, reverse, keep=how.keep_gates, cores=how.cores)

    def forward(
        self, cell: Any, context: Context, steps: Steps, reverse: bool, how: How
    ) -> tuple[Array, tuple[Array, ...]]:
        """The states, and what `backward` takes."""
        from gru_jax.scans.engines.llvm import gated

        return gated.forward(cell, context, steps, reverse, keep=how.keep_gates, cores=how.cores)

    def backward(
        self, cell: Any, context: Context, steps: Steps, reverse: bool, kept: tuple[Array, ...], cotangent: Array,
        how: How,
    ) -> tuple[Context, Steps]:
        """The gradients of all that made the states."""
        from gru_jax.scans.engines.llvm import gated

        return gated.backward(cell, context, steps, reverse, kept, cotangent, keep=how.keep_gates, cores=how.cores)

    def refusal_of_recurrence(self, who: str, dtype: DType) -> str | None:
        """What of a recurrence of such numbers it does not serve."""
        if (reason := llvm.missing()) is not None:
            return reason
        backend = jax.default_backend()
        if backend != "cpu":
            raise ValueError(f"{who}: kernel='llvm' needs a CPU; JAX runs on {backend} here; use kernel='auto'")
        from gru_jax.scans.engines.llvm import recurrence

        return recurrence.refusal(dtype)

    def states(self, a: Array, b: Array, h0: Array, **how: bool) -> Array:
        """`h_t = a_t h_{t-1} + b_t`."""
        from gru_jax.scans.engines.llvm import recurrence

        return recurrence.states(a, b, h0, cores=usable_cores(), **how)

    def gradients(
        self, a: Array, b: Array, h0: Array, h: Array, c: Array, **how: bool
    ) -> tuple[Array, Array, Array]:
        """Those of a, b and h0."""
        from gru_jax.scans.engines.llvm import recurrence

        return recurrence.gradients(a, h0, h, c, cores=usable_cores(), **how)

    def adjoint(self, a: Array, c: Array, *, reverse: bool, batch_leads: bool) -> Array:
        """`l_t = c_t + a_{t+1} l_{t+1}`: what a gradient of b is, whatever the states were."""
        start = jnp.zeros_like(c[:, 0] if batch_leads else c[0])
        return self.gradients(a, a, start, c, c, reverse=reverse, batch_leads=batch_leads)[1]

    def takes(self, cell: Cell) -> bool:
        """Whether it knows the cell's equations."""
        from gru_jax.scans.engines.llvm import minimal

        return minimal.takes(cell)

    def cell_states(self, cell: Any, u: Array, h0: Array, around: Around, **how: bool) -> Array:
        """The states of such a cell."""
        from gru_jax.scans.engines.llvm import minimal

        return minimal.states(cell, u, h0.astype(u.dtype), _as(u, around), cores=usable_cores(), **how)

    def cell_gradients(
        self, cell: Any, u: Array, h0: Array, around: Around, h: Array, c: Array, **how: bool
    ) -> tuple[Array, Array, Array | None]:
        """The gradients of u, h0 and what a reset sets the state to."""
        from gru_jax.scans.engines.llvm import minimal

        h0, h, c = (array.astype(u.dtype) for array in (h0, h, c))
        d_u, d_h0, *d_to = minimal.gradients(cell, u, h0, _as(u, around), h, c, cores=usable_cores(), **how)
        return d_u, d_h0, d_to[0] if d_to else None


def _as(u: Array, around: Around) -> Around:
    """With the state after a reset in the dtype of u."""
    return around if around.reset_to is None else around._replace(reset_to=around.reset_to.astype(u.dtype))
