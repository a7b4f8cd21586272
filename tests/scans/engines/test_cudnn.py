"""`kernel="cudnn"` against the plain loop, with a stand-in for cuDNN that runs on the CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gru_jax as gj
from gru_jax.cells.gru_params import GRUParams
from gru_jax.scans.engines.cudnn import call, library, packing
from gru_jax.scans.engines.cudnn import gru as front
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.masking import Context, Steps

from ..cases import HOLES, KEY, LENGTHS, B, H, I, T, arrays, assert_close, outputs_and_gradients, table, weigh
from .fake_cudnn import instead_of_cudnn

CUDNN, SCAN = gj.Sequential(kernel="cudnn"), gj.Sequential(kernel="scan")
CELL = gj.GRU(H, init="torch")
PARAMS, X, H0 = arrays(CELL)
MESH = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
X4, H4, N4 = (jnp.concatenate([a, a[:1]]) for a in (X, H0, LENGTHS))


@pytest.fixture(scope="module", autouse=True)
def fake():
    with instead_of_cudnn() as fake:
        yield fake


SITUATIONS = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": LENGTHS},
    "lengths, held": {"lengths": LENGTHS, "padding": "hold"},
    "lengths, reverse": {"lengths": LENGTHS, "reverse": True, "padding": "hold"},
    "input dropout": {"input_dropout": 0.4, "key": KEY, "lengths": LENGTHS},
}


@pytest.mark.parametrize(
    "situation, time_major",
    table(SITUATIONS, (False, True), quick=lambda *row: row == ("lengths, held", True)),
)
def test_equals_naive(situation, time_major):
    options, x = SITUATIONS[situation], X
    if time_major:
        options, x = {**options, "time_major": True}, jnp.moveaxis(X, 0, 1)
    ours = outputs_and_gradients(CELL, PARAMS, x, H0, method=CUDNN, **options)
    naive = outputs_and_gradients(CELL, PARAMS, x, H0, method="naive", **options)
    assert_close(ours, naive, 1e-6, 1e-5)


@pytest.mark.parametrize(
    "bias, batch",
    table(
        ("full", "minimal", "none"),
        ((), (0,), (1,), (2, 3)),
        quick=lambda bias, batch: (bias, batch) in (("full", (0,)), ("minimal", (2, 3)), ("none", (1,))),
    ),
)
def test_batches_and_biases(bias, batch):
    cell = gj.GRU(H, bias=bias, init="torch")
    given = arrays(cell, batch=batch)
    options = {"lengths": jnp.full(batch, 3), "reverse": True} if bias == "full" else {}
    ours = outputs_and_gradients(cell, *given, method=CUDNN, **options)
    assert_close(ours, outputs_and_gradients(cell, *given, method=SCAN, **options), 1e-6, 1e-5)


@pytest.mark.parametrize("steps, units", table((1, 7, 1000), (1, 30), quick=lambda *sizes: sizes == (1, 1)))
def test_sizes(steps, units):
    cell = gj.GRU(units, init="torch")
    params, x = cell.init(KEY, 2), jax.random.normal(KEY, (2, steps, 2))
    h0, lengths = jnp.ones((2, units)), jnp.array([steps, steps - 1])
    ours, plain = (
        outputs_and_gradients(cell, params, x, h0, method=method, lengths=lengths) for method in (CUDNN, SCAN)
    )
    assert_close(ours, plain, 5e-6, 2e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_half_precision(dtype):
    given = arrays(CELL, dtype)
    ours = outputs_and_gradients(CELL, *given, method=CUDNN, lengths=LENGTHS)
    plain = outputs_and_gradients(CELL, *given, method=SCAN, lengths=LENGTHS)
    wide = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)  # noqa: E731
    assert ours[0][0].dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    assert_close(wide(ours), wide(plain), 4 * eps, 8 * eps)


def run(x, h0, method, params=PARAMS, **options):
    return gj.scan(CELL, params, x, h0, method=method, **options)


def over_devices(x):
    return jnp.stack([x * (i + 1) for i in range(8)])


def split(a):
    return jax.device_put(a, NamedSharding(MESH, P("data")))


def gradient_norm(m, params):
    gradient = jax.grad(lambda p: weigh(run(X, H0, m, params=p, lengths=LENGTHS)))(params)
    return sum((g**2).sum() for g in jax.tree.leaves(gradient))


TRANSFORMS = {
    "vmap": lambda m: jax.vmap(lambda x, h0, n: run(x, h0, m, lengths=n))(X, H0, LENGTHS),
    "vmap over x alone": lambda m: jax.vmap(lambda x: run(x, H0, m))(jnp.stack([X, -X])),
    "vmap over parameters": lambda m: jax.vmap(lambda p: run(X, H0, m, params=p))(
        jax.tree.map(lambda p: jnp.stack([p, p / 2]), PARAMS)
    ),
    "vmap of grad": lambda m: jax.vmap(
        jax.grad(lambda p, x, n: weigh(run(x, H0[0], m, params=p, lengths=n))), (None, 0, 0)
    )(PARAMS, X, LENGTHS),
    "grad of vmap": lambda m: jax.grad(
        lambda p: weigh(jax.vmap(lambda x, h0: run(x, h0, m, params=p))(X, H0))
    )(PARAMS),
    "jvp": lambda m: jax.jvp(lambda x, h0: run(x, h0, m, lengths=LENGTHS), (X, H0), (X * 2, H0)),
    "jacfwd": lambda m: jax.jacfwd(lambda h0: run(X, h0, m)[1])(H0),
    "remat": lambda m: jax.grad(jax.checkpoint(lambda x: weigh(run(x, H0, m))))(X),
    "grad of grad": lambda m: jax.grad(lambda p: gradient_norm(m, p))(PARAMS),
    "jvp of grad": lambda m: jax.jvp(lambda p: gradient_norm(m, p), (PARAMS,), (PARAMS,)),
    "grad of scan": lambda m: jax.grad(
        lambda p: weigh(jax.lax.scan(lambda h, x: (run(x, h, m, params=p)[1],) * 2, H0, jnp.stack([X, -X])))
    )(PARAMS),
    "in segments": lambda m: jax.grad(
        lambda x: weigh(
            run(x, H0, gj.Sequential(kernel=m.kernel, checkpoint_every=2), lengths=LENGTHS, reverse=True)
        )
    )(X),
    "pmap": lambda m: jax.pmap(lambda x: run(x, H0, m, lengths=LENGTHS))(over_devices(X)),
    "grad in pmap": lambda m: jax.pmap(jax.grad(lambda p, x: weigh(run(x, H0, m, params=p))), in_axes=(None, 0))(
        PARAMS, over_devices(X)
    ),
    "batch over devices": lambda m: jax.jit(lambda x, h, n: run(x, h, m, lengths=n))(split(X4), split(H4), split(N4)),
    "grad, batch over devices": lambda m: jax.jit(
        jax.grad(lambda p, x, h: weigh(run(x, h, m, params=p)), (0, 1, 2))
    )(PARAMS, split(X4), split(H4)),
    "grad in shard_map": lambda m: jax.jit(
        jax.grad(
            lambda p, x, h: weigh(
                jax.shard_map(
                    lambda p, x, h: run(x, h, m, params=p)[0],
                    mesh=MESH,
                    in_specs=(P(), P("data"), P("data")),
                    out_specs=P("data"),
                )(p, x, h)
            ),
            (0, 1, 2),
        )
    )(PARAMS, X4, H4),
}


# Each shares its code with another one that is quick.
SLOW = {
    "vmap", "vmap over x alone", "vmap over parameters", "grad of vmap", "grad in pmap", "jvp", "jacfwd", "remat",
    "jvp of grad", "grad of scan", "in segments", "pmap", "batch over devices", "vmap of grad",
}  # fmt: skip


@pytest.mark.parametrize("transform", table(TRANSFORMS, quick=lambda transform: transform not in SLOW))
def test_equals_the_plain_loop_under(transform):
    ours, plain = TRANSFORMS[transform](CUDNN), TRANSFORMS[transform](SCAN)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert a.shape == b.shape
        assert float(np.abs(a - b).max()) <= 1e-5 * max(float(np.abs(b).max()), 0.1)


@pytest.mark.parametrize("time_major", [False, True])
def test_each_device_runs_its_part_of_the_batch(time_major):
    x = split(X4)
    x = jnp.moveaxis(x, 0, 1) if time_major else x
    loss = lambda p, x, h: weigh(run(x, h, CUDNN, params=p, time_major=time_major))  # noqa: E731
    text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(PARAMS, x, split(H4)).compile().as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    # What has a batch of 4 is a sequence a device, and the weights' gradients are added up.
    calls = re.findall(r"= \((f32\S+),.* custom-call\(.*custom_call_target=\"(gru_jax\w+)\"", text)
    here = f"f32[{T},1," if time_major else f"f32[1,{T},"
    assert {name for _, name in calls} == set(library.HANDLERS)
    assert all(shape.startswith(here) for shape, name in calls if name != library.HANDLERS[2])
    assert "all-reduce" in text


def calls_of(function, *args):
    """The calls in a compiled program, and whether there is a loop in it."""
    text = jax.jit(function).lower(*args).compile().as_text()
    return sorted(re.findall(r'custom_call_target="gru_jax_cudnn_(\w+)"', text)), " while(" in text


def test_nothing_is_called_but_what_is_needed():
    forward = lambda x: run(x, H0, CUDNN)[0]  # noqa: E731
    assert calls_of(forward, X) == (["forward"], False)
    assert calls_of(jax.grad(lambda x: forward(x).sum()), X) == (["backward_data", "forward"], False)
    everything = jax.grad(lambda p: run(X, H0, CUDNN, params=p)[0].sum())
    assert calls_of(everything, PARAMS) == (["backward_data", "backward_weights", "forward"], False)


def test_a_forward_pass_alone_keeps_nothing(fake):
    reserve = rf"tensor<{B}x\d+xui32>"
    text = jax.jit(lambda x: run(x, H0, CUDNN)).lower(X).as_text()
    assert re.search(rf"tensor<{B}x0xui32>", text) and len(set(re.findall(reserve, text))) == 1
    kept = jax.jit(jax.grad(lambda x: run(x, H0, CUDNN)[0].sum())).lower(X).as_text()
    words = {int(n) for n in re.findall(rf"tensor<{B}x(\d+)xui32>", kept)}
    net = library.Net("float32", I, H, batch_major=True, tf32=True)
    assert max(words) * 4 * B >= fake.sizes(net, T, B, True).reserve


def test_nan_beyond_a_sequence_s_end_is_not_seen():
    x = jnp.where(jnp.arange(T)[None, :, None] < LENGTHS[:, None, None], X, jnp.full_like(X, jnp.nan))
    ours = outputs_and_gradients(CELL, PARAMS, x, H0, method=CUDNN, lengths=LENGTHS)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(ours))


def test_debug_nans_sees_no_nan_in_what_is_kept():
    with jax.debug_nans(True):
        gradient = jax.grad(lambda x: run(x, H0, CUDNN)[0].sum())(X)
    assert jnp.isfinite(gradient).all()


# Layers and directions, which the operations have and `scan` composes by itself -------------------------------------


@pytest.mark.parametrize(
    "layers, bidirectional, batch_major",
    table((1, 2, 3), (False, True), (False, True), quick=lambda *case: case == (2, True, True)),
)
def test_layers_and_directions(layers, bidirectional, batch_major, fake):
    net = library.Net("float32", I, H, layers, bidirectional, batch_major)
    one = gj.recurrent(CELL, method=SCAN)
    stack = gj.stack(*(gj.bidirectional(one, merge="concat") if bidirectional else one for _ in range(layers)))
    params = stack.init(KEY, I)
    parts = [GRUParams(*part) for part in jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, GRUParams))]
    at, size = fake.places(net), fake.sizes(net, 1, 1, False).weights // 4
    lengths = jnp.array([T, 2, 1])
    turn = lambda a: a if batch_major else jnp.moveaxis(a, 0, 1)  # noqa: E731
    x, h0 = turn(X), jnp.zeros((len(parts), B, H))
    weights = packing.pack(parts, at, size)
    n = lengths.astype(jnp.int32)

    y, h_last = call.forward(net, x, h0, weights, n, ragged=True)
    expected, last = stack.apply(params, X, lengths=lengths)
    assert np.abs(turn(y) - expected).max() <= 1e-6
    assert np.abs(h_last - jnp.stack(jax.tree.leaves(last))).max() <= 1e-6

    def loss(parts, x):
        params_of = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(parts))
        return weigh(stack.apply(params_of, x, lengths=lengths))

    wanted, d_x = jax.grad(loss, (0, 1))(parts, X)
    d_y, d_last = jax.grad(lambda out: weigh(out))((expected, last))
    y, _, reserve = call.forward_training(net, x, h0, weights, n, ragged=True)
    dx, _, dweights = call.backward(
        net, x, h0, weights, n, y, reserve, turn(d_y), jnp.stack(jax.tree.leaves(d_last)), ragged=True
    )
    used = jnp.broadcast_to(jnp.arange(T)[None, :, None] < lengths[:, None, None], X.shape)
    assert np.abs(jnp.where(used, turn(dx) - d_x, jnp.zeros_like(X))).max() <= 1e-5
    found = packing.unpack(dweights, at, [p.w_x.shape[0] for p in parts], H)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * max(float(np.abs(b).max()), 0.1)


def test_the_layout_is_the_documented_one(fake):
    net = library.Net("bfloat16", 3, 4, layers=2, bidirectional=True)
    assert (fake.places(net) == packing.places(3, 4, layers=2, directions=2)).all()
    assert fake.sizes(net, 5, 2, False).weights == 2 * int(packing.places(3, 4, 2, 2)[-1, -1, 1] + 4)


@pytest.mark.parametrize(("units", "persistent"), [(4, True), (3, False)])
def test_persistent_where_cudnn_has_it(units, persistent, fake, monkeypatch):
    cell, asked, forward = gj.GRU(units), [], call.forward
    monkeypatch.setattr(call, "forward", lambda net, *args, **how: asked.append(net) or forward(net, *args, **how))
    context = Context(cell.init(KEY, I), jnp.zeros((B, units)), None, None)
    steps = Steps(jnp.moveaxis(X, 0, 1), None, None)
    states = front.trajectory(cell, context, steps, False, persistent=True).states
    assert [net.persistent for net in asked] == [persistent]
    assert np.abs(states - SCAN.trajectory(cell, context, steps, False).states).max() <= 1e-6


# What is not served, and what is said of it --------------------------------------------------------------------------

REFUSED = {
    "cell": (gj.MGU(H), {}, "MGU (only GRU)"),
    "before": (gj.GRU(H, reset="before"), {}, "reset='before'"),
    "heads": (gj.GRU(H, heads=2), {}, "heads=2"),
    "activation": (gj.GRU(H, activation="softsign"), {}, "activations other than"),
    "gate": (gj.GRU(H, gate_activation="hard_sigmoid"), {}, "activations other than"),
    "mask": (CELL, {"mask": True}, "a mask, which may have holes (pass lengths)"),
    "resets": (CELL, {"resets": True}, "resets"),
    "recurrent dropout": (CELL, {"recurrent_dropout": True}, "recurrent dropout"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(what):
    cell, options, said = REFUSED[what]
    reason = front.refusal(cell, Asked(jnp.float32, **options))
    assert reason is not None and reason.startswith(said)


def test_what_cudnn_does_not_do_is_a_reason(fake, monkeypatch):
    odd = library.Net("float32", 3, 3, persistent=True)
    assert "CUDNN_STATUS_NOT_SUPPORTED (an odd number of units), of a GRU of float32" in fake.problem(odd)
    monkeypatch.setattr(fake, "problem", lambda net: f"no {net.dtype}")
    assert front.refusal(CELL, Asked(jnp.float32)) == "this machine: no float32"


def test_serves_the_rest():
    for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
        assert front.refusal(CELL, Asked(dtype, lengths=True)) is None
    assert front.refusal(CELL, Asked(jnp.float64)) == "float64"


def test_a_mask_without_lengths_is_refused_by_the_trajectory_too():
    context = Context(PARAMS, H0, None, None)
    with pytest.raises(ValueError, match="takes lengths; got a mask"):
        front.trajectory(CELL, context, Steps(jnp.moveaxis(X, 0, 1), HOLES.T, None), False)


def test_an_error_of_cudnn_s_says_what_was_asked(fake):
    net = library.Net("float32", I, H)
    weights, n = jnp.zeros(fake.sizes(net, 1, 1, False).weights // 4), jnp.array([T, 2, 0])
    forward = jax.jit(lambda x: call.forward(net, x, H0[None], weights, n, ragged=True))
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        jax.block_until_ready(forward(jnp.moveaxis(X, 0, 1)))
    assert "cuDNN: cudnnSetRNNDataDescriptor failed with CUDNN_STATUS_BAD_PARAM" in str(error.value)
    assert f"a GRU of float32, {T} steps, {B} sequences, {I} features, {H} units, 1 layer" in str(error.value)
    with pytest.raises(RuntimeError, match="cuDNN: .*CUDNN_STATUS_BAD_PARAM.* of a GRU of float32, 0 steps"):
        fake.sizes(net, 0, 1, False)


def test_gradients_of_weights_need_those_of_the_data_first(fake):
    """The reserve is changed by the first backward call, and the second reads what that left."""
    net, n = library.Net("float32", I, H), jnp.full(B, T, jnp.int32)
    x, weights = jnp.moveaxis(X, 0, 1), jnp.ones(fake.sizes(net, 1, 1, False).weights // 4)
    y, h_last, reserve = call.forward_training(net, x, H0[None], weights, n, ragged=False)
    before = np.array(reserve)
    for _ in range(2):
        call.backward(net, x, H0[None], weights, n, y, reserve, y, h_last, ragged=False)
        assert (np.array(reserve) == before).all()
    said = r"cudnnRNNBackwardWeights_v8 failed .*kept\[0\] == 2"
    alone = jax.jit(call._backward_weights(net, False, weights.size))
    with pytest.raises(jax.errors.JaxRuntimeError, match=said):
        jax.block_until_ready(alone(x, H0[None], y, n, reserve))


def test_tf32_follows_jax():
    assert front._tf32()
    with jax.default_matmul_precision("highest"):
        assert not front._tf32()
