"""What the torch layers refuse: one line that says the fact, what was got and the fix, never a bare JAX error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gru_jax.interop import torch as ours

X = np.zeros((5, 3, 2), np.float32)
RNN = ours.GRU(2, 4, 2, bidirectional=True, rngs=nnx.Rngs(0))
FIRST = ours.GRU(2, 4, batch_first=True, rngs=nnx.Rngs(0))
CELL = ours.GRUCell(2, 4, rngs=nnx.Rngs(0))
PACKED = ours.pack_padded_sequence(X, [5, 3, 1])


class FakeTorch:
    """What has a name of torch's but is none of its arrays."""


CASES = {
    # Options.
    "input_size 0": (lambda: ours.GRU(0, 4), ValueError, "input_size must be at least 1; got 0"),
    "hidden_size -1": (lambda: ours.GRU(2, -1), ValueError, "hidden_size must be at least 1; got -1"),
    "hidden_size a": (lambda: ours.GRU(2, "a"), TypeError, "hidden_size must be a whole number; got 'a' of type str"),
    "hidden_size 2.5": (lambda: ours.GRU(2, 2.5), TypeError, "hidden_size must be a whole number; got 2.5"),
    "hidden_size True": (lambda: ours.GRU(2, True), TypeError, "hidden_size must be a whole number; got True"),
    "num_layers 0": (lambda: ours.GRU(2, 4, 0), ValueError, "num_layers must be at least 1; got 0"),
    "bias 1": (lambda: ours.GRU(2, 4, bias=1), TypeError, "bias must be True or False; got 1"),
    "batch_first 0": (lambda: ours.GRU(2, 4, batch_first=0), TypeError, "batch_first must be True or False"),
    "bidirectional no": (lambda: ours.GRU(2, 4, bidirectional="no"), TypeError, "bidirectional must be True or False"),
    "dropout 3": (lambda: ours.GRU(2, 4, 2, dropout=3.0), ValueError, r"dropout .* must lie in \[0, 1\); got 3.0"),
    "dropout 1": (lambda: ours.GRU(2, 4, 2, dropout=1.0), ValueError, r"must lie in \[0, 1\); got 1.0"),
    "dropout True": (lambda: ours.GRU(2, 4, 2, dropout=True), TypeError, "dropout .* plain number; got True"),
    "device": (lambda: ours.GRU(2, 4, device="cuda"), ValueError, "device must be None; got 'cuda'.*default_device"),
    "dtype int": (lambda: ours.GRU(2, 4, dtype=jnp.int32), TypeError, "floating-point dtype"),
    "dtype float64": (lambda: ours.GRU(2, 4, dtype=jnp.float64), TypeError, "64-bit mode.*jax_enable_x64"),
    "rngs": (lambda: ours.GRU(2, 4, rngs=0), TypeError, r"rngs must be nnx.Rngs; got 0; pass rngs=nnx.Rngs\(0\)"),
    "no stream": (lambda: ours.GRU(2, 4, 2, dropout=0.1, rngs=nnx.Rngs(params=0)), ValueError, "no stream 'dropout'"),
    "seed": (lambda: ours.manual_seed("1"), TypeError, "seed must be a whole number"),
    # Input.
    "rank 4": (lambda: RNN(X[None]), ValueError, r"\[T, B, I\], or \[T, I\].*got shape \[1, 5, 3, 2\]"),
    "rank 1": (lambda: FIRST(X[0, 0]), ValueError, r"\[B, T, I\], or \[T, I\].*got shape \[2\]"),
    "features": (lambda: RNN(X[..., :1]), ValueError, "1 features but input_size is 2.*input_size=1"),
    "T 0": (lambda: RNN(X[:0]), ValueError, r"at least 1 time step; got shape \[0, 3, 2\]"),
    "T 0, batch first": (lambda: FIRST(X[:, :0]), ValueError, "at least 1 time step"),
    "T 0, one": (lambda: FIRST(X[:0, 0]), ValueError, "at least 1 time step"),
    "dtype": (
        lambda: RNN(X.astype(np.float16)),
        TypeError,
        r"input is float16 but the weights are float32; convert the input, input.astype\('float32'\), or the module,"
        r" module.to\('float16'\)",
    ),
    "float64": (lambda: RNN(X.astype(float)), TypeError, "input is float64 but the weights are float32"),
    "integers": (lambda: RNN(X.astype(int)), TypeError, r"floating point; got int64; convert.*astype\('float32'\)"),
    "a list": (lambda: RNN([X[0], X[1]]), TypeError, "input must be a JAX, NumPy or torch array; got list of 2"),
    "None": (lambda: RNN(None), TypeError, "got None"),
    "an object": (lambda: RNN(FakeTorch()), TypeError, "got FakeTorch"),
    "a masked array": (lambda: RNN(np.ma.masked_array(X)), TypeError, r"without a mask.*input.filled\(0\)"),
    # States.
    "h0 of an LSTM": (lambda: RNN(X, (X, X)), TypeError, "h0 must be .*; got tuple of 2; a GRU has one state"),
    "h0 rows": (lambda: RNN(X, jnp.zeros((2, 3, 4))), ValueError, r"h0 must have shape \[4, 3, 4\]; got \[2, 3, 4\]"),
    "h0 batch": (lambda: RNN(X, jnp.zeros((4, 1, 4))), ValueError, r"h0 must have shape \[4, 3, 4\]; got \[4, 1, 4\]"),
    "h0 batch first": (lambda: RNN(X, jnp.zeros((3, 4, 4))), ValueError, "never batch-first.*swapaxes"),
    "h0 of one": (lambda: RNN(X, jnp.zeros((4, 4))), ValueError, r"h0 must have shape \[4, 3, 4\].*3 axes"),
    "h0 of a batch": (lambda: RNN(X[:, 0], jnp.zeros((4, 1, 4))), ValueError, r"h0 must have shape \[4, 4\].*with 2"),
    "h0 dtype": (lambda: RNN(X, jnp.zeros((4, 3, 4), jnp.float16)), TypeError, "h0 is float16 but the weights"),
    "both names": (lambda: RNN(X, jnp.zeros((4, 3, 4)), hx=jnp.zeros((4, 3, 4))), TypeError, "got both"),
    # Packed.
    "packed features": (lambda: ours.GRU(3, 4)(PACKED), ValueError, "2 features but input_size is 3"),
    "packed labels": (lambda: RNN(ours.pack_padded_sequence(X[..., 0], [5, 3, 1])), ValueError, r"data \[steps, I\]"),
    "packed h0": (lambda: RNN(PACKED, jnp.zeros((4, 2, 4))), ValueError, r"h0 must have shape \[4, 3, 4\]"),
    "packed dtype": (lambda: RNN(PACKED.with_data(PACKED.data.astype(int))), TypeError, "floating point; got int32"),
    # Sequences.
    "ragged lengths": (lambda: ours.pack_padded_sequence(X, [[5], [3, 1]]), TypeError, "whole numbers in one row"),
    "padding text": (lambda: ours.pad_packed_sequence(PACKED, padding_value="a"), TypeError, "be a number; got 'a'"),
    "padding row": (lambda: ours.pad_packed_sequence(PACKED, padding_value=X[0, 0]), TypeError, "must be a number"),
    "padding None": (lambda: ours.pad_sequence([X], padding_value=None), TypeError, "must be a number; got None"),
    "traced order": (lambda: jax.jit(ours.invert_permutation)(jnp.arange(3)), TypeError, "known while JAX traces"),
    # The cell.
    "cell size": (lambda: ours.GRUCell(2, -1), ValueError, "hidden_size must be at least 1"),
    "cell rank": (lambda: CELL(X), ValueError, r"input must be \[B, I\], or \[I\].*got shape \[5, 3, 2\]"),
    "cell features": (lambda: CELL(X[0, :, :1]), ValueError, "1 features but input_size is 2"),
    "cell h0": (lambda: CELL(X[0], jnp.zeros(4)), ValueError, r"h0 must have shape \[3, 4\]; got \[4\]"),
    "cell h0 of a batch": (lambda: CELL(X[0, 0], jnp.zeros((1, 4))), ValueError, r"h0 must have shape \[4\]"),
    "cell both": (lambda: CELL(X[0], jnp.zeros((3, 4)), hx=jnp.zeros((3, 4))), TypeError, "got both"),
    "cell dtype": (lambda: CELL(X[0].astype(float)), TypeError, "input is float64 but the weights are float32"),
    "cuda": (RNN.cuda, ValueError, "GRU: device must be None; got 'cuda'; JAX places arrays itself"),
    "cell device": (lambda: ours.GRUCell(2, 4, device="cpu"), ValueError, "device must be None"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    call, kind, message = CASES[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_tensors_without_dense_numbers():
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(5, 2).to_sparse(), torch.ones(5, 2, device="meta")):
        with pytest.raises(TypeError, match=r"GRU: input must be a dense tensor with numbers in it; got torch.float32"):
            RNN(tensor)
    assert (RNN(torch.ones(5, 2)._neg_view())[0] == RNN(-np.ones((5, 2), np.float32))[0]).all()


def test_a_module_of_shapes_runs_after_its_weights_are_loaded():
    """nnx.eval_shape makes a module without drawing numbers that a state dict replaces anyway."""
    rnn = nnx.eval_shape(lambda: ours.GRU(2, 4, 2, bidirectional=True, rngs=nnx.Rngs(1)))
    for call in (lambda: rnn(X), rnn.state_dict):
        with pytest.raises(TypeError, match="weight_ih_l0 is a shape without numbers.*load_state_dict first"):
            call()
    rnn.load_state_dict(RNN.state_dict())
    assert (rnn(X)[0] == RNN(X)[0]).all()


def test_under_jit_alike():
    for name in ("features", "h0 rows", "dtype"):
        call, kind, message = CASES[name]
        with pytest.raises(kind, match=message):
            jax.jit(call)()


def test_dropout_with_one_layer_warns_as_torch_does():
    with pytest.warns(UserWarning, match="dropout=0.5 does nothing with num_layers=1"):
        rnn = ours.GRU(2, 4, dropout=0.5)
    assert (rnn(X)[0] == rnn(X)[0]).all()


def test_an_empty_batch_gives_an_empty_output():
    output, h_n = RNN(X[:, :0])
    assert output.shape == (5, 0, 8)
    assert h_n.shape == (4, 0, 4)
    assert CELL(X[0, :0]).shape == (0, 4)


def test_what_is_no_number_spreads_no_further_than_its_sequence():
    x = X.copy()
    x[4, 2] = np.nan  # padding of the packed batch
    output, h_n = RNN(ours.pack_padded_sequence(x, [5, 3, 1]))
    assert jnp.isfinite(output.data).all()
    assert jnp.isfinite(h_n).all()
