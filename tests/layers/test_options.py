"""Options by our names and by flax's, in signatures and in messages; parameters and states as users have them."""

import dataclasses
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gru_jax as gj
from gru_jax.between import Norm
from gru_jax.layers.spec import GRUSpec

B, T, I, H = 2, 5, 3, 4
X = jax.random.normal(jax.random.key(0), (B, T, I))
RNGS = nnx.Rngs(0)
RNN = gj.recurrent(gj.GRU(H))
FLAX = {
    "gate_fn": nnx.hard_sigmoid,
    "activation_fn": jnp.sin,
    "kernel_init": nnx.initializers.constant(0.3),
    "recurrent_kernel_init": nnx.initializers.constant(-0.2),
    "bias_init": nnx.initializers.constant(0.1),
}


@pytest.mark.parametrize("bias", ["full", "minimal"])
def test_flax_s_names_of_options_mean_the_same(bias):
    with jax.numpy_rank_promotion("allow"):  # of flax's own cells
        theirs = nnx.RNN(nnx.GRUCell(I, H, **FLAX, rngs=RNGS))(X)
        cell = linen.GRUCell(H, **FLAX)
        linen_theirs = linen.RNN(cell).init_with_output(jax.random.key(0), X)[0]
    ours = nnx.RNN(gj.nnx.GRUCell(I, H, **FLAX, bias=bias, rngs=RNGS))(X)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    ours = linen.RNN(gj.linen.GRUCell(features=H, **FLAX, bias=bias)).init_with_output(jax.random.key(0), X)[0]
    np.testing.assert_allclose(ours, linen_theirs, atol=1e-6)
    assert (linen_theirs != theirs).any(), "they differ in the recurrent bias"


def test_functions_of_flax_are_known_by_name():
    """Machine code is found by names."""
    named = {"gate_fn": nnx.sigmoid, "activation_fn": nnx.tanh}
    for spec in (gj.nnx.GRUCell(I, H, **named, rngs=RNGS).spec, gj.linen.GRU(H, **named).spec):
        assert (spec.gate_activation, spec.activation) == ("sigmoid", "tanh")


def test_orthogonal_is_drawn_as_flax_draws_it():
    options = {"recurrent_kernel_init": nnx.initializers.orthogonal()}
    w = gj.nnx.GRUCell(I, H, **options, rngs=RNGS).w_h[...]
    np.testing.assert_allclose(w @ w.T, jnp.eye(H), atol=1e-5)
    w = gj.linen.GRUCell(H, **options).init(jax.random.key(0), jnp.zeros(H), jnp.zeros(I))["params"]["w_h"]
    np.testing.assert_allclose(w @ w.T, 3 * jnp.eye(H), atol=1e-5)


def test_carry_init():
    ones = nnx.initializers.ones
    cell = gj.nnx.GRUCell(I, H, carry_init=ones, rngs=RNGS)
    assert (cell.initialize_carry((B, I), RNGS) == 1).all()
    assert (cell.initialize_carry((B, I), RNGS, nnx.initializers.zeros) == 0).all()
    weights = gj.GRUParams(*(getattr(cell, name)[...] for name in gj.GRUParams._fields))
    given, _ = gj.scan(gj.GRU(H), weights, X, jnp.ones((B, H)))
    np.testing.assert_allclose(nnx.RNN(cell, rngs=RNGS)(X), given, atol=1e-6)
    assert (gj.linen.GRUCell(H, carry_init=ones).initialize_carry(jax.random.key(0), (B, I)) == 1).all()


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, bool])
def test_numbers_of_any_kind_are_promoted(dtype):
    x = (X > 0).astype(dtype)
    cell, twin = gj.nnx.GRUCell(I, H, rngs=RNGS), gj.linen.GRUCell(H)
    expected = nnx.RNN(cell)(x.astype(jnp.float32))
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_array_equal(nnx.RNN(cell)(x), expected)
    variables = {"params": {name: getattr(cell, name)[...] for name in gj.GRUParams._fields}}
    for h in (jnp.zeros((B, H)), jnp.zeros((B, H), int)):
        for after, _ in (cell(h, x[:, 0]), twin.apply(variables, h, x[:, 0])):
            np.testing.assert_allclose(after, expected[:, 0], atol=1e-6)
    layer = gj.nnx.GRU(I, H, rngs=RNGS)
    np.testing.assert_array_equal(layer(x)[0], layer(x.astype(jnp.float32))[0])
    half = gj.nnx.GRU(I, H, param_dtype=jnp.bfloat16, rngs=RNGS)
    assert half(x)[0].dtype == jnp.bfloat16 and half.step(x[:, 0])[0].dtype == jnp.bfloat16


