"""Streams: what does not fit is told, and what machine code does not know runs all the same."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from .test_stream import I, frames, gru, naive, streamed

WRONG = {
    "float64": (lambda x: x.astype(np.float64), TypeError, r"must be float32.*got float64.*astype\(np.float32\)"),
    "a list": (lambda x: x.tolist(), TypeError, "got float64"),
    "features": (lambda x: x[:, :3], ValueError, r"\[\*batch, 5\]; got shape \[3, 3\]; pass the frames one by one"),
    "a number": (lambda x: np.float32(1), ValueError, r"got shape \[\]"),
    "the whole sequence": (lambda x: x[:, None], ValueError, r"batch \[3\]; got x of shape \[3, 1, 5\]; call reset"),
    "another batch": (lambda x: x[:2], ValueError, r"batch \[3\]; got x of shape \[2, 5\]; call reset\(\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_x(name, engine):
    make, kind, words = WRONG[name]
    x, stream = frames((3,))[:, 0], gj.Stream(gru(6))
    y = stream(x)
    with pytest.raises(kind, match=words):
        stream(make(x))
    stream.reset()
    np.testing.assert_array_equal(stream(x), y)


def cell_params():
    return naive(gj.GRU(6)).init(jax.random.key(0), I)


def tagger(net):
    return gj.models.readout(net, I, 2, steps="all")


def with_norm(features):
    net = gj.stack(naive(gj.GRU(6)), norm="rms")
    params = net.init(jax.random.key(0), I)
    return net, params._replace(norms=(params.norms[0]._replace(scale=np.ones(features, np.float32)),))


def with_output(features):
    model = tagger(naive(gj.GRU(6)))
    return model, model.init(jax.random.key(0))._replace(w=np.ones((features, 2), np.float32))


NOT_MADE = {
    "no params": (lambda: gj.Stream(gj.GRU(6)), TypeError, "pass params="),
    "no layer": (lambda: gj.Stream(3), TypeError, "needs a gj.nnx.GRU.*got 3"),
    "both directions": (lambda: gj.Stream(gru(6, bidirectional=True)), ValueError, "cannot be stepped"),
    "an output of both": (lambda: gj.Stream(tagger(gj.bidirectional(naive(gj.GRU(6)))), ()), ValueError, "be stepped"),
    "reverse": (lambda: gj.Stream(gru(6, reverse=True)), ValueError, "cannot be stepped"),
    "params of another size": (lambda: gj.Stream(gj.GRU(7), cell_params()), ValueError, "w_x must have shape"),
    "layers": (lambda: gj.Stream(gj.stack(naive(gj.GRU(6))), cell_params()), ValueError, "must be a tuple of 1"),
    "structure of h0": (lambda: gj.Stream(gru(6), h0=(1, 2), batch=2), ValueError, "h0 must have the structure"),
    "shape of h0": (lambda: gj.Stream(gru(6), h0=np.ones(3), batch=2), ValueError, r"\[2, 6\], or \[6\] for all"),
    "batch": (lambda: gj.Stream(gru(6), batch=0), ValueError, "batch must be at least 1"),
    "an option": (lambda: gj.Stream(gru(6), bacth=0), TypeError, "did you mean 'batch'"),
    "two dtypes": (lambda: gj.Stream(gj.GRU(6), cell_params()._replace(w_x=np.ones((5, 18)))), TypeError, "one dtype"),
    "a norm of another size": (lambda: gj.Stream(*with_norm(5)), ValueError, r"norms\[0\] must have"),
    "no output layer": (lambda: gj.Stream(tagger(naive(gj.GRU(6))), cell_params()), TypeError, "ReadoutParams"),
    "another output layer": (lambda: gj.Stream(*with_output(7)), ValueError, r"params.w must have shape \[6, 2\]"),
    "params that are no arrays": (lambda: gj.Stream(gj.GRU(6), 3), TypeError, "of one dtype; got int"),
    "mask's dtype": (lambda: gj.Stream(gru(6), batch=2).reset(np.ones(2)), TypeError, "must be boolean"),
    "mask's shape": (lambda: gj.Stream(gru(6), batch=2).reset(np.ones(3, bool)), ValueError, r"must have shape \[2\]"),
    "a mask of nothing": (lambda: gj.Stream(gru(6)).reset(np.ones(3, bool)), ValueError, "no sequences yet"),
    "a copy": (lambda: copy.copy(gj.Stream(gru(6), batch=2)), TypeError, "another gj.Stream"),
    "a deep copy": (lambda: copy.deepcopy(gj.Stream(gru(6))), TypeError, "another gj.Stream"),
    "pickling": (lambda: pickle.dumps(gj.Stream(gru(6))), TypeError, "another gj.Stream"),
}


@pytest.mark.parametrize("name", NOT_MADE)
def test_what_is_refused(name):
    make, kind, words = NOT_MADE[name]
    with pytest.raises(kind, match=words):
        make()


FALLS_BACK = {
    "bfloat16": (lambda: gru(6, param_dtype=jnp.bfloat16), jnp.bfloat16, "bfloat16"),
    "an activation of one's own": (lambda: gru(6, activation=jnp.sin), np.float32, "activation"),
    "many units with heads": (lambda: gru(420, heads=420), np.float32, "mostly zeros"),
    "computed in bfloat16": (lambda: gru(6, dtype=jnp.bfloat16), jnp.bfloat16, "bfloat16"),
}


@pytest.mark.parametrize("name", FALLS_BACK)
def test_what_machine_code_does_not_know(name):
    make, dtype, words = FALLS_BACK[name]
    layer, x = make(), frames((2,)).astype(dtype)
    stream = gj.Stream(layer)
    assert stream.engine == "xla" and words in stream.reason
    y = streamed(stream, x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(np.float32), np.asarray(layer(x)[0], np.float32), rtol=0, atol=0.02)
