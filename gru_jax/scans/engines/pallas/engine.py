"""The Pallas kernels for GPU and TPU as an engine."""

from typing import Any

import jax.numpy as jnp

from gru_jax.cells.base import Cell, gifts
from gru_jax.scans.engines.pallas import recurrence
from gru_jax.scans.engines.pallas.recurrence import Coefficients, Operands
from gru_jax.scans.engines.pallas.target import Target, target
from gru_jax.scans.engines.registry import Around, Asked, How, LinearEngine, Rounds
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.trajectory import Trajectory, exact
from gru_jax.types import Array


class Pallas(LinearEngine):
    """One kernel for the whole sequence, the recurrent matrix on the chip."""

    def __init__(self, name: str) -> None:
        self.name = name

    def require(self, who: str) -> None:
        """Raises where there is neither a GPU nor a TPU."""
        self.target(who)

    def target(self, who: str) -> Target:
        """What its kernels are made for."""
        return target(who, self.name)

    def refusal(self, cell: Cell, asked: Asked) -> str | None:
        """What of a call it does not serve."""
        from gru_jax.scans.engines.pallas import gru

        return gru.refusal(cell, asked, self.target("Sequential"))

    def keeps_states(self, keep_gates: bool) -> bool:
        """True: gates are computed again."""
        return True

    def trajectory(self, cell: Any, context: Context, steps: Steps, reverse: bool, how: How) -> Trajectory:
        """The states of all steps."""
        from gru_jax.scans.engines.pallas import gru

        return exact(context, gru.states(cell, context, steps, reverse, self.target("Sequential")), reverse)

    def rounds(self, cell: Cell, context: Context, steps: Steps) -> Rounds | None:
        """A round of Newton's method."""
        from gru_jax.scans.engines.pallas import newton_diagonal

        if not newton_diagonal.serves(cell):
            return None
        return newton_diagonal.Rounds.of(cell, context, steps, self.target("Newton"))

    def states(self, a: Array, b: Array, h0: Array, **how: bool) -> Array:
        """`h_t = a_t h_{t-1} + b_t`."""
        return recurrence.states(self.target("linear_scan"), _as_read, Operands((a, b)), h0, **how)[0]

    def gradients(
        self, a: Array, b: Array, h0: Array, h: Array, c: Array, **how: bool
    ) -> tuple[Array, Array, Array]:
        """Those of a, b and h0."""
        operands = Operands((a, b))
        each, d_h0 = recurrence.gradients(self.target("linear_scan"), _as_read, operands, h0, h, c, **how)
        d_a, d_b = each.streams
        return d_a, d_b, d_h0

    def adjoint(self, a: Array, c: Array, *, reverse: bool, batch_leads: bool) -> Array:
        """`l_t = c_t + a_{t+1} l_{t+1}`."""
        start = jnp.zeros_like(c[:, 0] if batch_leads else c[0])
        operands = Operands((c,), lagged=((a, start.astype(a.dtype)),))
        how = {"reverse": not reverse, "batch_leads": batch_leads}
        return recurrence.states(self.target("linear_scan"), lambda c, a: (a, c), operands, start, **how)[0]

    def takes(self, cell: Cell) -> bool:
        """Whether the cell says how (a, b) come from its projected input."""
        return gifts(cell).coefficients

    def cell_states(self, cell: Any, u: Array, h0: Array, around: Around, **how: bool) -> Array:
        """The states of such a cell."""
        coefficients, operands = _coefficients(cell, around), _operands(u, around)
        return recurrence.states(self.target("Associative"), coefficients, operands, h0, **how)[0]

    def cell_gradients(
        self, cell: Any, u: Array, h0: Array, around: Around, h: Array, c: Array, **how: bool
    ) -> tuple[Array, Array, Array | None]:
        """The gradients of u, h0 and what a reset sets the state to."""
        coefficients, operands = _coefficients(cell, around), _operands(u, around)
        each, d_h0 = recurrence.gradients(self.target("Associative"), coefficients, operands, h0, h, c, **how)
        return each.streams[0], d_h0, each.rows[0] if each.rows else None


def _as_read(a: Array, b: Array) -> tuple[Array, Array]:
    return a, b


def _operands(u: Array, around: Around) -> Operands:
    flags = tuple(flag for flag in (around.use, around.reset) if flag is not None)
    return Operands((u,), flags=flags, rows=() if around.reset_to is None else (around.reset_to,))


def _coefficients(cell: Any, around: Around) -> Coefficients:
    """A cell's (a, b) of one step with masks and resets folded in, to be traced into a kernel."""
    masked, resets = around.use is not None, around.reset is not None

    def coefficients(*values: Array) -> tuple[Array, Array]:
        a, b = cell.coefficients(*values[: cell.parts])
        rest = iter(values[cell.parts :])
        use = next(rest) if masked else None
        if resets:
            reset, start = next(rest), next(rest)
            a, b = jnp.where(reset, jnp.zeros_like(a), a), jnp.where(reset, a * start + b, b)
        if use is not None:
            a, b = jnp.where(use, a, jnp.ones_like(a)), jnp.where(use, b, jnp.zeros_like(b))
        return a, b

    return coefficients
