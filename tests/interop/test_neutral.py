"""The neutral layout: what is read, what a layer is made of, what is refused, and that merged biases change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.core import freeze

import gru_jax as gj
from gru_jax.interop import arrays, neutral
from gru_jax.interop.onnx import plan

from ..interop import draws

RNG = np.random.default_rng(0)


def leaves_of(weights):
    return jax.tree.leaves(weights.layers)


@pytest.mark.parametrize("xp", [np, jnp])
def test_swapped_exchanges_two_gates(xp):
    a = xp.arange(12.0).reshape(2, 6)
    assert neutral.swapped(a).tolist() == [[2, 3, 0, 1, 4, 5], [8, 9, 6, 7, 10, 11]]
    assert (neutral.swapped(neutral.swapped(a)) == a).all()
    assert isinstance(neutral.swapped(a), np.ndarray) == (xp is np)


@pytest.mark.parametrize(("layers", "two"), draws.GRID)
@pytest.mark.parametrize("bias", ["full", "minimal", "none"])
@pytest.mark.parametrize("options", [{}, {"heads": 2, "reset": "before", "activation": "relu"}])
def test_read_and_module_are_inverse(layers, two, bias, options):
    layer = draws.layer(RNG, 3, 4, layers, two, bias=bias, **options)
    weights = neutral.read("who", layer)
    assert weights.bidirectional == two
    assert [len(p) for p in weights.directions()] == [1 + two] * layers
    assert all(isinstance(a, np.ndarray) for a in leaves_of(weights))
    again = neutral.module("who", weights, {"method": "naive", "time_major": True})
    draws.same_bits(again.functional()[1], layer.functional()[1])
    assert again.spec.cell == layer.spec.cell
    assert (again.spec.method, again.spec.time_major) == ("naive", True)


def test_everything_that_can_be_read():
    layer = draws.layer(RNG, 3, 4, 2)
    expected = neutral.read("who", layer)

    class Front:
        def to_layer(self):
            return layer

    variables = {"params": layer.spec.to_names(layer.functional()[1])}
    module = gj.linen.GRU(4, num_layers=2)
    for given in (Front(), expected, (module, variables), (module, freeze(variables)), (module, variables["params"])):
        got = neutral.read("who", given)
        assert got.cell == expected.cell
        draws.same_bits(got.layers, expected.layers)
    cell, params = gj.GRU(4), expected.layers[0]
    draws.same_bits(neutral.read("who", (cell, params)).layers, (params,))
    draws.same_bits(neutral.read("who", (cell, jax.tree.map(jnp.asarray, params))).layers, (params,))


@pytest.mark.parametrize("bias", ["full", "minimal", "none"])
def test_cells_can_be_read(bias):
    cell = gj.nnx.GRUCell(3, 4, bias=bias, reset="before", init="torch", rngs=nnx.Rngs(0))
    weights = neutral.read("who", cell)
    assert weights.cell == cell.spec.cell
    leaves = [getattr(cell, name)[...] for name in gj.GRUParams._fields if hasattr(cell, name)]
    draws.same_bits(leaves_of(weights), leaves)
    names = dict(zip(gj.GRUParams._fields, leaves, strict=False))
    module = gj.linen.GRUCell(4, bias=bias, reset="before", param_init="torch")
    for variables in ({"params": names}, names):
        draws.same_bits(neutral.read("who", (module, variables)).layers, weights.layers)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, TypeError, "layer must be a gj.nnx.GRU, a pair .*; got None"),
        (gj.GRU(4), TypeError, "layer must be .*; got GRU"),
        ((gj.GRU(4), {}), TypeError, "got tuple of 2"),
        (draws.layer(RNG, 3, 4, norm="rms"), ValueError, "norm='rms', which would be lost; convert a layer without"),
        (draws.layer(RNG, 3, 4, residual=True), ValueError, "residual=True, which would be lost"),
    ],
)
def test_what_cannot_be_read(given, error, message):
    with pytest.raises(error, match="^who: .*" + message):
        neutral.read("who", given)


def test_parameters_that_do_not_fit_the_cell():
    params = neutral.read("who", draws.layer(RNG, 3, 4)).layers[0]
    with pytest.raises(ValueError, match="must have shape"):
        neutral.read("who", (gj.GRU(5), params))
    with pytest.raises(ValueError, match="parameters do not fit num_layers=2"):
        neutral.read("who", (gj.linen.GRU(4, num_layers=2), {"params": {"layer_0": {}}}))


@pytest.mark.parametrize(
    "name", ["bidirectional", "num_layers", "reset", "activation", "bias", "heads", "params", "norm", "hidden_features"]
)
def test_options_that_the_weights_decide(name):
    weights = neutral.read("who", draws.layer(RNG, 3, 4))
    with pytest.raises(TypeError, match=f"^who: {name} follows from what is loaded; leave it out"):
        neutral.module("who", weights, {name: None})


def test_layers_that_do_not_fit_each_other():
    def weights(*layers, size=4):
        read = [neutral.read("who", layer).layers[0] for layer in layers]
        return neutral.Weights(gj.GRU(size), tuple(read))

    for given, message in (
        (weights(draws.layer(RNG, 3, 4), draws.layer(RNG, 4, 5)), "layer 0 has 4 units but layer 1 has 5"),
        (weights(draws.layer(RNG, 3, 4), draws.layer(RNG, 3, 4)), "layer 1 takes 3 features but layer 0 has 4"),
        (
            weights(draws.layer(RNG, 3, 4, two=True), draws.layer(RNG, 4, 4, two=True)),
            "layer 1 takes 4 features but layer 0 has 8",
        ),
        (weights(draws.layer(RNG, 3, 4), draws.layer(RNG, 4, 4, bias="none")), "both have biases, or none"),
        (
            weights(draws.layer(RNG, 3, 4), draws.layer(RNG, 4, 4, bias="minimal")),
            r"params.b_h must have shape \[12\]",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            neutral.module("who", given, {})
    f, b = (neutral.read("who", draws.layer(RNG, i, 4)).layers[0] for i in (3, 2))
    with pytest.raises(ValueError, match="layer 0 takes 2 features but the input has 3"):
        neutral.module("who", neutral.Weights(gj.GRU(4), ((f, b),)), {})


def test_merge_decides_the_width_of_the_next_layer():
    first, second = (neutral.read("who", draws.layer(RNG, i, 4, two=True)).layers[0] for i in (3, 4))
    weights = neutral.Weights(gj.GRU(4), (first, second))
    layer = neutral.module("who", weights, {"merge": "sum"})
    assert neutral.read("who", layer).merge == "sum"
    assert neutral.module("who", neutral.read("who", layer), {}).spec.merge == "sum"


def test_nested_and_each_are_inverse():
    cell = gj.GRU(4)
    a, b, c, d = (neutral.read("who", draws.layer(RNG, 4, 4)).layers[0] for _ in range(4))

    def is_one(given):
        return isinstance(given, gj.GRUParams)

    for given in (a, (a, b), [a, b, c], [(a, b), (c, d)]):
        layers = neutral.nested("who", given, lambda name, one: one, is_one)
        again = neutral.each(neutral.Weights(cell, layers), lambda one: one)
        draws.same_bits(again, given)
    assert neutral.nested("who", [[a, b]], lambda name, one: one, is_one) == ((a, b),)
    names = []
    neutral.nested("who", [(a, b), (c, d)], lambda name, one: names.append(name) or one, is_one)
    assert names == ["layer 0 forward", "layer 0 backward", "layer 1 forward", "layer 1 backward"]
    for wrong, error, message in (
        ([], TypeError, "needs one GRU.*got list of 0"),
        (3, TypeError, "needs one GRU.*got 3"),
        ((a, b, c), TypeError, "layer 0 must be one GRU, or a pair.*got tuple of 3"),
        ([a, "b"], TypeError, "layer 1 must be one GRU, or a pair.*got 'b'"),
        ([a, (b, c)], ValueError, "one direction, or all two"),
    ):
        with pytest.raises(error, match=message):
            neutral.nested("who", wrong, lambda name, one: one, is_one)


LOST = {
    "reset": ({"reset": "before"}, {"reset": "after"}, "applies the reset gate after the recurrent product"),
    "heads": ({"heads": 2}, {}, "one dense recurrent matrix, this layer 2 blocks"),
    "activation": ({"activation": "relu"}, {}, "tanh and sigmoid alone; this layer has activation='relu'"),
    "gate": ({"gate_activation": jnp.tanh}, {}, "tanh and sigmoid alone"),
    "merge": ({"two": True, "merge": "mul"}, {}, "concatenates two directions; this layer has merge='mul'"),
}


@pytest.mark.parametrize("case", LOST)
def test_require(case):
    options, needs, message = LOST[case]
    weights = neutral.read("who", draws.layer(RNG, 3, 4, **options))
    with pytest.raises(ValueError, match=f"^who: Theirs .*{message}"):
        neutral.require("who", weights, "Theirs", **needs)
    allowed = {"any_activation": True, "any_merge": True}
    if case != "heads":
        neutral.require("who", weights, "Theirs", **allowed)
    plain = neutral.read("who", draws.layer(RNG, 3, 4, merge="sum"))  # says nothing with one direction
    neutral.require("who", plain, "Theirs", reset="after")


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("bias", ["full", "minimal", "none"])
def test_biases_in_fewer_vectors_are_the_same_function(bias, reset):
    layer = draws.layer(RNG, 3, 4, bias=bias, reset=reset)
    params = neutral.read("who", layer).layers[0]
    x = draws.array(RNG, 2, 5, 3)
    expected = draws.run(layer, x)
    minimal = neutral.merged_biases(params, 4)
    forms = {"minimal": minimal}
    if bias != "none":
        forms["full"] = neutral.full_biases(params, 4)
    else:
        assert neutral.full_biases(params, 4) == (None, None)
    if reset == "before":
        single = neutral.single_bias(params, 4)
        forms["full, one zero"] = (single, np.zeros_like(single))
    for form, (b_x, b_h) in forms.items():
        cell = gj.GRU(4, reset=reset, bias=form.partition(",")[0])
        weights = neutral.Weights(cell, (params._replace(b_x=b_x, b_h=b_h),))
        draws.close(draws.run(neutral.module("who", weights, {}), x), expected)


def test_merging_zeros_changes_no_bit():
    signed = np.array([0.0, -0.0, 1.5] * 4, np.float32)
    params = gj.GRUParams(draws.array(RNG, 3, 12), draws.array(RNG, 4, 12), signed, np.zeros(12, np.float32))
    for merged in (neutral.merged_biases(params, 4)[0], neutral.single_bias(params, 4)):
        assert merged.tobytes() == signed.tobytes()
    full = neutral.full_biases(params._replace(b_h=params.b_h[:4]), 4)
    assert full[0].tobytes() == signed.tobytes() and full[1].shape == (12,)


def test_to_numpy_reads_every_kind_of_array():
    a = draws.array(RNG, 2, 3)
    boxed = linen.Partitioned(jnp.asarray(a), (None, None))
    for given in (a, jnp.asarray(a), nnx.Param(jnp.asarray(a)), boxed, a.tolist(), memoryview(a)):
        got = arrays.to_numpy("who", "a", given)
        assert type(got) is np.ndarray
        np.testing.assert_allclose(got, a, rtol=1e-7)
    half = arrays.to_numpy("who", "a", jnp.asarray(a, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_to_numpy_reads_torch(dtype):
    torch = pytest.importorskip("torch")
    given = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).to(getattr(torch, dtype)))
    got = arrays.to_numpy("who", "a", given)
    assert str(got.dtype) == dtype
    assert got.astype(np.float32).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.arange(3), "floating-point numbers; got int64"),
        (jnp.ones(3, bool), "floating-point numbers; got bool"),
        ("weights", "floating-point numbers; got 'weights'"),
        (None, "floating-point numbers; got None"),
        ([[1.0], [2.0, 3.0]], "must be an array; got list of 2"),
        (np.ones(3, complex), "floating-point numbers; got complex128"),
        (jax.ShapeDtypeStruct((3,), jnp.float32), "is a shape without numbers"),
    ],
)
def test_to_numpy_refuses_what_is_no_array(given, message):
    with pytest.raises(TypeError, match="^who: a .*" + message):
        arrays.to_numpy("who", "a", given)


def test_to_numpy_refuses_tracers():
    for transform in (jax.jit, jax.grad, jax.vmap):
        with pytest.raises(TypeError, match="who: a has no numbers yet inside jit, grad or vmap"):
            transform(lambda a: arrays.to_numpy("who", "a", a).sum())(jnp.ones(() if transform is jax.grad else 3))


def test_of_rank():
    assert arrays.of_rank("who", "a", np.ones((2, 3), "f"), 2).shape == (2, 3)
    with pytest.raises(ValueError, match=r"a must have 2 dimensions; got shape \[4, 2, 3\], parameters stacked"):
        arrays.of_rank("who", "a", np.ones((4, 2, 3), "f"), 2)
    with pytest.raises(ValueError, match=r"a must have 2 dimensions; got shape \[3\]$"):
        arrays.of_rank("who", "a", np.ones(3, "f"), 2)


def test_float64_is_kept_or_refused(x64):
    a = np.ones(3)
    assert arrays.to_jax("who", "a", a).dtype == jnp.float64
    with jax.enable_x64(False), pytest.raises(TypeError, match="a is float64, which JAX would cut down to float32"):
        arrays.to_jax("who", "a", a)


def test_a_missing_package_is_named():
    with pytest.raises(ImportError, match=r"^who: needs the package gru_jax_missing; pip install 'gru-jax\[interop\]'"):
        arrays.imported("who", "gru_jax_missing")


def many():
    return nnx.vmap(lambda key: gj.nnx.GRU(3, 4, rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 2))


def shapes():
    return nnx.eval_shape(lambda: gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (many, ValueError, r"^who: w_x must have 2 dimensions; got shape \[2, 3, 12\], parameters stacked"),
        (shapes, TypeError, "^who: the layer has shapes without numbers.*nnx.update first"),
        (lambda: gj.interop.torch.GRU, TypeError, "^who: layer must be .*; got the class GRU"),
    ],
)
def test_modules_that_hold_no_one_layer(make, error, message):
    for read in (neutral.read, lambda who, layer: plan.read(who, layer, h0=False, convert=False)):
        with pytest.raises(error, match=message):
            read("who", make())
