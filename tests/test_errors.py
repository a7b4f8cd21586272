"""Bad input: the fact, what was got, the fix, before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj

CELL = gj.GRU(8)
PARAMS = CELL.init(jax.random.key(0), input_size=8)
X = jnp.ones((2, 5, 8))
NET = gj.stack(gj.recurrent(CELL), gj.recurrent(CELL), dropout=0.5)
NET_PARAMS = NET.init(jax.random.key(0), 8)


class Unhashable(gj.GRU):
    __hash__ = None


def scan(x=X, h0=None, **options):
    return lambda: gj.scan(CELL, PARAMS, x, h0, **options)


def nnx_layer(*sizes, **options):
    return lambda: gj.nnx.GRU(*(sizes or (8, 8)), rngs=nnx.Rngs(0), **options)


# name: (call, exception, what the message must say)
BAD = {
    "rank 1": (scan(X[0, 0]), ValueError, "x must have at least 2 dimensions, [*batch, T, I]; got shape [8]"),
    "features": (
        scan(X[..., :7]),
        ValueError,
        "GRU: x has 7 features but params were made for 8; pass input_size=7 to init",
    ),
    "h0 width": (scan(h0=jnp.ones((2, 7))), ValueError, "h0 must have shape [2, 8]; got [2, 7]"),
    "h0 batch": (scan(h0=jnp.ones(8)), ValueError, "jnp.broadcast_to(h0, (2, 8))"),
    "h0 dtype": (scan(h0=jnp.ones((2, 8), jnp.bfloat16)), TypeError, "x is float32 but h0 is bfloat16"),
    "h0 integer": (scan(h0=jnp.ones((2, 8), int)), TypeError, "h0 must be floating point; got int32"),
    "h0 tree": (scan(h0=(X[:, 0], X[:, 0])), TypeError, "h0 must be PyTreeDef(*), as cell.initial_state makes it"),
    "integer x": (scan(jnp.ones((2, 5, 8), int)), TypeError, "x must be floating point; got int32; convert it with"),
    "x of strings": (scan(np.array([["a"]])), TypeError, "x must be an array of numbers; got ndarray"),
    "x dtype": (scan(X.astype(jnp.bfloat16)), TypeError, "x is bfloat16 but params are float32; convert one of them"),
    "mask and lengths": (
        scan(lengths=jnp.array([5, 2]), mask=jnp.ones((2, 5), bool)),
        ValueError,
        "got both lengths and mask; pass one",
    ),
    "lengths above T": (scan(lengths=jnp.array([6, 2])), ValueError, "lengths must lie in [0, 5]"),
    "lengths below 0": (scan(lengths=jnp.array([5, -2])), ValueError, "got -2"),
    "lengths shape": (scan(lengths=jnp.array([5])), ValueError, "lengths must have shape [2]; got [1]"),
    "float lengths": (scan(lengths=jnp.array([5.0, 2.0])), TypeError, "lengths must be whole numbers; got float32"),
    "mask shape": (scan(mask=jnp.ones((5, 2), bool)), ValueError, "mask must have shape [2, 5]; got [5, 2]"),
    "float mask": (scan(mask=jnp.ones((2, 5))), TypeError, "pass mask.astype(bool) if 1 means yes"),
    "resets shape": (scan(resets=jnp.ones((2,), bool)), ValueError, "resets must have shape [2, 5]; got [2]"),
    "padding": (scan(padding="zeros"), ValueError, "did you mean 'zero'?"),
    "method": (scan(method="sequentail"), ValueError, "did you mean 'sequential'?"),
    "method class": (scan(method=gj.Sequential), TypeError, "got the class Sequential; call it"),
    "method type": (scan(method=3), TypeError, "or a method such as gj.Sequential(); got 3"),
    "reverse": (scan(reverse="yes"), TypeError, "reverse must be True or False; got 'yes' of type str"),
    "rate 1": (scan(input_dropout=1.0), ValueError, "must lie in [0, 1); got 1.0"),
    "rate below 0": (scan(recurrent_dropout=-0.1), ValueError, "must lie in [0, 1); got -0.1"),
    "rate True": (scan(input_dropout=True), TypeError, "must be a plain number; got True of type bool"),
    "rate traced": (
        lambda: jax.jit(lambda rate: gj.scan(CELL, PARAMS, X, input_dropout=rate))(0.5),
        TypeError,
        "must be a plain number",
    ),
    "dropout without a key": (
        scan(recurrent_dropout=0.5),
        ValueError,
        "recurrent_dropout above 0 needs a random key; got key=None; pass key=jax.random.key(0)",
    ),
    "no cell": (lambda: gj.scan("GRU", PARAMS, X), TypeError, "cell must be a cell such as gj.GRU(hidden_size=64)"),
    "cell class": (lambda: gj.scan(gj.GRU, PARAMS, X), TypeError, "cell must be a cell"),
    "unhashable cell": (lambda: gj.scan(Unhashable(8), PARAMS, X), TypeError, "make it a frozen dataclass"),
    "swapped": (lambda: gj.scan(CELL, X, PARAMS), TypeError, "x must be an array of numbers; got GRUParams"),
    "foreign params": (lambda: gj.scan(CELL, {"w": X}, X), TypeError, "params must be GRUParams, from cell.init"),
    "params of another cell": (
        lambda: gj.scan(gj.GRU(4), PARAMS, X),
        ValueError,
        "params.w_x must have shape [8, 12]; got shape [8, 24]",
    ),
    "params of another bias": (
        lambda: gj.scan(gj.GRU(8, bias="none"), PARAMS, X),
        ValueError,
        "params.b_x must be None; got shape [24]",
    ),
    "params of other heads": (
        lambda: gj.scan(gj.GRU(8, heads=2), PARAMS, X),
        ValueError,
        "params.w_h must have shape [2, 4, 12]; got shape [8, 24]",
    ),
    "hidden_size 0": (lambda: gj.GRU(0), ValueError, "hidden_size must be at least 1; got 0"),
    "hidden_size 2.5": (lambda: gj.GRU(2.5), TypeError, "hidden_size must be a whole number; got 2.5 of type float"),
    "hidden_size True": (lambda: gj.GRU(True), TypeError, "hidden_size must be a whole number; got True"),
    "heads": (
        lambda: gj.GRU(8, heads=3),
        ValueError,
        "hidden_size must be divisible by heads; got hidden_size=8 and heads=3; pass heads=1",
    ),
    "reset": (lambda: gj.GRU(8, reset="afer"), ValueError, "did you mean 'after'?"),
    "bias": (lambda: gj.GRU(8, bias=True), ValueError, "bias must be one of 'full', 'minimal', 'none'; got True"),
    "activation": (lambda: gj.GRU(8, activation="tahn"), ValueError, "did you mean 'tanh'?"),
    "init": (lambda: gj.GRU(8, init="kears"), ValueError, "did you mean 'keras'?"),
    "init type": (lambda: gj.GRU(8, init=3), TypeError, "or gj.Initializers(w_x, w_h, b_x, b_h); got 3"),
    "init parts": (
        lambda: gj.GRU(8, init=gj.Initializers("a", "b", "c", "d")),
        TypeError,
        "init.w_x must be an initializer",
    ),
    "input_size": (lambda: CELL.init(jax.random.key(0), 0), ValueError, "input_size must be at least 1; got 0"),
    "a number for a key": (lambda: CELL.init(5, 8), TypeError, "key must be one random key; got 5; pass key="),
    "many keys": (
        lambda: CELL.init(jax.random.split(jax.random.key(0)), 8),
        TypeError,
        "got key<fry> of shape [2]; pick one of them, or map over them with jax.vmap",
    ),
    "no key for dropout": (scan(input_dropout=0.5, key=X), TypeError, "got float32 of shape [2, 5, 8]"),
    "stack key": (lambda: NET.init("key", 8), TypeError, "stack: key must be one random key; got 'key'"),
    "integer parameters": (
        lambda: CELL.init(jax.random.key(0), 8, jnp.int32),
        TypeError,
        "dtype must be a floating-point dtype such as jnp.float32",
    ),
    "activation of two": (lambda: gj.GRU(8, activation=jnp.add), TypeError, "TypeError; pass one such as jnp.tanh"),
    "activation to booleans": (lambda: gj.GRU(8, gate_activation=jnp.isnan), TypeError, "elementwise function of one"),
    "projected nothing": (lambda: CELL.project(PARAMS, None), TypeError, "x must be an array of numbers"),
    "step of x": (lambda: CELL.step(PARAMS, X[:, 0], X[:, 0]), ValueError, "make it with cell.project(params, x)"),
    "step of h": (
        lambda: CELL.step(PARAMS, CELL.project(PARAMS, X[:, 0]), X[0, 0]),
        ValueError,
        "h must have shape [2, 8]; got [8]",
    ),
    "pair into a merge": (
        lambda: (net := gj.bidirectional(gj.bidirectional(gj.recurrent(CELL), merge=None))).apply(
            net.init(jax.random.key(0), 8), X
        ),
        ValueError,
        "cannot join pairs of outputs",
    ),
    "transposed params": (
        lambda: gj.scan(CELL, gj.GRUParams(PARAMS.w_x.T, PARAMS.w_h.T, PARAMS.b_x, PARAMS.b_h), X),
        ValueError,
        "its transpose, which is how torch and ONNX store it; pass w_x.T and w_h.T",
    ),
    "params of lists": (
        lambda: gj.scan(CELL, PARAMS._replace(w_h=[1.0]), X),
        TypeError,
        "params.w_h must be an array; got list of 1",
    ),
    "params without w_x": (
        lambda: gj.scan(CELL, PARAMS._replace(w_x=None), X),
        TypeError,
        "params.w_x must be an array; got None",
    ),
    "params of one dimension": (
        lambda: gj.scan(CELL, PARAMS._replace(w_x=PARAMS.b_x), X),
        ValueError,
        "params.w_x must have shape [8, 24]; got shape [24]",
    ),
    "complex params": (
        lambda: gj.scan(CELL, PARAMS._replace(b_h=PARAMS.b_h.astype(jnp.complex64)), X),
        TypeError,
        "params.b_h must be floating point; got complex64",
    ),
    "integer params": (
        lambda: gj.scan(CELL, jax.tree.map(lambda p: p.astype(int), PARAMS), X),
        TypeError,
        "params.w_x must be floating point; got int32",
    ),
    "x too large": (scan([[2**100]]), TypeError, "x must be an array of numbers; got list"),
    "bidirectional reverse": (
        lambda: (net := gj.bidirectional(gj.recurrent(CELL))).apply(
            net.init(jax.random.key(0), 8), X, reverse="yes"
        ),
        TypeError,
        "bidirectional: reverse must be True or False; got 'yes'",
    ),
    "recurrent of nothing": (lambda: gj.recurrent(None), TypeError, "needs a cell such as gj.GRU(hidden_size=64)"),
    "recurrent of a class": (lambda: gj.recurrent(gj.GRU), TypeError, "got the class GRU"),
    "stack of a list": (lambda: gj.stack([gj.recurrent(CELL)]), TypeError, "one by one: stack(*layers)"),
    "stack without norms": (
        lambda: gj.stack(gj.recurrent(CELL), norm="layer").apply((PARAMS,), X),
        ValueError,
        "needs params.norms, a tuple of 1",
    ),
    "lengths for h0": (
        lambda: NET.apply(NET_PARAMS, X, jnp.array([5, 2]), deterministic=True),
        ValueError,
        "got an array of shape [2]",
    ),
    "nnx complex h0": (
        lambda: nnx_layer()()(X, jnp.ones((2, 8), jnp.complex64)),
        TypeError,
        "h0 must be floating point; got complex64",
    ),
    "nnx integer parameters": (nnx_layer(param_dtype=jnp.int32), TypeError, "dtype must be a floating-point dtype"),
    "linen without parameters": (
        lambda: gj.linen.GRU(8).apply({}, X),
        ValueError,
        "there are no parameters; pass what init returned to apply",
    ),
    "linen parameters of fewer layers": (
        lambda: gj.linen.GRU(8, num_layers=2).apply({"params": {"layer_0": PARAMS._asdict()}}, X),
        ValueError,
        "the parameters do not fit num_layers=2",
    ),
    "linen parameters of more layers": (
        lambda: gj.linen.GRU(8).apply({"params": {f"layer_{k}": PARAMS._asdict() for k in (0, 1)}}, X),
        ValueError,
        "those of more layers than num_layers=1",
    ),
    "linen positional options": (lambda: gj.linen.GRU(8, 32), TypeError, "takes 2 positional arguments"),
    "unroll": (lambda: gj.Sequential(unroll=0), ValueError, "unroll must be at least 1; got 0"),
    "keep": (lambda: gj.Sequential(keep="state"), ValueError, "did you mean 'states'?"),
    "kernel": (lambda: gj.Sequential(kernel="chunk"), ValueError, "did you mean 'chunked'?"),
    "chunk": (lambda: gj.Sequential(chunk=0), ValueError, "Sequential: chunk must be at least 1; got 0"),
    "chunk type": (lambda: gj.Sequential(chunk="x"), TypeError, "Sequential: chunk must be"),
    "keep of chunks": (
        lambda: gj.Sequential(kernel="chunked", keep="gate"),
        ValueError,
        "keep must be one of 'auto', 'states', 'gates'; got 'gate'; did you mean 'gates'?",
    ),
    "chunks of a cell without a closed form": (
        lambda: gj.scan(
            gj.MinGRU(8), gj.MinGRU(8).init(jax.random.key(0), 8), X, method=gj.Sequential(kernel="chunked")
        ),
        ValueError,
        "needs a cell with a closed-form derivative, such as gj.GRU; MinGRU has none; use kernel='scan'",
    ),
    "chunks of a part of time": (
        scan(
            method=gj.TimeSharded(jax.make_mesh((1,), ("time",)), "time", method=gj.Sequential(kernel="chunked")),
        ),
        ValueError,
        "got it inside TimeSharded; use kernel='scan'",
    ),
    "merge": (lambda: gj.bidirectional(gj.recurrent(CELL), merge="max"), ValueError, "merge must be one of 'concat'"),
    "merge of unequal sizes": (
        lambda: (net := gj.bidirectional(gj.recurrent(CELL), gj.recurrent(gj.GRU(4)), merge="sum")).apply(
            net.init(jax.random.key(0), 8), X
        ),
        ValueError,
        "needs outputs of one shape; got [2, 5, 8] forward and [2, 5, 4] backward; use merge='concat'",
    ),
    "bare cell in a combinator": (lambda: gj.stack(CELL), TypeError, "wrap the cell: gj.recurrent(cell)"),
    "empty stack": (lambda: gj.stack(), ValueError, "needs at least one layer"),
    "stack rate": (lambda: gj.stack(gj.recurrent(CELL), dropout=1.0), ValueError, "must lie in [0, 1)"),
    "stack norm": (lambda: gj.stack(gj.recurrent(CELL), norm="batch"), ValueError, "norm must be one of 'layer'"),
    "stack without a key": (lambda: NET.apply(NET_PARAMS, X), ValueError, "dropout above 0 needs a random key"),
    "stack h0": (lambda: NET.apply(NET_PARAMS, X, X[:, 0], deterministic=True), ValueError, "h0 must be a tuple of 2"),
    "stack params": (lambda: NET.apply((PARAMS,), X, deterministic=True), ValueError, "got tuple of 1"),
    "residual of other sizes": (
        lambda: gj.stack(gj.recurrent(CELL), gj.recurrent(gj.GRU(4)), residual=True).init(jax.random.key(0), 8),
        ValueError,
        "layer 1 maps 8 features to 4; give all layers the same output size",
    ),
    "stack on a pair": (
        lambda: gj.stack(gj.bidirectional(gj.recurrent(CELL), merge=None), gj.recurrent(CELL)).init(
            jax.random.key(0), 8
        ),
        ValueError,
        "merge them to stack on it",
    ),
    "nnx option": (nnx_layer(num_layer=2), TypeError, "there is no option 'num_layer'; did you mean 'num_layers'?"),
    "nnx in_features": (nnx_layer(0, 8), ValueError, "in_features must be at least 1; got 0"),
    "nnx rngs": (lambda: gj.nnx.GRU(8, 8, rngs=0), TypeError, "pass rngs=nnx.Rngs(0)"),
    "nnx features": (lambda: nnx_layer()()(X[..., :7]), ValueError, "x has 7 features but params were made for 8"),
    "nnx pair under a layer": (
        nnx_layer(bidirectional=True, merge=None, num_layers=2),
        ValueError,
        "use merge='concat', or one plain layer",
    ),
    "nnx step backwards": (
        lambda: nnx_layer(bidirectional=True)().step(X[:, 0]),
        ValueError,
        "cannot be stepped; call it on the whole x",
    ),
    "nnx state of another batch": (
        lambda: (layer := nnx_layer(stateful=True)())(X) and layer(X[:1]),
        ValueError,
        "the kept state is for batch [2] but x has batch [1]; call reset_state(batch=1) to start over",
    ),
    "nnx reset without state": (lambda: nnx_layer()().reset_state(), ValueError, "made with stateful=True"),
    "nnx carry": (
        lambda: gj.nnx.GRUCell(8, 8, rngs=nnx.Rngs(0))(jnp.ones((3, 8)), X[:, 0]),
        ValueError,
        "carry must have shape [2, 8]; got [3, 8]",
    ),
    "linen rank": (lambda: gj.linen.GRU(8).init(jax.random.key(0), X[0, 0]), ValueError, "at least 2 dimensions"),
    "linen features": (
        lambda: gj.linen.GRU(8).apply({"params": {"layer_0": PARAMS._asdict()}}, X[..., :7]),
        ValueError,
        "x has 7 features but params were made for 8",
    ),
    "linen without a key": (
        lambda: (layer := gj.linen.GRU(8, recurrent_dropout=0.5)).apply(layer.init(jax.random.key(0), X), X),
        ValueError,
        'pass rngs={"dropout": key} to apply, or deterministic=True',
    ),
    "linen state": (
        lambda: (layer := gj.linen.GRU(8, stateful=True)).apply(layer.init(jax.random.key(0), X), X),
        ValueError,
        'call apply(..., mutable=["carry"])',
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_apart(case):
    call, exception, message = BAD[case]
    with pytest.raises(exception) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_naive_is_checked_as_the_others_are():
    with pytest.raises(ValueError, match="x has 7 features"):
        gj.scan(CELL, PARAMS, X[..., :7], method="naive")


def test_numpy_arrays_and_lists_are_welcome():
    y, _ = gj.scan(CELL, PARAMS, np.ones((2, 5, 8), np.float32), lengths=[5, 2])
    assert (y == gj.scan(CELL, PARAMS, X, lengths=jnp.array([5, 2]))[0]).all()
