"""The GRU and the GRUCell beside torch's own: outputs, states, gradients, over all options."""

import itertools
import pickle
from copy import deepcopy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.interop import torch as ours

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
rnn_utils = torch.nn.utils.rnn

B = 3
CALLS = ("time first", "batch first", "one sequence", "packed")
CASES = [
    # A third layer is compiled to what the second is: one of its cases stands for all; each call with one layer or two.
    pytest.param(
        seed, *case, marks=() if seed == 16 or (case[0] < 3 and seed % 2 == case[0] % 2) else pytest.mark.slow
    )
    for seed, case in enumerate(itertools.product((1, 2, 3), (False, True), CALLS))
]


def numpy(tensors):
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def close(mine, theirs, bound=2e-6):
    theirs = np.asarray(theirs.detach() if hasattr(theirs, "detach") else theirs)
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(np.asarray(mine), theirs, rtol=0, atol=bound)


def close_grads(mine, theirs):
    close(mine, theirs, 2e-5 * max(1.0, np.abs(np.asarray(theirs)).max()))


def weigh(array, xp):
    """A scalar in which every element counts in its own way."""
    waves = np.cos(np.arange(np.prod(array.shape), dtype=np.float32)).reshape(tuple(array.shape))
    return (array * (torch.tensor(waves) if xp is torch else jnp.asarray(waves))).sum()


def pair(*sizes, seed=0, **options):
    """torch's module and ours with its weights."""
    torch.manual_seed(seed)
    theirs = torch.nn.GRU(*sizes, **options)
    mine = ours.GRU(*sizes, **options)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


@pytest.mark.parametrize(("seed", "layers", "both", "call"), CASES)
def test_outputs_states_and_gradients(seed, layers, both, call):
    rng = np.random.default_rng(seed)
    # Most draws have layers of the same shapes, which saves compilations; every third one may have any.
    features, hidden, steps, bias, starts = 4, 2 if both else 4, 5, True, True
    if seed % 3 == 2:
        features, hidden, steps = 3, int(rng.choice([1, 4])), int(rng.choice([1, 5]))
        bias, starts = bool(rng.integers(2)), bool(rng.integers(2))
    options = {"bias": bias, "bidirectional": both, "batch_first": call == "batch first"}
    theirs, mine = pair(features, hidden, layers, seed=seed, **options)

    batch = () if call == "one sequence" else (B,)
    shape = (B, steps, features) if call == "batch first" else (steps, *batch, features)
    x = rng.normal(size=shape).astype(np.float32)
    lengths = rng.integers(1, steps + 1, size=B)
    h0 = rng.normal(size=(layers * (1 + both), *batch, hidden)).astype(np.float32) if starts else None

    def run(module, lib, x, h0):
        if call != "packed":
            return module(x, h0)
        pack = lib.pack_padded_sequence(x, lengths.tolist(), enforce_sorted=False)
        output, h_n = module(pack, h0)
        assert type(output) is type(pack)
        return lib.pad_packed_sequence(output, total_length=steps)[0], h_n

    def loss(module, x, h0):
        output, h_n = run(module, ours, x, h0)
        return weigh(output, jnp) + weigh(h_n, jnp), (output, h_n)

    arguments = (0, 1) if h0 is None else (0, 1, 2)
    differentiated = nnx.jit(nnx.grad(loss, argnums=arguments, has_aux=True))
    grads, (output, h_n) = differentiated(mine, jnp.asarray(x), None if h0 is None else jnp.asarray(h0))

    x_t = torch.tensor(x, requires_grad=True)
    h_t = None if h0 is None else torch.tensor(h0, requires_grad=True)
    output_t, h_n_t = run(theirs, rnn_utils, x_t, h_t)
    (weigh(output_t, torch) + weigh(h_n_t, torch)).backward()

    close(output, output_t)
    close(h_n, h_n_t)
    named = mine.state_dict(grads[0])
    assert list(named) == list(theirs.state_dict())
    for name, parameter in theirs.named_parameters():
        close_grads(named[name], parameter.grad)
    close_grads(grads[1], x_t.grad)
    if h0 is not None:
        close_grads(grads[2], h_t.grad)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(B,), ()])
