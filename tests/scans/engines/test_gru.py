"""The Pallas kernels behind `Sequential`, in Pallas's interpreter: `scan` computes by them what `naive` does."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from ..cases import (
    CELLS,
    SITUATIONS,
    arrays,
    assert_close,
    oracle,
    outputs_and_gradients,
    table,
    to_time_major,
    weigh,
)  # fmt: skip

P = jax.sharding.PartitionSpec
SERVED = [name for name in CELLS if name not in ("activations", "callables")]
MAIN = ("after-full-1", "before-minimal-2", "after-full-4")
INTERPRETED = {name: gj.Sequential(kernel=name) for name in ("interpret-gpu", "interpret-tpu")}
CELL = CELLS["after-full-1"]
LENGTHS = jnp.array([5, 2, 0])


@pytest.mark.parametrize(
    "kernel, cell, situation, reverse",
    table(
        INTERPRETED,
        SERVED,
        SITUATIONS,
        (False, True),
        quick=lambda kernel, cell, situation, reverse: (
            cell == MAIN[kernel == "interpret-gpu"] and (situation, reverse) == ("everything", True)
        ),
    ),
)
def test_equals_naive(kernel, cell, situation, reverse):
    options = {"reverse": reverse, **SITUATIONS[situation]}
    ours = outputs_and_gradients(CELLS[cell], *arrays(CELLS[cell]), method=INTERPRETED[kernel], **options)
    assert_close(ours, oracle(cell, situation, reverse), 1e-6, 1e-5)


@pytest.mark.parametrize(
    "kernel, dtype",
    table(INTERPRETED, ("bfloat16", "float16"), quick=lambda *row: row == ("interpret-gpu", "bfloat16")),
)
def test_half_precision(kernel, dtype):
    half = arrays(CELL, jnp.dtype(dtype), steps=40)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), half)
    lengths = jnp.array([40, 17, 0])
    (y, h), gradients = outputs_and_gradients(CELL, *half, method=INTERPRETED[kernel], lengths=lengths)
    (y_single, _), gradients_single = outputs_and_gradients(CELL, *single, lengths=lengths)
    assert y.dtype == h.dtype == dtype
    assert float(np.abs(y.astype(jnp.float32) - y_single).max()) < 4 * float(jnp.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradients_single), strict=True):
        assert a.dtype == dtype
        assert float(np.abs(a.astype(jnp.float32) - b).max()) < 0.05 * float(np.abs(b).max())


@pytest.mark.parametrize(
    "kernel, batch",
    table(INTERPRETED, ((), (2, 3), (0,)), quick=lambda *row: row == ("interpret-gpu", (0,))),
)
def test_any_batch(kernel, batch):
    given = arrays(CELL, batch=batch)
    ours, theirs = (outputs_and_gradients(CELL, *given, method=m) for m in (INTERPRETED[kernel], "naive"))
    assert_close(ours, theirs, 1e-6, 1e-5)


@pytest.mark.parametrize("kernel", INTERPRETED)
def test_time_major_and_no_steps(kernel):
    params, x, h0 = arrays(CELL)
    options = {"lengths": LENGTHS, "method": INTERPRETED[kernel]}
    y, h = gj.scan(CELL, params, x, h0, **options)
    y_t, h_t = gj.scan(CELL, params, jnp.moveaxis(x, 1, 0), h0, **to_time_major(options))
    chex.assert_trees_all_close((jnp.moveaxis(y_t, 0, 1), h_t), (y, h), rtol=0, atol=1e-6)
    y, h = gj.scan(CELL, params, x[:, :0], h0, method=INTERPRETED[kernel])
    assert y.shape == (3, 0, 4) and (h == h0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel, over", table(INTERPRETED, ("x", "params", "all"), quick=lambda *row: row == ("interpret-gpu", "all"))
)
def test_vmap(kernel, over):
    axes = {"x": (None, 0, None), "params": (0, None, None), "all": (0, 0, 0)}[over]
    given = arrays(CELL)
    twice = lambda tree: jax.tree.map(lambda a: jnp.stack([a, a * 0.5]), tree)  # noqa: E731
    many = [a if n is None else twice(a) for a, n in zip(given, axes, strict=True)]

    def loss(method):
        def of(params, x, h0):
            return weigh(gj.scan(CELL, params, x, h0, lengths=LENGTHS, method=method))

        return jax.jit(jax.vmap(jax.value_and_grad(of, (0, 1, 2)), axes))(*many)

    chex.assert_trees_all_close(loss(INTERPRETED[kernel]), loss("sequential"), rtol=1e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", INTERPRETED)
def test_forward_mode_and_second_derivatives(kernel):
    params, x, h0 = arrays(CELL)

    def loss(method, h0):
        return weigh(gj.scan(CELL, params, x, h0, method=method))

    def all_of(method):
        of = lambda h0: loss(method, h0)  # noqa: E731
        v = jnp.cos(h0)
        pushed = jax.jvp(of, (h0,), (v,))
        twice = jax.jvp(jax.grad(of), (h0,), (v,))
        again = jax.grad(lambda h0: (jax.grad(of)(h0) * v).sum())(h0)
        return pushed, twice, again

    ours, theirs = (jax.jit(lambda m=m: all_of(m))() for m in (INTERPRETED[kernel], "sequential"))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", table(INTERPRETED, quick=lambda kernel: "gpu" in kernel))
def test_shard_map_and_pmap(kernel):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    params, x, h0 = arrays(CELL, batch=(4,))
    run = lambda method: lambda *g: gj.scan(CELL, *g, method=method)[0]  # noqa: E731
    # Pallas's interpreter does not say over which mesh axes what it computes varies; compiled kernels do, see
    # deviceless.py.
    specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": P("data"), "check_vma": False}
    split = jax.shard_map(run(INTERPRETED[kernel]), mesh=mesh, **specs)
    every = jax.pmap(run(INTERPRETED[kernel]), in_axes=(None, 0, 0))
    loss = lambda of: jax.jit(jax.value_and_grad(lambda *g: weigh(of(*g)), (0, 1, 2)))(params, x, h0)  # noqa: E731
    chex.assert_trees_all_close(loss(split), loss(run("sequential")), rtol=1e-5, atol=2e-5)
    y = every(params, x[:, None], h0[:, None])[:, 0]
    chex.assert_trees_all_close(y, run("sequential")(params, x, h0), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", table(INTERPRETED, quick=lambda kernel: "gpu" in kernel))
def test_segments(kernel):
    given = arrays(CELL, steps=7)
    some = gj.Sequential(kernel=kernel, checkpoint_every=3)
    options = {"resets": jax.random.bernoulli(jax.random.key(3), 0.3, (3, 7)), "reverse": True}
    ours, theirs = (outputs_and_gradients(CELL, *given, method=m, **options) for m in (some, "naive"))
    assert_close(ours, theirs, 1e-6, 1e-5)


@pytest.mark.parametrize("kernel", INTERPRETED)
def test_nothing_is_seen_at_masked_steps(kernel):
    params, x, h0 = arrays(CELL)
    hidden = x.at[1, 2:].set(jnp.nan).at[2].set(jnp.nan)
    method = INTERPRETED[kernel]
    given = [outputs_and_gradients(CELL, params, a, h0, lengths=LENGTHS, method=method) for a in (x, hidden)]
    assert_close(given[1], given[0], 0, 0)


@pytest.mark.parametrize("kernel", table(INTERPRETED, quick=lambda kernel: "gpu" in kernel))
def test_nan_reaches_what_it_should(kernel):
    params, x, h0 = arrays(CELL)
    y, _ = gj.scan(CELL, params, x.at[1, 2].set(jnp.nan), h0, method=INTERPRETED[kernel])
    assert jnp.isnan(y[1, 2:]).all() and not jnp.isnan(y[1, :2]).any() and not jnp.isnan(y[jnp.array([0, 2])]).any()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", INTERPRETED)
def test_a_layer_of_layers(kernel):
    net = [
        gj.stack(*(gj.bidirectional(gj.recurrent(CELL, method=method)) for _ in range(2)))
        for method in (INTERPRETED[kernel], "sequential")
    ]
    x = arrays(CELL)[1]
    params = net[0].init(jax.random.key(0), 3)
    ours, theirs = (n.apply(params, x, lengths=LENGTHS) for n in net)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-6)
