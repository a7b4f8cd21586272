"""A round of Newton's method for a GRU, on the diagonal of its Jacobian, as one linear recurrence with all in it.

With g the iterate, F the step and d the diagonal of its Jacobian, all at g, a round solves

    m_t = s d_t m_{t-1} + (F_t(g_{t-1}) - g_t),        s = 1 / (1 + damping)

and moves the iterate by m. The step, its diagonal and the recurrence are elementwise once the recurrent products of all
steps are known, so that `recurrence.states` does all three where it reads u, the products and g: no gate and no
Jacobian goes through memory. The products are one matrix product over all steps, XLA's; with a diagonal recurrent
matrix there is none.
"""

from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp

from gru_jax.cells import activations
from gru_jax.cells.base import Cell
from gru_jax.cells.gru import GRU
from gru_jax.scans import masking
from gru_jax.scans.engines.pallas import recurrence
from gru_jax.scans.engines.pallas.recurrence import Operands
from gru_jax.scans.engines.pallas.target import Target
from gru_jax.scans.masking import Context, Steps
from gru_jax.types import Array


def serves(cell: Cell) -> TypeGuard[GRU]:
    """Whether a round of this cell is elementwise beside products that are known from the iterate alone."""
    if not isinstance(cell, GRU):
        return False
    # Pallas's Triton has no erfc; and what a user's own function is made of is not known.
    known = all(isinstance(each, str) and each != "gelu" for each in (cell.activation, cell.gate_activation))
    return known and (cell.reset == "after" or cell.heads == cell.hidden_size)


