"""Packed and padded sequences beside torch's own, over random lengths, dtypes and layouts."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.interop import torch as ours

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
theirs = torch.nn.utils.rnn


def same(mine, right):
    """Equal numbers and shapes; torch's whole numbers have 64 bits, JAX's 32."""
    if right is None:
        assert mine is None
        return
    right = np.asarray(right)
    assert mine.shape == right.shape
    np.testing.assert_array_equal(np.asarray(mine), right)


def draw(seed):
    """A padded batch, its lengths, none of them equal, and options of packing."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 9))
    batch = int(rng.integers(1, steps + 1))
    batch_first, enforce_sorted = bool(rng.integers(2)), bool(rng.integers(2))
    lengths = rng.permutation(np.arange(1, steps + 1))[:batch]
    if enforce_sorted:
        lengths = -np.sort(-lengths)
    shape = (batch, steps) if batch_first else (steps, batch)
    x = rng.integers(-9, 9, size=(*shape, *rng.integers(1, 4, size=rng.integers(3))))
    x = x.astype(rng.choice(["float32", "int32", "float16"]))
    total = int(rng.integers(max(lengths), steps + 3)) if rng.integers(2) else None
    return rng, x, lengths, batch_first, enforce_sorted, total


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 20))])
def test_packing_and_padding(seed):
    rng, x, lengths, batch_first, enforce_sorted, total = draw(seed)
    given = [lengths.tolist(), lengths, jnp.asarray(lengths), torch.tensor(lengths)][seed % 4]
    array = [x, torch.tensor(x), x, torch.tensor(x), jnp.asarray(x)][seed % 5]
    mine = ours.pack_padded_sequence(array, given, batch_first, enforce_sorted)
    right = theirs.pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), batch_first, enforce_sorted)
    assert mine.data.dtype == x.dtype
    for field in ("data", "batch_sizes", "sorted_indices", "unsorted_indices"):
        same(getattr(mine, field), getattr(right, field))

    options = {"batch_first": bool(rng.integers(2)), "padding_value": float(rng.integers(-3, 3)), "total_length": total}
    for got, expected in zip(
        ours.pad_packed_sequence(mine, **options), theirs.pad_packed_sequence(right, **options), strict=True
    ):
        same(got, expected)
    for got, expected in zip(ours.unpack_sequence(mine), theirs.unpack_sequence(right), strict=True):
        same(got, expected)
    same(ours.pad_packed_sequence(right)[0], theirs.pad_packed_sequence(right)[0])  # torch's own, too


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 8))])
def test_lists_of_sequences(seed):
    rng, _, lengths, batch_first, enforce_sorted, _ = draw(seed)
    sequences = [rng.normal(size=(length, 2)).astype(np.float32) for length in lengths]
    tensors = [torch.tensor(one) for one in sequences]
    side = ["right", "left"][seed % 2]
    same(ours.pad_sequence(sequences, batch_first, -1.5, side), theirs.pad_sequence(tensors, batch_first, -1.5, side))
    mine, right = ours.pack_sequence(sequences, enforce_sorted), theirs.pack_sequence(tensors, enforce_sorted)
    for got, expected in zip(mine, right, strict=True):
        same(got, expected)
    padded = ours.pad_sequence(sequences, batch_first)
    for got, expected in zip(ours.unpad_sequence(padded, lengths, batch_first), sequences, strict=True):
        same(got, expected)
    order = rng.permutation(5)
    same(ours.invert_permutation(order), theirs.invert_permutation(torch.tensor(order)))
    assert ours.invert_permutation(None) is None


def test_equal_lengths_keep_their_order():
    """torch does not say which order they get; what comes back is the same."""
    x = np.arange(24).reshape(3, 8)
    lengths = [2, 1, 2, 3, 1, 2, 3, 2]
    packed = ours.pack_padded_sequence(x, lengths, enforce_sorted=False)
    assert packed.sorted_indices.tolist() == [3, 6, 0, 2, 5, 7, 1, 4]
    right = theirs.pack_padded_sequence(torch.tensor(x), lengths, enforce_sorted=False)
    same(ours.pad_packed_sequence(packed)[0], theirs.pad_packed_sequence(right)[0])


def test_torchs_spelling():
    for name in ("pack_padded_sequence", "pad_packed_sequence", "pack_sequence", "pad_sequence", "PackedSequence",
                 "unpack_sequence", "unpad_sequence", "invert_permutation"):
        assert getattr(ours.utils.rnn, name) is getattr(ours, name)
        assert hasattr(theirs, name)


def test_torchs_example():
    """The example of torch's documentation of pad_packed_sequence, word for word but for the import."""
    nn = ours
    pack_padded_sequence, pad_packed_sequence = nn.pack_padded_sequence, nn.pad_packed_sequence

    seq = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    lens = [2, 1, 3]
    packed = pack_padded_sequence(seq, lens, batch_first=True, enforce_sorted=False)
    seq_unpacked, lens_unpacked = pad_packed_sequence(packed, batch_first=True)

    assert packed.data.tolist() == [4, 1, 3, 5, 2, 6]
    assert packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices.tolist() == [2, 0, 1]
    assert packed.unsorted_indices.tolist() == [1, 2, 0]
    same(seq_unpacked, seq)
    assert lens_unpacked.tolist() == lens