def test_the_cell(bias, batch):
    theirs = torch.nn.GRUCell(4, 2, bias=bias)
    mine = ours.GRUCell(4, 2, bias=bias)
    assert mine.load_state_dict(theirs.state_dict()) == ([], [])
    rng = np.random.default_rng(0)
    x, h = (rng.normal(size=(*batch, size)).astype(np.float32) for size in (4, 2))
    x_t, h_t = (torch.tensor(a, requires_grad=True) for a in (x, h))
    differentiated = nnx.grad(lambda cell, x, h: weigh(cell(x, hx=h), jnp), argnums=(0, 1, 2))
    grads = differentiated(mine, jnp.asarray(x), jnp.asarray(h))
    weigh(theirs(x_t, h_t), torch).backward()
    close(mine(x, h), theirs(x_t, h_t))
    close(mine(x), theirs(x_t))
    for name, parameter in theirs.named_parameters():
        close_grads(mine.state_dict(grads[0])[name], parameter.grad)
    close_grads(grads[1], x_t.grad)
    close_grads(grads[2], h_t.grad)
    assert (mine.bias_ih is None) == (theirs.bias_ih is None)


def test_torchs_examples_with_another_import():
    """The examples of torch's documentation of nn.GRU and nn.GRUCell, word for word but for the import."""
    nn = ours

    rnn = nn.GRU(10, 20, 2)
    input = torch.randn(5, 3, 10)
    h0 = torch.randn(2, 3, 20)
    output, hn = rnn(input, h0)
    assert output.shape == (5, 3, 20)
    assert hn.shape == (2, 3, 20)

    rnn = nn.GRUCell(10, 20)
    input = torch.randn(6, 3, 10)
    hx = torch.randn(3, 20)
    output = []
    for i in range(6):
        hx = rnn(input[i], hx)
        output.append(hx)
    assert output[-1].shape == (3, 20)


@pytest.mark.slow
def test_every_method_gives_the_same():
    theirs, _ = pair(4, 2, 2, bidirectional=True)
    x = np.random.default_rng(0).normal(size=(5, B, 4)).astype(np.float32)
    expected = theirs(torch.tensor(x))
    methods = ("sequential", "newton", gj.Newton("diagonal"))
    for method in methods:
        mine = ours.GRU(4, 2, 2, bidirectional=True, method=method)
        mine.load_state_dict(theirs.state_dict())
        for got, right in zip(mine(x), expected, strict=True):
            close(got, right)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    torch.manual_seed(0)
    theirs = torch.nn.GRU(4, 2, dtype=getattr(torch, dtype))
    mine = ours.GRU(4, 2, dtype=getattr(torch, dtype))
    mine.load_state_dict(theirs.state_dict())
    assert mine.weight_ih_l0.dtype == dtype
    x = torch.randn(5, B, 4, dtype=getattr(torch, dtype))
    output, h_n = mine(x)
    assert output.dtype == h_n.dtype == dtype
    bound = 2e-2 if dtype == "bfloat16" else 2e-3
    close(output.astype(jnp.float32), theirs(x)[0].float(), bound)


def test_double_precision(x64):
    theirs, mine = pair(4, 2, dtype=torch.float64)
    x = np.random.default_rng(0).normal(size=(5, B, 4))
    close(mine(x)[0], theirs(torch.tensor(x))[0], 1e-15)


def test_parameters_begin_as_torchs():
    """All from U(-1/sqrt(H), 1/sqrt(H)): the bounds are kept and reached, mean and spread are right."""
    mine = ours.GRU(30, 64, 2, bidirectional=True, rngs=nnx.Rngs(0))
    theirs = torch.nn.GRU(30, 64, 2, bidirectional=True)
    shapes = {name: tuple(parameter.shape) for name, parameter in theirs.named_parameters()}
    assert {name: parameter.shape for name, parameter in mine.named_parameters()} == shapes
    for name, array in mine.state_dict().items():
        assert np.abs(array).max() <= 1 / 8, name
        assert np.abs(array).max() > 0.98 / 8, name
        assert abs(array.mean()) < 4 * (1 / 8 / 3**0.5) / array.size**0.5, name
        np.testing.assert_allclose(array.std(), 1 / 8 / 3**0.5, rtol=0.1, err_msg=name)
    before = mine.state_dict()
    mine.reset_parameters()
    assert all((array != before[name]).any() for name, array in mine.state_dict().items())


