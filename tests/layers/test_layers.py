"""The Flax holders compute what the functions compute, in NNX and in Linen alike."""

import dataclasses
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, serialization

import gru_jax as gj
from gru_jax.layers.spec import GRUSpec

from ..scans.cases import table

B, T, I, H = 2, 5, 3, 4
X = jax.random.normal(jax.random.key(0), (B, T, I))
LENGTHS = jnp.array([5, 2])

OPTIONS = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "deep and bidirectional": {"num_layers": 2, "bidirectional": True, "merge": "mean", "norm": "layer"},
    "pair of outputs": {"bidirectional": True, "merge": None},
    "residual": {"num_layers": 3, "residual": True, "norm": "rms"},
    "one normalised layer": {"norm": "layer"},
    "cell options": {"reset": "before", "bias": "minimal", "heads": 2, "activation": "softsign", "init": "torch"},
    "no bias, reverse": {"bias": "none", "reverse": True},
    "held padding": {"padding": "hold"},
    "method": {"method": gj.Sequential(unroll=2, keep="gates")},
    "dropout": {"num_layers": 2, "dropout": 0.3, "input_dropout": 0.2, "recurrent_dropout": 0.1},
}


def same(a, b, bound=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    leaves = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert leaves and all(x.shape == y.shape and float(np.abs(x - y).max()) <= bound for x, y in leaves)


def linen_of(options):
    options = dict(options)
    init = {"param_init": options.pop("init")} if "init" in options else {}
    return gj.linen.GRU(H, **options, **init)


# Parts of what the others hold.
PARTS = ("one layer", "two layers", "bidirectional")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in PARTS else ()) for name in OPTIONS]
)
def test_nnx_linen_and_functions_give_identical_numbers(name):
    options = OPTIONS[name]
    module = gj.nnx.GRU(I, H, **options, rngs=nnx.Rngs(0))
    module.eval()
    layer, params = module.functional()
    spec = GRUSpec(H, **options)
    variables = {"params": spec.to_names(params)}
    functional = layer.apply(
        params, X, lengths=LENGTHS, deterministic=True, reverse=spec.reverse, padding=spec.padding
    )
    same(module(X, lengths=LENGTHS), functional)
    linen_layer = linen_of(options)
    same(linen_layer.apply(variables, X, lengths=LENGTHS, deterministic=True), functional)
    # What Linen makes itself has the same names and shapes, and gives back the functions.
    made = linen_layer.init(jax.random.key(1), X)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, variables)
    layer, params = linen_layer.functional(made)
    expected = layer.apply(params, X, deterministic=True, reverse=spec.reverse, padding=spec.padding)
    same(linen_layer.apply(made, X, deterministic=True), expected)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if at % 3 else ()) for at, one in enumerate(OPTIONS)]
)
def test_gradients_of_nnx_and_linen(name):
    options = OPTIONS[name]
    module = gj.nnx.GRU(I, H, **options, rngs=nnx.Rngs(0), deterministic=True)
    spec = GRUSpec(H, **options)
    named = spec.to_names(module.functional()[1])
    loss = lambda y: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y))  # noqa: E731
    nnx_grads = nnx.to_pure_dict(nnx.grad(lambda m: loss(m(X)[0]))(module))
    linen_layer = linen_of(options)
    linen_grads = jax.grad(lambda p: loss(linen_layer.apply({"params": p}, X, deterministic=True)[0]))(named)
    plain = {name: jax.tree.map(jnp.asarray, nnx_grads[name]) for name in spec.names}
    same(plain, linen_grads, 1e-7)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(plain)) > 0


def test_one_list_of_options():
    spec = {field.name: field.default for field in dataclasses.fields(GRUSpec)}
    fields = {f.name: f.default for f in dataclasses.fields(gj.linen.GRU) if f.name not in ("parent", "name")}
    assert fields.pop("deterministic") is False
    spec["param_init"] = spec.pop("init")
    assert fields == spec
    documented = inspect.getdoc(gj.nnx.GRU)
    assert all(name in documented for name in spec if name != "param_init")