def test_data_alone_is_traced():
    """Through jit, grad, vmap and pickle; the lengths are static, and equal ones do not compile again."""
    x = jnp.arange(8.0).reshape(4, 2)
    pack = lambda lengths: ours.pack_padded_sequence(x, lengths, enforce_sorted=False)  # noqa: E731
    traces = []

    @jax.jit
    def double(packed):
        traces.append(packed.lengths)
        return packed.with_data(packed.data * 2)

    for lengths in ([1, 4], [1, 4], [4, 1]):
        same(ours.pad_packed_sequence(double(pack(lengths)))[0], ours.pad_packed_sequence(pack(lengths))[0] * 2)
    assert len(traces) == 2
    (leaf,) = jax.tree.leaves(pack([1, 4]))
    same(leaf, pack([1, 4]).data)
    gradient = jax.grad(lambda packed: (packed.data**2).sum())(pack([1, 4]))
    same(gradient.data, 2 * pack([1, 4]).data)
    same(jax.vmap(lambda packed: packed.data.sum())(pack([1, 4])), pack([1, 4]).data)
    copy = pickle.loads(pickle.dumps(pack([1, 4])))
    assert isinstance(copy, ours.PackedSequence)
    for got, expected in zip(copy, pack([1, 4]), strict=True):
        same(got, expected)


X = np.zeros((5, 3, 2), np.float32)
PACKED = ours.pack_padded_sequence(X, [5, 3, 1])
WRONG = {
    "length 0": (lambda: ours.pack_padded_sequence(X, [5, 3, 0]), ValueError, "at least 1; got 0 at index 2"),
    "length above T": (lambda: ours.pack_padded_sequence(X, [6, 3, 1]), ValueError, "5 time steps but a length is 6"),
    "unsorted": (lambda: ours.pack_padded_sequence(X, [1, 3, 5]), ValueError, "pass enforce_sorted=False"),
    "another count": (lambda: ours.pack_padded_sequence(X, [5, 3]), ValueError, r"the 3 sequences.*got shape \[2\]"),
    "batch_first": (lambda: ours.pack_padded_sequence(X, [3] * 5), ValueError, "pass batch_first=True or False"),
    "fractions": (lambda: ours.pack_padded_sequence(X, [5.0, 3.0, 1.0]), TypeError, "whole numbers; got float64"),
    "one axis": (lambda: ours.pack_padded_sequence(X[0, 0], [1, 1]), ValueError, "at least 2 dimensions"),
    "no sequences": (lambda: ours.pack_padded_sequence(X[:, :0], []), ValueError, "no sequences"),
    "no array": (lambda: ours.pack_padded_sequence([1, 2], [1]), TypeError, "got list of 2.*pack_sequence"),
    "a flag": (lambda: ours.pack_padded_sequence(X, [5, 3, 1], 1), TypeError, "batch_first must be True or False"),
    "traced": (
        lambda: jax.jit(lambda n: ours.pack_padded_sequence(X, n).data)(jnp.array([5, 3, 1])),
        TypeError,
        "lengths must be known while JAX traces.*gj.nnx.GRU",
    ),
    "float64": (lambda: ours.pack_padded_sequence(X.astype(float), [5, 3, 1]), TypeError, "float64.*jax_enable_x64"),
    "total_length": (lambda: ours.pad_packed_sequence(PACKED, total_length=4), ValueError, "longest length, 5; got 4"),
    "not packed": (lambda: ours.pad_packed_sequence(X), TypeError, "must be a PackedSequence; got an array"),
    "no list": (lambda: ours.pack_sequence([]), ValueError, "at least one sequence"),
    "a number": (lambda: ours.pad_sequence(3), TypeError, "a list of arrays; got 3"),
    "an empty one": (lambda: ours.pack_sequence([X[:, 0], X[:0, 0]]), ValueError, "at least 1; got 0"),
    "features": (lambda: ours.pack_sequence([X[:, 0], X[:, 0, :1]]), ValueError, r"sequence 1 is.*shape \[5, 1\]"),
    "a side": (lambda: ours.pad_sequence([X], padding_side="up"), ValueError, "'right', 'left'; got 'up'"),
    "batch sizes": (lambda: ours.PackedSequence(X[:, 0], [3, 3]), ValueError, r"5 rows of data; got \[3, 3\]"),
    "growing": (lambda: ours.PackedSequence(X[:, 0], [2, 3]), ValueError, "never grow"),
    "an order": (lambda: ours.PackedSequence(X[:, 0], [3, 2], [0, 0, 1]), ValueError, "a permutation of the 3"),
    "an inverse": (lambda: ours.PackedSequence(X[:, 0], [3, 2], [1, 2, 0], [1, 2, 0]), ValueError, "the inverse"),
    "no permutation": (lambda: ours.invert_permutation([0, 2]), ValueError, "each of 0, 1, ... once"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_empty_sequence_is_unpadded_too():
    sequences = [np.ones((0, 2), np.float32), np.ones((3, 2), np.float32)]
    back = ours.unpad_sequence(ours.pad_sequence(sequences), [0, 3])
    assert [x.shape for x in back] == [(0, 2), (3, 2)]


def test_torchs_own_spelling():
    from gru_jax.interop.torch.utils.rnn import pack_padded_sequence

    assert pack_padded_sequence is ours.pack_padded_sequence is ours.utils.rnn.pack_padded_sequence
    with pytest.raises(AttributeError, match="has no Linear, only .* take the rest of the model from flax.nnx"):
        ours.Linear  # noqa: B018