def test_signatures_tell_the_options():
    fields = {field.name: field.default for field in dataclasses.fields(GRUSpec) if field.name != "hidden_features"}
    told = inspect.signature(gj.nnx.GRU).parameters
    assert [*told][:2] == ["in_features", "hidden_features"] and "options" not in told
    assert {name: told[name].default for name in fields} == fields
    told = inspect.signature(gj.models.GRUReadout).parameters
    assert {*fields} - {*told} == {"time_major"} and told["activation"].default == "linear"
    assert "num_layers" not in inspect.signature(gj.nnx.GRUCell).parameters
    assert inspect.signature(gj.nnx.GRUCell).parameters["heads"].default == 1
    assert inspect.signature(gj.linen.GRU).parameters["num_layers"].default == 1

    class Mine(gj.nnx.GRU):
        def __init__(self, size, *, rngs):
            super().__init__(size, size, rngs=rngs)

    assert [*inspect.signature(Mine).parameters] == ["size", "rngs"]
    assert [*inspect.signature(Mine(3, rngs=RNGS)).parameters][:2] == ["x", "h0"]
    assert inspect.signature(gj.scan).parameters["lengths"].default is None


def params(*sizes):
    return [gj.GRU(H).init(jax.random.key(k), size) for k, size in enumerate(sizes)]


def test_plain_tuples_of_parameters():
    f, b, g, d = params(I, I, 2 * H, 2 * H)
    bi = gj.bidirectional(RNN)
    for given in (((f, b), (g, d)), [(f, b), (g, d)], gj.StackParams(((f, b), (g, d)), ())):
        layer = gj.nnx.GRU(I, H, num_layers=2, bidirectional=True, params=given)
        np.testing.assert_array_equal(layer(X)[0], gj.stack(bi, bi).apply(given, X)[0])
    three = params(I, H, H)
    layer = gj.nnx.GRU(I, H, num_layers=3, params=tuple(three))
    np.testing.assert_array_equal(layer(X)[0], gj.stack(RNN, RNN, RNN).apply(tuple(three), X)[0])


F, G = params(I, H)
NORM = Norm(jnp.ones(H), None)
ERRORS = {
    "one for two": ({"num_layers": 2}, F, ValueError, "must be a tuple of 2, one entry a layer; got GRUParams of 4"),
    "two for one": ({}, (F, G), TypeError, "params must be GRUParams"),
    "no norms": ({"norm": "layer"}, (F,), ValueError, "needs params.norms, a tuple of 1"),
    "an array as norm": ({"norm": "rms"}, gj.StackParams((F,), (jnp.ones(H),)), ValueError, "each a Norm"),
    "a norm of another size": (
        {"norm": "rms"}, gj.StackParams((F,), (Norm(jnp.ones(5), None),)), ValueError, r"a norm's scale must have shape"
    ),
    "norms too many": ({"num_layers": 2}, gj.StackParams((F, G), (NORM, NORM)), ValueError, "but norm is None"),
    "a string": ({}, "model.npz", TypeError, "params must be arrays, .* got 'model.npz'"),
    "the class": ({}, gj.GRUParams, TypeError, "params must be arrays, .* got the class GRUParams"),
}  # fmt: skip


@pytest.mark.parametrize("options, given, error, match", ERRORS.values(), ids=ERRORS)
def test_parameters_that_do_not_fit(options, given, error, match):
    with pytest.raises(error, match=match):
        gj.nnx.GRU(I, H, **options, params=given)


