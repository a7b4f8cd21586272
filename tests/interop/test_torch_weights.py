"""Weights from torch and back: state dicts, files of every kind, and what is refused."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.interop import torch as ours

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
torch.set_num_threads(1)

KINDS = [
    {"num_layers": layers, "bidirectional": both, "bias": bias}
    for layers in (1, 2)
    for both in (False, True)
    for bias in (False, True)
]


def tensors(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


def bits(array):
    return np.asarray(array.detach().float() if hasattr(array, "detach") else array).tobytes()


def same(mine, theirs):
    assert list(mine) == list(theirs)
    for name in mine:
        assert tuple(mine[name].shape) == tuple(theirs[name].shape)
        assert bits(mine[name]) == bits(theirs[name]), name


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_round_trips_are_equal_bit_by_bit(options):
    theirs = torch.nn.GRU(3, 2, **options)
    expected = theirs.state_dict()
    with torch.no_grad():
        expected["weight_hh_l0"][0, 0] = -0.0
    mine = ours.GRU(3, 2, **options)
    assert mine.load_state_dict(expected) == ([], [])
    same(mine.state_dict(), expected)
    layer = ours.load(expected)
    assert layer.spec.num_layers == options["num_layers"]
    assert layer.spec.bidirectional == options["bidirectional"]
    same(ours.export(layer), expected)
    same(ours.export(mine), expected)
    same(ours.export(ours.load(theirs)), expected)
    for arrays in (mine.state_dict(), ours.export(layer)):
        back = torch.nn.GRU(3, 2, **options)
        back.load_state_dict(tensors(arrays), strict=True)
        same(back.state_dict(), expected)


def test_a_loaded_layer_computes_what_torch_does():
    theirs = torch.nn.GRU(3, 2, 2, bidirectional=True, batch_first=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    lengths = [5, 2]
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), lengths, batch_first=True)
    expected, h_n = theirs(packed)
    expected = torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)[0].detach()
    y, h = ours.load(theirs.state_dict())(jnp.asarray(x), lengths=jnp.array(lengths))
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.stack(jax.tree.leaves(h)), h_n.detach(), rtol=0, atol=2e-6)


def test_a_cells_weights():
    theirs = torch.nn.GRUCell(3, 2)
    mine = ours.GRUCell(3, 2)
    mine.load_state_dict(theirs.state_dict())
    same(mine.state_dict(), theirs.state_dict())
    layer = ours.load(theirs)
    assert ours.export(layer)["weight_ih_l0"].tobytes() == bits(theirs.weight_ih)


def test_a_minimal_bias_gains_zeros():
    layer = gj.nnx.GRU(3, 2, bias="minimal", rngs=nnx.Rngs(0))
    layer.layer_0["b_h"].set_value(jnp.array([1.0, 2.0]))
    found = ours.export(layer)
    assert found["bias_hh_l0"].tolist() == [0, 0, 0, 0, 1, 2]
    x = jnp.ones((2, 4, 3))
    np.testing.assert_allclose(ours.load(found)(x)[0], layer(x)[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": "before"}, "reset gate after.*this layer before"),
        ({"heads": 2}, "heads=2"),
        ({"activation": "relu"}, "activation='relu'"),
        ({"norm": "layer"}, "norm='layer'"),
        ({"residual": True}, "residual=True"),
    ],
)
def test_what_torch_cannot_compute_is_not_exported(options, message):
    with pytest.raises(ValueError, match=message):
        ours.export(gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0), **options))


def test_other_arrays_and_dtypes_are_cast():
    theirs = torch.nn.GRU(3, 2, dtype=torch.float64)
    mine = ours.GRU(3, 2)
    mine.load_state_dict({name: tensor.detach().numpy() for name, tensor in theirs.named_parameters()})
    single = torch.nn.GRU(3, 2)
    single.load_state_dict(theirs.state_dict())
    same(mine.state_dict(), single.state_dict())
    half = ours.GRU(3, 2, dtype=jnp.bfloat16)
    half.load_state_dict({name: jnp.asarray(array) for name, array in mine.state_dict().items()})
    assert half.dtype == jnp.bfloat16
    large = {name: np.full_like(array, 1e9) for name, array in mine.state_dict().items()}
    mine.to("float16").load_state_dict(large)
    assert np.isinf(mine.state_dict()["weight_ih_l0"]).all()


GIVEN = ours.GRU(3, 2, 2).state_dict()
WRONG = {
    "missing": ({k: v for k, v in GIVEN.items() if k != "bias_hh_l1"}, ["missing bias_hh_l1"]),
    "near miss": (
        {k.replace("weight_ih_l1", "weights_ih_l1"): v for k, v in GIVEN.items()},
        ["missing weight_ih_l1", "unexpected weights_ih_l1 (did you mean weight_ih_l1?)"],
    ),
    "transposed": (
        GIVEN | {"weight_ih_l0": GIVEN["weight_ih_l0"].T},
        ["weight_ih_l0 must have shape [6, 3], got [3, 6]; it is transposed, pass its .T"],
    ),
    "everything": (
        {"junk": 1, "bias_ih_l0": np.zeros(5, np.float32), "weight_ih_l0": "no array"},
        [
            "missing weight_hh_l0, bias_hh_l0, weight_ih_l1",
            "unexpected junk",
            "bias_ih_l0 must have shape [6], got [5]",
            "weight_ih_l0 must be an array",
        ],
    ),
    "other options": (
        ours.GRU(3, 2, bidirectional=True, bias=False).state_dict(),
        ["missing", "unexpected weight_ih_l0_reverse", "those of GRU(3, 2, bias=False, bidirectional=True)"],
    ),
    "a prefix": (ours.GRU(3, 2, 2).state_dict(prefix="encoder.rnn."), ["pass prefix='encoder.rnn.'"]),
    "several prefixes": (
        {f"{end}.{k}": v for k, v in GIVEN.items() for end in ("b", "a")},
        ["pass prefix='a.' or prefix='b.'"],
    ),
    "empty": ({}, ["missing weight_ih_l0"]),
    "whole numbers": (GIVEN | {"bias_ih_l0": np.zeros(6, int)}, ["bias_ih_l0 must be an array of floating-point"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_state_dicts(name):
    """One line that names everything, and nothing is loaded."""
    given, parts = WRONG[name]
    mine = ours.GRU(3, 2, 2)
    before = mine.state_dict()
    with pytest.raises(ValueError) as caught:
        mine.load_state_dict(given)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    same(mine.state_dict(), before)


def test_not_strict_and_prefixes():
    mine = ours.GRU(3, 2, 2)
    partial = {"weight_ih_l0": np.ones((6, 3), np.float32), "head": np.ones(2)}
    result = mine.load_state_dict(partial, strict=False)
    assert result.unexpected_keys == ["head"]
    assert result.missing_keys == [name for name in GIVEN if name != "weight_ih_l0"]
    assert (mine.weight_ih_l0[...] == 1).all()
    with pytest.raises(ValueError, match=r"must have shape \[6, 3\], got \[6, 4\]"):
        mine.load_state_dict({"weight_ih_l0": np.ones((6, 4), np.float32)}, strict=False)
    checkpoint = {f"encoder.rnn.{name}": array for name, array in GIVEN.items()} | {"head.weight": np.ones((2, 2))}
    assert mine.load_state_dict(checkpoint, prefix="encoder.rnn.") == ([], [])
    same(mine.state_dict(), GIVEN)
    same(ours.export(ours.load(checkpoint, prefix="encoder.rnn.")), GIVEN)
    assert list(mine.state_dict(prefix="rnn."))[0] == "rnn.weight_ih_l0"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: torch.nn.LSTM(3, 2), "an LSTM's"),
        (lambda: torch.nn.RNN(3, 2), "a plain RNN's"),
        (lambda: torch.nn.Linear(3, 2), "no weights of a GRU; got weight, bias"),
        (lambda: torch.nn.ModuleDict({"a": torch.nn.GRU(3, 2)}), "pass prefix='a.'"),
        (lambda: GIVEN | {"extra": np.zeros(2)}, "unexpected extra"),
        (lambda: {k: v for k, v in GIVEN.items() if k != "weight_hh_l1"}, "missing weight_hh_l1"),
        (lambda: GIVEN | {"bias_ih_l0": GIVEN["bias_ih_l0"].astype(np.float16)}, "one dtype; got float16 and float32"),
        (dict, "no weights of a GRU; got nothing"),
        (lambda: {"weight_hh_l0_g": 0, "weight_hh_l0_v": 0}, "stored in the parts .*; take the weight norm off"),
        (lambda: {"parametrizations.weight_hh_l0.original0": 0}, "stored in the parts of a parametrization"),
    ],
)
def test_what_is_no_gru_is_not_loaded(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        ours.load(given())
    assert "\n" not in str(caught.value)


def test_wrong_kinds():
    with pytest.raises(TypeError, match=r"read the file first: gj.interop.torch.read\(path\)"):
        ours.GRU(3, 2).load_state_dict("weights.pt")
    with pytest.raises(TypeError, match="num_layers follows from what is loaded"):
        ours.load(GIVEN, num_layers=2)
    with pytest.raises(ValueError, match="grads have no weight_ih_l0"):
        ours.GRU(3, 2).state_dict({})
    with pytest.raises(TypeError, match="while JAX traces"):
        nnx.jit(lambda rnn: rnn.state_dict() and 1)(ours.GRU(3, 2))


def test_a_layer_number_made_to_exhaust():
    """A file that speaks of layer 99999999 is told what it lacks at once; numbers of any length are no layer."""
    weights = ours.GRU(3, 4).state_dict()
    for number in ("99999999", "9" * 5000):
        with pytest.raises(ValueError, match="unexpected weight_ih_l9"):
            ours.load({**weights, f"weight_ih_l{number}": weights["weight_ih_l0"]})


@pytest.mark.parametrize("prefix", [3, None, b"rnn."])
def test_a_prefix_that_is_no_text(prefix):
    rnn = ours.GRU(3, 4)
    for call in (rnn.load_state_dict, ours.load):
        with pytest.raises(TypeError, match="prefix must be text"):
            call(rnn.state_dict(), prefix=prefix)


def test_what_scripts_ask_of_parameters():
    theirs, mine = torch.nn.GRU(3, 4, 2, bidirectional=True), ours.GRU(3, 4, 2, bidirectional=True)
    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert [p.dim() for p in mine.parameters()] == [p.dim() for p in theirs.parameters()]
    assert all(isinstance(p, nnx.Param) for p in mine.parameters())
    assert mine.half().dtype == jnp.float16 and mine.bfloat16().dtype == jnp.bfloat16
    assert mine.float() is mine and mine.dtype == jnp.float32
    with pytest.raises(TypeError, match="jax_enable_x64"):
        mine.double()


def test_a_layer_that_reads_backwards_is_refused():
    with pytest.raises(ValueError, match="reads backwards .* would be lost"):
        ours.export(gj.nnx.GRU(3, 4, reverse=True, rngs=nnx.Rngs(0)))
    pair = gj.linen.GRU(4, reverse=True)
    with pytest.raises(ValueError, match="reads backwards .* would be lost"):
        ours.export((pair, pair.init(jax.random.key(0), jnp.ones((1, 2, 3)))))
