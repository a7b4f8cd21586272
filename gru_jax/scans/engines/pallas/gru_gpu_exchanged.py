"""A GRU's recurrence on a GPU by many programs that exchange what they computed at every step.

Each program keeps the columns of the recurrent matrices that belong to its units, for all of time. What the products of
a step take lies in memory twice, for this step and for the next: a program reads all of the one, writes its own units'
part of the other, and waits until all have. A program is at most one step ahead of another, so what is being read is
never written.

Pallas's interpreter runs one program after the other, so that waiting would never end: there a kernel does one step,
and is started once a step.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gru_jax.scans.engines.pallas import gru_gpu_tiles as tiles
from gru_jax.scans.engines.pallas.gru_gpu_plan import Plan
from gru_jax.scans.engines.pallas.gru_gpu_tiles import Tile
from gru_jax.scans.engines.pallas.target import Ref, output
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.types import Array, Tree

Product = Callable[[Tile, Array], tuple[Array, ...]]
"""The recurrent products of a tile at a step."""
Read = Callable[[Tile, Array], Tree]
"""What a kernel reads for a tile at a step."""
Step = Callable[[Tile, Array, Tree], tuple[Array, ...]]
"""`(tile, i, what was read) -> what the products of the next step take`."""


def matrices(plan: Plan, w_h: Array, transposed: bool) -> Array:
    """What the programs keep, with zeros around it: `[k, P, ...]`, P programs a head.

    It is `[k, P, 3, K, U]`; but for "dot" the products of a state are one, `[k, P, 1, K, 4U]`, the gates of a unit side
    by side with a fourth of zeros.
    """
    heads, size, _ = w_h.shape
    w = jnp.moveaxis(w_h.reshape(heads, size, 3, size), 2, 1)
    w = jnp.swapaxes(w, -1, -2) if transposed else w
    w = jnp.pad(w, ((0, 0), (0, 0), (0, -size % plan.chunk), (0, -size % plan.units)))
    w = jnp.moveaxis(w.reshape(*w.shape[:3], -1, plan.units), 3, 1)
    if plan.product == "sum" or transposed:
        return w
    w = jnp.pad(jnp.moveaxis(w, 2, -1), ((0, 0),) * 4 + ((0, 1),))
    return w.reshape(*w.shape[:3], 4 * plan.units)[:, :, None]


def states(plan: Plan, inputs: dict[str, Array], *, reverse: bool, interpret: bool) -> Array:
    """The states of all steps, with the reset after the product; arguments and result as of `gru_gpu_local.states`."""
    T, B, width = inputs["u"].shape
    H = width // 3
    start, drop = inputs.pop("start"), inputs.get("drop")
    begun = start.astype(jnp.float32)
    if "flags" in inputs:
        flag, to = inputs["flags"][T - 1 if reverse else 0][:, None], inputs.get("reset_to")
        begun = tiles.begin(flag, None if to is None else to.astype(jnp.float32), begun)
    begun = begun if drop is None else begun * drop.astype(jnp.float32)
    place = lambda i: T - 1 - i if reverse else i  # noqa: E731

    def kernel(refs: dict[str, Ref], product: Product) -> tuple[Read, Step]:
        def read(tile: Tile, i: Array) -> Tree:
            fixed = {name: tile.load(refs[name]) for name in ("drop", "reset_to") if name in refs}
            one = tile._replace(row=0, rows=1, all_rows=1)
            b = tuple(one.load(refs["b"], shift=g * H) if "b" in refs else jnp.float32(0) for g in range(3))
            t, later = place(i), place(jnp.minimum(i + 1, T - 1))
            now, then = (tile.flags(refs["flags"], s) if "flags" in refs else None for s in (t, later))
            return tuple(tile.load(refs["u"], t, shift=g * H) for g in range(3)), b, fixed, now, then

        def step(tile: Tile, i: Array, now: Tree) -> tuple[Array, ...]:
            u, b, fixed, flag, later = now
            h = tile.load(refs["own"])
            old = tiles.begin(flag, fixed.get("reset_to"), h)
            g = tuple(p + jnp.broadcast_to(bias, p.shape) for p, bias in zip(product(tile, i), b, strict=True))
            h = tiles.end(flag, tiles.blend(u, g, old), h)
            tile.store(refs["out"], place(i), value=h)
            tile.store(refs["own"], value=h)
            return (tiles.scale(tiles.begin(later, fixed.get("reset_to"), h), fixed.get("drop")),)

        return read, step

    out = jax.ShapeDtypeStruct((T, B, H), start.dtype)
    return _launch(plan, kernel, inputs, out, (begun,), start.astype(jnp.float32), 3, interpret)[0]


def adjoints(plan: Plan, inputs: dict[str, Array], *, reverse: bool, interpret: bool) -> tuple[Array, Array]:
    """The gradients of the states, and what reaches the start; arguments and result as of `gru_gpu_local.adjoints`."""
    T, B, H = inputs["c"].shape
    place = lambda i: i if reverse else T - 1 - i  # noqa: E731
    last = inputs["c"][place(0)].astype(jnp.float32)
    products = tuple(inputs[name][place(0)] * last for name in ("k_r", "k_z", "k_n"))

    def kernel(refs: dict[str, Ref], product: Product) -> tuple[Read, Step]:
        def read(tile: Tile, i: Array) -> Tree:
            t, later = place(i), place(jnp.minimum(i + 1, T - 1))
            flag = tile.flags(refs["flags"], t) if "flags" in refs else None
            drop = tile.load(refs["drop"]) if "drop" in refs else None
            c = tile.load(refs["c"], later)
            c = jnp.where(jnp.broadcast_to(i + 1 < T, c.shape), c, jnp.zeros_like(c))
            k = tuple(tile.load(refs[name], later) for name in ("k_r", "k_z", "k_n"))
            return tile.load(refs["z"], t), flag, drop, c, k

        def step(tile: Tile, i: Array, now: Tree) -> tuple[Array, ...]:
            z, flag, drop, c, k = now
            adjoint = tile.load(refs["own"])
            tile.store(refs["out"], place(i), value=adjoint)
            (through,) = product(tile, i)
            after = z * adjoint + tiles.scale(through, drop)
            adjoint = tiles.end(flag, tiles.begin(flag, jnp.zeros_like(after), after), adjoint) + c
            tile.store(refs["own"], value=adjoint)
            return tuple(factor * adjoint for factor in k)

        return read, step

    out = jax.ShapeDtypeStruct((T, B, H), inputs["c"].dtype)
    return _launch(plan, kernel, inputs, out, products, last, 1, interpret)


def _launch(
    plan: Plan,
    kernel: Callable[[dict[str, Ref], Product], tuple[Read, Step]],
    inputs: dict[str, Array],
    out: jax.ShapeDtypeStruct,
    first: tuple[Array, ...],
    own: Array,
    results: int,
    interpret: bool,
) -> tuple[Array, Array]:
    """Runs `kernel(refs, product)`, which gives `read(tile, i)` and `step(tile, i, what was read)`.

    Args:
      plan: from `plan`.
      kernel: as said; "own" among its refs is what its units carry in float32, "out" what they put out. A step returns
        what the products of the next take of its units.
      inputs: what the kernel reads, "w" from `matrices` among it.
      out: what it puts out, `[T, B, H]`.
      first: what the products of the first step take, each `[B, H]`.
      own: what the units carry at first, `[B, H]`, float32.
      results: into how many the products of a step are summed: one a gate, or one.
      interpret: whether Pallas's interpreter runs the kernel.

    Returns:
      What the kernel put out, and what its units carry in the end.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    T, B, H = out.shape
    heads, programs = inputs["w"].shape[:2]
    size, each = H // heads, plan.rows
    groups = min(plan.groups, -(-B // each))
    parts = -(-B // (groups * each))
    steps = 1 if interpret else T
    exchange = _exchange(plan, first, heads, groups * parts * each, max(inputs["w"].shape[3], programs * plan.units))
    kept = {
        "out": jnp.full(out.shape, jnp.nan, out.dtype) if interpret else lax.empty(out.shape, out.dtype),
        "own": own,
        "exchange": exchange,
        "arrived": jnp.zeros(heads * groups, jnp.int32),
    }
    spread, _ = on_same_axes((kept, inputs))
    kept = {name: spread[name] for name in kept}  # in this order: a tree's keys are sorted
    names = ("begin", *inputs, *kept, *kept)

    def body(*arrays: Ref) -> None:
        # What is kept is an input and an output, the same memory: the output is what is worked on.
        refs = dict(zip(names, arrays, strict=True))
        place, program = pl.program_id(0), pl.program_id(1)
        # Of this width also where JAX has 64-bit numbers on.
        head, group = lax.rem(place, np.int32(heads)), lax.div(place, np.int32(heads))
        begin = refs["begin"][0]
        w = _load_matrices(plan, refs["w"], head, program)

        def at(i: Array, part: Array) -> tuple[Array, Tile]:
            row = (group * parts + part) * each
            turned = plan.product == "sum"
            return begin + i, Tile(row, each, B, head * size, program * plan.units, plan.units, size, turned)

        def product(tile: Tile, i: Array) -> tuple[Array, ...]:
            slot = lax.rem(i, np.int32(2))
            return _products(plan, refs["exchange"], w, (slot, head, tile.row), results, bool(interpret))

        read, step = kernel(refs, product)

        def reading(i: Array, part: Array) -> Tree:
            t, tile = at(jnp.minimum(i, steps - 1), part)
            return read(tile, t)

        def one_part(i: Array, part: Array, now: Tree) -> Tree:
            end = part + 1 == parts
            later = reading(jnp.where(end, i + 1, i), jnp.where(end, jnp.int32(0), part + 1))
            t, tile = at(i, part)
            for number, value in enumerate(step(tile, t, now)):
                _publish(plan, refs["exchange"], (lax.rem(t + 1, np.int32(2)), jnp.int32(number), head), tile, value)
            return later

        def one_step(i: Array, now: Tree) -> Tree:
            now = lax.fori_loop(np.int32(0), np.int32(parts), functools.partial(one_part, i), now)
            if not interpret:
                _wait(refs["arrived"], place, (i + 1) * programs)
            return now

        lax.fori_loop(np.int32(0), np.int32(steps), one_step, reading(jnp.int32(0), jnp.int32(0)))

    call = pl.pallas_call(
        body,
        out_shape=tuple(output(a.shape, a.dtype, *inputs.values()) for a in kept.values()),
        grid=(heads * groups, programs),
        input_output_aliases={1 + len(inputs) + i: i for i in range(len(kept))},
        compiler_params=plgpu.CompilerParams(num_warps=plan.warps, num_stages=1),
        interpret=interpret,
        name="gru_gpu_exchanged",
    )
    run = lambda begin, kept: tuple(call(jnp.full(1, begin, jnp.int32), *inputs.values(), *kept))  # noqa: E731
    found = lax.fori_loop(0, T // steps, run, tuple(kept.values())) if interpret else run(0, tuple(kept.values()))
    return found[0], found[1]


def _wait(arrived: Ref, place: Array, goal: Array) -> None:
    """Returns when `goal` programs have come here, counted from the first step; all they wrote before is seen then.

    Every thread of the program has to be done writing. Adding is a release of what was written and an acquire of what
    others wrote, for the whole chip. One thread adds; the others get to know what it found at a barrier of Triton's.
    """
    from jax.experimental.pallas import triton as plgpu

    plgpu.debug_barrier()
    came = lambda n: plgpu.atomic_add(arrived, (place,), jnp.int32(n))  # noqa: E731
    lax.while_loop(lambda seen: seen < goal, lambda _: came(0), came(1) + 1)
    plgpu.debug_barrier()


def _exchange(plan: Plan, first: tuple[Array, ...], heads: int, rows: int, depth: int) -> Array:
    """What is exchanged, with the first step's in it: `[2, n, k, depth, rows]` for "sum", `[2, n, k, rows, depth]`."""
    wide = jnp.stack(first)
    wide = jnp.moveaxis(wide.reshape(*wide.shape[:2], heads, -1), 2, 1)
    n, _, B, size = wide.shape
    wide = jnp.pad(wide, ((0, 0), (0, 0), (0, rows - B), (0, depth - size)))
    wide = jnp.swapaxes(wide, -1, -2) if plan.product == "sum" else wide.astype(plan.dtype)
    return jnp.stack([wide, jnp.zeros_like(wide)])


def _publish(plan: Plan, exchange: Ref, leading: tuple[Array, ...], tile: Tile, value: Array) -> None:
    from jax.experimental import pallas as pl

    rows, columns = pl.ds(tile.row, tile.rows), pl.ds(tile.column, tile.columns)
    if plan.product == "sum":
        exchange[(*leading, columns, rows)] = value
    else:
        exchange[(*leading, rows, columns)] = value.astype(exchange.dtype)


def _load_matrices(plan: Plan, ref: Ref, head: Array, program: Array) -> list[list[Array]]:
    """The program's part of each matrix, in chunks of the sum."""
    from jax.experimental import pallas as pl

    _, _, n, depth, _ = ref.shape
    chunks = range(0, depth, plan.chunk)
    return [[ref[head, program, g, pl.ds(k, plan.chunk)] for k in chunks] for g in range(n)]


def _products(
    plan: Plan, exchange: Ref, w: list[list[Array]], at: tuple[Array, Array, Array | int], results: int, interpret: bool
) -> tuple[Array, ...]:
    """The recurrent products of a tile of sequences with the program's units, each `[R, U]`."""
    slot, head, row = at
    n = exchange.shape[1]
    if plan.product == "dot":
        return _products_by_dot(plan, exchange, w, at, n)
    shape = (plan.chunk, plan.units, plan.rows)
    sums = [jnp.zeros(shape, jnp.float32)] * results
    for c in range(len(w[0])):
        values = [_spread(exchange, (slot, v, head), c * plan.chunk, row, shape) for v in range(n)]
        for g in range(3):
            factor = jnp.broadcast_to(w[g][c].astype(jnp.float32)[:, :, None], shape)
            into = g % results
            sums[into] = _multiply_add(values[g % n], factor, sums[into], interpret)
    return tuple(total.sum(0) for total in sums)


def _spread(
    exchange: Ref, leading: tuple[Array | int, ...], first: int, row: Array | int, shape: tuple[int, ...]
) -> Array:
    """A chunk of what is exchanged, read by every unit on its own.

    Read so, it comes from memory into the registers in which it is multiplied; read once and handed on, it would take
    two barriers a chunk. Volatile, because what another program wrote is not in this one's cache.
    """
    from jax.experimental.pallas import triton as plgpu

    depth = first + lax.broadcasted_iota(jnp.int32, shape, 0)
    rows = row + lax.broadcasted_iota(jnp.int32, shape, 2)
    full = tuple(jnp.broadcast_to(jnp.asarray(i, jnp.int32), shape) for i in leading)
    return plgpu.load(exchange.at[(*full, depth, rows)], volatile=True)


def _multiply_add(a: Array, b: Array, c: Array, interpret: bool) -> Array:
    """`a b + c`, rounded once on a GPU: left to itself, Triton's code rounds twice and takes two instructions."""
    from jax.experimental.pallas import triton as plgpu

    if interpret:
        return a * b + c
    (fused,) = plgpu.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3;",
        args=[a, b, c],
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(c.shape, c.dtype)],
    )
    return fused


def _products_by_dot(
    plan: Plan, exchange: Ref, w: list[list[Array]], at: tuple[Array, Array, Array | int], n: int
) -> tuple[Array, ...]:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    slot, head, row = at
    total = jnp.zeros((plan.rows, w[0][0].shape[1]), jnp.float32)
    for c in range(len(w[0])):
        for v in range(n):
            part = exchange.at[slot, jnp.int32(v), head, pl.ds(row, plan.rows), pl.ds(c * plan.chunk, plan.chunk)]
            total += lax.dot(plgpu.load(part, volatile=True), w[v][c], preferred_element_type=jnp.float32)
    if n == 3:
        return (total,)
    gates = total.reshape(plan.rows, plan.units, 4)
    number = lax.broadcasted_iota(jnp.int32, gates.shape, 2)
    return tuple(jnp.where(number == g, gates, 0).sum(2) for g in range(3))
