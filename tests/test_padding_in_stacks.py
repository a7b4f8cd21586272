"""What stands in padding never matters, and `padding` says what comes out there, whatever stands around the layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj

from .scans.cases import table

B, T, H = 3, 6, 4
X = jax.random.normal(jax.random.key(0), (B, T, H))
LENGTHS = jnp.array([6, 2, 0])
RIGHT = jnp.asarray(np.arange(T) < np.array([[6], [2], [0]]))
HOLES = jnp.array([[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0], [0] * 6], bool)
RNN = gj.recurrent(gj.GRU(H, init="torch"))
BOTH = gj.bidirectional(RNN, merge="mean")

NETS = {
    "residual": gj.stack(RNN, RNN, residual=True),
    "layer norm": gj.stack(RNN, norm="layer"),
    "rms norm, residual, dropout": gj.stack(RNN, RNN, RNN, residual=True, norm="rms", dropout=0.5),
    "another first size": gj.stack(gj.bidirectional(RNN), gj.recurrent(gj.GRU(2 * H)), residual=True, norm="layer"),
    "both directions": gj.stack(BOTH, BOTH, residual=True, norm="layer"),
    "stacks in both directions": gj.bidirectional(gj.stack(RNN, RNN, residual=True, norm="layer")),
    "heads": gj.stack(gj.recurrent(gj.GRU(H, heads=2)), gj.recurrent(gj.MinGRU(H)), residual=True, norm="layer"),
}
ONE_WAY = [name for name in NETS if "direction" not in name and "first" not in name]


def trained(net):
    """Parameters with norms that are not those of a fresh network."""
    params = net.init(jax.random.key(1), H)
    return jax.tree.map(lambda p: p + 0.3 if p.ndim == 1 else p, params)


def called(net, params, x, mask, reverse, padding, time_major=False):
    turn = (lambda a: jnp.moveaxis(a, 1, 0)) if time_major else (lambda a: a)
    given = {"lengths": LENGTHS} if mask is RIGHT else {"mask": turn(mask)}
    y, h = net.apply(
        params, turn(x), key=jax.random.key(2), reverse=reverse, padding=padding, time_major=time_major, **given
    )
    return turn(y), h


WAYS = {
    f"{name}, {padding}": (mask, reverse, padding)
    for name, mask, reverse in (("right", RIGHT, False), ("holes", HOLES, False), ("back", HOLES, True))
    for padding in ("zero", "hold")
}
EACH_ONCE = set(list(zip(NETS, [*WAYS, *WAYS], strict=False))[::4])


@pytest.mark.parametrize("name, way", [
    pytest.param(name, way, marks=[] if (name, way) in EACH_ONCE else pytest.mark.slow)
    for name in NETS
    for way in WAYS
])  # fmt: skip
def test_what_stands_in_padding_does_not_matter(name, way):
    net, (mask, reverse, padding) = NETS[name], WAYS[way]
    params = trained(net)
    run = jax.jit(functools.partial(called, net, mask=mask, reverse=reverse, padding=padding))
    expected = run(params, jnp.where(mask[..., None], X, 0.0))
    for nonsense in (1e6, jnp.nan):
        x = jnp.where(mask[..., None], X, nonsense)
        jax.tree.map(np.testing.assert_array_equal, run(params, x), expected)
    y = expected[0]
    assert jnp.isfinite(y).all()
    if padding == "zero":
        assert (jnp.where(mask[..., None], 0, y) == 0).all() and (y[0, 0] != 0).any()
    elif name in ONE_WAY:
        before = list(range(T))[:: -1 if reverse else 1]
        for b in range(B):
            counted = None
            for t in before:
                counted = t if mask[b, t] else counted
                if counted is not None:
                    np.testing.assert_array_equal(y[b, t], y[b, counted])
    gradient = jax.grad(lambda p, x: run(p, x)[0].sum(), argnums=(0, 1))(params, jnp.where(mask[..., None], X, jnp.nan))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert (jnp.where(mask[..., None], 0, gradient[1]) == 0).all()


@pytest.mark.parametrize(
    "name, padding",
    table(("heads", "both directions"), ("zero", "hold"), quick=lambda *row: (row[0] == "heads") == (row[1] == "zero")),
)
def test_leading_time_is_the_same(name, padding):
    params, x = trained(NETS[name]), jnp.where(HOLES[..., None], X, jnp.nan)
    ours, major = (called(NETS[name], params, x, HOLES, False, padding, time_major) for time_major in (False, True))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), major, ours)


def test_models_see_features_of_zero_in_padding():
    net = gj.stack(RNN, RNN, residual=True, norm="layer")
    for model, x in (
        (gj.models.readout(net, H, 2, steps="all"), X),
        (gj.models.sequence_model(net, 5, H, outputs=2), jnp.argmax(X, -1)),
    ):
        params = jax.tree.map(lambda p: p + 0.3 if p.ndim == 1 else p, model.init(jax.random.key(1)))
        y = model.apply(params, x, lengths=LENGTHS)
        assert (jnp.where(RIGHT[..., None], 0.3, y) == jnp.float32(0.3)).all()
    module = gj.models.GRUReadout(H, H, 2, steps="all", num_layers=2, residual=True, norm="layer", rngs=nnx.Rngs(0))
    module.gru.norm_1["bias"].set_value(jnp.full(H, 0.7))
    with jax.numpy_rank_promotion("allow"):  # of nnx.Linear
        y = module(X.at[~RIGHT].set(jnp.nan), lengths=LENGTHS)
    assert (jnp.where(RIGHT[..., None], 0, y) == 0).all()


def test_holders_pad_as_the_functions_do():
    options = {"num_layers": 2, "residual": True, "norm": "layer", "padding": "hold", "time_major": True}
    layer = gj.nnx.GRU(H, H, **options, rngs=nnx.Rngs(0))
    layer.norm_1["bias"].set_value(jnp.full(H, 0.7))
    x = jnp.moveaxis(X.at[~RIGHT].set(1e6), 1, 0)
    y, h = layer(x, lengths=LENGTHS)
    np.testing.assert_array_equal(y[2:, 1], jnp.broadcast_to(y[1, 1], (4, H)))
    variables = {"params": layer.spec.to_names(layer.functional()[1])}
    twin = gj.linen.GRU(H, **options).apply(variables, x, lengths=LENGTHS)
    jax.tree.map(np.testing.assert_array_equal, twin, (y, h))


def test_no_steps_at_all():
    y, _ = NETS["both directions"].apply(trained(NETS["both directions"]), X[:, :0], mask=HOLES[:, :0], padding="hold")
    assert y.shape == (B, 0, H)
