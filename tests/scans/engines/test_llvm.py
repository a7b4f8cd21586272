"""A GRU by code that is compiled for this processor: the numbers of the plain loop, whatever the sizes and vectors."""

import os
import subprocess
import sys
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax as gj
from gru_jax.scans import select
from gru_jax.scans.choices import Sizes
from gru_jax.scans.engines import llvm, registry
from gru_jax.scans.engines.llvm import cells, gated, host, plan, products
from gru_jax.scans.engines.registry import Asked

from ..cases import arrays, assert_close, outputs_and_gradients, table, to_time_major

B, T = 9, 11


def by_kernel(keep="gates", cores=2):
    return gj.Sequential(kernel="llvm", keep=keep, cores=cores)


CELLS = {bias: gj.GRU(4, bias=bias, init="torch") for bias in ("full", "minimal", "none")}
MASK = jax.random.bernoulli(jax.random.key(5), 0.7, (B, T)).at[3].set(False)
SITUATIONS = {
    "plain": {},
    "holes": {"mask": MASK},
    "holes, held": {"mask": MASK, "padding": "hold"},
    "lengths": {"lengths": jnp.array([11, 0, 3, 11, 1, 7, 10, 2, 5])},
    "input dropout": {"input_dropout": 0.3, "key": jax.random.key(7)},
}


@pytest.mark.parametrize(
    "name, situation, reverse, time_major, keep",
    table(
        CELLS, SITUATIONS, (False, True), (False, True), ("states", "gates"),
        # Each situation once, forward with time first or backward with the batch first; each bias once.
        quick=lambda name, situation, reverse, time_major, keep: (
            (name == "full" and (situation, reverse) == ("holes, held", True))
            or (name != "full" and situation == "plain" and reverse == (name == "none"))
        )
        and time_major != reverse
        and (keep == "gates") == reverse,
    ),
)  # fmt: skip
def test_the_numbers_of_the_plain_loop(name, situation, reverse, time_major, keep):
    cell, options = CELLS[name], SITUATIONS[situation]
    params, x, h0 = arrays(cell, batch=(B,), steps=T)
    if time_major:
        x, options = jnp.swapaxes(x, 0, 1), to_time_major(options)
    ours, plain = (
        outputs_and_gradients(cell, params, x, h0, reverse=reverse, method=method, **options)
        for method in (by_kernel(keep), gj.Sequential(kernel="scan"))
    )
    assert_close(ours, plain, 1e-6, 2e-5)


def compare(T, B, I, H, method, mask=None, reverse=False):
    cell = gj.GRU(H, init="torch")
    params = cell.init(jax.random.key(0), I)
    x, h0 = jax.random.normal(jax.random.key(1), (B, T, I)), jax.random.normal(jax.random.key(2), (B, H))
    ours, plain = (
        outputs_and_gradients(cell, params, x, h0, method=m, mask=mask, reverse=reverse)
        for m in (method, gj.Sequential(kernel="scan"))
    )
    assert_close(ours, plain, 2e-6, 5e-5)


# Blocks that are full and not; rows of one tile, of several, of unequal ones; chunks of time with a rest.
SIZES = {
    "one of each": (1, 1, 1, 1),
    "one step": (1, 5, 3, 20),
    "one sequence": (40, 1, 7, 33),
    "full blocks": (9, 3, 16, 32),
    "many rows": (5, 37, 2, 17),
    "several chunks": (70, 2, 5, 16),
    "wide": (3, 2, 40, 300),
}

QUICK = {
    "one sequence": ("gates", 2),
}  # fmt: skip


@pytest.mark.parametrize(
    "size, keep, cores",
    table(
        SIZES, ("states", "gates"), (1, 2, 3),
        quick=lambda size, *how: QUICK.get(size) == how,
    ),
)  # fmt: skip
def test_sizes(size, keep, cores):
    compare(*SIZES[size], by_kernel(keep, cores))


@pytest.mark.parametrize(
    "lanes, size",
    table(
        (4, 8, 16), ("one step", "one sequence", "full blocks"),
        quick=lambda *row: row == (8, "one sequence"),
    ),
    indirect=["lanes"],
)  # fmt: skip
def test_vectors_of_other_processors(size, lanes):
    assert select_plan(*SIZES[size]).lanes == lanes
    compare(*SIZES[size], by_kernel("states", 2))