class Rounds(NamedTuple):
    """What all rounds over the same steps share.

    Attributes:
      cell: the GRU.
      context: its parameters, and the rest that is the same at every step; h0 of the dtype that is solved in.
      steps: time leading.
      u: the projected input of all steps with the gates' own biases, `[T, *batch, 3H]`.
      target: what the kernel is for.
    """

    cell: GRU
    context: Context
    steps: Steps
    u: Array
    target: Target

    @classmethod
    def of(cls, cell: GRU, context: Context, steps: Steps, target: Target) -> "Rounds":
        """Rounds over these steps."""
        u = jax.vmap(lambda x: masking.project(cell, context, x))(steps.x)
        u = u.astype(context.h0.dtype)
        if context.params.b_h is not None and cell.bias == "full":
            inside = context.params.b_h.astype(u.dtype).at[2 * cell.hidden_size :].set(0)
            u = u + jnp.broadcast_to(inside, u.shape)
        return cls(cell, context, steps, u, target)

    def products(self, before: Array) -> Array | None:
        """The recurrent products of all steps, `[T, *batch, 3H]`, from the states before them; None where none is."""
        if self._diagonal:
            return None
        made = jax.vmap(lambda step, h: masking.products(self.cell, self.context, step, h))(self.steps, before)
        return made.astype(before.dtype)

    def solve(self, h: Array, start: Array, products: Array | None, damping: Array) -> tuple[Array, Array]:
        """One round.

        Args:
          h: the iterate, `[T, *batch, H]`.
          start: the state before the first step, `[*batch, H]`.
          products: what `products` made of the states before each step.
          damping: `[*batch]`.

        Returns:
          By how much it moves, and F at the iterate, both `[T, *batch, H]`.
        """
        H, context, steps = self.cell.hidden_size, self.context, self.steps
        T, batch = h.shape[0], h.shape[1:-1]
        rows = lambda a: a.reshape(-1, H)  # noqa: E731
        per_step = lambda a: a.reshape(T, -1, *a.shape[1 + len(batch) :])  # noqa: E731
        parts = lambda a: a.reshape(T, -1, 3, H)  # noqa: E731
        scale = jnp.broadcast_to((1 / (1 + damping))[..., None], (*batch, H))
        given = {
            "u": parts(self.u),
            "products": None if products is None else parts(products),
            "h": per_step(h),
            "before": (per_step(h), rows(start)),
            "use": None if steps.use is None else per_step(steps.use),
            "reset": None if steps.reset is None else per_step(steps.reset),
            "scale": rows(scale),
            "reset_to": None if steps.reset is None else rows(context.reset_to.astype(h.dtype)),
            "drop": None if context.drop_h is None else rows(context.drop_h),
        }
        columns = self._columns()
        there = [name for name in _ORDER if given[name] is not None]
        sizes = {"u": 3, "products": 3}
        kinds = {kind: tuple(given[name] for name in names if name in there) for kind, names in _KINDS.items()}
        operands = Operands(**kinds, columns=tuple(columns.values()))

        def coefficients(*values: Array) -> tuple[Array, Array, Array]:
            rest = iter(values)
            seen = {name: [next(rest) for _ in range(sizes.get(name, 1))] for name in (*there, *columns)}
            return self._at_a_step(seen)

        zeros = jnp.zeros_like(rows(start))
        moved, after = recurrence.states(self.target, coefficients, operands, zeros, extras=1)
        return moved.reshape(h.shape), after.reshape(h.shape)

    def _at_a_step(self, seen: dict[str, list[Array]]) -> tuple[Array, Array, Array]:
        """(factor, what is new in the step, F) of one step of one unit; tiles, each of its name in `solve`."""
        u_r, u_z, u_n = seen["u"]
        (before,), (h,) = seen["before"], seen["h"]
        old = jnp.where(seen["reset"][0], seen["reset_to"][0], before) if "reset" in seen else before
        after, d = self._step(u_r, u_z, u_n, old, seen)
        if "reset" in seen:
            d = jnp.where(seen["reset"][0], jnp.zeros_like(d), d)
        if "use" in seen:
            d = jnp.where(seen["use"][0], d, jnp.ones_like(d))
            after = jnp.where(seen["use"][0], after, before)
        return d * seen["scale"][0], after - h, after

    def _step(self, u_r: Array, u_z: Array, u_n: Array, h: Array, seen: dict[str, list[Array]]) -> tuple[Array, Array]:
        """The cell's step from h, and the diagonal of its Jacobian: `GRU.step` and `GRU.diagonal`, gate by gate."""
        gate, candidate = activations.get(self.cell.gate_activation), activations.get(self.cell.activation)
        w_r, w_z, w_n = (seen[name][0] for name in ("w_r", "w_z", "w_n"))
        drop = seen["drop"][0] if "drop" in seen else None
        bias = seen["b_n"][0] if "b_n" in seen else None
        inside = h if drop is None else h * drop

        def times(w: Array, a: Array) -> Array:
            # As a product takes it: a state in single precision, rounded to the parameters' dtype.
            return w * a.astype(self.context.params.w_h.dtype).astype(a.dtype)

        def biased(g: Array) -> Array:
            return g if bias is None else g + bias

        if self._diagonal:
            g_r, g_z = times(w_r, inside), times(w_z, inside)
        else:
            g_r, g_z, g_n = seen["products"]
        a_r, a_z = u_r + g_r, u_z + g_z
        r, z = gate(a_r), gate(a_z)
        slope_r, slope_z = activations.slope(gate, a_r), activations.slope(gate, a_z)
        if self.cell.reset == "after":
            q = biased(times(w_n, inside) if self._diagonal else g_n)
            a_n = u_n + r * q
        else:
            a_n = u_n + biased(times(w_n, r * inside))
        n = candidate(a_n)
        k_n = (1 - z) * activations.slope(candidate, a_n)
        through = (h - n) * slope_z * w_z
        if self.cell.reset == "after":
            through = through + k_n * (q * slope_r * w_r + r * w_n)
        else:
            through = through + k_n * w_n * (inside * slope_r * w_r + r)
        return n + z * (h - n), z + (through if drop is None else through * drop)

    def _columns(self) -> dict[str, Array]:
        """The diagonals of the three recurrent matrices, and the candidate's bias inside, each `[H]`."""
        params, cell = self.context.params, self.cell
        blocks = params.w_h if cell.heads > 1 else params.w_h[None]
        diagonals = [jnp.diagonal(w, axis1=-2, axis2=-1).reshape(-1) for w in jnp.split(blocks, 3, -1)]
        columns = dict(zip(("w_r", "w_z", "w_n"), diagonals, strict=True))
        if params.b_h is not None:
            columns["b_n"] = params.b_h[-cell.hidden_size :]
        return columns

    @property
    def _diagonal(self) -> bool:
        return self.cell.heads == self.cell.hidden_size


_KINDS = {
    "streams": ("u", "products", "h"),
    "lagged": ("before",),
    "flags": ("use", "reset"),
    "rows": ("scale", "reset_to", "drop"),
}
_ORDER = [name for names in _KINDS.values() for name in names]
"""Values come to `coefficients` in this order."""
