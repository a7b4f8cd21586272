"""What the kernels compute as loops of XLA's, for a processor that LLVM cannot compile one of them for.

Arguments and results are those of the kernels, so that forward and backward pass may be of either kind.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.scans.engines.llvm.plan import Plan
from gru_jax.types import Array


def gru_forward(plan: Plan, x: Array, h0: Array, w_x: Array, w_h: Array, *others: Array) -> tuple[Array, ...]:
    """The states, and the gates `[T, B, blocks, 4, lanes]` where the plan keeps them."""
    biases, use = (list(others[:-1]), others[-1]) if plan.masked else (list(others), None)
    x, used = _seen(plan, x, use)
    w_x, w_h = (w.T if plan.weights.transposed else w for w in (w_x, w_h))
    gates = _gates(plan, w_x, w_h, biases)

    def step(h: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Any]]:
        r, z, n, q = gates(now[0], h)
        new = n + z * (h - n)
        new = lax.reduce_precision(new, 8, 7) if plan.bfloat16 else new
        h = jnp.where(now[1], new, h)
        return h, (h, (r, z, n, q) if plan.keep else ())

    states, kept = lax.scan(step, h0, (x, used))[1]
    if not plan.keep:
        return (_placed(plan, states),)
    filled = [jnp.pad(g, [(0, 0), (0, 0), (0, plan.width - plan.units)]) for g in kept]
    return _placed(plan, states), jnp.stack([g.reshape(*g.shape[:2], plan.blocks, plan.lanes) for g in filled], 3)


def gru_backward(plan: Plan, x: Array, h0: Array, w_x: Array, w_h: Array, *others: Array) -> tuple[Array, ...]:
    """The gradients of x, h0, w_x, w_h and of all biases `[2, 3H]`."""
    given = iter(others)
    biases = [] if plan.keep or plan.bias == "none" else [next(given), next(given)]
    x, used = _seen(plan, x, next(given) if plan.masked else None)
    states = _in_turn(plan, next(given))
    before = jnp.concatenate([h0[None], states[:-1]])
    if plan.keep:
        kept = next(given)
        gates = tuple(kept[:, :, :, k].reshape(*kept.shape[:2], -1)[..., : plan.units] for k in range(4))
    else:
        gates = _gates(plan, w_x, w_h, biases)(x, before)

    def step(later: Array, now: Any) -> tuple[Array, Any]:
        c, used, h, (r, z, n, q) = now
        adjoint = later + c
        moving = jnp.where(used, adjoint, jnp.zeros_like(adjoint))
        d_n = moving * (1 - z) * (1 - n * n)
        d_q = d_n * r
        d_r, d_z = d_q * q * (1 - r), moving * (h - n) * z * (1 - z)
        through = jnp.concatenate([d_r, d_z, d_q], -1) @ w_h.T
        return through + jnp.where(used, z * adjoint, adjoint), (d_r, d_z, d_n, d_q)

    moving = (_in_turn(plan, next(given)), used, before, gates)
    d_h0, (d_r, d_z, d_n, d_q) = lax.scan(step, jnp.zeros_like(h0), moving, reverse=True)
    d_u, d_v = jnp.concatenate([d_r, d_z, d_n], -1), jnp.concatenate([d_r, d_z, d_q], -1)
    product = lambda a, d: jnp.einsum("tbi,tbj->ij", a, d)  # noqa: E731
    d_b = jnp.stack([d_u.sum((0, 1)), d_v.sum((0, 1))])
    return _placed(plan, d_u @ w_x.T), d_h0, product(x, d_u), product(before, d_v), d_b


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


def _gates(plan: Plan, w_x: Array, w_h: Array, biases: list[Array]) -> Callable[[Array, Array], tuple[Array, ...]]:
    """r, z, n and the product inside n, as a function of x and h."""
    places = [plan.weights.place(gate) for gate in range(3)]

    def split(a: Array) -> list[Array]:
        each = jnp.split(a, 3, -1)
        return [each[place] for place in places]

    zeros = jnp.zeros_like(w_x[0])
    b_x, b_h = (split(b) for b in (biases if plan.bias == "full" else ((biases or [zeros])[0], zeros)))
    inside = biases[1] if plan.bias == "minimal" else b_h[2]

    def gates(x: Array, h: Array) -> tuple[Array, ...]:
        u, v = split(x @ w_x), split(h @ w_h)
        add = lambda a, *biases: sum((jnp.broadcast_to(b, a.shape) for b in biases), a)  # noqa: E731
        r, z = (jax.nn.sigmoid(add(u[k] + v[k], b_x[k], b_h[k])) for k in (0, 1))
        q = add(v[2], inside)
        return r, z, jnp.tanh(add(u[2], b_x[2]) + r * q), q

    return gates


def _seen(plan: Plan, x: Array, use: Array | None) -> tuple[Array, Array]:
    """x, `[T, B, I]` in the order of time, 0 where it is not used, and where it is."""
    x = _in_turn(plan, x)
    if use is None:
        return x, jnp.ones((*x.shape[:2], 1), bool)
    used = _in_turn(plan, use)[..., None]
    return jnp.where(used, x, jnp.zeros_like(x)), used


def _in_turn(plan: Plan, a: Array) -> Array:
    a = jnp.swapaxes(a, 0, 1) if plan.batch_leads else a
    return jnp.flip(a, 0) if plan.reverse else a


def _placed(plan: Plan, a: Array) -> Array:
    """The inverse."""
    a = jnp.flip(a, 0) if plan.reverse else a
    return jnp.swapaxes(a, 0, 1) if plan.batch_leads else a
