"""What the kernels compute as loops of XLA's, for a processor that LLVM cannot compile one of them for.

Arguments and results are those of the kernels, so that forward and backward pass may be of either kind.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from gru_jax.cells import activations
from gru_jax.scans.engines.llvm.plan import RESET, USED, Plan
from gru_jax.types import Array, Tree


class Arrays:
    """`cells.Numbers` that are arrays."""

    number = staticmethod(jnp.float32)
    add, sub, mul, neg = (staticmethod(f) for f in (jnp.add, jnp.subtract, jnp.multiply, jnp.negative))

    def fma(self, a: Array, b: Array, c: Array) -> Array:
        """a * b + c."""
        return a * b + c

    def activation(self, name: str, x: Array) -> Array:
        """An activation by its name."""
        return activations.get(name)(x)

    def slope(self, name: str, x: Array) -> Array:
        """Its derivative at x."""
        return activations.slope(activations.get(name), x)

    def slope_at(self, name: str, value: Array) -> Array:
        """The same, of one that has it by its value."""
        return _SLOPES_AT[name](value)


def forward(plan: Plan, **given: Array) -> dict[str, Array]:
    """The states, and what the plan keeps of each step, `[T, B, blocks, kept, lanes]`."""
    around = _Around(plan, given)

    def of_step(h: tuple[Array, ...], now: Tree) -> tuple[Tree, Tree]:
        x, used, reset = now
        old = around.starts(h, reset)
        new, kept = around.step(x, old)
        new = [lax.reduce_precision(a, 8, 7) if plan.bfloat16 else a for a in new]
        after = tuple(jnp.where(used, a, b) for a, b in zip(new, old, strict=True))
        return after, (after, kept if plan.keep else ())

    states, kept = lax.scan(of_step, around.h0, around.moving)[1]
    found = {f"y_{k}": _placed(plan, a) for k, a in enumerate(states)}
    if plan.keep:
        filled = [jnp.pad(a, [(0, 0), (0, 0), (0, plan.width - plan.units)]) for a in kept]
        blocks = [a.reshape(*a.shape[:2], plan.blocks, plan.lanes) for a in filled]
        found["kept"] = jnp.stack(blocks, 3)
    return found


def backward(plan: Plan, **given: Array) -> dict[str, Array]:
    """The gradients of x, the states before the first step, the matrices, all biases `[2, G H]`, and reset_to."""
    around, cell, states = _Around(plan, given), plan.cell, range(plan.states)
    ys, cs = ([_in_turn(plan, given[f"{name}_{k}"]) for k in states] for name in "yc")
    x, used, reset = around.moving
    before = [jnp.concatenate([h[None], y[:-1]]) for h, y in zip(around.h0, ys, strict=True)]
    old = around.starts(before, reset)
    if plan.keep:
        kept = [given["kept"][:, :, :, k].reshape(*x.shape[:2], -1)[..., : plan.units] for k in range(cell.kept)]
    else:
        kept = around.step(x, old)[1]
    seen = old[0] * jnp.broadcast_to(around.drop, old[0].shape)
    w_first, w_last = jnp.split(given["w_h"], [len(cell.phases[0]) * plan.units], 1)

    def step(later: Tree, now: Tree) -> tuple[Tree, Tree]:
        passed, sums = later
        c, used, reset, kept, old, seen = now
        adjoint = [a + b for a, b in zip(passed, c, strict=True)]
        moving = [jnp.where(used, a, jnp.zeros_like(a)) for a in adjoint]
        d, past = cell.backward(_ARRAYS, kept, old, moving)
        through = jnp.zeros_like(seen)
        if cell.second:
            operand, more, through = cell.backward_operand(_ARRAYS, kept, seen, d[-1] @ w_last.T)
            d = [b if a is None else a for a, b in zip(d, more, strict=True)]
        through += jnp.concatenate([d[cell.slot_of_q(g)] for g in cell.phases[0]], -1) @ w_first.T
        past = [jnp.where(used, a, b) for a, b in zip(past, adjoint, strict=True)]
        past[0] = past[0] + through * around.drop
        sums = tuple(a + jnp.where(reset, b, jnp.zeros_like(b)) for a, b in zip(sums, past, strict=True))
        passed = tuple(jnp.where(reset, jnp.zeros_like(a), a) for a in past)
        return (passed, sums), (d, operand if cell.second else ())

    zeros = tuple(map(jnp.zeros_like, around.h0))
    moving = (cs, used, reset, kept, old, seen)
    (d_h0, d_sets), (d, operand) = lax.scan(step, (zeros, zeros), moving, reverse=True)
    every = range(cell.gates)
    d_u, d_q = (jnp.concatenate([d[slot(g)] for g in every], -1) for slot in (cell.slot_of_u, cell.slot_of_q))
    product = lambda a, d: jnp.einsum("tbi,tbj->ij", a, d)  # noqa: E731
    of_first, of_last = jnp.split(d_q, [w_first.shape[1]], -1)
    d_w_h = product(seen, of_first)
    if cell.second:
        d_w_h = jnp.concatenate([d_w_h, product(operand, of_last)], -1)
    found = {"d_x": _placed(plan, d_u @ given["w_x"].T), "d_w_x": product(x, d_u), "d_w_h": d_w_h}
    found["d_b"] = jnp.stack([d_u.sum((0, 1)), d_q.sum((0, 1))])
    return found | {f"{name}_{k}": each[k] for name, each in (("d_h0", d_h0), ("d_reset_to", d_sets)) for k in states}


class _Around:
    """A call's arrays in the order of time, `[T, B, n]`, and its step.

    Attributes:
      h0: the states before the first step.
      moving: x, 0 where it is not used, where it is used, and where the state is set to another before the step.
      drop: the factors of what products are of.
    """

    def __init__(self, plan: Plan, given: dict[str, Array]) -> None:
        self.plan, self.given = plan, given
        self.h0 = tuple(given[f"h0_{k}"] for k in range(plan.states))
        x = _in_turn(plan, given["x"])
        flags = jnp.full((*x.shape[:2], 1), USED, jnp.uint8)
        if plan.flagged:
            flags = _in_turn(plan, given["flags"]).astype(jnp.uint8)[..., None]
        used, reset = (flags & bit != 0 for bit in (USED, RESET))
        self.moving = jnp.where(used, x, jnp.zeros_like(x)), used, reset
        self.drop = given.get("drop", jnp.ones_like(self.h0[0]))
        self.w_x, self.w_h = (given[w].T if plan.weights.transposed else given[w] for w in ("w_x", "w_h"))

    def split(self, a: Array) -> list[Array]:
        """Gates side by side, in the cell's order."""
        each = jnp.split(a, self.plan.cell.gates, -1)
        return [each[self.plan.place(gate)] for gate in range(self.plan.cell.gates)]

    def starts(self, h: Sequence[Array], reset: Array) -> list[Array]:
        """The states that steps set out from."""
        if not self.plan.resets:
            return list(h)
        sets = [jnp.broadcast_to(self.given[f"reset_to_{k}"], a.shape) for k, a in enumerate(h)]
        return [jnp.where(reset, to, a) for to, a in zip(sets, h, strict=True)]

    def step(self, x: Array, old: list[Array]) -> tuple[list[Array], list[Array]]:
        """The states after a step, or several, and what is kept of it."""
        cell, given = self.plan.cell, self.given
        b_x = self.split(given.get("b_x", jnp.zeros_like(self.w_x[0])))
        b_q = [jnp.zeros_like(b) for b in b_x]
        if self.plan.bias == "full":
            b_q = self.split(given["b_h"])
        if self.plan.bias == "minimal":
            b_q[-1] = given["b_h"]
        add = lambda a, b: a + jnp.broadcast_to(b, a.shape)  # noqa: E731
        u, w_h = [add(a, b) for a, b in zip(self.split(x @ self.w_x), b_x, strict=True)], self.split(self.w_h)
        operand = old[0] * jnp.broadcast_to(self.drop, old[0].shape)
        first: list[Array] = []
        for k, gates in enumerate(cell.phases):
            u_now, q = [u[g] for g in gates], [add(operand @ w_h[g], b_q[g]) for g in gates]
            if k < len(cell.phases) - 1:
                operand, first = cell.operand(_ARRAYS, u_now, q, operand)
        new, kept = cell.forward(_ARRAYS, u_now, q, old, first)
        return new, [*first, *kept]


