"""One step of the GRU: its equation, its parameters and how they start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers

import gru_jax as gj
from gru_jax.cells.activations import ACTIVATIONS

from ..scans.cases import table

H, I = 6, 4


def equation(cell, p, x, h):
    """The docstring's equation, written with one dense matrix a gate."""
    dense = p.w_h if cell.heads == 1 else dense_recurrent(cell, p.w_h)
    blocks = lambda a: jnp.split(a, 3, -1)  # noqa: E731
    b_x = p.b_x if p.b_x is not None else jnp.zeros(3 * H)
    b_h = p.b_h if p.b_h is not None else jnp.zeros(3 * H)
    b_h = jnp.concatenate([jnp.zeros(2 * H), b_h]) if b_h.size == H else b_h
    u_r, u_z, u_n = blocks(x @ p.w_x + b_x[None])
    (w_r, w_z, w_n), (b_r, b_z, b_n) = blocks(dense), blocks(b_h[None])
    r = jax.nn.sigmoid(u_r + h @ w_r + b_r)
    z = jax.nn.sigmoid(u_z + h @ w_z + b_z)
    n = jnp.tanh(u_n + r * (h @ w_n + b_n)) if cell.reset == "after" else jnp.tanh(u_n + (r * h) @ w_n + b_n)
    return (1 - z) * n + z * h


def dense_recurrent(cell, w):
    """The `[H, 3H]` matrix that k blocks `[k, H/k, 3H/k]` stand for."""
    size = H // cell.heads
    gates = [jax.scipy.linalg.block_diag(*w[:, :, g * size : (g + 1) * size]) for g in range(3)]
    return jnp.concatenate(gates, -1)


@pytest.mark.parametrize("heads", [1, 2, 3, H])
@pytest.mark.parametrize("bias", ["full", "minimal", "none"])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_step_is_the_equation(reset, bias, heads):
    cell = gj.GRU(H, reset=reset, bias=bias, heads=heads, init="torch")
    params = cell.init(jax.random.key(0), I)
    x, h = jax.random.normal(jax.random.key(1), (5, I)), jax.random.normal(jax.random.key(2), (5, H))
    ours = cell.step(params, cell.project(params, x), h)
    assert np.abs(ours - equation(cell, params, x, h)).max() <= 1e-6
    gates = cell.gates(params, cell.project(params, x), h)
    assert np.abs(gates.n + gates.z * (h - gates.n) - ours).max() <= 1e-6


@pytest.mark.parametrize(
    "bias, reset, heads, drop",
    table(
        ("full", "minimal", "none"), ("after", "before"), (1, 2, H), (False, True),
        # Each number of heads with another bias, for both resets.
        quick=lambda bias, reset, heads, drop: drop and heads == {"full": 1, "minimal": 2, "none": H}[bias],
    ),
)  # fmt: skip
def test_closed_form_of_the_derivative(x64, bias, reset, heads, drop):
    cell = gj.GRU(H, reset=reset, bias=bias, heads=heads, init="torch")
    params = cell.init(jax.random.key(0), I, jnp.float64)
    x, (h, v) = jax.random.normal(jax.random.key(1), (5, I)), jax.random.normal(jax.random.key(2), (2, 5, H))
    mask = (np.where(np.arange(5 * H).reshape(5, H) % 3 == 0, 0.0, 1.5),) if drop else ()

    @jax.jit  # one program: by itself every operation would be one
    def both(params, x, h, v):
        u = cell.project(params, x)
        step, at = lambda h: cell.step(params, u, h, *mask), cell.linearize(params, u, h, *mask)
        ours = cell.tangent(params, at, v, *mask), cell.cotangent(params, at, v, *mask)
        return ours, (jax.jvp(step, (h,), (v,))[1], jax.vjp(step, h)[1](v)[0])

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), *both(params, x, h, v))


