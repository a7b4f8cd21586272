"""Flax's own cells: linen's and NNX's RNN and Bidirectional compute what the loaded layers do, and the way back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from flax import nnx as flax_nnx
from flax.core import freeze

import gru_jax as gj
from gru_jax.interop import flax

from ..interop import draws

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def flax_promotes():
    """Flax adds a bias to a matrix."""
    with jax.numpy_rank_promotion("allow"):
        yield


def linen_modules(h, layers, two, **options):
    def rnn():
        return linen.RNN(linen.GRUCell(h, **options))

    return [linen.Bidirectional(rnn(), rnn()) if two else rnn() for _ in range(layers)]


def linen_params(rng, modules, i, h, two, dtype=np.float32):
    """Random numbers in the trees that the modules' own init makes."""
    trees = []
    for module, width in zip(modules, draws.widths(i, h, len(modules), two), strict=True):
        with jax.numpy_dtype_promotion("standard"):
            shapes = jax.eval_shape(module.init, KEY, jax.ShapeDtypeStruct((2, 3, width), dtype))["params"]
        trees.append(jax.tree.map(lambda s: jnp.asarray(draws.array(rng, *s.shape, dtype=dtype)), shapes))
    return trees


apply_nnx = flax_nnx.jit(lambda module, x: module(x, return_carry=True))


# Linen modules are equal when their options are, so equal ones are compiled once.
@functools.partial(jax.jit, static_argnums=0)
def apply_linen(module, params, x):
    return module.apply({"params": params}, x, return_carry=True)


def run_linen(modules, trees, x):
    states = []
    for module, params in zip(modules, trees, strict=True):
        h, x = apply_linen(module, params, x)
        states += jax.tree.leaves(h)
    return np.asarray(x), [np.asarray(h) for h in states]


@pytest.mark.parametrize(("layers", "two"), draws.GRID)
def test_linen_both_ways(layers, two):
    rng, i, h = draws.sizes(10 * layers + two)
    modules = linen_modules(h, layers, two)
    trees = linen_params(rng, modules, i, h, two)
    x = draws.array(rng, 2, 5, i)
    ours = flax.load_linen(trees if layers > 1 else trees[0])
    draws.close(draws.run(ours, x), run_linen(modules, trees, x))
    back = flax.export_linen(ours)
    draws.same_bits(back if layers > 1 else [back], trees)


@pytest.mark.parametrize(("layers", "two"), draws.GRID)
@pytest.mark.parametrize("bias", ["full", "none"])
def test_export_linen_runs(layers, two, bias):
    rng, i, h = draws.sizes(100 + 10 * layers + two)
    ours = draws.layer(rng, i, h, layers, two, bias=bias)
    x = draws.array(rng, 2, 5, i)
    trees = flax.export_linen(ours)
    trees = trees if layers > 1 else [trees]
    draws.close(draws.run(ours, x), run_linen(linen_modules(h, layers, two), trees, x))


def test_linen_nestings_are_the_same_layer():
    rng = np.random.default_rng(0)
    (module,) = linen_modules(3, 1, True)
    (tree,) = linen_params(rng, [module], 2, 3, True)
    forward, backward = tree["forward_rnn"], tree["backward_rnn"]
    expected = flax.load_linen(tree).functional()[1]
    for given in (
        {"params": tree},
        freeze({"params": tree}),
        [tree],
        (forward, backward),
        (forward["cell"], {"params": backward}),
        [(forward["cell"], backward["cell"])],
        {"params": tree, "batch_stats": {}},
    ):
        draws.same_bits(flax.load_linen(given).functional()[1], expected)
    one = flax.load_linen(forward).functional()[1]
    for given in (forward["cell"], {"params": forward["cell"]}, [forward], freeze(forward)):
        draws.same_bits(flax.load_linen(given).functional()[1], one)