@pytest.mark.slow
@settings(max_examples=30)
@given(
    steps=st.integers(1, 40), rows=st.integers(1, 30), features=st.integers(1, 20), units=st.integers(1, 50),
    cores=st.integers(1, 4), keep=st.sampled_from(("states", "gates")), masked=st.booleans(), reverse=st.booleans(),
)  # fmt: skip
def test_any_sizes(steps, rows, features, units, cores, keep, masked, reverse):
    mask = jax.random.bernoulli(jax.random.key(3), 0.8, (rows, steps)) if masked else None
    compare(steps, rows, features, units, by_kernel(keep, cores), mask, reverse)


def select_plan(T, B, I, H, cores=2, backward=False):
    return plan.Plan.of(
        host.host(), cells.described(gj.GRU(H).equations), steps=T, batch=B, features=I, units=H, batch_leads=True,
        reverse=False, bias="full", masked=False, bfloat16=False, keep=True, cores=cores, backward=backward,
    )  # fmt: skip


def test_threads_share_sequences_or_units():
    assert not select_plan(10, 8, 4, 64).together and select_plan(10, 8, 4, 64).threads == 2
    assert select_plan(10, 1, 4, 64).together and select_plan(10, 64, 4, 512).together
    assert select_plan(10, 1, 4, 8).threads == 1 and not select_plan(10, 1, 4, 8).together
    assert select_plan(10, 9, 4, 64, cores=4).rows() == [(1, 3), (3, 2)]


@pytest.mark.parametrize("vectors, per_block", [(24, 1), (24, 3), (24, 4), (12, 3), (12, 4)])
def test_tiles_cover_all_rows_once(vectors, per_block):
    for rows in range(1, 40):
        for number in (rows, 2 * rows, 3 * rows):
            left = number
            for height in products.Tiling.of(vectors, per_block, 5, rows, multiples=number != rows).heights:
                assert height <= plan.TALLEST
                left %= height
            assert left == 0, (rows, number)


def test_units_are_shared_by_threads_that_come_too_late(monkeypatch):
    # Eight devices of this process keep XLA's threads busy: whether or not another thread comes, the numbers are these.
    cell = gj.GRU(40, init="torch")
    params = cell.init(jax.random.key(0), 8)
    x = jax.random.normal(jax.random.key(1), (8, 1, 60, 8))
    y = jax.pmap(lambda x: gj.scan(cell, params, x, method=by_kernel())[0])(x)
    chex.assert_trees_all_equal(y[:, 0], gj.scan(cell, params, x[:, 0], method=by_kernel(cores=1))[0])


def test_nothing_depends_on_the_number_of_threads():
    cell = gj.GRU(40, init="torch")
    params, x, h0 = arrays(gj.GRU(4), batch=(1,), steps=30)
    params, h0 = cell.init(jax.random.key(0), x.shape[-1]), jnp.zeros((1, 40))
    found = [outputs_and_gradients(cell, params, x, h0, method=by_kernel(cores=cores)) for cores in (1, 2)]
    chex.assert_trees_all_equal(*found)


@pytest.mark.parametrize(
    "batch, keep",
    table(
        ((), (0,), (3, 2), (2, 0)), ("states", "gates"),
        quick=lambda *row: row in (((3, 2), "states"), ((0,), "gates")),
    ),
)  # fmt: skip
def test_batch_dimensions(batch, keep):
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=batch, steps=T)
    methods = by_kernel(keep), gj.Sequential(kernel="scan")
    ours, plain = (outputs_and_gradients(cell, params, x, h0, method=m) for m in methods)
    assert_close(ours, plain, 1e-6, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [pytest.param("states", marks=pytest.mark.slow), "gates"])
def test_every_mode_of_differentiation(keep):
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=(B,), steps=T)

    def loss(method):
        return lambda *given: (gj.scan(cell, *given, mask=MASK, method=method)[0] ** 2).sum()

    directions = jax.tree.map(jnp.cos, (params, x, h0))
    found = []
    for method in (by_kernel(keep), gj.Sequential(kernel="scan")):
        pushed = lambda *given, method=method: jax.jvp(loss(method), given, directions)[1]  # noqa: E731
        over = jax.grad(lambda *given, m=method: jax.grad(loss(m))(*given)[1].sum())(params, x, h0)
        found.append((pushed(params, x, h0), jax.grad(pushed, (0, 1, 2))(params, x, h0), over))
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("of", ["x", "params", pytest.param("all", marks=pytest.mark.slow)])
def test_under_vmap(of):
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=(2, B), steps=T)
    several = jax.vmap(lambda key: cell.init(key, x.shape[-1]))(jax.random.split(jax.random.key(3), 2))
    args, axes = {
        "x": ((params, x, h0), (None, 0, 0)),
        "params": ((several, x[0], h0[0]), (0, None, None)),
        "all": ((several, x, h0), (0, 0, 0)),
    }[of]

    def run(method):
        return jax.vmap(lambda *given: outputs_and_gradients(cell, *given, method=method), axes)(*args)

    chex.assert_trees_all_close(run(by_kernel()), run(gj.Sequential(kernel="scan")), rtol=1e-4, atol=1e-5)