def test_the_stream_of_the_process():
    ours.manual_seed(3)
    first, second = ours.GRU(2, 3), ours.GRU(2, 3)
    ours.manual_seed(3)
    again = ours.GRU(2, 3)
    ours.manual_seed(2**63 + 1)
    other = ours.GRU(2, 3)
    weights = [np.asarray(module.weight_hh_l0[...]) for module in (first, again, second, other)]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).all()
    assert (weights[0] != weights[3]).all()
    given = [ours.GRU(2, 3, rngs=nnx.Rngs(seed)).weight_hh_l0[...] for seed in (0, 0, 1)]
    assert (given[0] == given[1]).all()
    assert (given[0] != given[2]).all()


def test_dropout_acts_between_layers_in_training_mode_at_every_step():
    """The second layer is made to pass its input's sign on, so that what was dropped can be counted."""
    rnn = ours.GRU(1, 1, 2, bias=False, dropout=0.25, rngs=nnx.Rngs(0))
    weights = {name: np.zeros_like(array) for name, array in rnn.state_dict().items()}
    weights["weight_ih_l0"][2] = 1.0  # n = tanh(x), z = 1/2, so that layer 0 gives h = n/2 + h/2 > 0
    weights["weight_ih_l1"][:] = [[0], [-50], [50]]  # z = 0 and n = 1 where the input is above 0; both 1/2 or 0 at 0
    rnn.load_state_dict(weights)
    x = jnp.ones((50, 200, 1))
    output, _ = rnn(x)
    kept = np.asarray(output[1:] > 0.99)
    assert abs(kept.mean() - 0.75) < 0.01
    assert abs((kept[1:] & kept[:-1]).mean() - 0.75**2) < 0.015, "steps are dropped by themselves"
    assert (rnn(x)[0] != output).any(), "each call draws anew"

    assert rnn.training
    assert rnn.eval() is rnn
    assert not rnn.training
    assert (rnn(x)[0] > 0.99).all()
    assert rnn.train().training
    assert not rnn.train(False).training
    rnn.train()

    class Around(nnx.Module):
        def __init__(self):
            self.rnn = rnn

    model = Around()
    model.eval()
    assert not rnn.training
    model.train()
    assert rnn.training


def test_dropout_scales_what_it_keeps():
    theirs, mine = pair(4, 2, 2, dropout=0.5)
    x = np.random.default_rng(0).normal(size=(1, 4000, 4)).astype(np.float32) * 3
    outputs, h_n = mine(x)
    torch.manual_seed(0)
    outputs_t, h_n_t = theirs(torch.tensor(x))
    close(h_n[0], h_n_t[0])
    np.testing.assert_allclose(np.asarray(outputs).mean((0, 1)), outputs_t.detach().mean((0, 1)), atol=0.01)
    np.testing.assert_allclose(np.asarray(outputs).std((0, 1)), outputs_t.detach().std((0, 1)), rtol=0.03)
    mine.eval()
    theirs.eval()
    close(mine(x)[0], theirs(torch.tensor(x))[0])