def test_linen_cells_of_a_compact_parent_are_found():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.RNN(linen.GRUCell(3))(x)
            x = linen.Bidirectional(linen.RNN(linen.GRUCell(3)), linen.RNN(linen.GRUCell(3)))(x)
            return linen.Dense(1)(x)

    model, x = Model(), jnp.asarray(draws.array(np.random.default_rng(0), 2, 5, 2))
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, KEY, x)
    variables = jax.tree.map(lambda s: jnp.asarray(draws.array(rng, *s.shape)), shapes)
    with pytest.raises(ValueError, match=r"GRU cells at model/params/GRUCell_0, model/params/GRUCell_1, ") as error:
        flax.load_linen({"model": variables})
    assert "sub-tree" in str(error.value)
    with pytest.raises(ValueError, match="GRUCell_0, GRUCell_1, GRUCell_2 among"):
        flax.load_linen(variables)
    p = variables["params"]
    y, _ = flax.load_linen(p["GRUCell_0"])(x)
    y, _ = flax.load_linen((p["GRUCell_1"], p["GRUCell_2"]))(y)
    y = y @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    np.testing.assert_allclose(y, jax.jit(model.apply)(variables, x), atol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_linen_keeps_the_dtype(dtype):
    (module,) = linen_modules(3, 1, False)
    (tree,) = linen_params(np.random.default_rng(0), [module], 2, 3, False, dtype)
    ours = flax.load_linen(tree)
    assert ours.spec.param_dtype == dtype
    draws.same_bits(flax.export_linen(ours), tree)


def test_linen_float64(x64):
    (module,) = linen_modules(3, 1, False, param_dtype=jnp.float64)
    (tree,) = linen_params(np.random.default_rng(0), [module], 2, 3, False, np.float64)
    x = np.random.default_rng(1).normal(size=(2, 4, 2))
    ours = flax.load_linen(tree)
    draws.close(draws.run(ours, x), run_linen([module], [tree], x), 1e-14)
    draws.same_bits(flax.export_linen(ours), tree)


def test_float64_is_not_cut_down():
    (module,) = linen_modules(3, 1, False)
    (tree,) = linen_params(np.random.default_rng(0), [module], 2, 3, False)
    with pytest.raises(TypeError, match="float64, which JAX would cut down to float32; call jax.config.update"):
        flax.load_linen(jax.tree.map(lambda a: np.asarray(a, np.float64), tree))


def test_linen_activations():
    options = {"activation_fn": jax.nn.relu, "gate_fn": jax.nn.hard_sigmoid}
    modules = linen_modules(3, 1, False, **options)
    trees = linen_params(np.random.default_rng(0), modules, 2, 3, False)
    x = draws.array(np.random.default_rng(1), 2, 5, 2)
    ours = flax.load_linen(trees[0], activation=jax.nn.relu, gate_activation="hard_sigmoid")
    assert (ours.spec.activation, ours.spec.gate_activation) == ("relu", "hard_sigmoid")
    draws.close(draws.run(ours, x), run_linen(modules, trees, x))
    with pytest.raises(ValueError, match="activation='relu' and gate_activation='hard_sigmoid', which are no param"):
        flax.export_linen(ours)
    draws.same_bits(flax.export_linen(ours, activation="relu", gate_activation=jax.nn.hard_sigmoid), trees[0])


def test_options_say_how_it_runs():
    (module,) = linen_modules(3, 1, False)
    (tree,) = linen_params(np.random.default_rng(0), [module], 2, 3, False)
    x = draws.array(np.random.default_rng(1), 4, 2, 2)
    y, _ = flax.load_linen(tree, time_major=True, reverse=True, method="naive")(jnp.asarray(x))
    theirs = linen.RNN(linen.GRUCell(3), time_major=True, reverse=True, keep_order=True)
    np.testing.assert_allclose(y, theirs.apply({"params": tree}, x), atol=2e-6)
    with pytest.raises(TypeError, match="load_linen: bias follows from what is loaded; leave it out"):
        flax.load_linen(tree, bias="full")


def nnx_cell(rng, i, h, **options):
    zeros = flax_nnx.initializers.zeros_init()  # an orthogonal matrix takes a second to compile
    cell = flax_nnx.GRUCell(i, h, kernel_init=zeros, recurrent_kernel_init=zeros, rngs=flax_nnx.Rngs(0), **options)
    for variable in (cell.dense_i.kernel, cell.dense_i.bias, cell.dense_h.kernel):
        variable.set_value(jnp.asarray(draws.array(rng, *variable.get_value().shape)))
    return cell


def nnx_modules(rng, i, h, layers, two, **options):
    def rnn(width):
        return flax_nnx.RNN(nnx_cell(rng, width, h), **options)

    return [
        flax_nnx.Bidirectional(rnn(width), rnn(width), **options) if two else rnn(width)
        for width in draws.widths(i, h, layers, two)
    ]


def run_nnx(modules, x):
    states = []
    for module in modules:
        h, x = apply_nnx(module, jnp.asarray(x))
        states += jax.tree.leaves(h)
    return np.asarray(x), [np.asarray(h) for h in states]


def arrays_of(module):
    return flax_nnx.to_pure_dict(flax_nnx.state(module, flax_nnx.Param))


@pytest.mark.parametrize(("layers", "two"), draws.GRID)
def test_nnx_both_ways(layers, two):
    rng, i, h = draws.sizes(200 + 10 * layers + two)
    modules = nnx_modules(rng, i, h, layers, two, time_major=layers == 2)
    x = draws.array(rng, 2, 5, i)
    ours = flax.load_nnx(modules if layers > 1 else modules[0])
    assert ours.spec.time_major == (layers == 2)
    draws.close(draws.run(ours, x), run_nnx(modules, x))
    back = flax.export_nnx(ours)
    for given, theirs in zip(back if layers > 1 else [back], modules, strict=True):
        cells = (theirs.forward_rnn.cell, theirs.backward_rnn.cell) if two else (theirs.cell,)
        for cell, original in zip(given if two else (given,), cells, strict=True):
            assert isinstance(cell, flax_nnx.GRUCell)
            assert flax_nnx.graphdef(cell) == flax_nnx.graphdef(original)
            draws.same_bits(arrays_of(cell), arrays_of(original))
    again = flax.load_nnx(back)
    draws.same_bits(again.functional()[1], ours.functional()[1])


@pytest.mark.parametrize("bias", ["full", "minimal", "none"])
def test_export_nnx_runs_when_there_is_nothing_to_lose(bias):
    rng, i, h = draws.sizes(300)
    layer = draws.layer(rng, i, h, bias=bias)
    x = draws.array(rng, 2, 5, i)
    if bias != "none":
        with pytest.raises(ValueError, match="no recurrent bias of the candidate, and this layer's, up to .* lost"):
            flax.export_nnx(layer)
        layer.layer_0["b_h"].set_value(layer.layer_0["b_h"][...].at[-h:].set(0.0))
    draws.close(draws.run(layer, x), run_nnx([flax_nnx.RNN(flax.export_nnx(layer))], x))


def test_nnx_cell_options_are_carried():
    rng = np.random.default_rng(0)
    cell = nnx_cell(rng, 2, 3, activation_fn=jax.nn.relu, gate_fn=jax.nn.hard_sigmoid)
    x = draws.array(rng, 2, 5, 2)
    reverse = flax_nnx.RNN(cell, reverse=True, keep_order=True)
    ours = flax.load_nnx(reverse)
    assert (ours.spec.activation, ours.spec.gate_activation, ours.spec.reverse) == ("relu", "hard_sigmoid", True)
    draws.close(draws.run(ours, x), run_nnx([reverse], x))
    exported = flax.export_nnx(ours)
    draws.close(run_nnx([flax_nnx.RNN(exported, reverse=True, keep_order=True)], x), draws.run(ours, x))
    assert flax.load_nnx(reverse, reverse=False).spec.reverse is False
    assert flax.load_nnx(nnx_cell(rng, 2, 3, dtype=jnp.bfloat16)).spec.dtype == jnp.bfloat16


def test_nnx_merge_function():
    rng = np.random.default_rng(0)
    (module,) = nnx_modules(rng, 2, 3, 1, True)
    module.merge_fn = lambda a, b: a + b
    x = draws.array(rng, 2, 5, 2)
    with pytest.raises(ValueError, match="merge_fn of its own, which would be lost; pass merge="):
        flax.load_nnx(module)
    draws.close(draws.run(flax.load_nnx(module, merge="sum"), x), run_nnx([module], x))


def linen_tree(**changes):
    rng = np.random.default_rng(0)
    tree = {
        part: {"kernel": draws.array(rng, 2 if part[0] == "i" else 3, 3)}
        | ({"bias": draws.array(rng, 3)} if part[0] == "i" or part == "hn" else {})
        for part in ("ir", "iz", "in", "hr", "hz", "hn")
    }
    for name, value in changes.items():
        part, _, leaf = name.partition("_")
        if leaf:
            tree[part] = {**tree[part], leaf: value}
            if value is None:
                del tree[part][leaf]
        elif value is None:
            del tree[part]
        else:
            tree[part] = value
    return tree


WRONG_LINEN = {
    "a module": (linen.GRUCell(3), TypeError, "must be the param.*got GRUCell, a linen module, which holds none"),
    "a module of nnx": (draws.layer(np.random.default_rng(0), 2, 3), TypeError, "flax.nnx; those are for load_nnx"),
    "a string": ("gru.msgpack", TypeError, "got 'gru.msgpack'"),
    "nothing": (None, TypeError, "got None"),
    "an array": (np.ones((2, 3), "f"), TypeError, r"got an array of shape \[2, 3\]"),
    "empty": ({}, TypeError, "hold no GRU cell.*got an empty dict"),
    "no layers": ([], TypeError, "needs one GRU.*got list of 0"),
    "three directions": ((linen_tree(),) * 3, TypeError, "layer 0 must be one GRU, or a pair.*got tuple of 3"),
    "Dense": ({"kernel": 1, "bias": 2}, TypeError, "got kernel, bias, the names of a Dense layer"),
    "LSTM": (dict.fromkeys(("ii", "if", "ig", "io", "hi", "hf", "hg", "ho"), {}), TypeError, "names of an LSTM cell"),
    "MGU": (dict.fromkeys(("if", "in", "hf", "hn"), {}), TypeError, "names of an MGU cell"),
    "ours": ({"params": {"layer_0": {"w_x": 1}}}, TypeError, "got layer_0, the names of a layer of gj.linen"),
    "a part missing": (linen_tree(hz=None), TypeError, "hold no GRU cell.*got ir, iz, in, hr, hn"),
    "a part more": (linen_tree(hx={}), ValueError, "layer 0 has 'hx', which linen.GRUCell has not"),
    "a bias more": (linen_tree(hr_bias=1), ValueError, "layer 0 hr must hold kernel, as.*got bias and kernel"),
    "a bias missing": (linen_tree(hn_bias=None), ValueError, "layer 0 hn must hold bias and kernel, .*; got kernel"),
    "no dict": (linen_tree(hn=3.0), ValueError, "layer 0 hn must hold bias and kernel, .*; got 3.0"),
    "a wrong kernel": (
        linen_tree(iz_kernel=np.ones((4, 3), "f")),
        ValueError,
        r"layer 0 iz/kernel must have shape \[2, 3\]; got \[4, 3\]; hn/kernel is that of 3 units",
    ),
    "a wrong bias": (linen_tree(in_bias=np.ones(4, "f")), ValueError, r"in/bias must have shape \[3\]; got \[4\]"),
    "whole numbers": (linen_tree(in_bias=np.ones(3, int)), TypeError, "in/bias must be an array of floating-point"),
    "no numbers": (linen_tree(in_bias=jax.ShapeDtypeStruct((3,), "f")), TypeError, "a shape without numbers"),
    "words": (linen_tree(in_bias="zeros"), TypeError, "in/bias must be an array of floating.*got 'zeros'"),
    "two dtypes": (
        linen_tree(in_bias=jnp.ones(3, jnp.bfloat16)),
        ValueError,
        "layer 0 holds arrays of bfloat16 and float32; convert",
    ),
    "mapped": (
        jax.tree.map(lambda a: np.stack([a, a]), linen_tree()),
        ValueError,
        r"ir/kernel must have 2 dimensions; got shape \[2, 2, 3\], parameters stacked along leading axes",
    ),
    "other units": (
        [{"cell": linen_tree()}, flax.export_linen(draws.layer(np.random.default_rng(0), 3, 4))],
        ValueError,
        "layer 0 has 3 units but layer 1 has 4; load them one by one",
    ),
    "not in order": ([linen_tree(), linen_tree()], ValueError, "layer 1 takes 2 features but layer 0 has 3"),
    "one and two directions": (
        [linen_tree(), (linen_tree(), linen_tree())],
        ValueError,
        "all layers must have one direction, or all two",
    ),
}


@pytest.mark.parametrize("case", WRONG_LINEN)
def test_load_linen_says_what_is_wrong(case):
    given, error, message = WRONG_LINEN[case]
    with pytest.raises(error, match="^load_linen: .*" + message) as raised:
        flax.load_linen(given)
    assert "\n" not in str(raised.value)


def test_load_linen_takes_boxed_parameters():
    boxed = jax.tree.map(lambda a: linen.Partitioned(jnp.asarray(a), (None,) * a.ndim), linen_tree())
    draws.same_bits(flax.load_linen(boxed).functional()[1], flax.load_linen(linen_tree()).functional()[1])


def test_load_linen_inside_jit_says_so():
    with pytest.raises(TypeError, match="no numbers yet inside jit"):
        jax.jit(lambda tree: flax.load_linen(tree)(jnp.ones((1, 1, 2)))[0])(linen_tree())


class Model(flax_nnx.Module):
    def __init__(self):
        self.encoder = flax_nnx.RNN(nnx_cell(np.random.default_rng(0), 3, 3))
        self.linear = flax_nnx.Linear(3, 1, rngs=flax_nnx.Rngs(0))


def wrong_nnx():
    rngs = flax_nnx.Rngs(0)
    rng = np.random.default_rng(0)
    cell, biased, lora, stacked = (nnx_cell(rng, 3, 3) for _ in range(4))
    biased.dense_h = flax_nnx.Linear(3, 9, rngs=rngs)
    lora.dense_i = flax_nnx.LoRALinear(3, 9, lora_rank=1, rngs=rngs)
    stacked.dense_i.kernel.set_value(jnp.stack([stacked.dense_i.kernel.get_value()] * 2))
    rnn = flax_nnx.RNN(cell)
    second = flax_nnx.RNN(cell, time_major=True)
    relu = nnx_cell(rng, 3, 3, activation_fn=flax_nnx.relu)
    return {
        "a model": (Model(), ValueError, r"Model holds GRU cells at encoder\.cell; pass one of them"),
        "an optimizer": (flax_nnx.Optimizer(cell, optax.sgd(1.0), wrt=flax_nnx.Param), TypeError, "got Optimizer"),
        "a state": (flax_nnx.state(cell), TypeError, "got State; make the module of it with nnx.merge"),
        "linen's": (linen_tree(), TypeError, "got dict; parameters of flax.linen are for load_linen"),
        "a class": (flax_nnx.GRUCell, TypeError, "got the class GRUCell"),
        "another layer": (flax_nnx.Linear(2, 3, rngs=rngs), TypeError, "must be flax.nnx.GRUCell, RNN.*got Linear"),
        "another cell": (flax_nnx.RNN(flax_nnx.SimpleCell(3, 3, rngs=rngs)), TypeError, "RNN must run.*got SimpleCell"),
        "ours": (draws.layer(rng, 3, 3), TypeError, "got gru_jax's own GRU"),
        "our cell": (
            flax_nnx.RNN(gj.nnx.GRUCell(3, 3, init="torch", rngs=rngs)),
            TypeError,
            "RNN must run a flax.nnx.GRUCell; got gru_jax's own GRUCell",
        ),
        "a pair of RNNs": ((rnn, rnn), TypeError, "pair must be of two nnx.GRUCell.*got RNN, RNN"),
        "reversed order": (flax_nnx.RNN(cell, reverse=True), ValueError, "outputs in reversed order"),
        "time axes": ([rnn, second], ValueError, "differ in time_major, False and True; pass time_major="),
        "activations": ([cell, relu], ValueError, "cells differ in activation_fn or gate_fn"),
        "a bias more": (biased, ValueError, "dense_h must be the nnx.Linear without a bias.*got Linear with a bias"),
        "lora": (lora, ValueError, "dense_i must be the nnx.Linear with a bias .*; got LoRALinear"),
        "mapped": (stacked, ValueError, "dense_i.kernel must have 2 dimensions.*stacked along leading axes"),
    }


def test_load_nnx_says_what_is_wrong():
    for given, error, message in wrong_nnx().values():
        with pytest.raises(error, match="^load_nnx: .*" + message) as raised:
            flax.load_nnx(given)
        assert "\n" not in str(raised.value)


LOST = {
    "reset": ({"reset": "before"}, "applies the reset gate after the recurrent product, this layer before"),
    "heads": ({"heads": 2}, "one dense recurrent matrix, this layer 2 blocks"),
    "norm": ({"norm": "layer"}, "norm='layer', which would be lost"),
    "residual": ({"residual": True}, "residual=True, which would be lost"),
    "merge": ({"two": True, "merge": "sum"}, "merge='sum', which would be lost"),
}


@pytest.mark.parametrize("case", LOST)
@pytest.mark.parametrize("export", [flax.export_linen, flax.export_nnx])
def test_nothing_is_lost_silently(case, export):
    options, message = LOST[case]
    layer = draws.layer(np.random.default_rng(0), 2, 4, **options)
    with pytest.raises(ValueError, match=f"^{export.__name__}: .*{message}"):
        export(layer)
    with pytest.raises(TypeError, match=f"^{export.__name__}: layer must be a gj.nnx.GRU.*got Linear"):
        export(flax_nnx.Linear(2, 3, rngs=flax_nnx.Rngs(0)))
