"""A stateful layer's tree is whole from its construction on: calls, resets, transformations and checkpoints keep it."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx

import gru_jax as gj
from gru_jax.interop import keras

from ..scans.cases import table

B, T, I, H = 2, 4, 3, 4
X = jax.random.normal(jax.random.key(0), (B, T, I))

OPTIONS = {
    "one": {},
    "stack": {"num_layers": 2, "residual": True, "norm": "layer"},
    "both directions, in bfloat16": {"bidirectional": True, "dtype": jnp.bfloat16},
    "bfloat16 parameters": {"num_layers": 2, "param_dtype": jnp.bfloat16},
}


def tree(x):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), x)


def close(a, b, bound=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(y, np.float32), atol=bound)


def nnx_layer(**options):
    return gj.nnx.GRU(I, H, stateful=True, rngs=nnx.Rngs(0), **options)


def keras_layer(wrap=lambda layer: layer):
    layer = wrap(keras.layers.GRU(H, stateful=True, return_sequences=True, rngs=nnx.Rngs(0), name="gru"))
    layer.build((B, None, I))
    return layer


def readout():
    return gj.models.GRUReadout(I, H, 1, steps="all", stateful=True, batch=B, num_layers=2, rngs=nnx.Rngs(0))


LAYERS = {
    **{name: lambda options=options: nnx_layer(**options, batch=B) for name, options in OPTIONS.items()},
    "model": readout,
    "keras": keras_layer,
    "keras, both directions": lambda: keras_layer(lambda gru: keras.layers.Bidirectional(gru, name="bi")),
}


def output(layer, x):
    y = layer(x)
    return y[0] if isinstance(y, tuple) else y


@nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
def over_chunks(layer, x):
    return layer, output(layer, x)


QUICK = ("model", "keras, both directions")


@pytest.mark.parametrize("name", table(LAYERS, quick=lambda name: name in QUICK))
def test_every_order_of_calls_keeps_the_tree(name, tmp_path):
    make = LAYERS[name]
    layer = make()
    stateful = getattr(layer, "gru", layer)
    whole = tree(nnx.state(layer))
    with jax.numpy_rank_promotion("allow"):  # of nnx.Linear
        _, y = over_chunks(layer, jnp.stack([X, X + 1]))  # fresh
        stateful.reset_state()
        assert tree(nnx.state(layer)) == whole
        _, again = over_chunks(layer, jnp.stack([X, X + 1]))
        close(y, again)
        assert tree(nnx.state(layer)) == whole
        traces = []
        call = nnx.jit(lambda layer, x: (traces.append(1), output(layer, x))[1])
        for fresh in (make(), layer):
            getattr(fresh, "gru", fresh).reset_state()
            close(jnp.stack([call(fresh, X), call(fresh, X + 1)]), y, 1e-5)
            assert len(traces) == 1 and tree(nnx.state(fresh)) == whole
        # A checkpoint restored into a fresh layer goes on where the one that was saved stopped.
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "c", nnx.state(layer))
            checkpointer.wait_until_finished()
            resumed = make()
            target = jax.tree.map(ocp.utils.to_shape_dtype_struct, nnx.state(resumed))
            nnx.update(resumed, checkpointer.restore(tmp_path / "c", target))
        close(output(resumed, X), output(layer, X), 0)


@pytest.mark.parametrize("name", table(OPTIONS, quick=lambda name: name in (*QUICK, "stack")))
def test_linen_makes_its_collection_in_init(name):
    options = OPTIONS[name]
    layer = gj.linen.GRU(H, stateful=True, **options)
    variables = layer.init(jax.random.key(0), X)
    assert all((leaf == 0).all() and leaf.shape == (B, H) for leaf in jax.tree.leaves(variables["carry"]))
    assert tree(gj.linen.GRU(H, stateful=True, batch=B, **options).init(jax.random.key(0), X[:1])) == tree(variables)
    traces = []

    @jax.jit
    def call(variables, x):
        traces.append(1)
        (y, _), carry = layer.apply(variables, x, mutable=["carry"])
        return y, {**variables, **carry}

    y, after = call(variables, X)
    y_on, _ = call(after, X + 1)
    assert len(traces) == 1 and tree(after) == tree(variables)
    chunks = linen.scan(
        lambda layer, carry, x: (carry, layer(x)[0]), variable_broadcast="params", variable_carry="carry",
        split_rngs={"params": False}, in_axes=0, out_axes=0,
    )  # fmt: skip
    scanned = linen.apply(lambda m, xs: chunks(m, (), xs)[1], layer, mutable=["carry"])
    out, state = scanned(variables, jnp.stack([X, X + 1]))
    close(out, jnp.stack([y, y_on]), 1e-6)
    assert tree(state["carry"]) == tree(variables["carry"])
    # Without the collection a call starts from zeros, with a batch of any size.
    (alone, _), _ = layer.apply({"params": variables["params"]}, X[:1], mutable=["carry"])
    close(alone, y[:1], 1e-6)


def test_without_a_batch_the_first_call_decides():
    layer = nnx_layer(num_layers=2)
    assert [leaf.shape for leaf in jax.tree.leaves(layer.carry.get_value())] == [(H,), (H,)]
    y, h = layer(X)
    close(layer.carry.get_value(), h, 0)
    layer.reset_state()
    assert all(leaf.shape == (B, H) and (leaf == 0).all() for leaf in jax.tree.leaves(layer.carry.get_value()))
    with pytest.raises(ValueError, match=r"batch \[2\] but x has batch \[1\]; call reset_state\(batch=1\) to start"):
        layer(X[:1])
    layer.reset_state(batch=1)
    close(layer(X[:1])[0], y[:1])
    layer.reset_state(batch=(1, 2))
    close(layer(X[None])[0], y[None])


def test_shapes_of_batches():
    layer = nnx_layer(batch=(3, B), time_major=True)
    major = jnp.broadcast_to(jnp.moveaxis(X, 1, 0)[:, None], (T, 3, B, I))
    y, h = layer(major)
    expected, _ = gj.nnx.GRU(I, H, rngs=nnx.Rngs(0))(X)
    close(y[:, 1], jnp.moveaxis(expected, 1, 0))
    assert nnx_layer()(X[0])[1].shape == (H,)
    for options, error, match in (
        ({"batch": 0, "stateful": True}, ValueError, "batch must be at least 1; got 0"),
        ({"batch": [2], "stateful": True}, TypeError, "batch must be a whole number; got"),
        ({"batch": 2}, ValueError, "got batch=2 and stateful=False; leave it out, or set stateful=True"),
    ):
        with pytest.raises(error, match=match):
            gj.nnx.GRU(I, H, rngs=nnx.Rngs(0), **options)


def test_gradients_of_a_stateful_layer_end_at_what_it_kept():
    layer, plain = nnx_layer(batch=B), gj.nnx.GRU(I, H, rngs=nnx.Rngs(0))
    h = layer(X)[1]
    ours = nnx.grad(lambda m: (m(X)[0] ** 2).sum())(layer)
    theirs = nnx.grad(lambda m: (m(X, h)[0] ** 2).sum())(plain)
    close(nnx.to_pure_dict(ours), nnx.to_pure_dict(theirs))
    close(layer.carry.get_value(), plain(X, h)[1])
