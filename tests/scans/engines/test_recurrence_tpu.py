"""The TPU's kernel of linear recurrences in Pallas's interpreters: against a scan, in every layout and however cut.

What the interpreters have not been given they fill with NaN: beyond the ends of arrays, in what is to be written, and
in the memory on the chip.
"""

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from gru_jax.cells.base import accumulator
from gru_jax.scans.engines.pallas import recurrence_tpu, recurrence_tpu_walk
from gru_jax.scans.engines.pallas.recurrence import Operands

from ..cases import table

SIZES = {
    "one of everything": (1, 1, 1),
    "a chunk cut off": (7, 3, 5),
    "chunks without a rest": (8, 2, 5),
    "parts side by side": (7, 2, 128),
    "tiles of the batch": (5, 37, 9),
    "tiles of the units": (5, 2, 300),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Chunks and tiles small enough for short tests to have several, the last one cut off."""
    monkeypatch.setattr(recurrence_tpu_walk, "MOST_STEPS", 4)
    monkeypatch.setattr(recurrence_tpu_walk, "UNITS", 128)
    monkeypatch.setattr(recurrence_tpu_walk, "ELEMENTS", 16 * 128)


def gates(z, n, plain, before, use, start, scale):
    """Something of everything: two parts and a plain stream, a lagged value, a flag, a row and a column."""
    a = jax.nn.sigmoid(z + scale * before)
    a, b = jnp.where(use, a, jnp.ones_like(a)), jnp.where(use, (1 - a) * jnp.tanh(n) + start * plain, jnp.zeros_like(a))
    return a, b, z + before


def given(sizes, dtype):
    """The operands, time leading, h0 and a cotangent."""
    T, B, H = sizes
    keys = iter(jax.random.split(jax.random.key(0), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape).astype(dtype)  # noqa: E731
    use = jax.random.bernoulli(next(keys), 0.7, (T, B))
    lagged = ((normal(T, B, H), normal(B, H)),)
    operands = Operands((normal(T, B, 2, H), normal(T, B, H)), lagged, (use,), (normal(B, H),), (normal(H),))
    return operands, normal(B, H), normal(T, B, H)


def turned(tree):
    """What is of each step with the batch leading, and back."""
    return jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), tree)


def expected(operands, h0, c, reverse):
    """(h, extra), the gradients of streams, rows, columns and h0, by a scan and JAX."""
    wide = lambda tree: jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), tree)  # noqa: E731
    ((lagged, first),), (use,) = wide(operands.lagged), operands.flags
    edge = first[None]
    before = jnp.concatenate([lagged[1:], edge]) if reverse else jnp.concatenate([edge, lagged[:-1]])

    def run(streams, rows, columns, h0):
        (parts, plain), (row,), (column,), h0 = wide((streams, rows, columns, h0))
        same = (jnp.broadcast_to(a, plain.shape) for a in (use[..., None], row[None], column[None, None]))
        a, b, extra = gates(parts[:, :, 0], parts[:, :, 1], plain, before, *same)

        def body(h, now):
            h = now[0] * h + now[1]
            return h, h

        return lax.scan(body, h0, (a, b), reverse=reverse)[1], extra

    found, pull = jax.vjp(run, operands.streams, operands.rows, operands.columns, h0)
    return found, pull((wide(c), jnp.zeros_like(found[1])))


def kernels(operands, h0, c, h, reverse, batch_leads, interpret):
    """The same by the kernel."""
    how = {"reverse": reverse, "batch_leads": batch_leads, "interpret": interpret}
    if batch_leads:
        lagged = tuple((turned(array), first) for array, first in operands.lagged)
        streams, flags, c, h = turned((operands.streams, operands.flags, c, h))
        operands = operands._replace(streams=streams, lagged=lagged, flags=flags)
    found = recurrence_tpu.states(gates, operands, h0, extras=1, **how)
    pulled, first = recurrence_tpu.gradients(gates, operands, h0, h, c, **how)
    assert pulled.lagged == pulled.flags == ()
    if batch_leads:
        found, pulled = turned(found), pulled._replace(streams=turned(pulled.streams))
    return found, (pulled.streams, pulled.rows, pulled.columns, first)


def both(sizes, reverse, batch_leads, dtype=jnp.float32, interpret=True):
    operands, h0, c = given(sizes, dtype)
    theirs = jax.jit(expected, static_argnums=3)(operands, h0, c, reverse)
    h = theirs[0][0].astype(dtype)
    return jax.jit(kernels, static_argnums=(4, 5, 6))(operands, h0, c, h, reverse, batch_leads, interpret), theirs


@pytest.mark.parametrize(
    "sizes, reverse, batch_leads",
    table(
        SIZES,
        (False, True),
        (False, True),
        # Of every size one, the two options in turn.
        quick=lambda sizes, reverse, batch_leads: (
            reverse == (not batch_leads) == bool(list(SIZES).index(sizes) % 2)
            and sizes in ("parts side by side", "tiles of the batch")
        ),
    ),
)
def test_equals_a_scan(sizes, reverse, batch_leads):
    chex.assert_trees_all_close(*both(SIZES[sizes], reverse, batch_leads), rtol=1e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    ours, theirs = both((9, 3, 5), True, True, jnp.dtype(dtype))
    assert {a.dtype for a in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    single = jax.tree.map(lambda a: a.astype(jnp.float32), (ours, theirs))
    bound = 4 * float(jnp.finfo(dtype).eps)
    chex.assert_trees_all_close(*single, rtol=bound, atol=bound)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_double_precision():
    chex.assert_trees_all_close(*both((9, 3, 5), True, False, jnp.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_on_a_simulated_tpu(reverse):
    simulated = pltpu.InterpretParams(uninitialized_memory="nan")
    chex.assert_trees_all_close(*both((6, 2, 3), reverse, False, interpret=simulated), rtol=1e-5, atol=2e-6)


def test_a_plain_recurrence_and_its_transpose():
    a, b, c = jax.random.normal(jax.random.key(0), (3, 6, 2, 5))
    h0 = jnp.ones((2, 5))
    how = {"reverse": False, "batch_leads": False, "interpret": True}
    (h,) = recurrence_tpu.states(lambda a, b: (a, b), Operands((a, b)), h0, **how)
    pulled, d_h0 = recurrence_tpu.gradients(lambda a, b: (a, b), Operands((a, b)), h0, h, c, **how)
    d_a, d_b = pulled.streams
    before = jnp.concatenate([h0[None], h[:-1]])
    chex.assert_trees_all_close(h, a * before + b, rtol=1e-5, atol=1e-5)
    adjoint = Operands((c,), ((a, jnp.zeros_like(h0)),))
    (l,) = recurrence_tpu.states(lambda c, a: (a, c), adjoint, jnp.zeros_like(h0), **{**how, "reverse": True})
    chex.assert_trees_all_close((d_b, d_a, d_h0), (l, l * before, a[0] * l[0]), rtol=1e-5, atol=1e-5)
