"""Under every transformation of JAX the fast methods agree with `naive`, and nothing is compiled twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from .cases import CELLS, CHUNKED, HOLES, RESETS, B, H, arrays, table, weigh

CELL = CELLS["after-full-1"]
PARAMS, X, H0 = arrays(CELL)
LENGTHS = jnp.array([5, 2, 0])


def run(x, h0, method, params=PARAMS, **options):
    return gj.scan(CELL, params, x, h0, method=method, **options)


def over_devices(x):
    return jnp.stack([x * (i + 1) for i in range(8)])


def scanned(m):
    """The layer inside a scan that feeds its own output back."""

    def body(h0, scale):
        y, h = run(X * scale, h0, m, lengths=LENGTHS)
        return h, y

    return jax.lax.scan(body, H0, jnp.array([1.0, 0.5, 2.0]))


TRANSFORMS = {
    "none": lambda m: run(X, H0, m, lengths=LENGTHS),
    "jit": lambda m: jax.jit(lambda x, h0, n: run(x, h0, m, lengths=n))(X, H0, LENGTHS),
    "vmap": lambda m: jax.vmap(lambda x, h0, n: run(x, h0, m, lengths=n))(X, H0, LENGTHS),
    "vmap over masks": lambda m: jax.vmap(lambda k, r: run(X[0], H0[0], m, mask=k, resets=r))(HOLES, RESETS),
    "vmap of vmap": lambda m: jax.vmap(
        lambda x: jax.vmap(lambda x, h0: run(x, h0, m))(x, H0)
    )(jnp.stack([X, X * 2])),
    "vmap over parameters": lambda m: jax.vmap(lambda p: run(X, H0, m, params=p))(
        jax.tree.map(lambda p: jnp.stack([p, p / 2]), PARAMS)
    ),
    "grad": lambda m: jax.grad(lambda x, h0: weigh(run(x, h0, m, mask=HOLES)), (0, 1))(X, H0),
    "vmap of grad": lambda m: jax.vmap(jax.grad(lambda x, h0: weigh(run(x, h0, m)), (0, 1)))(X, H0),
    "grad of vmap": lambda m: jax.grad(
        lambda p: weigh(jax.vmap(lambda x, h0: run(x, h0, m, params=p))(X, H0))
    )(PARAMS),
    "jvp": lambda m: jax.jvp(lambda x, h0: run(x, h0, m, resets=RESETS), (X, H0), (H0[:, None, :3] + X, H0)),
    "jacfwd": lambda m: jax.jacfwd(lambda h0: run(X, h0, m)[1])(H0),
    "remat": lambda m: jax.grad(jax.checkpoint(lambda x: weigh(run(x, H0, m))))(X),
    "scan": scanned,
    "grad of scan": lambda m: jax.grad(
        lambda p: weigh(jax.lax.scan(lambda h, x: (run(x, h, m, params=p)[1],) * 2, H0, jnp.stack([X, -X])))
    )(PARAMS),
    "pmap": lambda m: jax.pmap(lambda x: run(x, H0, m, lengths=LENGTHS))(over_devices(X)),
    "grad in pmap": lambda m: jax.pmap(jax.grad(lambda x: weigh(run(x, H0, m))))(over_devices(X)),
}
# What others compose of.
SELDOM = {
    "none", "jit", "vmap", "vmap of vmap", "vmap over parameters", "vmap of grad", "grad", "grad of vmap", "jvp",
    "scan", "pmap", "remat", "grad of scan",
}  # fmt: skip


@pytest.mark.parametrize(
    "method, transform",
    table(
        ("auto", *CHUNKED),
        TRANSFORMS,
        quick=lambda method, transform: (
            (method == "auto" and transform not in SELDOM)
            or (method == "chunks" and transform in ("vmap over masks", "vmap over parameters"))
            or (method == "kept chunks" and transform == "vmap of grad")
        ),
    ),
)
def test_sequential_equals_naive_under(method, transform):
    ours, naive = TRANSFORMS[transform](CHUNKED.get(method, method)), TRANSFORMS[transform]("naive")
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(naive), strict=True):
        assert a.shape == b.shape
        assert float(np.abs(a - b).max()) <= 1e-5 * max(float(np.abs(b).max()), 0.1)


def test_natively_batched_equals_vmapped():
    y, h = run(X, H0, "auto", lengths=LENGTHS)
    y_each, h_each = TRANSFORMS["vmap"]("auto")
    assert np.abs(y - y_each).max() <= 1e-6 and np.abs(h - h_each).max() <= 1e-6


def test_batch_split_over_a_mesh():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jnp.concatenate([X, X[:1]])
    split = jax.device_put(x, sharding)
    loss = jax.jit(jax.value_and_grad(lambda p, x: weigh(gj.scan(CELL, p, x))))
    for a, b in zip(jax.tree.leaves(loss(PARAMS, split)), jax.tree.leaves(loss(PARAMS, x)), strict=True):
        assert float(np.abs(a - b).max()) <= 1e-5 * max(float(np.abs(b).max()), 0.1)


@pytest.mark.parametrize(
    "keep, start",
    table(
        ("states", "gates", *CHUNKED),
        ("zeros", "h0"),
        quick=lambda *row: row in (("states", "h0"), ("chunks of 1", "zeros")),
    ),
)
def test_batch_split_by_shard_map(keep, start):
    method, start = CHUNKED.get(keep) or gj.Sequential(keep=keep), start == "h0"
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    given = (PARAMS, jnp.concatenate([X, X[:1]]), jnp.concatenate([H0, H0[:1]]))[: 2 + start]
    run = lambda *g: gj.scan(CELL, *g, method=method)[0]  # noqa: E731
    specs = (P(), P("data"), P("data"))[: 2 + start]
    split = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P("data"))
    argnums = tuple(range(len(given)))
    ours = jax.jit(jax.value_and_grad(lambda *g: weigh(split(*g)), argnums))(*given)
    expected = jax.jit(jax.value_and_grad(lambda *g: weigh(run(*g)), argnums))(*given)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert float(np.abs(a - b).max()) <= 1e-5 * max(float(np.abs(b).max()), 0.1)


COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: COMPILED.append(event) if "backend_compile" in event else None
)


@pytest.mark.parametrize("call", ["plain", "gradient", "layer"])
def test_a_second_call_of_the_same_shapes_compiles_nothing(call):
    cell = gj.GRU(H + 1, init="torch")  # a size of its own, so that the first call has something to compile
    params = cell.init(jax.random.key(0), 3)
    net = gj.stack(gj.bidirectional(gj.recurrent(cell)), gj.recurrent(cell))
    net_params = net.init(jax.random.key(0), 3)
    calls = {
        "plain": lambda x, n: gj.scan(cell, params, x, lengths=n),
        "gradient": lambda x, n: jax.grad(lambda x: gj.scan(cell, params, x, lengths=n)[0].sum())(x),
        "layer": lambda x, n: net.apply(net_params, x, lengths=n),
    }
    inputs = [(X + i, jnp.array(n)) for i, n in enumerate([[1, 2, 3], [3, 2, 1]])]
    jax.block_until_ready(inputs)
    start = len(COMPILED)
    jax.block_until_ready(calls[call](*inputs[0]))
    first = len(COMPILED)
    # An equal cell made anew counts as the same one.
    assert gj.GRU(H + 1, init="torch") == cell and hash(gj.GRU(H + 1, init="torch")) == hash(cell)
    jax.block_until_ready(calls[call](*inputs[1]))
    assert start < first == len(COMPILED)
    assert B == 3
