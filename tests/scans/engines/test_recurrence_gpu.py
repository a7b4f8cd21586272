"""The GPU's kernel of linear recurrences in Pallas's interpreter: against a loop, in every layout and however cut.

What the interpreter has not been given it fills with NaN, beyond the ends of arrays and in what is to be written.
"""



import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.cells.base import accumulator
from gru_jax.scans.engines.pallas import recurrence_gpu
from gru_jax.scans.engines.pallas.recurrence import Operands
from gru_jax.scans.engines.pallas.recurrence_gpu import MULTIPROCESSORS, REGISTERS, plan
from gru_jax.scans.engines.pallas.recurrence_gpu_walk import Plan

from ..cases import HOLES, KEY, RESETS, H, arrays, assert_close, outputs_and_gradients, table, weigh


def gates(z, n, before, use, start, scale):
    """Something of everything: two parts, a lagged value, a flag, a row and a column."""
    a = jax.nn.sigmoid(z + scale * before)
    return jnp.where(use, a, jnp.ones_like(a)), jnp.where(use, (1 - a) * jnp.tanh(n) + start * z, 0.0), a * n


def given(T, B, H, dtype):
    """The arrays that `gates` takes, time leading; where the flag is not set, NaN is not to be seen."""
    keys = jax.random.split(jax.random.key(0), 8)
    normal = lambda key, *shape: jax.random.normal(key, shape, dtype)  # noqa: E731
    use = jax.random.bernoulli(keys[4], 0.7, (T, B))
    operands = Operands(
        streams=(normal(keys[0], T, B, 2, H),),
        lagged=((normal(keys[1], T, B, H), normal(keys[2], B, H)),),
        flags=(use,),
        rows=(normal(keys[3], B, H),),
        columns=(normal(keys[5], H),),
    )
    return operands, normal(keys[6], B, H), normal(keys[7], T, B, H)


def by_loop(operands, h0, reverse):
    """h and the extra, `[T, B, H]`."""
    ((stream,), ((lagged, first),), (use,), (start,), (scale,)) = operands
    order = list(range(len(stream)))[:: -1 if reverse else 1]
    full = accumulator(h0.dtype)
    h, before, found = h0.astype(full), first, {}
    for t in order:
        a, b, extra = gates(
            *(v.astype(full) for v in (stream[t, :, 0], stream[t, :, 1], before)),
            jnp.broadcast_to(use[t, :, None], h.shape), start.astype(full),
            jnp.broadcast_to(scale.astype(full), h.shape),
        )  # fmt: skip
        h, before = a * h + b, lagged[t]
        found[t] = h, extra
    return tuple(jnp.stack([found[t][i] for t in sorted(order)]).astype(h0.dtype) for i in (0, 1))


def turned(tree):
    """What is of each step with the batch leading, and back."""
    return jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), tree)


def laid(operands, batch_leads):
    if not batch_leads:
        return operands
    lagged = tuple((turned(array), first) for array, first in operands.lagged)
    return operands._replace(streams=turned(operands.streams), lagged=lagged, flags=turned(operands.flags))


# How the walk is cut: as one, loops with and without steps left over, chunks of one length and of two.
CASES = {
    "one step": ((1, 1, 1), Plan(32, 4)),
    "loops": ((8, 2, 40), Plan(32, 4)),
    "steps left over": ((7, 3, 5), Plan(32, 3)),
    "chunks": ((8, 1, 33), Plan(32, 2, 4)),
    "unequal chunks": ((11, 2, 40), Plan(32, 2, 2)),
}


