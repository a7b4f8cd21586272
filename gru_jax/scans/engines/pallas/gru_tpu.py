"""A GRU over all of time in one TPU kernel, and the transpose of its linearization in another.

The recurrent matrices and the state stay in VMEM, the memory on the chip, for all steps. No head sees another, so a
block of 128 units, the width of a matrix unit, holds as many whole heads as fit, their matrices on its diagonal; a
larger head is a block of its own. With one unit a head (a diagonal matrix) the products are elementwise.

Sums are float32. Products of float32 matrices are computed in full precision, those of bfloat16 ones take their factors
in bfloat16, which is what the matrix unit multiplies. float16, which Mosaic does not have, is float32 inside.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.cells.base import accumulator
from gru_jax.cells.gru import GRU
from gru_jax.cells.gru_derivative import Linearization
from gru_jax.scans.engines.pallas.gru_tpu_tiles import LANES, MATRICES, Blocks, Inputs, Interpret, Tiles, kept, raised
from gru_jax.scans.engines.pallas.target import Ref
from gru_jax.types import Array, BoolArray


def refusal(cell: GRU) -> str | None:
    """What of a GRU this kernel does not serve.

    Args:
      cell: a `GRU` whose activations are sigmoid and tanh.

    Returns:
      What it is, or None where the kernel serves the cell.
    """
    blocks = Blocks.of(cell.heads, cell.block_size)
    if blocks.diagonal or 3 * blocks.width**2 * 4 <= MATRICES:
        return None
    most = int((MATRICES / 12) ** 0.5) // LANES * LANES
    return f"heads of more than {most} units (their matrix stays in the memory on the TPU's chip)"


def states(
    u: Array,
    w_h: Array,
    b_h: Array | None,
    start: Array,
    *,
    reset_to: Array | None = None,
    use: BoolArray | None = None,
    reset: BoolArray | None = None,
    drop: Array | None = None,
    reset_mode: str = "after",
    reverse: bool = False,
    interpret: Interpret = False,
) -> Array:
    """`gru_gpu.states` on a TPU: of the same arguments the states `[T, B, H]`, of the dtype of `start`."""
    dtype, full = start.dtype, accumulator(start.dtype)
    u, w_h, start = map(kept, (u, w_h, start))
    blocks = Blocks.of(*w_h.shape[:2])
    over = Tiles.of(blocks, u, streams=4, backwards=reverse)
    bias = jnp.zeros((1, u.shape[-1]), full) if b_h is None else b_h.astype(full)[None]
    inputs: Inputs = {
        **over.gates("u", u, over.steps),
        **over.gates("b", bias, over.row),
        "w": (blocks.matrices(w_h), over.matrices()),
        **over.each("begin", start.astype(full)),
        **over.each("drop", None if drop is None else drop.astype(full)),
        **over.each("reset_to", None if reset_to is None else reset_to.astype(full)),
        **over.flag("use", use),
        **over.flag("reset", reset),
    }

    def step(at: dict[str, Ref], t: Array, h: Array) -> tuple[Array, Array]:
        old = h if reset is None else jnp.where(raised(at["reset"], t, h), at["reset_to"][...], h)
        inside = old if drop is None else old * at["drop"][...]
        product = functools.partial(_product, at["w"])
        u_r, u_z, u_n = (at[f"u_{gate}"][t].astype(full) for gate in "rzn")
        b_r, b_z, b_n = (jnp.broadcast_to(at[f"b_{gate}"][...], h.shape) for gate in "rzn")
        if reset_mode == "after":
            g_r, g_z, g_n = product(inside, (0, 1, 2))
            r = jax.nn.sigmoid(u_r + (g_r + b_r))
            n = jnp.tanh(u_n + r * (g_n + b_n))
        else:
            g_r, g_z = product(inside, (0, 1))
            r = jax.nn.sigmoid(u_r + (g_r + b_r))
            n = jnp.tanh(u_n + (product(r * inside, (2,))[0] + b_n))
        z = jax.nn.sigmoid(u_z + (g_z + b_z))
        # Rounded in every step, as by every other method.
        after = (n + z * (old - n)).astype(start.dtype).astype(full)
        after = after if use is None else jnp.where(raised(at["use"], t, h), after, h)
        return after, after

    return over.run("gru_states", step, inputs, start.dtype, interpret)[0].astype(dtype)


def adjoints(
    at: Linearization,
    w_h: Array,
    c: Array,
    *,
    use: BoolArray | None = None,
    reset: BoolArray | None = None,
    drop: Array | None = None,
    reset_mode: str = "after",
    reverse: bool = False,
    interpret: Interpret = False,
) -> tuple[Array, Array]:
    """`gru_gpu.adjoints` on a TPU: of the same arguments the gradients `[T, B, H]` and `[B, H]`, the latter float32."""
    dtype, full = c.dtype, accumulator(c.dtype)
    at, w_h, c = jax.tree.map(kept, (at, w_h, c))
    blocks = Blocks.of(*w_h.shape[:2])
    named = {name: getattr(at, name) for name in ("z", "k_r", "k_z", "k_n")}
    if reset_mode == "before":
        named["r"] = at.r
    over = Tiles.of(blocks, c, streams=2 + len(named), backwards=not reverse)
    w = blocks.matrices(w_h)
    inputs: Inputs = {
        **{name: (blocks.put(a), over.steps(0)) for name, a in {**named, "c": c}.items()},
        "w": (w if blocks.diagonal else jnp.swapaxes(w, 1, 2), over.matrices(transposed=True)),
        **over.each("begin", jnp.zeros(c.shape[1:], full)),
        **over.each("drop", None if drop is None else drop.astype(full)),
        **over.flag("use", use),
        **over.flag("reset", reset),
    }

    def step(at: dict[str, Ref], t: Array, carry: Array) -> tuple[Array, Array]:
        l = carry + at["c"][t].astype(full)
        here = {name: at[name][t].astype(full) for name in named}
        back = functools.partial(_product_transpose, at["w"])
        if reset_mode == "after":
            through = back([here["k_r"] * l, here["k_z"] * l, here["k_n"] * l], (0, 1, 2))
        else:
            p = back([here["k_n"] * l], (2,))
            through = here["r"] * p + back([here["k_r"] * p, here["k_z"] * l], (0, 1))
        before = here["z"] * l + (through if drop is None else through * at["drop"][...])
        if reset is not None:
            before = jnp.where(raised(at["reset"], t, l), jnp.zeros_like(l), before)
        return before if use is None else jnp.where(raised(at["use"], t, l), before, l), l

    found, first = over.run("gru_adjoints", step, inputs, c.dtype, interpret)
    return found.astype(dtype), first


def _product(w: Ref, h: Array, gates: tuple[int, ...]) -> list[Array]:
    """The recurrent products of some gates: w `[width, 3 width]`, or `[3, width]` of a diagonal matrix."""
    width = h.shape[1]
    if w.shape[0] == 3:
        h = h.astype(w.dtype).astype(h.dtype)
        return [h * jnp.broadcast_to(w[gate : gate + 1].astype(h.dtype), h.shape) for gate in gates]
    part = w[:, gates[0] * width : (gates[-1] + 1) * width]
    return jnp.split(_dot(h, part), len(gates), 1)


def _product_transpose(w: Ref, c: list[Array], gates: tuple[int, ...]) -> Array:
    """The transpose of `_product`: w `[3 width, width]`, or `[3, width]`."""
    width = c[0].shape[1]
    if w.shape[0] == 3:
        row = lambda gate, a: jnp.broadcast_to(w[gate : gate + 1].astype(a.dtype), a.shape)  # noqa: E731
        return functools.reduce(jnp.add, (a * row(gate, a) for a, gate in zip(c, gates, strict=True)))
    return _dot(jnp.concatenate(c, 1), w[gates[0] * width : (gates[-1] + 1) * width])


def _dot(a: Array, w: Array) -> Array:
    exact = lax.Precision.DEFAULT if w.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    return jnp.dot(a.astype(w.dtype), w, precision=exact, preferred_element_type=a.dtype)