def test_dropout_between_layers_needs_two_of_them():
    said = r"dropout acts between layers, so dropout=0.5 does nothing with"
    for make in (
        lambda: gj.nnx.GRU(I, H, dropout=0.5, rngs=RNGS),
        lambda: gj.nnx.GRU(I, H, dropout=0.5, norm="rms", rngs=RNGS)(X),
        lambda: gj.models.GRUReadout(I, H, 2, dropout=0.5, rngs=RNGS),
        lambda: gj.linen.GRU(H, dropout=0.5),
        lambda: gj.stack(RNN, dropout=0.5),
    ):
        with pytest.warns(UserWarning, match=said) as seen:
            make()
        assert len(seen) == 1
    with pytest.warns(UserWarning, match=said):
        layer = gj.linen.GRU(H, dropout=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.apply(layer.init(jax.random.key(0), X), X)  # said once, where the layer was made
        gj.nnx.GRU(I, H, num_layers=2, dropout=0.5, rngs=RNGS)


def nnx_layer():
    return gj.nnx.GRU(I, H, rngs=RNGS)


SUGGESTIONS = {
    "cell": (lambda: gj.GRU(hidden=4), "GRU: there is no argument 'hidden'; did you mean 'hidden_size'"),
    "linear cell": (lambda: gj.MinGRU(hidden=4), "MinGRU: there is no argument 'hidden'; did you mean 'hidden_size'"),
    "cell of flax": (lambda: gj.models.LSTM(4, forget=1.0), "LSTM: .* 'forget'; did you mean 'forget_bias'"),
    "scan": (lambda: gj.scan(gj.GRU(H), F, X, length=3), "scan: .* 'length'; did you mean 'lengths'"),
    "apply": (lambda: gj.stack(RNN, RNN).apply((F, G), X, length=3), "'length'; did you mean 'lengths'"),
    "method": (lambda: gj.Newton(max_iter=3), "Newton: .* 'max_iter'; did you mean 'max_iters'"),
    "combinator": (lambda: gj.stack(RNN, residul=True), "stack: .* 'residul'; did you mean 'residual'"),
    "model": (lambda: gj.models.readout(RNN, I, 2, step="all"), "readout: .* 'step'; did you mean 'steps'"),
    "nnx call": (lambda: nnx_layer()(X, length=3), "GRU: there is no argument 'length'; did you mean 'lengths'"),
    "nnx step": (lambda: nnx_layer().step(X[:, 0], state=None), "there is no argument 'state'; there are x, h"),
    "linen call": (lambda: gj.linen.GRU(H).init(jax.random.key(0), X, length=3), "'length'; did you mean 'lengths'"),
    "linen option": (lambda: gj.linen.GRU(H, num_layer=2), "GRU: there is no option 'num_layer'; did you mean"),
    "linen cell": (lambda: gj.linen.GRUCell(hidden=4), "GRUCell: .* 'hidden'; did you mean 'hidden_features'"),
    "a layer's carry_init": (lambda: gj.nnx.GRU(I, H, carry_init=0, rngs=RNGS), "is the call's h0"),
    "two names": (lambda: gj.nnx.GRUCell(I, H, gate_fn=0, gate_activation=0, rngs=RNGS), "two names of one option"),
    "two starts": (lambda: gj.linen.GRUCell(H, param_init="keras", kernel_init=0), "both say how parameters start"),
}


@pytest.mark.parametrize("call, match", SUGGESTIONS.values(), ids=SUGGESTIONS)
def test_unknown_names_are_answered_with_the_nearest(call, match):
    with pytest.raises(TypeError, match=match):
        call()


def test_a_learned_state_is_a_parameter_that_the_call_is_given():
    start = nnx.Param(jnp.full(H, 0.3))
    layer = gj.nnx.GRU(I, H, bidirectional=True, rngs=RNGS)
    wide = jnp.broadcast_to(start[...], (B, H))
    expected = layer(X, (wide, 2 * wide))
    for h0 in ((start, 2 * start[...]), (start[...], nnx.Param(2 * wide))):
        jax.tree.map(np.testing.assert_array_equal, layer(X, h0), expected)
    one = nnx_layer()
    np.testing.assert_array_equal(one.step(X[:, 0], start)[0], one(X, wide)[0][:, 0])
    gradient = nnx.grad(lambda h: one(X, h)[0].sum())(start)
    np.testing.assert_allclose(gradient[...], jax.grad(lambda h: one(X, h)[0].sum())(wide).sum(0), atol=1e-6)
    with pytest.raises(ValueError, match=r"h0 must have shape \[2, 4\]; got \[3\]"):
        one(X, jnp.ones(3))