@pytest.mark.slow
def test_transformations_and_training():
    """jit, vmap, split and merge; an Optimizer lowers a loss; gradients have torch's names."""
    rnn = ours.GRU(4, 2, 2, dropout=0.2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (5, B, 4))
    rnn.eval()
    plain, h_n = rnn(x)
    close(nnx.jit(lambda m, x: m(x))(rnn, x)[0], plain)
    close(jax.vmap(lambda one: rnn(one)[0], 1, 1)(x), plain)
    graph, state = nnx.split(rnn)
    close(jax.jit(lambda state, x: nnx.merge(graph, state)(x)[1])(state, x), h_n)

    packed = ours.pack_padded_sequence(x, [3, 1, 5], enforce_sorted=False)
    close(nnx.jit(lambda m, packed: m(packed))(rnn, packed)[0].data, rnn(packed)[0].data)

    rnn.train()
    optimizer = nnx.Optimizer(rnn, optax.adam(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(rnn, optimizer):
        loss, grads = nnx.value_and_grad(lambda rnn: jnp.mean((rnn(x)[0] - 0.5) ** 2))(rnn)
        optimizer.update(rnn, grads)
        return loss, grads

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        steps = [step(rnn, optimizer) for _ in range(40)]
    assert steps[-1][0] < steps[0][0] / 2
    assert set(steps[-1][1]) == set(rnn.state_dict())


def test_copies_and_pickles():
    rnn = ours.GRU(4, 2, 2, dropout=0.2, bidirectional=True, method=gj.Sequential(unroll=2))
    x = np.ones((5, B, 4), np.float32)
    for copy in (deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        assert repr(copy) == repr(rnn)
        assert (copy.eval()(x)[0] == deepcopy(rnn).eval()(x)[0]).all()
        assert (copy.train()(x)[0] == deepcopy(rnn)(x)[0]).all(), "the dropout stream comes along"
        copy.load_state_dict({name: array * 2 for name, array in rnn.state_dict().items()})
        assert (copy.weight_ih_l0[...] != rnn.weight_ih_l0[...]).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bias": False, "dropout": 0.5, "bidirectional": True, "batch_first": True}],
)
def test_attributes_and_names_as_torchs(options):
    theirs, mine = torch.nn.GRU(3, 4, **options), ours.GRU(3, 4, **options)
    assert repr(mine) == str(mine) == repr(theirs)
    for name in ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert [name for name, _ in mine.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in mine.named_parameters("rnn")] == [name for name, _ in theirs.named_parameters("rnn")]
    shapes = [[[p.shape for p in row] for row in module.all_weights] for module in (mine, theirs)]
    assert shapes[0] == shapes[1]
    assert [p.shape for p in mine.parameters()] == [p.shape for p in theirs.parameters()]
    assert mine.flatten_parameters() is None
    assert mine.cpu() is mine
    assert repr(ours.GRUCell(3, 4, bias=False)) == repr(torch.nn.GRUCell(3, 4, bias=False))


def test_conversion_of_the_module():
    rnn = ours.GRU(4, 2)
    assert rnn.to(torch.float16) is rnn
    assert rnn.dtype == jnp.float16
    assert rnn(jnp.ones((5, B, 4), jnp.float16))[0].dtype == jnp.float16
    with pytest.raises(ValueError, match="device must be None; got 'cuda'.*jax.device_put"):
        rnn.to("cuda")


@pytest.mark.parametrize("both", [False, True])
def test_the_same_layer_in_our_own_terms(both):
    rnn = ours.GRU(4, 2, 2, dropout=0.5, bidirectional=both, batch_first=True)
    layer = rnn.to_layer()
    assert isinstance(layer, gj.nnx.GRU)
    x = jax.random.normal(jax.random.key(0), (B, 5, 4))
    layer(x)  # dropout is on
    layer.eval()
    y, h_n = layer(x)
    output, rows = rnn.eval()(x)
    assert (y == output).all()
    assert (jnp.stack(jax.tree.leaves(h_n)) == rows).all()
    cell = ours.GRUCell(4, 2)
    close(cell.to_layer()(x[:, :1])[0][:, 0], cell(x[:, 0]))
    for front in (ours.GRU(4, 2, dtype="bfloat16", bidirectional=both), ours.GRUCell(4, 2, dtype="bfloat16")):
        y, h_n = front.to_layer(state_dtype=jnp.float32)(x.astype(jnp.bfloat16))
        assert y.dtype == jnp.bfloat16 and {h.dtype for h in jax.tree.leaves(h_n)} == {jnp.dtype("float32")}
