"""Dropout goes off by every road that flax has: nnx.view, train and eval, attributes, the call."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.interop import keras
from gru_jax.interop import torch as nn

from ..scans.cases import table

X = jax.random.normal(jax.random.key(0), (2, 5, 3))


def keras_layer(front=keras.layers.GRU, wrap=lambda layer: layer, **options):
    layer = wrap(front(4, rngs=nnx.Rngs(0), **options))
    layer.build(X.shape)
    return layer


MODULES = {
    "layer": lambda: gj.nnx.GRU(3, 4, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0)),
    "input and state": lambda: gj.nnx.GRU(3, 4, input_dropout=0.5, recurrent_dropout=0.5, rngs=nnx.Rngs(0)),
    "model": lambda: gj.models.GRUReadout(3, 4, 2, recurrent_dropout=0.5, rngs=nnx.Rngs(0)),
    "torch": lambda: nn.GRU(3, 4, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0)),
    "keras": lambda: keras_layer(dropout=0.5),
    "keras, both directions": lambda: keras_layer(wrap=keras.layers.Bidirectional, recurrent_dropout=0.5),
}


class Inside(nnx.Module):
    """A user's own module around the layer, with flax's dropout beside it."""

    def __init__(self, inner, rngs):
        self.inner = nnx.List([inner])
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return jax.tree.leaves(self.inner[0](x))[0]


def random(module):
    first, *others = [jax.tree.leaves(module(X))[0] for _ in range(3)]
    return any(bool((first != other).any()) for other in others)


QUICK_INSIDE = ("layer", "keras, both directions")


@pytest.mark.parametrize(
    "name, inside", table(MODULES, (False, True), quick=lambda name, inside: inside == (name in QUICK_INSIDE))
)
def test_every_road_turns_dropout_off_and_on(name, inside):
    with jax.numpy_rank_promotion("allow"):  # of nnx.Linear
        module = Inside(MODULES[name](), nnx.Rngs(1)) if inside else MODULES[name]()
        module.train()
        assert random(module)
        off = nnx.view(module, deterministic=True)
        assert not random(off) and random(module), "a view leaves the module itself alone"
        assert random(nnx.view(off, deterministic=False))
        # The view's parameters are the module's own.
        leaves = [jax.tree.leaves(nnx.state(one, nnx.Param)) for one in (module, off)]
        assert all(a is b for a, b in zip(*leaves, strict=True))
        module.eval()
        assert not random(module) and random(nnx.view(module, deterministic=False))
        module.set_attributes(deterministic=False)
        assert random(module) and not random(nnx.with_attributes(module, deterministic=True))
    assert "deterministic: bool | None = None" in nnx.view_info(module)


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(TypeError, match="deterministic must be True or False; got 1"):
        nnx.view(MODULES["layer"](), deterministic=1)


def test_what_a_keras_call_says_about_training_is_right():
    layer = keras_layer(dropout=0.5)
    assert (layer(X) == layer(X)).all(), "as in Keras, until a mode is set"
    assert (layer(X, training=True) != layer(X)).any()
    off = nnx.view(layer, deterministic=True)
    assert (off(X, training=True) != off(X)).any()
    layer.train()
    assert (layer(X, training=False) == layer(X, training=False)).all()
    assert jnp.isfinite(layer(X)).all()
