"""Time split over devices: the numbers of one device, no device sees the whole sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gru_jax as gj

from .cases import table, weigh

B, T, H, I = 4, 64, 4, 3
RNG = np.random.default_rng(0)
LENGTHS = jnp.array([64, 40, 0, 17])
MASK, RESETS = jnp.asarray(RNG.random((B, T)) > 0.3), jnp.asarray(RNG.random((B, T)) > 0.9)
RESET_TO = jnp.asarray(RNG.random((B, H), np.float32))

CELLS = {
    "GRU": gj.GRU(H),
    "GRU, heads": gj.GRU(H, heads=2, reset="before"),
    "GRU-D": gj.GRUD(H),
    "MGU": gj.MGU(H),
    "MinGRU": gj.MinGRU(H),
    "MinGRU, log": gj.MinGRU(H, form="log"),
    "MinLSTM": gj.MinLSTM(H),
}
LINEAR = ("associative", gj.Associative("chunked"), gj.Associative("associative"))
METHODS = {
    "GRU": ("newton", gj.Newton("dense"), "sequential"),
    "GRU, heads": ("newton",),
    "GRU-D": ("newton",),
    "MGU": (gj.Newton("diagonal"),),
    "MinGRU": LINEAR,
    "MinGRU, log": LINEAR,
    "MinLSTM": ("auto",),
}
SITUATIONS = {
    "plain": {},
    "lengths": {"lengths": LENGTHS},
    "everything, reverse": {"mask": MASK, "resets": RESETS, "reset_to": RESET_TO, "reverse": True, "padding": "hold"},
}
MESHES = {
    "4": ((4,), ("time",), None),
    "8": ((8,), ("time",), None),
    "2 x 4": ((2, 4), ("data", "time"), "data"),
    "time alone of two": ((2, 2), ("data", "time"), None),
}
QUICK = {
    ("GRU", 0, "everything, reverse", "4", "Auto"),
    ("MinGRU", 0, "everything, reverse", "8", "Explicit"),
}


def mesh_of(name, kind="Auto"):
    shape, axes, batch_axis = MESHES[name]
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = jax.make_mesh(shape, axes, axis_types=(AxisType[kind],) * len(shape), devices=devices)
    return mesh, {"mesh": mesh, "axis": "time", "batch_axis": batch_axis}


def placed(mesh, tree, *spec):
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))


def arrays(cell, steps=T, batch=B):
    keys = jax.random.split(jax.random.key(0), 3)
    h0 = jax.random.uniform(keys[2], (batch, cell.hidden_size), minval=0.1)
    return cell.init(keys[0], I), jax.random.normal(keys[1], (batch, steps, I)), h0


def trained(run):
    def loss(params, x, h0):
        y, h = run(params, x, h0)
        return weigh((y, h)), (y, h)

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


def rows():
    for cell, methods in METHODS.items():
        yield from ((cell, index) for index in range(len(methods)))


@pytest.mark.parametrize(
    "cell, method, situation, mesh, kind",
    [
        pytest.param(*row, kind, marks=() if (*row, kind) in QUICK else pytest.mark.slow)
        for cell, method in rows()
        for row in ((cell, method, situation, mesh) for situation in SITUATIONS for mesh in MESHES)
        for kind in ("Auto", "Explicit")
    ],
)
def test_the_numbers_of_one_device(cell, method, situation, mesh, kind):
    """Outputs, final states, every gradient; the input is split, and nothing gathers it."""
    method, cell, options = METHODS[cell][method], CELLS[cell], SITUATIONS[situation]
    params, x, h0 = arrays(cell)
    expected = trained(lambda p, x, h0: gj.scan(cell, p, x, h0, method="sequential", **options))(params, x, h0)
    mesh, where = mesh_of(mesh, kind)
    ours = trained(lambda p, x, h0: gj.time_sharded(cell, p, x, h0, method=method, **where, **options))
    there = placed(mesh, params), placed(mesh, x, where["batch_axis"], "time"), placed(mesh, h0, where["batch_axis"])
    got = ours(*there)
    (_, (y, _)), (_, d_x, _) = got
    for split in (y, d_x):
        assert split.addressable_shards[0].data.shape == (B // mesh.shape.get("data", 1) if where["batch_axis"] else B,
                                                          T // mesh.shape["time"], split.shape[-1])
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(np.abs(b).max())))
    compiled = ours.lower(*there).compile().as_text()
    assert "all-gather" not in compiled and "all-to-all" not in compiled
    assert "collective-permute" in compiled


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, size", table(("GRU", "MinGRU"), (4, 8), quick=lambda cell, size: (cell, size) == ("GRU", 4))
)
def test_long_sequences(cell, size):
    cell = {"GRU": gj.GRU(32, init="torch"), "MinGRU": gj.MinGRU(32)}[cell]
    params, x, h0 = arrays(cell, 4096, 1)
    expected = trained(lambda p, x, h0: gj.scan(cell, p, x, h0, method="sequential"))(params, x, h0)
    mesh, where = mesh_of(str(size))
    got = trained(lambda p, x, h0: gj.time_sharded(cell, p, x, h0, **where))(params, placed(mesh, x, None, "time"), h0)
    np.testing.assert_allclose(got[0][1][0], expected[0][1][0], atol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (got[1], expected[1])), strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()
    stats = gj.time_sharded(cell, params, x, h0, stats=True, **where)[2]
    assert stats.converged.all() and not stats.fell_back.any()


def test_falls_back_to_the_parts_in_turn():
    cell = CELLS["GRU"]
    params, x, h0 = arrays(cell)
    wild = jax.tree.map(lambda p: p * 30, params)
    _, where = mesh_of("4")
    y, h, stats = gj.time_sharded(cell, wild, x * 3, h0, method=gj.Newton(max_iters=2), stats=True, **where)
    expected, final = gj.scan(cell, wild, x * 3, h0, method="sequential")
    assert stats.fell_back.all() and stats.iterations.tolist() == [2] * B
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(h, final, atol=1e-5)


@pytest.mark.slow
def test_layers_take_it_as_their_method():
    """A stack of two directions with dropout: the same masks, the same numbers, as on one device."""
    mesh, where = mesh_of("2 x 4")
    sharded = gj.TimeSharded(mesh, "time", "data")

    def net(method):
        rnn = gj.recurrent(gj.GRU(H), method=method, recurrent_dropout=0.3)
        return gj.stack(gj.bidirectional(rnn), gj.bidirectional(rnn), norm="rms")

    params = net("auto").init(jax.random.key(0), I)
    _, x, _ = arrays(CELLS["GRU"])
    run = lambda method: jax.jit(  # noqa: E731
        lambda x: net(method).apply(params, x, lengths=LENGTHS, key=jax.random.key(1))[0]
    )
    np.testing.assert_allclose(run(sharded)(placed(mesh, x, "data", "time")), run("auto")(x), atol=1e-5)


@pytest.mark.slow
def test_time_major_and_no_batch():
    cell = CELLS["GRU"]
    params, x, h0 = arrays(cell)
    expected = gj.scan(cell, params, x, h0)[0]
    _, where = mesh_of("4")
    y, _ = gj.time_sharded(cell, params, jnp.swapaxes(x, 0, 1), h0, time_major=True, **where)
    np.testing.assert_allclose(jnp.swapaxes(y, 0, 1), expected, atol=1e-6)
    y, h = gj.time_sharded(cell, params, x[0], h0[0], **where)
    assert h.shape == (H,)
    np.testing.assert_allclose(y, expected[0], atol=1e-6)


def test_under_vmap():
    cell = CELLS["GRU"]
    params, x, h0 = arrays(cell)
    mesh, _ = mesh_of("2 x 4")
    method = gj.TimeSharded(mesh, "time")
    one = lambda x, h0: gj.scan(cell, params, x, h0, method=method)[0]  # noqa: E731
    y = jax.jit(jax.vmap(one))(placed(mesh, x, None, "time"), placed(mesh, h0))
    np.testing.assert_allclose(y, gj.scan(cell, params, x, h0)[0], atol=1e-6)


MESH = jax.make_mesh((4,), ("time",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
PAIR = jax.make_mesh((2, 2), ("data", "time"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: {"mesh": "time"}, TypeError, r"mesh must be a jax.sharding.Mesh; got 'time'; make one with jax"),
        (lambda x: {"mesh": MESH, "axis": "tiem"}, ValueError, "axis must be 'time'.*got 'tiem'|did you mean 'time'"),
        (lambda x: {"mesh": MESH, "batch_axis": "data"}, ValueError, "batch_axis must be"),
        (lambda x: {"mesh": MESH, "batch_axis": "time"}, ValueError, "cannot both be split over 'time'"),
        (lambda x: {"mesh": MESH, "method": "naive"}, ValueError, "method must be one of 'auto', 'associative'"),
        (lambda x: {"mesh": MESH, "method": 3}, TypeError, "method must be a name, gj.Associative"),
        (lambda x: {"mesh": MESH, "method": gj.Newton(window=8)}, ValueError, "leave window out"),
        (lambda x: {"mesh": MESH, "method": "associative"}, ValueError, "needs a cell that is linear in its state"),
        (lambda x: {"mesh": MESH, "x": x[:, :61]}, ValueError, "61 steps do not split.*pad x to 64 steps and pass len"),
        (lambda x: {"mesh": PAIR, "batch_axis": "data", "x": x[:3]}, ValueError, "a batch of 3 does not split evenly"),
        (lambda x: {"mesh": PAIR, "batch_axis": "data", "x": x[0]}, ValueError, "no batch dimension to be split"),
    ],
)
def test_what_is_refused(call, error, match):
    cell = CELLS["GRU"]
    params, x, _ = arrays(cell)
    with pytest.raises(error, match=match):
        gj.time_sharded(cell, params, **{"x": x, **call(x)})
