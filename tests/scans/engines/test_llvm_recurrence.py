"""Linear recurrences by code that is compiled for this processor: the plain loop's numbers, in one pass over memory."""

import chex
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax as gj
from gru_jax.scans.engines import llvm
from gru_jax.scans.engines.llvm import host, minimal, recurrence
from gru_jax.scans.engines.llvm.host import Host
from gru_jax.scans.linear import forms

from ..cases import HOLES, LENGTHS, RESETS, arrays, assert_close, outputs_and_gradients, table

# Carried in registers, in memory, in several pieces; with and without full vectors.
SHAPES = {
    "one": (1, 1, 1), "few": (7, 3, 5), "registers": (9, 2, 64), "memory": (5, 2, 150), "pieces": (3, 1, 5000),
    "long": (300, 2, 3), "whole vectors": (6, 3, 512),
}  # fmt: skip


@pytest.fixture
def past_caches(request, monkeypatch):
    """Small arrays, too, are shared by threads, and if True written past the caches where their sizes let them be."""
    for module in (recurrence, minimal):
        monkeypatch.setattr(module, "WORTH_A_THREAD", 1)
        monkeypatch.setattr(module, "PAST_CACHES", 0 if request.param else 2**40)
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
    "name, time_major, reverse, past_caches",
    table(
        SHAPES, (False, True), (False, True), (False, True),
        # Each shape once, every other one with time first, backwards and past the caches.
        quick=lambda name, *flags: set(flags) == {list(SHAPES).index(name) % 2 == 0},
    ),
    indirect=["past_caches"],
)  # fmt: skip
def test_the_numbers_of_the_plain_loop(name, time_major, reverse, past_caches):
    given = given_arrays(*SHAPES[name], time_major)
    ours, plain = (outputs(kernel, time_major, reverse)(*given) for kernel in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_results_that_are_large_enough_for_large_pages():
    given = given_arrays(600, 8, 256, True)
    ours, plain = (outputs(kernel, True, False)(*given) for kernel in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lanes, past_caches", [(4, True), (8, False)], indirect=["past_caches"])
def test_vectors_of_other_processors(lanes, monkeypatch, past_caches):
    monkeypatch.setattr(host, "host", lambda: Host(lanes, 16))
    given = given_arrays(*SHAPES["memory"], True)
    ours, plain = (outputs(kernel, True, True)(*given) for kernel in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=25)
@given(T=st.integers(1, 20), B=st.integers(1, 6), H=st.integers(1, 200), major=st.booleans(), reverse=st.booleans())
def test_any_sizes(T, B, H, major, reverse):
    given = given_arrays(T, B, H, major)
    ours, plain = (outputs(kernel, major, reverse)(*given) for kernel in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make, options",
    table(
        (gj.MinGRU, gj.MinLSTM), ("plain", "lengths", "both"),
        quick=lambda make, options: (options == "both") == (make is gj.MinGRU) and options != "plain",
    ),
)  # fmt: skip
def test_cells_that_are_linear_in_their_state(make, options):
    cell = make(4)
    options = {"plain": {}, "lengths": {"lengths": LENGTHS}, "both": {"mask": HOLES, "resets": RESETS}}[options]
    params, x, h0 = arrays(cell)
    ours, naive = (
        outputs_and_gradients(cell, params, x, h0, method=m, **options) for m in (gj.Associative("llvm"), "naive")
    )
    assert_close(ours, naive, 1e-6, 2e-5)


def drawn(cell):
    """(params, x, h0) for a cell of any size."""
    params, x, _ = arrays(cell)
    return params, x, jax.random.normal(jax.random.key(5), (x.shape[0], cell.hidden_size))


@pytest.mark.parametrize(
    "make, form, H, time_major, reverse, options, past_caches",
    table(
        (gj.MinGRU, gj.MinLSTM), ("linear", "log"), (5, 64, 150), (False, True), (False, True),
        ("plain", "lengths", "mask", "resets", "resets to another, and holes"), (False, True),
        # Each cell in one form: backward with time first past the caches.
        quick=lambda make, form, H, major, reverse, options, past: major and reverse and past
        and (H, options) == ((150, "mask") if form == "log" else (64, "resets to another, and holes"))
        and (make is gj.MinGRU) == (form == "log"),
    ),
    indirect=["past_caches"],
)  # fmt: skip
def test_minimal_cells_from_their_projected_input(make, form, H, time_major, reverse, options, past_caches):
    cell, (T, B, I) = make(H, form=form), (9, 3, 4)
    params = cell.init(jax.random.key(0), I)
    x = 3 * jax.random.normal(jax.random.key(1), (T, B, I) if time_major else (B, T, I))
    mask = jax.random.bernoulli(jax.random.key(2), 0.6, x.shape[:2])
    resets = {"resets": jax.random.bernoulli(jax.random.key(4), 0.4, x.shape[:2])}
    more = {
        "plain": {}, "lengths": {"lengths": jnp.array([9, 0, 4])}, "mask": {"mask": mask}, "resets": resets,
        "resets to another, and holes": resets | {"mask": mask},
    }[options]  # fmt: skip
    h0 = jnp.abs(jax.random.normal(jax.random.key(3), (B, H)))
    to = (jnp.cos(h0) ** 2,) if options.endswith("holes") else ()

    def found(method):
        def loss(params, x, h0, *to):
            how = more | ({"reset_to": to[0]} if to else {})
            y, h = gj.scan(cell, params, x, h0, method=method, time_major=time_major, reverse=reverse, **how)
            return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum() + (h**2).sum(), (y, h)

        return jax.jit(jax.value_and_grad(loss, tuple(range(3 + len(to))), has_aux=True))(params, x, h0, *to)

    chex.assert_trees_all_close(found(gj.Associative("llvm")), found(gj.Associative("scan")), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "make, lanes, past_caches",
    table(
        (gj.MinGRU, gj.MinLSTM), (4, 8), (False, True),
        quick=lambda make, lanes, past: past == (lanes == 4) == (make is gj.MinGRU),
    ),
    indirect=["past_caches"],
)  # fmt: skip
def test_minimal_cells_on_other_processors(make, lanes, monkeypatch, past_caches):
    monkeypatch.setattr(host, "host", lambda: Host(lanes, 16))
    cell = make(22)
    params, x, h0 = drawn(cell)
    ours, plain = (outputs_and_gradients(cell, params, x, h0, method=gj.Associative(k)) for k in ("llvm", "scan"))
    assert_close(ours, plain, 1e-6, 2e-5)


@pytest.mark.parametrize("make", [gj.MinGRU, gj.MinLSTM])
@pytest.mark.parametrize("size", [30.0, pytest.param(1e3, marks=pytest.mark.slow), 1e30])
def test_minimal_cells_with_saturated_gates(make, size):
    cell = make(6)
    params, x, h0 = drawn(cell)
    params = params._replace(w_x=params.w_x.at[:, : -cell.hidden_size].multiply(size))
    ours, plain = (outputs_and_gradients(cell, params, x, h0, method=gj.Associative(k)) for k in ("llvm", "scan"))
    chex.assert_tree_all_finite(ours)
    assert_close(ours[0], plain[0], 1e-5, 2e-5)
    ours, plain = (jax.tree.map(lambda a: a / (1 + jnp.abs(a).max()), each[1]) for each in (ours, plain))
    assert_close(ours, plain, 1e-5, 2e-5)


def test_nan_is_passed_on():
    cell = gj.MinLSTM(20)
    params, x, h0 = drawn(cell)
    y, _ = gj.scan(cell, params, x.at[1, 2, 0].set(jnp.nan), h0, method=gj.Associative("llvm"))
    assert bool(jnp.isnan(y[1, 2:]).all()) and bool(jnp.isfinite(y[1, :2]).all()) and bool(jnp.isfinite(y[0]).all())


@pytest.mark.slow
def test_a_minimal_cell_in_every_mode_of_differentiation_and_under_vmap():
    cell = gj.MinGRU(5)
    params, x, h0 = drawn(cell)

    def found(kernel):
        run = lambda *given: gj.scan(cell, *given, method=gj.Associative(kernel))[0]  # noqa: E731
        loss = lambda *given: (run(*given) ** 3).sum()  # noqa: E731
        squares = lambda *given: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(loss, (0, 1, 2))(*given)))  # noqa: E731
        given = (params, x, h0)
        several = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), given)
        return (
            jax.jvp(run, given, jax.tree.map(jnp.sin, given)), jax.grad(squares, (0, 1, 2))(*given),
            jax.vmap(jax.grad(loss, (0, 1, 2)))(*several),
            jax.vmap(run, (None, 0, None))(params, several[1], h0),
        )  # fmt: skip

    chex.assert_trees_all_close(found("llvm"), found("scan"), rtol=1e-4, atol=1e-4)


def test_a_derived_class_keeps_its_own_equations():
    class Halved(gj.MinGRU):
        def coefficients(self, *u):
            a, b = super().coefficients(*u)
            return a / 2, b

    cell = Halved(4)
    params, x, h0 = drawn(cell)
    ours, plain = (gj.scan(cell, params, x, h0, method=gj.Associative(k)) for k in ("llvm", "scan"))
    chex.assert_trees_all_close(ours, plain, rtol=1e-5)


@pytest.mark.slow
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
    chosen = lambda b: forms.chosen("auto", forms.DIAGONAL, b)  # noqa: E731
    assert chosen(b) == "scan"
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert chosen(b) == "llvm" and chosen(b[:9]) == "scan" and chosen(b.astype(jnp.bfloat16)) == "scan"
    assert forms.chosen("auto", forms.MATRIX, b) == "scan" and forms.chosen("auto") == "scan"
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