@pytest.mark.parametrize(
    "case, reverse, batch_leads, dtype",
    table(
        CASES, (False, True), (False, True), ("float32", "bfloat16", "float64"),
        quick=lambda case, reverse, batch_leads, dtype: (
            (case, dtype) == ("unequal chunks", "float32") and reverse and batch_leads
        ),
    ),
)  # fmt: skip
def test_everything_at_once(case, reverse, batch_leads, dtype, x64):
    (T, B, units), planned = CASES[case]
    operands, h0, c = given(T, B, units, dtype)
    how = {"reverse": reverse, "batch_leads": batch_leads, "interpret": True, "planned": planned}
    tidy = turned if batch_leads else lambda array: array

    @jax.jit
    def ours(operands, h0, c):
        operands = laid(operands, batch_leads)
        h, extra = recurrence_gpu.states(gates, operands, h0, extras=1, **how)
        d, d_h0 = recurrence_gpu.gradients(gates, operands, h0, h, tidy(c), **how)
        return (tidy(h), tidy(extra)), (tidy(d.streams[0]), d.rows[0], d.columns[0], d_h0)

    def moved(stream, row, column, h0):
        return by_loop(operands._replace(streams=(stream,), rows=(row,), columns=(column,)), h0, reverse)[0]

    @jax.jit
    def plain(operands, h0, c):
        _, pull = jax.vjp(moved, operands.streams[0], operands.rows[0], operands.columns[0], h0)
        return by_loop(operands, h0, reverse), pull(c)

    bounds = {"float32": (1e-6, 1e-5), "float64": (1e-14, 1e-13), "bfloat16": (2e-2, 5e-2)}[dtype]
    assert_close(ours(operands, h0, c), plain(operands, h0, c), *bounds)


@pytest.mark.parametrize(
    "shape, time_major",
    table(
        ((1, 3, 100), (1000, 1, 1), (7, 1, 1536)), (False, True),
        quick=lambda shape, time_major: shape[0] < 1000 and time_major == (shape[0] == 7),
    ),
)  # fmt: skip
def test_the_plain_recurrence(shape, time_major):
    T, B, units = shape
    keys = jax.random.split(jax.random.key(0), 3)
    a, b = (0.9 * jax.random.normal(key, shape if time_major else (B, T, units)) for key in keys[:2])
    h0 = jax.random.normal(keys[2], (B, units))

    def both(kernel):
        f = lambda *args: weigh(gj.linear_scan(*args, time_major=time_major, kernel=kernel))  # noqa: E731
        return jax.jit(jax.value_and_grad(f, (0, 1, 2)))(a, b, h0)

    for ours, plain in zip(*map(jax.tree.leaves, (both("interpret-gpu"), both("scan"))), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5 * float(jnp.abs(plain).max()))


def test_half_precision_is_read_and_written_as_it_is():
    a, b = jnp.full((2, 64, 3), 0.99, jnp.bfloat16), jnp.full((2, 64, 3), 0.01, jnp.bfloat16)
    run = lambda a, b: gj.linear_scan(a, b, kernel="interpret-gpu")  # noqa: E731
    assert "f32[2,64" not in str(jax.make_jaxpr(run)(a, b)), "no array as long as these is made wider"
    plain = gj.linear_scan(a, b, kernel="scan")
    np.testing.assert_array_equal(run(a, b).astype(jnp.float32), plain.astype(jnp.float32))


def test_a_product_that_overflows_harms_no_states():
    a, b = jnp.full((1, 170, 1), 4.0), jnp.zeros((1, 170, 1))
    a = a.at[:, 140].set(0.0)
    b = b.at[:, 150].set(1e-20)
    how = {"reverse": False, "batch_leads": True, "interpret": True}
    plain = gj.linear_scan(a, b, kernel="scan")
    for chunks in (1, 2):
        planned = Plan(32, 1, chunks)
        (h,) = recurrence_gpu.states(lambda a, b: (a, b), Operands((a, b)), jnp.zeros((1, 1)), planned=planned, **how)
        np.testing.assert_allclose(h, plain, rtol=1e-6)


MINIMAL = {
    f"{cell.__name__}-{form}": cell(H, form=form, init="torch")
    for cell in (gj.MinGRU, gj.MinLSTM)
    for form in ("linear", "log")
}
OPTIONS = {
    "plain": {},
    "resets and holes": {"resets": RESETS, "mask": HOLES},
    "dropout": {"input_dropout": 0.4, "key": KEY, "lengths": jnp.array([5, 2, 0]), "padding": "hold"},
}


