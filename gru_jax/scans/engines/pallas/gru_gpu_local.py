"""A GRU's recurrence on a GPU without any exchange: a program owns some sequences and a head, for all of time.

The head's matrices are loaded once and the state never leaves the program. With one unit a head, a program owns some
units instead. What the next steps read from memory is asked for before the present ones are computed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.scans.engines.pallas import gru_gpu_tiles as tiles
from gru_jax.scans.engines.pallas.gru_gpu_plan import Plan
from gru_jax.scans.engines.pallas.gru_gpu_tiles import Tile
from gru_jax.scans.engines.pallas.target import Ref, output
from gru_jax.types import Array, BoolArray, Tree

Read = Callable[[Array], Tree]
"""What a kernel reads of a step."""
Step = Callable[[Array, Tree, Array, BoolArray | None], Array]
"""`(t, what was read, state, whether t is a step) -> state`; None where every t is one."""


class Walk(NamedTuple):
    """What a kernel does with a tile.

    Attributes:
      read: see `Read`.
      step: see `Step`.
      start: the first state.
      end: what is to be done with the last one, or None.
    """

    read: Read
    step: Step
    start: Array
    end: Callable[[Array], None] | None


def matrices(plan: Plan, w_h: Array, transposed: bool) -> Array:
    """What the programs load: `[tiles, 3, ...]`, each matrix as `tiles.product` takes it, with zeros around it.

    Args:
      plan: from `plan`.
      w_h: `[k, S, 3S]`.
      transposed: for the products of gradients.
    """
    heads, size, _ = w_h.shape
    w = jnp.moveaxis(w_h.reshape(heads, size, 3, size), 2, 1)
    if plan.product == "own":
        w = jnp.pad(w.reshape(heads, 3), ((0, -heads % plan.units), (0, 0)))
        return jnp.swapaxes(w.reshape(-1, plan.units, 3), 1, 2)[:, :, None]
    w = jnp.swapaxes(w, -1, -2) if transposed else w
    around = (0, plan.units - size)
    w = jnp.pad(w, ((0, 0), (0, 0), around, around))
    if plan.product == "dot":
        return w
    return jnp.swapaxes(w.reshape(heads, 3, -1, tiles.WIDE, plan.units), -1, -2)


def states(plan: Plan, inputs: dict[str, Array], *, before: bool, reverse: bool, interpret: bool) -> Array:
    """The states of all steps.

    Args:
      plan: from `plan`.
      inputs: "u" `[T, B, 3H]`, "w" from `matrices`, "start" `[B, H]`, and where there are such "b" `[1, 3H]`, "drop"
        and "reset_to" `[B, H]`, "flags" `[T, B]`.
      before: whether the reset comes before the product.
      reverse: from the last step to the first.
      interpret: whether Pallas's interpreter runs the kernel.

    Returns:
      `[T, B, H]`, of the dtype of "start".
    """
    T, B, width = inputs["u"].shape
    H = width // 3

    def kernel(refs: dict[str, Ref], tile: Tile, w: tuple[Array, ...]) -> Walk:
        fixed = {name: tile.load(refs[name]) for name in ("drop", "reset_to") if name in refs}
        one = tile._replace(row=0, rows=1, all_rows=1)
        b = tuple(one.load(refs["b"], shift=g * H) if "b" in refs else jnp.float32(0) for g in range(3))

        def read(t: Array) -> Tree:
            flag = tile.flags(refs["flags"], t) if "flags" in refs else None
            return tuple(tile.load(refs["u"], t, shift=g * H) for g in range(3)), flag

        def step(t: Array, now: Tree, h: Array, valid: BoolArray | None) -> Array:
            u, flag = now
            old = tiles.begin(flag, fixed.get("reset_to"), h)
            inside = tiles.scale(old, fixed.get("drop"))
            plus = lambda g, v: tiles.product(v, w[g]) + b[g]  # noqa: E731
            if before:
                r, z = (tiles.gate(u[g] + plus(g, inside)) for g in (0, 1))
                n = jnp.tanh(u[2] + plus(2, r * inside))
                after = n + z * (old - n)
            else:
                after = tiles.blend(u, tuple(plus(g, inside) for g in range(3)), old)
            h = tiles.end(flag, after, h)
            tile.store(refs["states"], t, value=h, when=valid)
            return h

        return Walk(read, step, tile.load(refs["start"]), None)

    out = {"states": output((T, B, H), inputs["start"].dtype, *inputs.values())}
    return _launch(plan, kernel, inputs, out, (T, B, H), reverse, interpret)["states"]


def adjoints(
    plan: Plan, inputs: dict[str, Array], *, before: bool, reverse: bool, interpret: bool
) -> tuple[Array, Array]:
    """The gradients of the states, and what reaches the start.

    Args:
      plan: from `plan`.
      inputs: "c" `[T, B, H]`, "z", "k_r", "k_z", "k_n", and "r" with a reset before the product, likewise, "w" from
        `matrices`, and where there are such "drop" `[B, H]`, "flags" `[T, B]`.
      before, reverse, interpret: as for `states`.

    Returns:
      `[T, B, H]`, of the dtype of "c", and `[B, H]`, float32.
    """
    T, B, H = inputs["c"].shape
    per_step = tuple(name for name in ("c", *tiles.COEFFICIENTS, "r") if name in inputs)

    def kernel(refs: dict[str, Ref], tile: Tile, w: tuple[Array, ...]) -> Walk:
        drop = tile.load(refs["drop"]) if "drop" in refs else None

        def read(t: Array) -> Tree:
            flag = tile.flags(refs["flags"], t) if "flags" in refs else None
            return {name: tile.load(refs[name], t) for name in per_step}, flag

        def step(t: Array, now: Tree, a: Array, valid: BoolArray | None) -> Array:
            at, flag = now
            adjoint = a + at["c"]
            tile.store(refs["adjoints"], t, value=adjoint, when=valid)
            at_n = tiles.product(at["k_n"] * adjoint, w[2])
            at_z = tiles.product(at["k_z"] * adjoint, w[1])
            if before:
                through = at["r"] * at_n + at_z + tiles.product(at["k_r"] * at_n, w[0])
            else:
                through = at_n + at_z + tiles.product(at["k_r"] * adjoint, w[0])
            after = at["z"] * adjoint + tiles.scale(through, drop)
            return tiles.end(flag, tiles.begin(flag, jnp.zeros_like(after), after), adjoint)

        start = jnp.zeros((tile.rows, tile.columns), jnp.float32)
        return Walk(read, step, start, lambda first: tile.store(refs["first"], value=first))

    out = {
        "adjoints": output((T, B, H), inputs["c"].dtype, *inputs.values()),
        "first": output((B, H), jnp.float32, *inputs.values()),
    }
    found = _launch(plan, kernel, inputs, out, (T, B, H), not reverse, interpret)
    return found["adjoints"], found["first"]


def _launch(
    plan: Plan,
    kernel: Callable[[dict[str, Ref], Tile, tuple[Array, ...]], Walk],
    inputs: dict[str, Array],
    out: dict[str, jax.ShapeDtypeStruct],
    size: tuple[int, int, int],
    reverse: bool,
    interpret: bool,
) -> dict[str, Array]:
    """Runs a kernel for all tiles of sequences and all heads, or tiles of units.

    `kernel(refs, tile, matrices)` gives the walk of a tile.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    T, B, H = size
    names = (*inputs, *out)
    heads = inputs["w"].shape[0]
    # "sum" takes row by row: with another dimension Triton would deal the matrices out anew, along the sum.
    each = 1 if plan.product == "sum" else plan.rows

    def body(*arrays: Ref) -> None:
        refs = dict(zip(names, arrays, strict=True))
        head = pl.program_id(1)
        tile = Tile(0, each, B, head * (H // heads), 0, plan.units, H // heads)
        if plan.product == "own":
            tile = Tile(0, each, B, 0, head * plan.units, plan.units, H)
        row = pl.program_id(0) * plan.rows
        w = tuple(refs["w"][head, g] for g in range(3))
        parts = [kernel(refs, tile._replace(row=row + i), w) for i in range(0, plan.rows, each)]
        reads, steps, states, ends = zip(*parts, strict=True)
        for end, last in zip(ends, _over_time(plan, T, reverse, reads, steps, states), strict=True):
            if end is not None:
                end(last)

    found = pl.pallas_call(
        body,
        out_shape=tuple(out.values()),
        grid=(-(-B // plan.rows), heads),
        compiler_params=plgpu.CompilerParams(num_warps=plan.warps, num_stages=1),
        interpret=interpret,
        name="gru_gpu",
    )(*inputs.values())
    return dict(zip(out, found, strict=True))


def _over_time(
    plan: Plan, T: int, reverse: bool, reads: Sequence[Read], steps: Sequence[Step], states: tuple[Array, ...]
) -> tuple[Array, ...]:
    """The last states of several tiles, whose input is read `plan.ahead` steps ahead."""
    ahead = min(plan.ahead, T)
    place = lambda i: T - 1 - i if reverse else i  # noqa: E731

    def some(first: Array) -> Tree:
        return tuple(tuple(read(place(jnp.minimum(first + d, T - 1))) for read in reads) for d in range(ahead))

    def body(block: Array, carry: Tree) -> Tree:
        states, before = carry
        first = block * ahead
        present = some(first + ahead)
        for d, read in enumerate(before):
            valid = first + d < T if T % ahead else None
            t = place(jnp.minimum(first + d, T - 1))
            after = tuple(step(t, now, h, valid) for step, now, h in zip(steps, read, states, strict=True))
            if valid is not None:
                keep = lambda new, old, valid=valid: jnp.where(jnp.broadcast_to(valid, new.shape), new, old)  # noqa: E731
                after = tuple(map(keep, after, states))
            states = after
        return states, present

    return lax.fori_loop(0, -(-T // ahead), body, (states, some(jnp.int32(0))))[0]