@pytest.mark.parametrize("jit", [False, True])
def test_nnx_dropout_follows_train_and_eval(jit):
    module = gj.nnx.GRU(I, H, recurrent_dropout=0.5, rngs=nnx.Rngs(0, dropout=1))
    call = nnx.jit(lambda m, x: m(x)[0]) if jit else lambda m, x: m(x)[0]
    first, second = call(module, X), call(module, X)
    assert (first != second).any()
    module.eval()
    silent = call(module, X)
    same(silent, call(module, X))
    same(silent, module(X, deterministic=True)[0], 1e-6)
    module.train()
    same(module(X, rngs=nnx.Rngs(5))[0], module(X, rngs=nnx.Rngs(5))[0])
    same(module(X, rngs=jax.random.key(5))[0], module(X, rngs=jax.random.key(5))[0])


def test_linen_dropout_follows_its_stream():
    layer = gj.linen.GRU(H, input_dropout=0.5)
    variables = layer.init(jax.random.key(0), X)
    run = lambda seed: layer.apply(variables, X, rngs={"dropout": jax.random.key(seed)})[0]  # noqa: E731
    same(run(1), run(1))
    assert any((run(1) != run(seed)).any() for seed in (2, 3, 4))
    same(layer.apply(variables, X, deterministic=True), gj.linen.GRU(H).apply(variables, X))
    silent = gj.linen.GRU(H, input_dropout=0.5, deterministic=True)
    same(silent.apply(variables, X), gj.linen.GRU(H).apply(variables, X))


@pytest.mark.parametrize(
    "options", [pytest.param({}, marks=pytest.mark.slow), {"num_layers": 2, "dropout": 0.5}, {"norm": "rms"}], ids=str
)
def test_step_by_step_equals_the_whole_sequence(options):
    module = gj.nnx.GRU(I, H, **options, rngs=nnx.Rngs(0), deterministic=True)
    y, h_n = module(X)
    h, outputs = None, []
    for t in range(T):
        y_t, h = module.step(X[:, t], h)
        outputs.append(y_t)
    same(jnp.stack(outputs, 1), y, 1e-6)
    same(h, h_n, 1e-6)
    linen_layer = gj.linen.GRU(H, **options, deterministic=True)
    variables = {"params": module.spec.to_names(module.functional()[1])}
    same(linen_layer.apply(variables, X[:, 0], method="step")[0], outputs[0], 1e-6)


@pytest.mark.parametrize(
    "options, jit",
    table(({}, {"num_layers": 2}), (False, True), quick=lambda options, jit: bool(options) == jit),
)
def test_stateful_layers_go_on_where_they_stopped(options, jit):
    module = gj.nnx.GRU(I, H, **options, stateful=True, rngs=nnx.Rngs(0))
    whole = gj.nnx.GRU(I, H, **options, rngs=nnx.Rngs(0))
    call = nnx.jit(lambda m, x: m(x)) if jit else lambda m, x: m(x)
    y, h_n = whole(X)
    first, _ = call(module, X[:, :2])
    second, h = call(module, X[:, 2:])
    same(jnp.concatenate([first, second], 1), y, 1e-6)
    same(h, h_n, 1e-6)
    module.reset_state()
    same(call(module, X[:, :2])[0], first)
    # Linen keeps it in a collection.
    layer = gj.linen.GRU(H, **options, stateful=True)
    variables = {"params": whole.spec.to_names(whole.functional()[1])}
    assert (jax.tree.leaves(layer.init(jax.random.key(0), X)["carry"])[0] == jnp.zeros((B, H))).all()
    (first, _), state = layer.apply(variables, X[:, :2], mutable=["carry"])
    (second, _), state = layer.apply({**variables, **state}, X[:, 2:], mutable=["carry"])
    same(jnp.concatenate([first, second], 1), y, 1e-6)
    with pytest.raises(ValueError, match="the kept state is for batch"):
        layer.apply({**variables, **state}, X[:1], mutable=["carry"])