def recurrence(a: Array, b: Array, h0: Array, *, reverse: bool) -> Array:
    """The states of `h_t = a_t h_{t-1} + b_t`, arrays `[sequences, T, width]`."""
    step = lambda h, now: (now[0] * h + now[1],) * 2  # noqa: E731
    moving = tuple(jnp.swapaxes(each, 0, 1) for each in (a, b))
    return jnp.swapaxes(lax.scan(step, h0, moving, reverse=reverse)[1], 0, 1)


def recurrence_gradients(a: Array, h0: Array, h: Array, c: Array, *, reverse: bool) -> tuple[Array, Array, Array]:
    """The gradients of a, b and h0 from those of the states, c."""
    a, h, c = (jnp.swapaxes(each, 0, 1) for each in (a, h, c))
    before = jnp.concatenate([h[1:], h0[None]] if reverse else [h0[None], h[:-1]])

    def step(later: Array, now: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        a, before, c = now
        adjoint = later + c
        return a * adjoint, (adjoint * before, adjoint)

    d_h0, found = lax.scan(step, jnp.zeros_like(h0), (a, before, c), reverse=not reverse)
    d_a, d_b = (jnp.swapaxes(each, 0, 1) for each in found)
    return d_a, d_b, d_h0


def _in_turn(plan: Plan, a: Array) -> Array:
    a = jnp.swapaxes(a, 0, 1) if plan.batch_leads else a
    return jnp.flip(a, 0) if plan.reverse else a


def _placed(plan: Plan, a: Array) -> Array:
    """The inverse."""
    a = jnp.flip(a, 0) if plan.reverse else a
    return jnp.swapaxes(a, 0, 1) if plan.batch_leads else a


_ARRAYS = Arrays()
_SLOPES_AT = {
    "tanh": lambda value: 1 - value * value,
    "sigmoid": lambda value: value * (1 - value),
    "relu": lambda value: (value > 0).astype(value.dtype),
    "linear": jnp.ones_like,
    "exponential": lambda value: value,
}