def test_under_shard_map_and_pmap():
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=(2 * B,), steps=T)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec

    def mean_loss(params, x, h0):
        return jax.lax.pmean((gj.scan(cell, params, x, h0, method=by_kernel())[0] ** 2).sum(), "data")

    sharded = jax.shard_map(mean_loss, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
    ours = jax.jit(jax.grad(sharded, (0, 1, 2)))(params, x, h0)
    plain = jax.grad(lambda *given: (gj.scan(cell, *given)[0] ** 2).sum() / 2, (0, 1, 2))(params, x, h0)
    chex.assert_trees_all_close(ours, plain, rtol=1e-4, atol=1e-5)
    halves = [a.reshape(2, B, *a.shape[1:]) for a in (x, h0)]
    y = jax.pmap(lambda x, h0: gj.scan(cell, params, x, h0, method=by_kernel())[0])(*halves)
    chex.assert_trees_all_close(y.reshape(2 * B, T, 4), gj.scan(cell, params, x, h0)[0], rtol=1e-5, atol=1e-6)


def test_a_batch_that_jit_splits_stays_split():
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=(8,), steps=T)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.device_put(x, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    loss = lambda method: lambda p, x, h0: (gj.scan(cell, p, x, h0, method=method)[0] ** 2).sum()  # noqa: E731
    step = jax.jit(jax.grad(loss(by_kernel()), (0, 1, 2)))
    text = step.lower(params, x, h0).compile().as_text()
    assert "all-gather" not in text and "all-reduce" in text
    plain = jax.grad(loss(gj.Sequential(kernel="scan")), (0, 1, 2))(params, x, h0)
    chex.assert_trees_all_close(step(params, x, h0), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keep", [pytest.param("states", marks=pytest.mark.slow), "gates"])
def test_bfloat16_is_rounded_as_elsewhere(keep):
    cell = gj.GRU(20, init="torch")
    params = cell.init(jax.random.key(0), 6, jnp.bfloat16)
    x, h0 = (jax.random.normal(jax.random.key(k), s, jnp.bfloat16) for k, s in ((1, (9, 30, 6)), (2, (9, 20))))
    ours, plain = (
        outputs_and_gradients(cell, params, x, h0, method=m) for m in (by_kernel(keep), gj.Sequential(kernel="scan"))
    )
    # A state that another order of summation puts on the other side of a boundary is a unit in the last place off.
    assert_close(ours, plain, 2**-8, 2**-5)
    exact = gj.scan(cell, *jax.tree.map(lambda a: a.astype(jnp.float32), (params, x, h0)), method="naive")
    chex.assert_trees_all_close(jax.tree.map(lambda a: a.astype(jnp.float32), ours[0]), exact, atol=2**-6)


@pytest.mark.slow
def test_rows_of_which_none_is_used_cost_nothing_and_change_nothing():
    cell = gj.GRU(20, init="torch")
    params = cell.init(jax.random.key(0), 6)
    x, h0 = jax.random.normal(jax.random.key(1), (16, 30, 6)), jax.random.normal(jax.random.key(2), (16, 20))
    lengths = jnp.array([30] * 8 + [10] * 8)
    run = lambda method: outputs_and_gradients(cell, params, x, h0, lengths=lengths, method=method)  # noqa: E731
    ours, naive = run(by_kernel()), run("naive")
    assert_close(ours, naive, 1e-6, 2e-5)


@pytest.mark.slow
def test_what_is_masked_is_not_seen_and_what_is_not_a_number_is():
    cell = gj.GRU(20, init="torch")
    params = cell.init(jax.random.key(0), 3)
    x = jax.random.normal(jax.random.key(1), (2, 6, 3)).at[0, 2].set(jnp.nan)
    mask = jnp.ones((2, 6), bool).at[0, 2].set(False)
    for keep in ("states", "gates"):
        found = outputs_and_gradients(cell, params, x, jnp.zeros((2, 20)), mask=mask, method=by_kernel(keep))
        chex.assert_tree_all_finite(found)
    loss = lambda *given: (gj.scan(cell, *given, mask=mask, method=by_kernel())[0] ** 2).sum()  # noqa: E731
    twice = jax.grad(lambda *given: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(loss, (0, 1))(*given))), (0, 1))
    chex.assert_tree_all_finite(twice(params, x))
    seen = lambda *given: gj.scan(cell, *given, mask=mask, method=by_kernel(), return_gates=True)[2].z.sum()  # noqa: E731
    chex.assert_tree_all_finite(jax.grad(seen, (0, 1))(params, x))
    y, h = gj.scan(cell, params, x, method=by_kernel())
    assert bool(jnp.isnan(h[0]).all()) and bool(jnp.isfinite(y[1]).all()) and bool(jnp.isfinite(y[0, :2]).all())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4, 1e38])
