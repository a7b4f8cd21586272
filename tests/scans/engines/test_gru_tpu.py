"""The TPU's kernels of a GRU in Pallas's interpreters: against the step function and its linearization, transposed.

What the interpreters have not been given they fill with NaN: beyond the ends of arrays, in what is to be written, and
in the memory on the chip.
"""

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental.pallas import tpu as pltpu

import gru_jax as gj
from gru_jax.cells.base import accumulator
from gru_jax.scans import masking, solve_by_steps
from gru_jax.scans.engines.pallas import gru_tpu, gru_tpu_tiles
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import WHOLE

from ..cases import table

SIZES = {
    "one of everything": (1, 1, 1, 1),
    "a dense matrix": (7, 3, 100, 1),
    "heads that share a block": (7, 2, 20, 5),
    "more heads than a block holds": (5, 2, 96, 3),
    "a block for each head": (3, 2, 256, 2),
    "diagonal": (7, 3, 6, 6),
    "two blocks of a diagonal": (3, 1, 600, 600),
    "tiles of the batch": (5, 37, 10, 1),
}

SEVERAL = ("a dense matrix", "two blocks of a diagonal")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Chunks and tiles small enough for short tests to have several, the last one cut off."""
    monkeypatch.setattr(gru_tpu_tiles, "MOST_STEPS", 3)
    monkeypatch.setattr(gru_tpu_tiles, "MOST_ROWS", 16)


def given(sizes, dtype, everything):
    """(context, steps, c) without parameters, x being u."""
    T, B, H, _ = sizes
    keys = iter(jax.random.split(jax.random.key(0), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape).astype(dtype)  # noqa: E731
    start, u, c = normal(B, H), normal(T, B, 3 * H), normal(T, B, H)
    if not everything:
        return Context(None, start, None, None, WHOLE), Steps(u, None, None), c
    use = jax.random.bernoulli(next(keys), 0.6, (T, B))
    # What is at masked steps must not be seen.
    u = jnp.where(jnp.broadcast_to(use[..., None], u.shape), u, jnp.full_like(u, jnp.nan))
    drop = jax.random.bernoulli(next(keys), 0.7, (B, H)).astype(dtype) / jnp.asarray(0.7, dtype)
    context = Context(None, start, None, drop, WHOLE, normal(B, H))
    return context, Steps(u, use, jax.random.bernoulli(next(keys), 0.3, (T, B))), c


class Projected:
    """A GRU that is given u for x."""

    def __init__(self, cell):
        self.cell = cell

    def __getattr__(self, name):
        return getattr(self.cell, name)

    def project(self, params, x):
        return x.astype(accumulator(x.dtype))


def expected(cell, context, steps, c, reverse):
    """States, what is linearized at them, and what the reference's transpose gives."""

    def body(h, now):
        h = masking.F(cell, context, now, h)
        return h, h

    _, states = lax.scan(body, context.h0, steps, reverse=reverse)
    before = context.time.before(states, context.h0, reverse)
    at = jax.vmap(lambda step, h: masking.linearize(cell, context, step, h))(steps, before)
    return states, at, solve_by_steps.by_scan(cell, reverse)(context, steps, before).transpose(c)


def kernels(cell, params, context, steps, at, c, reverse, interpret):
    H = cell.hidden_size
    w_h = params.w_h.reshape(cell.heads, H // cell.heads, -1)
    how = {"use": steps.use, "reset": steps.reset, "drop": context.drop_h}
    how |= {"reset_mode": cell.reset, "reverse": reverse, "interpret": interpret}
    states = gru_tpu.states(steps.x, w_h, params.b_h, context.h0, reset_to=context.reset_to, **how)
    return states, gru_tpu.adjoints(at, w_h, c, **how)


def both(sizes, reset, everything, reverse, dtype=jnp.float32, interpret=True):
    cell = gj.GRU(sizes[2], heads=sizes[3], reset=reset, init="torch")
    params = cell.init(jax.random.key(1), 1, dtype)
    context, steps, c = given(sizes, dtype, everything)
    context = context._replace(params=params)
    run = jax.jit(lambda context, steps, c: expected(Projected(cell), context, steps, c, reverse))
    states, at, transposed = run(context, steps, c)
    ours = jax.jit(lambda *args: kernels(cell, *args, reverse, interpret))(params, context, steps, at, c)
    return ours, (states, transposed)


@pytest.mark.parametrize(
    "sizes, reset, everything, reverse",
    table(
        SIZES,
        ("after", "before"),
        (False, True),
        (False, True),
        # Of every size one, in turn before and after.
        quick=lambda sizes, reset, everything, reverse: (
            everything and reverse == (reset == "after") == bool(list(SIZES).index(sizes) % 2) and sizes in SEVERAL
        ),
    ),
)
def test_equals_the_step_by_step_form(sizes, reset, everything, reverse):
    ours, theirs = both(SIZES[sizes], reset, everything, reverse)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal_dtypes(ours, theirs)


@pytest.mark.parametrize(
    "sizes, dtype",
    table(("a dense matrix", "diagonal"), ("bfloat16", "float16"), quick=lambda *row: row == ("diagonal", "bfloat16")),
)
def test_half_precision(sizes, dtype):
    (states, (l, first)), theirs = both(SIZES[sizes], "after", True, True, jnp.dtype(dtype))
    assert states.dtype == l.dtype == dtype and first.dtype == jnp.float32
    single = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)  # noqa: E731
    eps = float(jnp.finfo(dtype).eps)
    chex.assert_trees_all_close(single((states, (l, first))), single(theirs), rtol=4 * eps, atol=4 * eps)


def test_projected_input_of_float32_with_half_states():
    cell = gj.GRU(4)
    params = cell.init(jax.random.key(1), 1, jnp.bfloat16)
    context, steps, _ = given((5, 2, 4, 1), jnp.bfloat16, False)
    run = jax.jit(lambda u: gru_tpu.states(u, params.w_h[None], params.b_h, context.h0, interpret=True))
    half, single = run(steps.x), run(steps.x.astype(jnp.float32))
    assert half.dtype == single.dtype == jnp.bfloat16
    assert (half == single).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_double_precision():
    ours, theirs = both(SIZES["a dense matrix"], "before", True, False, jnp.float64)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes, reset", [((5, 2, 6, 2), "after"), pytest.param((4, 2, 3, 3), "before", marks=pytest.mark.slow)]
)
def test_on_a_simulated_tpu(sizes, reset):
    simulated = pltpu.InterpretParams(uninitialized_memory="nan")
    ours, theirs = both(sizes, reset, True, reset == "after", interpret=simulated)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_on_the_chip_is_refused():
    assert gru_tpu.refusal(gj.GRU(1536)) is None
    assert gru_tpu.refusal(gj.GRU(8192, heads=8)) is None
    assert gru_tpu.refusal(gj.GRU(8192, heads=8192)) is None
    assert "more than 1664 units" in gru_tpu.refusal(gj.GRU(2048))