def test_gates_of_every_layer_and_direction():
    module = gj.nnx.GRU(I, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    y, h, gates = module(X, lengths=LENGTHS, return_gates=True)
    same((y, h), module(X, lengths=LENGTHS))
    assert len(gates) == 2 and len(gates[0]) == 2 and isinstance(gates[1][1], gj.Gates)
    z = gates[0][0].z
    assert z.shape == (B, T, H) and (z[1, 2:] == 0).all() and ((0 < z[0]) & (z[0] < 1)).all()


@pytest.mark.parametrize("options", [
    pytest.param({"method": "sequential"}, marks=pytest.mark.slow),
    {"method": gj.Newton(max_iters=1)},
    {"num_layers": 2, "bidirectional": True, "norm": "rms"},
    pytest.param({"num_layers": 2, "bidirectional": True, "method": "newton"}, marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_stats_of_every_layer_and_direction(options):
    module = gj.nnx.GRU(I, H, **options, rngs=nnx.Rngs(0))
    variables = {"params": module.spec.to_names(module.functional()[1])}
    y, h, stats = module(X, lengths=LENGTHS, stats=True)
    same((y, h), gj.nnx.GRU(I, H, **options | {"method": "auto"}, rngs=nnx.Rngs(0))(X, lengths=LENGTHS), 1e-6)
    twin = linen_of(options).apply(variables, X, lengths=LENGTHS, stats=True)
    jax.tree.map(np.testing.assert_array_equal, twin, (y, h, stats))
    is_stats = lambda part: isinstance(part, gj.Stats)  # noqa: E731
    assert jax.tree.structure(stats, is_leaf=is_stats) == jax.tree.structure(h)
    method = options.get("method", "auto")
    for s in jax.tree.leaves(stats, is_leaf=is_stats):
        assert s.iterations.shape == (B,)
        assert (s.iterations > 0).all() == (method not in ("auto", "sequential"))
        assert s.fell_back.any() == (method == gj.Newton(max_iters=1))
    if method == "auto":
        assert len(module(X, return_gates=True, stats=True)) == 4


def test_stats_of_nnx_under_jit_and_grad():
    module = gj.nnx.GRU(I, H, method="newton", rngs=nnx.Rngs(0))

    def loss(module, x):
        y, _, stats = module(x, stats=True)
        return (y**2).sum(), stats

    (value, stats), grads = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(module, X)
    plain = gj.nnx.GRU(I, H, rngs=nnx.Rngs(0))
    expected, wanted = nnx.value_and_grad(lambda m: (m(X)[0] ** 2).sum())(plain)
    same((value, nnx.to_pure_dict(grads)), (expected, nnx.to_pure_dict(wanted)), 1e-5)
    assert (stats.iterations > 0).all() and stats.converged.all() and stats.residual.shape == (B,)


def test_flax_s_own_rnn_and_bidirectional_take_the_cells():
    cell = gj.nnx.GRUCell(I, H, bias="minimal", rngs=nnx.Rngs(0))
    backward = gj.nnx.GRUCell(I, H, rngs=nnx.Rngs(1))
    params = [
        gj.GRUParams(*(getattr(c, name)[...] for name in ("w_x", "w_h", "b_x", "b_h"))) for c in (cell, backward)
    ]
    expected, h = gj.scan(gj.GRU(H, bias="minimal"), params[0], X, lengths=LENGTHS, padding="hold")
    carry, y = nnx.RNN(cell, return_carry=True)(X, seq_lengths=LENGTHS)
    same(jnp.where((jnp.arange(T)[None] < LENGTHS[:, None])[..., None], y, expected), expected, 1e-6)
    same(carry, h, 1e-6)
    both = nnx.Bidirectional(nnx.RNN(cell), nnx.RNN(backward))(X)
    backwards, _ = gj.scan(gj.GRU(H), params[1], X, reverse=True)
    same(both, jnp.concatenate([gj.scan(gj.GRU(H, bias="minimal"), params[0], X)[0], backwards], -1), 1e-6)

    layer = linen.Bidirectional(linen.RNN(gj.linen.GRUCell(H)), linen.RNN(gj.linen.GRUCell(H, param_init="torch")))
    variables = layer.init(jax.random.key(0), X)
    p = [gj.GRUParams(**variables["params"][f"{d}_rnn"]["cell"]) for d in ("forward", "backward")]
    halves = [gj.scan(gj.GRU(H), q, X, reverse=d == 1)[0] for d, q in enumerate(p)]
    same(layer.apply(variables, X), jnp.concatenate(halves, -1), 1e-6)


@pytest.mark.parametrize("dtype, param_dtype, expected", [
    (None, jnp.float32, jnp.float32),
    (jnp.bfloat16, jnp.float32, jnp.bfloat16),
    (None, jnp.bfloat16, jnp.float32),
])  # fmt: skip
def test_dtypes_of_computation_and_of_parameters(dtype, param_dtype, expected):
    module = gj.nnx.GRU(I, H, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0))
    y, h = module(X, jnp.zeros((B, H)))
    assert y.dtype == h.dtype == expected
    assert all(leaf.dtype == param_dtype for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    layer = gj.linen.GRU(H, dtype=dtype, param_dtype=param_dtype)
    variables = layer.init(jax.random.key(0), X)
    assert layer.apply(variables, X)[0].dtype == expected
    assert all(leaf.dtype == param_dtype for leaf in jax.tree.leaves(variables))


def test_time_major_layer():
    module = gj.nnx.GRU(I, H, num_layers=2, rngs=nnx.Rngs(0))
    major = gj.nnx.GRU(I, H, num_layers=2, time_major=True, rngs=nnx.Rngs(0))
    y, h = module(X, lengths=LENGTHS)
    same(major(X.swapaxes(0, 1), lengths=LENGTHS), (y.swapaxes(0, 1), h), 1e-6)


def test_nnx_trains_with_optax_and_state_round_trips():
    module = gj.nnx.GRU(I, H, num_layers=2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda m: ((m(x)[0] - 0.5) ** 2).mean())(module)
        optimizer.update(module, grads)
        return loss

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its step count with floats
        losses = [float(step(module, optimizer, X)) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    graph, state = nnx.split(module)
    same(pickle.loads(pickle.dumps(module))(X), module(X))
    same(nnx.merge(graph, pickle.loads(pickle.dumps(state)))(X), module(X))


def test_linen_variables_serialize():
    layer = gj.linen.GRU(H, bidirectional=True, norm="layer")
    variables = layer.init(jax.random.key(0), X)
    restored = serialization.from_bytes(variables, serialization.to_bytes(variables))
    same(layer.apply(restored, X), layer.apply(variables, X))
    assert all(isinstance(leaf, np.ndarray | jax.Array) for leaf in jax.tree.leaves(restored))


def test_layers_are_exported_lazily():
    assert "nnx" in dir(gj) and "linen" in dir(gj)
    with pytest.raises(AttributeError, match="has no attribute 'torch'"):
        _ = gj.torch


def test_dropout_needs_a_stream():
    with pytest.raises(ValueError, match=r"no stream for dropout; it has params; pass nnx.Rngs\(0\)"):
        gj.nnx.GRU(3, 4, input_dropout=0.5, rngs=nnx.Rngs(params=0))


def test_given_parameters_are_taken_and_checked():
    layer = gj.nnx.GRU(3, 4, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    params = layer.functional()[1]
    again = gj.nnx.GRU(3, 4, num_layers=2, bidirectional=True, params=params)
    x = jax.random.normal(jax.random.key(1), (2, 5, 3))
    np.testing.assert_array_equal(layer(x)[0], again(x)[0])
    with pytest.raises(ValueError, match="x has 5 features but params were made for 3"):
        gj.nnx.GRU(5, 4, num_layers=2, bidirectional=True, params=params)
    with pytest.raises(TypeError, match="rngs must be nnx.Rngs; got NoneType"):
        gj.nnx.GRU(3, 4, num_layers=2, bidirectional=True, dropout=0.5, params=params)