def test_sigmoid_and_tanh_from_small_to_large(scale):
    # One unit whose gates see nothing but x: h = n where z is 0, and h = 1 - z where n is 1.
    x = np.concatenate([np.linspace(-1, 1, 2001) * scale, [0.0]]).astype(np.float32)
    cell = gj.GRU(1, bias="none")
    zero = jnp.zeros((1, 3))
    given = jnp.asarray(x)[:, None, None]
    candidate = gj.GRUParams(jnp.array([[0.0, 0.0, 1.0]]), zero, None, None)
    h = gj.scan(cell, candidate, given, method=by_kernel())[1][:, 0]
    exact = np.tanh(x.astype(np.float64)) / 2
    np.testing.assert_allclose(h, exact, rtol=4e-7, atol=1e-45)
    gate = gj.GRUParams(jnp.array([[0.0, 1.0, 0.0]]), zero, None, None)
    h = gj.scan(cell, gate, given, jnp.ones((len(x), 1)), method=by_kernel())[1][:, 0]
    with np.errstate(over="ignore"):
        exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(h, exact, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize(
    "cell, asked, told",
    [
        (gj.MinGRU(4), Asked(jnp.float32), "MinGRU (whose equations it does not know)"),
        (gj.GRU(4, activation=jnp.sin), Asked(jnp.float32), "the activation <PjitFunction"),
        (gj.GRU(2048, heads=2), Asked(jnp.float32), "a layer of 2048 units in heads (at most 1024)"),
        (gj.GRU(4), Asked(jnp.float16), "float16 (only float32 and bfloat16)"),
        (gj.GRU(4), Asked(jnp.float32, symbolic=True), "sizes that are not known"),
    ],
)
def test_what_it_does_not_serve_is_said_and_auto_does_not_take_it(cell, asked, told):
    assert registry.engine("llvm").refusal(cell, asked).startswith(told)
    with pytest.raises(ValueError, match="kernel='llvm' does not serve .*; use kernel='xla'"):
        select.resolve(gj.Sequential(kernel="llvm"), cell, Sizes(9, 9, 9), asked)


def test_auto_takes_it_on_one_device(monkeypatch):
    large = Sizes(1000, 16, 64)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    found = select.resolve("auto", gj.GRU(64), large, Asked(jnp.float32))
    assert getattr(found, "differentiated", found).kernel == "llvm"
    found = select.resolve(gj.Sequential(chunk=8), gj.GRU(64), large, Asked(jnp.float32))
    assert getattr(found, "differentiated", found).kernel in ("scan", "chunked")
    monkeypatch.setattr(llvm, "missing", lambda: "this machine: llvmlite is not installed")
    found = select.resolve("auto", gj.GRU(64), large, Asked(jnp.float32))
    assert getattr(found, "differentiated", found).kernel in ("scan", "chunked")


def test_without_llvmlite_everything_but_this_kernel_works():
    code = (
        "import sys; sys.modules['llvmlite'] = None; import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'llvmlite' else find(name, *a)\n"
        "import jax, jax.numpy as jnp, gru_jax as gj; c = gj.GRU(64); p = c.init(jax.random.key(0), 8)\n"
        "print(gj.scan(c, p, jnp.ones((16, 50, 8)))[0].shape)\n"
        "gj.scan(c, p, jnp.ones((2, 3, 8)), method=gj.Sequential(kernel='llvm'))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "(16, 50, 64)" in done.stdout
    assert "kernel='llvm' does not serve this machine: llvmlite is not installed; use kernel='xla'" in done.stderr


def test_a_kernel_is_compiled_once_by_whoever_comes_first():
    made = select_plan(12, 3, 5, 6)
    gated._forward.cache_clear()
    names = []
    threads = [threading.Thread(target=lambda: names.append(gated._forward(made))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 4 and len(set(names)) == 1
