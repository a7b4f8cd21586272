"""What torch's users do besides: options that change later, packed sequences as tuples, other state dicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gru_jax.interop import torch as ours

X = np.ones((5, 3, 2), np.float32)


def test_dropout_may_be_set_after_construction():
    rnn = ours.GRU(2, 4, 2, rngs=nnx.Rngs(0))
    plain = rnn(X)[0]
    rnn.dropout = 0.5
    assert (rnn.dropout, "dropout=0.5" in repr(rnn)) == (0.5, True)
    dropped, again = rnn(X)[0], rnn(X)[0]
    assert not (dropped == plain).all()
    assert not (dropped == again).all()
    assert (rnn.eval()(X)[0] == plain).all()
    rnn.train().dropout = 0.0
    assert (rnn(X)[0] == plain).all()
    for bad in (1.5, True, None):
        with pytest.raises((TypeError, ValueError), match="GRU: dropout is "):
            rnn.dropout = bad
    assert rnn.to_layer().spec.dropout == 0
    alone = ours.GRU(2, 4)
    alone.dropout = 0.5  # between layers, of which there is one
    assert (alone(X)[0] == alone(X)[0]).all()


def test_packed_sequences_are_converted():
    packed = ours.pack_sequence([np.ones((3, 2), np.float32), np.ones((1, 2), np.float32)])
    for made, dtype in (
        (packed.float(), "float32"),
        (packed.half(), "float16"),
        (packed.int(), "int32"),
        (packed.to("bfloat16"), "bfloat16"),
        (packed.to(np.int8), "int8"),
        (packed.short(), "int16"),
        (packed.char(), "int8"),
        (packed.byte(), "uint8"),
    ):
        assert (made.data.dtype, made.batch_sizes.tolist()) == (dtype, packed.batch_sizes.tolist())
    assert packed.float() is packed.cpu() is packed.pin_memory() is packed
    assert not packed.is_cuda and not packed.is_pinned()
    for method in ("cuda", "long"):
        with pytest.raises((ValueError, TypeError), match="PackedSequence: (device must be None; got 'cuda'|.*64-bit)"):
            getattr(packed, method)()
    with pytest.raises(TypeError, match="PackedSequence: dtype float64 needs JAX's 64-bit mode"):
        packed.double()
    with pytest.raises(ValueError, match="PackedSequence: device must be None; got 'cuda:0'"):
        packed.to("cuda:0")
    with pytest.raises(TypeError, match="PackedSequence: dtype must be"):
        packed.to("nonsense")
    torch = pytest.importorskip("torch")
    assert packed.to(torch.float16).data.dtype == jnp.float16
    theirs = set(dir(torch.nn.utils.rnn.PackedSequence)) - set(dir(tuple))
    assert {name for name in theirs if not name.startswith("_")} <= set(dir(packed))


def test_packed_sequences_in_double_precision(x64):
    packed = ours.pack_sequence([np.ones((3, 2), np.float32)])
    assert packed.double().data.dtype == jnp.float64 and packed.long().data.dtype == jnp.int64


def test_packed_sequences_are_tuples():
    packed = ours.pack_sequence([np.ones((3, 2), np.float32), np.ones((1, 2), np.float32)])
    mixed = ours.pack_sequence([np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)], enforce_sorted=False)
    assert (packed.count(None), mixed.count(None), None in packed, None in mixed) == (2, 0, True, False)
    assert (packed.index(None), packed.index(None, 3), packed.index(packed.data)) == (2, 3, 0)
    assert mixed.count(np.array([1, 0])) == 2
    assert mixed.count(0) == 0
    with pytest.raises(ValueError, match="no field is the value"):
        mixed.index(None)


@pytest.mark.parametrize(("size_in", "size"), [(10, 0), (0, 4), (0, 0)])
def test_a_cell_without_units_or_features(size_in, size):
    torch = pytest.importorskip("torch")
    cell = ours.GRUCell(size_in, size)
    x = np.ones((2, size_in), np.float32)
    theirs = torch.nn.GRUCell(size_in, size)
    cell.load_state_dict(theirs.state_dict())
    np.testing.assert_allclose(cell(x), theirs(torch.tensor(x)).detach(), atol=1e-6)
    assert cell(x[0]).shape == (size,)
    with pytest.raises(ValueError, match="hidden_size must be at least 1; got 0"):
        ours.GRU(10, 0)
    with pytest.raises(ValueError, match="hidden_size must be at least 1; got -1"):
        ours.GRUCell(10, -1)


def test_proj_size_is_explained():
    with pytest.raises(ValueError, match=r"proj_size is torch.nn.LSTM's, .*got 2; leave it out"):
        ours.GRU(3, 4, proj_size=2)


def zeros(kind, size=6, features=3, prefix="", end="_l0"):
    rows = {"lstm": 4, "gru": 3, "rnn": 1}[kind] * size
    shapes = {"weight_ih": (rows, features), "weight_hh": (rows, size), "bias_ih": (rows,), "bias_hh": (rows,)}
    return {f"{prefix}{name}{end}": np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("given", "prefix", "message"),
    [
        (zeros("lstm", prefix="enc."), "", "those under prefix='enc.' are an LSTM's$"),
        (zeros("lstm", prefix="a.b.", end=""), "", "those under prefix='a.b.' are an LSTM's$"),
        (
            zeros("lstm", prefix="enc.") | zeros("rnn", prefix="z."), "",
            "those under prefix='enc.' are an LSTM's and those under prefix='z.' are a plain RNN's$",
        ),
        (zeros("lstm", prefix="enc.") | zeros("gru", prefix="dec."), "", "another prefix: pass prefix='dec.'$"),
        (zeros("lstm", prefix="enc.") | zeros("gru", prefix="dec."), "enc.", "another prefix: pass prefix='dec.'$"),
        (zeros("rnn", prefix="r.") | zeros("gru", prefix="g.", end=""), "x.", "another prefix: pass prefix='g.'$"),
        (zeros("lstm", prefix="enc."), "enc.", r"enc.weight_hh_l0 of a GRU must .*; the weights are an LSTM's$"),
        (zeros("rnn"), "", "the weights are a plain RNN's$"),
    ],
)
def test_other_networks_are_not_taken_for_a_gru(given, prefix, message):
    with pytest.raises(ValueError, match=message):
        ours.load(given, prefix=prefix)
    with pytest.raises(ValueError, match="GRU"):
        ours.GRU(3, 6).load_state_dict(given, prefix=prefix)


def test_packed_weights_of_quantised_modules_are_named():
    for name in ("gru._all_weight_values.0.param", "gru._packed_weight_hh"):
        for prefix in ("", "gru."):
            with pytest.raises(ValueError, match="packed ones of a quantised module.*before it was quantised"):
                ours.load({name: object(), "lin.weight": np.ones((2, 2))}, prefix=prefix)


def test_a_changed_dropout_under_jit():
    rnn = ours.GRU(2, 4, 2, rngs=nnx.Rngs(0))
    rnn.dropout = 0.25
    run = nnx.jit(lambda rnn, x: rnn(x)[0])
    assert not (run(rnn, jnp.asarray(X)) == run(rnn, jnp.asarray(X))).all()
    assert jax.tree.leaves(nnx.state(rnn, nnx.RngState))
