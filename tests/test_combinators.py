"""Combinators: what takes a layer gives a layer, and it is what its parts say it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

B, T, I, H = 3, 6, 5, 4
X = jax.random.normal(jax.random.key(0), (B, T, I))
H0 = jax.random.normal(jax.random.key(1), (B, H))
LENGTHS = jnp.array([6, 3, 0])
CELL = gj.GRU(H, init="torch")
RNN = gj.recurrent(CELL)


def same(a, b, bound=0.0):
    leaves = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert leaves and all(x.shape == y.shape and float(np.abs(x - y).max()) <= bound for x, y in leaves)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS, "padding": "hold"}], ids=["plain", "lengths"])
def test_recurrent_is_scan(reverse, options):
    params = RNN.init(jax.random.key(2), I)
    same(params, CELL.init(jax.random.key(2), I))
    ours = RNN.apply(params, X, H0, reverse=reverse, **options)
    same(ours, gj.scan(CELL, params, X, H0, reverse=reverse, **options))


MERGES = {
    "concat": lambda f, b: jnp.concatenate([f, b], -1),
    "sum": lambda f, b: f + b,
    "mul": lambda f, b: f * b,
    "mean": lambda f, b: 0.5 * (f + b),
    None: lambda f, b: (f, b),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS}, {"return_gates": True}], ids=str)
def test_bidirectional_merges_two_scans(merge, options, reverse):
    bi = gj.bidirectional(RNN, gj.recurrent(gj.GRU(H, reset="before")), merge=merge)
    params = bi.init(jax.random.key(2), I)
    cells = (CELL, gj.GRU(H, reset="before"))
    y, *others = bi.apply(params, X, (H0, 2 * H0), reverse=reverse, **options)
    forward = gj.scan(cells[0], params[0], X, H0, reverse=reverse, **options)
    backward = gj.scan(cells[1], params[1], X, 2 * H0, reverse=not reverse, **options)
    same(y, MERGES[merge](forward[0], backward[0]), 1e-6)
    same(others, list(zip(forward[1:], backward[1:], strict=True)))


LAYERS = {
    "one layer": RNN,
    "bidirectional": gj.bidirectional(RNN),
    "stack": gj.stack(RNN, gj.bidirectional(RNN), norm="rms", dropout=0.5),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("gates", [False, True])
def test_stats_have_the_structure_of_the_states(layer, gates):
    params = layer.init(jax.random.key(2), I)
    y, h, *others = layer.apply(params, X, key=jax.random.key(0), stats=True, return_gates=gates)
    same((y, h), layer.apply(params, X, key=jax.random.key(0)))
    stats = others[-1]
    assert len(others) == 1 + gates
    each = jax.tree.leaves(stats, is_leaf=lambda part: isinstance(part, gj.Stats))
    assert jax.tree.structure(stats, is_leaf=lambda part: isinstance(part, gj.Stats)) == jax.tree.structure(h)
    for s in each:
        assert s.iterations.shape == (B,) and (s.iterations == 0).all()
        assert s.converged.all() and not s.fell_back.any()


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["one layer", pytest.param("stack", marks=pytest.mark.slow)])
def test_stats_of_newton_under_jit_grad_and_vmap(layer):
    """Every direction of every layer says how often it went round; the numbers are those of the steps."""

    def made(rnn):
        return rnn if layer == "one layer" else gj.stack(rnn, gj.bidirectional(rnn), norm="layer", dropout=0.5)

    net, steps = made(gj.recurrent(CELL, method="newton")), made(RNN)
    params = net.init(jax.random.key(2), I)

    def loss(params, x):
        y, h, stats = net.apply(params, x, deterministic=True, stats=True)
        return (y**2).sum(), (h, stats)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (h, stats)), gradient = run(params, X)
    plain = jax.jit(jax.value_and_grad(lambda p, x: (steps.apply(p, x, deterministic=True)[0] ** 2).sum()))
    same((value, gradient), plain(params, X), 1e-4)
    mapped = jax.jit(jax.vmap(lambda x: loss(params, x)[1][1]))(X)
    each = jax.tree.leaves(stats, is_leaf=lambda part: isinstance(part, gj.Stats))
    alone = jax.tree.leaves(mapped, is_leaf=lambda part: isinstance(part, gj.Stats))
    assert len(each) == len(alone) == len(jax.tree.leaves(h))
    for s, a in zip(each, alone, strict=True):
        assert s.converged.all() and (s.iterations > 0).all() and (s.residual < 1e-5).all()
        assert (s.iterations == a.iterations).all() and a.fell_back.shape == (B,)


def norm(kind, p, y):
    if kind is None:
        return y
    y = y - y.mean(-1, keepdims=True) if kind == "layer" else y
    y = y / jnp.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * p.scale.reshape(1, 1, -1)
    return y + p.bias.reshape(1, 1, -1) if kind == "layer" else y


@pytest.mark.parametrize("kind", ["layer", "rms", None])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_stack_is_its_layers_one_after_another(kind, residual, bidirectional):
    one = gj.bidirectional(RNN) if bidirectional else RNN
    net = gj.stack(one, one, one, residual=residual, norm=kind)
    params = net.init(jax.random.key(2), I)
    keys = iter(jax.random.split(jax.random.key(3), 6))
    params = params._replace(
        norms=jax.tree.map(lambda a: a + jax.random.normal(next(keys), a.shape), params.norms)
    )
    h0 = tuple((H0, -H0) if bidirectional else H0 * k for k in range(3))
    y, h = net.apply(params, X, h0, lengths=LENGTHS)
    x, states = X, []
    for k in range(3):
        out, h_k = one.apply(params.layers[k], x, h0[k], lengths=LENGTHS)
        out = norm(kind, params.norms[k] if kind else None, out)
        x = out + x if residual and k else out
        states.append(h_k)
    used = jnp.arange(X.shape[1])[None] < LENGTHS[:, None]
    same(y, jnp.where(used[..., None], x, jnp.zeros_like(x)), 1e-5)
    same(h, tuple(states), 1e-5)
    assert len(params.norms) == (0 if kind is None else 3)


def test_layers_of_any_kind_nest():
    net = gj.stack(
        gj.bidirectional(gj.stack(RNN, RNN)),
        gj.Layer(
            lambda key, size, dtype=jnp.float32: jnp.ones((size, 2), dtype),
            lambda params, x, h0=None, **_: (x @ jnp.broadcast_to(params, (B, *params.shape)), h0)
            if x.ndim == 3 and x.shape[0] == B
            else (jnp.zeros((*x.shape[:-1], 2), x.dtype), h0),
        ),
        gj.recurrent(gj.GRU(2 * H), recurrent_dropout=0.5),
    )
    params = net.init(jax.random.key(0), I)
    y, h = net.apply(params, X, deterministic=True)
    assert y.shape == (B, T, 2 * H) and h[0][0][1].shape == (B, H) and h[1] is None


def test_dropout_between_layers_is_drawn_at_every_step_and_not_after_the_last():
    wide = gj.recurrent(gj.GRU(200, init="torch"))
    net = gj.stack(wide, wide, dropout=0.25)
    params = net.init(jax.random.key(0), I)
    # The second layer shows its input: candidate = its input, nothing kept.
    zero = jax.tree.map(jnp.zeros_like, params.layers[1])
    shown = zero._replace(
        w_x=zero.w_x.at[:, 400:].set(1e-3 * jnp.eye(200)), b_x=zero.b_x.at[200:400].set(-30.0)
    )
    params = params._replace(layers=(params.layers[0], shown))
    plain, _ = net.apply(params, X, deterministic=True)
    dropped, _ = net.apply(params, X, key=jax.random.key(1))
    ratio = jnp.where(jnp.abs(plain) > 1e-7, dropped / jnp.where(plain == 0, 1, plain), jnp.nan)
    kept = ~(jnp.abs(ratio) < 1e-3)
    assert abs(float(kept.mean()) - 0.75) < 0.02
    assert jnp.nanmax(jnp.abs(jnp.where(kept, ratio, jnp.nan) - 1 / 0.75)) < 1e-2
    assert (kept[:, 0] != kept[:, 1]).any()
    same(dropped, net.apply(params, X, key=jax.random.key(1))[0])
    assert (dropped != net.apply(params, X, key=jax.random.key(2))[0]).any()


@pytest.mark.parametrize("layer", [gj.stack(RNN, RNN, dropout=0.5), gj.recurrent(CELL, input_dropout=0.5)])
def test_deterministic_needs_no_key_and_changes_nothing(layer):
    params = layer.init(jax.random.key(0), I)
    silent = layer.apply(params, X, deterministic=True)
    plain = gj.stack(RNN, RNN) if isinstance(params, gj.StackParams) else RNN
    same(silent, plain.apply(params, X))
    same(silent, layer.apply(params, X, key=jax.random.key(0), deterministic=True))


def test_every_layer_draws_its_own_dropout():
    one = gj.recurrent(gj.GRU(I, init="torch"), input_dropout=0.5)
    net = gj.bidirectional(one, merge=None)
    p = one.init(jax.random.key(0), I)
    (forward, backward), _ = net.apply((p, p), X, key=jax.random.key(0))
    assert np.abs(forward - backward[:, ::-1]).max() > 1e-3


def test_half_precision_and_x64_parameters():
    net = gj.stack(gj.bidirectional(RNN), RNN, norm="layer", residual=False)
    params = net.init(jax.random.key(0), I, jnp.bfloat16)
    y, h = net.apply(params, X.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, y, h))} == {jnp.dtype(jnp.bfloat16)}