@pytest.mark.parametrize(
    "reset, bias, heads, drop",
    table(
        ("after", "before"),
        ("full", "minimal", "none"),
        (1, 2, H),
        (False, True),
        quick=lambda *row: row in (("after", "full", 1, True), ("before", "minimal", 2, True)),
    ),
)
def test_pullback_is_that_of_project_and_step(x64, reset, bias, heads, drop):
    cell = gj.GRU(H, reset=reset, bias=bias, heads=heads, init="torch", activation="softsign")
    params = cell.init(jax.random.key(0), I, jnp.float64)
    x = jax.random.normal(jax.random.key(1), (3, 5, I))
    h, c = jax.random.normal(jax.random.key(2), (2, 3, 5, H))
    mask = np.where(np.arange(15 * H).reshape(3, 5, H) % 4 == 0, 0.0, 1.5) if drop else None

    @jax.jit
    def both(params, x, h, c):
        u = cell.project(params, x)
        known = (cell.products(params, h, mask),) if cell.has_products else ()
        at = cell.linearize(params, u, h, mask, *known)
        step = lambda params, x, h: cell.step(params, cell.project(params, x), h, mask)  # noqa: E731
        d_params, d_x, d_h = jax.vjp(step, params, x, h)[1](c)
        d_h_by_transposed = cell.cotangent(params, at, c, mask, cell.transposed(params, jnp.float64))
        ours = cell.pullback(params, at, x, h, c, mask), d_h_by_transposed, cell.step(params, u, h, mask, *known)
        return ours, ((d_params, d_x), d_h, step(params, x, h))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), *both(params, x, h, c))


@pytest.mark.parametrize("bias, b_x, b_h", [("full", (18,), (18,)), ("minimal", (18,), (6,)), ("none", None, None)])
@pytest.mark.parametrize("heads, w_h", [(1, (6, 18)), (2, (2, 3, 9)), (6, (6, 1, 3))])
@pytest.mark.parametrize("init", ["flax", "keras", "torch"])
def test_shapes_of_parameters(init, heads, w_h, bias, b_x, b_h):
    params = gj.GRU(H, heads=heads, bias=bias, init=init).init(jax.random.key(0), I, jnp.bfloat16)
    got = jax.tree.map(jnp.shape, params)
    assert got == gj.GRUParams((I, 18), w_h, b_x, b_h)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))


def is_orthogonal(w):
    w = w if w.shape[0] <= w.shape[1] else w.T
    return bool(np.abs(w @ w.T - jnp.eye(w.shape[0])).max() < 1e-5)


def test_presets_are_the_frameworks_own():
    size, features = 48, 200
    made = {name: gj.GRU(size, init=name).init(jax.random.key(0), features) for name in ("flax", "keras", "torch")}
    gates = {name: jnp.split(p.w_h, 3, -1) for name, p in made.items()}
    # flax.linen: each gate orthogonal; Keras: the fused matrix; torch: U(-1/sqrt(H), 1/sqrt(H)), biases included.
    assert all(map(is_orthogonal, gates["flax"])) and is_orthogonal(made["keras"].w_h)
    assert not any(map(is_orthogonal, gates["keras"]))
    assert abs(float(made["flax"].w_x.std()) * features**0.5 - 1) < 0.05
    limit = (6 / (features + 3 * size)) ** 0.5
    assert 0.98 * limit < float(np.abs(made["keras"].w_x).max()) <= limit
    assert all(0.9 * size**-0.5 < float(np.abs(leaf).max()) <= size**-0.5 for leaf in made["torch"])
    assert all(float(np.abs(b).max()) == 0 for name in ("flax", "keras") for b in (made[name].b_x, made[name].b_h))


def test_initializers_one_by_one():
    init = gj.Initializers(
        w_x=initializers.ones,
        w_h=gj.per_gate(initializers.orthogonal()),
        b_x=initializers.constant(2.0),
        b_h=initializers.constant(3.0),
    )
    params = gj.GRU(H, init=init).init(jax.random.key(0), I)
    assert (params.w_x == 1).all() and (params.b_x == 2).all() and (params.b_h == 3).all()
    assert all(map(is_orthogonal, jnp.split(params.w_h, 3, -1)))


def test_cells_are_values():
    for options in ({}, {"init": "torch"}, {"init": gj.Initializers(*[gj.per_gate(initializers.ones)] * 4)}):
        assert gj.GRU(H, **options) == gj.GRU(H, **options)
        assert hash(gj.GRU(H, **options)) == hash(gj.GRU(H, **options))
    assert gj.GRU(H) != gj.GRU(H, reset="before")
    with pytest.raises(dataclasses.FrozenInstanceError):
        gj.GRU(H).hidden_size = 3
    assert isinstance(gj.GRU(H), gj.Cell)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_name_equal_those_of_torch(name):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    peers = {"linear": lambda x: x, "exponential": torch.exp, "hard_sigmoid": F.hardsigmoid, "hard_tanh": F.hardtanh}
    peer = peers.get(name) or getattr(F, name, None) or getattr(torch, name)
    x = jnp.linspace(-5, 5, 41)
    expected = peer(torch.tensor(x.tolist())).tolist()
    assert np.abs(ACTIVATIONS[name](x) - jnp.array(expected)).max() <= 2e-6 * max(1.0, max(expected))