@pytest.mark.parametrize(
    "name, options, reverse",
    table(
        MINIMAL, OPTIONS, (False, True),
        quick=lambda name, options, reverse: (name, options, reverse) in (
            ("MinGRU-linear", "resets and holes", True),
        ),
    ),
)  # fmt: skip
def test_cells(name, options, reverse):
    cell, options = MINIMAL[name], {**OPTIONS[options], "reverse": reverse}
    params, x, h0 = arrays(cell)
    problem = params, x.at[1, 0, 0].set(jnp.nan if "mask" in options else 1.0), jnp.abs(h0)
    ours = outputs_and_gradients(cell, *problem, method=gj.Associative("interpret-gpu"), **options)
    assert_close(ours, outputs_and_gradients(cell, *problem, method="naive", **options), 1e-6, 1e-5)


TRANSFORMS = {
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda x, h0: weigh(f(x, h0)), (0, 1))),
    "jvp": lambda f: lambda x, h0: jax.jvp(f, (x, h0), (jnp.cos(x), h0)),
    "forward over reverse": lambda f: lambda x, h0: jax.jvp(jax.grad(lambda h: weigh(f(x, h))), (h0,), (h0,)),
    "reverse over reverse": lambda f: jax.grad(lambda x, h0: weigh(jax.grad(lambda x: weigh(f(x, h0)))(x))),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "transform", table(TRANSFORMS, quick=lambda name: name in ("vmap of grad", "forward over reverse"))
)
def test_transforms(transform):
    cell = MINIMAL["MinGRU-linear"]
    params, x, h0 = arrays(cell, batch=(2,), steps=3)
    results = [
        jax.jit(TRANSFORMS[transform](lambda x, h0, k=k: gj.scan(cell, params, x, h0, method=gj.Associative(k))))(x, h0)
        for k in ("interpret-gpu", "scan")
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-5)


SHAPES = ((1, 1, 1), (8, 4096, 1536), (8, 65536, 1536), (1, 2**20, 64), (64, 1000, 100), (4096, 64, 1024), (1, 7, 3))


@pytest.mark.parametrize("sizes", ((4, 4), (2, 2), (8, 8), (4, 4, 4, 4), (4, 4, 2, 2, 2)))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_plan_fits_the_device(shape, sizes):
    B, T, units = shape
    found = plan(*shape, sizes)
    assert found.lanes >= 32 and found.lanes & (found.lanes - 1) == 0
    assert found.lanes // 32 * max(sizes) <= 16, "no load is wider than 16 bytes"
    assert 1 <= found.chunks <= T and 1 <= found.ahead <= T // found.chunks
    held = found.ahead * found.lanes // 32 * sum(max(1, size // 4) for size in sizes)
    assert held <= max(REGISTERS, 4 * len(sizes) * max(1, max(sizes) // 4))
    if B * units >= 2**21:
        assert found.chunks == 1 and found.lanes > 32
    if (B, units) == (1, 64):
        assert found.chunks * 64 / 32 >= MULTIPROCESSORS, "each multiprocessor has a warp or more"


def test_what_is_refused():
    matrices, x = jnp.ones((5, 3, 3)), jnp.ones((5, 3))
    with pytest.raises(ValueError, match=r"kernel='interpret-gpu' takes a factor for each unit.*; got matrices"):
        gj.linear_scan(matrices, x, kernel="interpret-gpu")
    with pytest.raises(ValueError, match="kernel='pallas' needs a GPU or a TPU; JAX runs on cpu"):
        gj.linear_scan(x, x, kernel="pallas")
    mesh = jax.make_mesh((2,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
    cell = MINIMAL["MinGRU-linear"]
    params, x, _ = arrays(cell, steps=4)
    sharded = gj.TimeSharded(mesh, method=gj.Associative("interpret-gpu"))
    with pytest.raises(ValueError, match=r"Associative\(kernel='interpret-gpu'\) needs all steps in one place"):
        gj.scan(cell, params, x, method=sharded)


