"""Linear recurrences by code that is compiled for this processor: the plain loop's numbers, in one pass over memory."""

import chex
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax as gj
from gru_jax.scans import recurrences
from gru_jax.scans.kernels import llvm
from gru_jax.scans.kernels.llvm import host, recurrence
from gru_jax.scans.kernels.llvm.host import Host

from ..cases import HOLES, LENGTHS, RESETS, arrays, assert_close, outputs_and_gradients, table

# Carried in registers, in memory, in several pieces; with and without full vectors.
SHAPES = {
    "one": (1, 1, 1), "few": (7, 3, 5), "registers": (9, 2, 64), "memory": (5, 2, 150), "pieces": (3, 1, 5000),
    "long": (300, 2, 3),
}  # fmt: skip


@pytest.fixture
def threads(monkeypatch):
    """Small arrays, too, are shared by threads."""
    monkeypatch.setattr(recurrence, "WORTH_A_THREAD", 1)
    jax.clear_caches()


def given_arrays(T, B, H, time_major):
    shape = (T, B, H) if time_major else (B, T, H)
    keys = jax.random.split(jax.random.key(0), 3)
    a, b = jax.nn.sigmoid(jax.random.normal(keys[0], shape)), jax.random.normal(keys[1], shape)
    return a, b, jax.random.normal(keys[2], (B, H))


def outputs(kernel, time_major, reverse):
    def loss(a, b, h0):
        h = gj.linear_scan(a, b, h0, time_major=time_major, reverse=reverse, kernel=kernel)
        return (h * jnp.cos(jnp.arange(h.size, dtype=h.dtype)).reshape(h.shape)).sum(), h

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


@pytest.mark.parametrize(
    "name, time_major, reverse",
    table(SHAPES, (False, True), (False, True), quick=lambda name, time_major, reverse: reverse == time_major),
)
def test_the_numbers_of_the_plain_loop(name, time_major, reverse, threads):
    given = given_arrays(*SHAPES[name], time_major)
    ours, plain = (outputs(kernel, time_major, reverse)(*given) for kernel in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lanes", [4, 8])
def test_vectors_of_other_processors(lanes, monkeypatch, threads):
    monkeypatch.setattr(host, "host", lambda: Host(lanes, 16))
    given = given_arrays(*SHAPES["memory"], True)
    ours, plain = (outputs(kernel, True, True)(*given) for kernel in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(T=st.integers(1, 20), B=st.integers(1, 6), H=st.integers(1, 200), major=st.booleans(), reverse=st.booleans())
def test_any_sizes(T, B, H, major, reverse):
    given = given_arrays(T, B, H, major)
    ours, plain = (outputs(kernel, major, reverse)(*given) for kernel in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [gj.MinGRU, gj.MinLSTM])
@pytest.mark.parametrize(
    "options", [{}, {"lengths": LENGTHS}, {"mask": HOLES, "resets": RESETS}], ids=["plain", "lengths", "both"]
)
def test_cells_that_are_linear_in_their_state(make, options):
    cell = make(4)
    params, x, h0 = arrays(cell)
    ours, naive = (
        outputs_and_gradients(cell, params, x, h0, method=m, **options) for m in (gj.Associative("llvm"), "naive")
    )
    assert_close(ours, naive, 1e-6, 2e-5)


def test_every_mode_of_differentiation_and_vmap():
    given = given_arrays(6, 3, 5, True)

    def found(kernel):
        run = lambda *given: gj.linear_scan(*given, time_major=True, kernel=kernel)  # noqa: E731
        loss = lambda *given: (run(*given) ** 3).sum()  # noqa: E731
        twice = jax.grad(lambda *given: sum((g**2).sum() for g in jax.grad(loss, (0, 1, 2))(*given)), (0, 1, 2))
        several = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), given)
        return (
            jax.jvp(run, given, jax.tree.map(jnp.sin, given)), twice(*given),
            jax.vmap(jax.grad(loss, (0, 1, 2)))(*several),
            jax.vmap(run, (None, 0, None))(given[0], several[1], given[2]),
        )  # fmt: skip

    chex.assert_trees_all_close(found("llvm"), found("scan"), rtol=1e-4, atol=1e-4)


def test_auto_takes_it_for_enough_numbers_on_one_device(monkeypatch):
    b = jnp.ones((400, 4, 64))
    chosen = lambda b: recurrences.chosen("auto", recurrences.DIAGONAL, b)  # noqa: E731
    assert chosen(b) == "scan"
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert chosen(b) == "llvm" and chosen(b[:9]) == "scan" and chosen(b.astype(jnp.bfloat16)) == "scan"
    assert recurrences.chosen("auto", recurrences.MATRIX, b) == "scan" and recurrences.chosen("auto") == "scan"
    monkeypatch.setattr(llvm, "missing", lambda: "this machine: llvmlite is not installed")
    assert chosen(b) == "scan"


@pytest.mark.parametrize(
    "run, told",
    [
        (lambda a: gj.linear_scan(*[a.astype(jnp.bfloat16)] * 2, kernel="llvm"), "bfloat16 .only float32"),
        (lambda a: gj.linear_scan(jnp.ones((3, 2, 2)), a, kernel="llvm"), "takes a factor for each unit"),
        (lambda a: gj.Associative("lvm"), "must be one of 'auto', .*'llvm'"),
    ],
)
def test_what_it_does_not_serve_is_said(run, told):
    with pytest.raises(ValueError, match=told):
        run(jnp.ones((3, 2)))
