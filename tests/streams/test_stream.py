"""Streams: one step a call gives the numbers of the whole sequence."""

import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.scans.engines.llvm import host

from ..scans.cases import table

SLOW = pytest.mark.slow
I, T = 5, 12
RNG = np.random.default_rng(0)
TOLERANCE = 2e-6
"""XLA adds products up in another order."""


def gru(units, layers=1, **options):
    """A layer, and the same by XLA's loop over the naive step."""
    made = gj.nnx.GRU(I, units, num_layers=layers, init="torch", rngs=nnx.Rngs(1), **options)
    made.eval()
    return made


def whole(net, params, x, h0=None):
    """The states and outputs of all steps, by the naive step in XLA's loop."""
    return net.apply(params, x, h0, deterministic=True)


def naive(cell):
    method = gj.Associative() if hasattr(cell, "affine") else gj.Sequential(kernel="scan")
    return gj.recurrent(cell, method=method)


def drawn(net, seed=0):
    """Parameters of which none is 0, for fresh biases are, which hide faults; matrices no net is chaotic with."""
    params = net.init(jax.random.key(seed), I)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    draw = lambda key, shape: jax.random.normal(key, shape) / (shape[-2] ** 0.5 if len(shape) > 1 else 2)  # noqa: E731
    return jax.tree.unflatten(tree, [draw(k, a.shape) for k, a in zip(keys, leaves, strict=True)])


def frames(batch, steps=T):
    return RNG.normal(size=(*batch, steps, I)).astype(np.float32)


def streamed(stream, x):
    return np.stack([stream(x[..., t, :]) for t in range(x.shape[-2])], axis=-2)


def nested(cell):
    inner = gj.stack(naive(cell), naive(cell), residual=True, norm="rms")
    return gj.stack(naive(cell), inner, naive(cell), residual=True)


# A norm of one or two features divides by what may be almost 0.
NETS = {
    "one": lambda n: naive(gj.GRU(n)),
    "minimal bias": lambda n: naive(gj.GRU(n, bias="minimal")),
    "no bias": lambda n: naive(gj.GRU(n, bias="none")),
    "heads": lambda n: naive(gj.GRU(n, heads=n)),
    "two, layer norm": lambda n: gj.stack(naive(gj.GRU(n + 4)), naive(gj.GRU(n + 5)), norm="layer"),
    "three, rms, sums": lambda n: gj.stack(*[naive(gj.GRU(n + 4))] * 3, norm="rms", residual=True, dropout=0.5),
    "reset before": lambda n: naive(gj.GRU(n, reset="before")),
    "reset before, heads, minimal bias": lambda n: naive(gj.GRU(n, reset="before", heads=n, bias="minimal")),
    "relu, hard_sigmoid": lambda n: naive(gj.GRU(n, activation="relu", gate_activation="hard_sigmoid")),
    "MGU": lambda n: naive(gj.MGU(n)),
    "MGU without its reset": lambda n: naive(gj.MGU(n, reset_gate=False)),
    "LSTM, tanh RNN": lambda n: gj.stack(naive(gj.models.LSTM(n)), naive(gj.models.TanhRNN(n)), residual=True),
    "minGRU": lambda n: naive(gj.MinGRU(n)),
    "minLSTM, log": lambda n: naive(gj.MinLSTM(n, form="log")),
    "minGRU, no bias, above a GRU": lambda n: gj.stack(naive(gj.GRU(n)), naive(gj.MinGRU(n, form="log", bias=False))),
    "nested": lambda n: nested(gj.GRU(n + 4)),
}
QUICK = {("minimal bias", 17, (1,)), ("nested", 17, (1,)), ("heads", 17, ()), ("reset before", 17, (3,)),
         ("LSTM, tanh RNN", 17, (1,)), ("minLSTM, log", 17, (3,))}  # fmt: skip


@pytest.mark.parametrize(
    "name, units, batch",
    table(NETS, (1, 17, 241), ((), (1,), (3,), (2, 8)), quick=lambda *row: row in QUICK),
)
def test_the_numbers_of_the_whole_sequence(name, units, batch):
    net = NETS[name](units)
    params, x = drawn(net), frames(batch)
    stream = gj.Stream(net, params)
    y, h = whole(net, params, x)
    assert stream.engine == "llvm" and stream.reason is None
    # A norm divides small numbers, and their errors, by their size.
    bound = TOLERANCE * max(1, np.abs(y).max())
    np.testing.assert_allclose(streamed(stream, x), y, rtol=0, atol=bound)
    assert jax.tree.structure(stream.state) == jax.tree.structure(h)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE), stream.state, h)


@pytest.mark.parametrize("units, batch", [(40, (2,)), pytest.param(241, (3,), marks=SLOW)])
def test_the_very_numbers_of_machine_code_over_all_steps(units, batch):
    layer, x = gru(units, 2, method=gj.Sequential(kernel="llvm", cores=1)), frames(batch)
    np.testing.assert_array_equal(streamed(gj.Stream(layer), x), layer(x)[0])


@pytest.mark.parametrize("lanes", [4, *(pytest.param(n, marks=SLOW) for n in (8, 16))])
@pytest.mark.parametrize("rows", [5, pytest.param(1, marks=SLOW)])
def test_whatever_the_vectors(monkeypatch, lanes, rows):
    monkeypatch.setattr(host, "host", lambda: host.Host(lanes, 16))
    net = NETS["two, layer norm"](3 * lanes + 1)
    params, x = drawn(net), frames((rows,))
    np.testing.assert_allclose(streamed(gj.Stream(net, params), x), whole(net, params, x)[0], rtol=0, atol=3e-6)


def test_states_are_kept_set_and_begun_anew(engine):
    layer, x = gru(6, 2), frames((3,))
    start = (jnp.full(6, 0.5), nnx.Param(jnp.full(6, -0.5)))
    stream = gj.Stream(layer, h0=start)
    assert stream.engine == engine and (stream.reason is None) == (engine == "llvm") and engine in repr(stream)
    assert stream.state is None
    y = layer(x, start)[0]
    np.testing.assert_allclose(streamed(stream, x), y, rtol=0, atol=TOLERANCE)

    kept, again = stream.state, gj.Stream(layer, batch=3)
    again.state = kept
    np.testing.assert_array_equal(again(x[:, 0]), stream(x[:, 0]))

    first = np.array([True, False, True])
    stream.reset(first)
    after = stream(x[:, 0])
    np.testing.assert_allclose(after[first], y[first, 0], rtol=0, atol=TOLERANCE)
    assert np.abs(after[1] - y[1, 0]).max() > 1e-3

    stream.reset()
    np.testing.assert_allclose(stream(x[:, 0]), y[:, 0], rtol=0, atol=TOLERANCE)
    stream.reset()
    np.testing.assert_allclose(stream(x[:1, 0]), y[:1, 0], rtol=0, atol=TOLERANCE)  # another batch


def test_streams_know_nothing_of_each_other():
    layer, x = gru(6), frames((1,), 40)
    y = np.asarray(layer(x)[0])
    streams = [gj.Stream(layer) for _ in range(4)]
    found = [None] * 4

    def run(k):
        found[k] = streamed(streams[k], x)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        np.testing.assert_allclose(each, y, rtol=0, atol=TOLERANCE)


def test_outputs_are_arrays_of_their_own():
    stream, x = gj.Stream(gru(6)), frames((2,))
    y = stream(x[:, 0])
    had = y.copy()
    y[...] = 7
    state = stream.state
    state[...] = 7
    stream(x[:, 1])
    assert not (stream.state == 7).any() and not (had == 7).any()


def test_parameters_are_copied_and_updated(engine):
    layer, x = gru(6), frames((2,))
    stream, before = gj.Stream(layer), np.asarray(layer(x)[0])
    layer.layer_0["w_h"].set_value(2 * layer.layer_0["w_h"].get_value())
    np.testing.assert_allclose(stream(x[:, 0]), before[:, 0], rtol=0, atol=TOLERANCE)
    after, h = np.asarray(layer(x[:, 1:], stream.state)[0]), stream.state
    stream.update(layer)
    np.testing.assert_array_equal(stream.state, h)
    np.testing.assert_allclose(stream(x[:, 1]), after[:, 0], rtol=0, atol=TOLERANCE)
    params = jax.tree.map(lambda a: a / 2, layer.functional()[1])
    stream.update(params)
    other = gj.Stream(layer, params, batch=2)
    other.state = stream.state
    np.testing.assert_array_equal(other(x[:, 2]), stream(x[:, 2]))
    with pytest.raises(ValueError, match="make a new Stream"):
        stream.update(gru(7))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda x: np.asfortranarray(x[:, 0]), id="columns first"),
        pytest.param(lambda x: np.repeat(x[:, 0], 2, axis=1)[:, ::2], id="every other"),
        pytest.param(lambda x: x[:, 0][::-1][::-1], id="a view of a view"),
        pytest.param(lambda x: jnp.asarray(x[:, 0]), id="JAX's"),
    ],
)
def test_however_x_lies(make):
    x, stream = frames((3,)), gj.Stream(gru(6))
    y = stream(x[:, 0])
    stream.reset()
    np.testing.assert_array_equal(stream(make(x)), y)


@pytest.mark.parametrize("dtype", [None, pytest.param("bfloat16", marks=SLOW)])
def test_other_holders_of_a_gru(dtype):
    x = frames((2,)).astype(dtype or np.float32)
    linen, cell = gj.linen.GRU(6, dtype=dtype), gj.nnx.GRUCell(I, 6, dtype=dtype, rngs=nnx.Rngs(0))
    variables = linen.init(jax.random.key(0), x)
    stream = gj.Stream(linen, variables)
    y = streamed(stream, x)
    np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (y, linen.apply(variables, x)[0])), atol=TOLERANCE)
    stream.update(jax.tree.map(lambda a: a + 1, variables))
    stream.reset()
    assert np.abs(stream(x[:, 0]) - y[:, 0]).max() > 1e-3

    stream = gj.Stream(cell)
    h = cell(cell.initialize_carry(x[:, 0].shape), x[:, 0])[0]
    np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (stream(x[:, 0]), h)), atol=TOLERANCE)


@pytest.mark.parametrize(
    "activation, outputs",
    [
        ("softmax", 3),
        *(pytest.param(*row, marks=SLOW) for row in itertools.product(("linear", "sigmoid", "softmax"), (1, 40))),
    ],
)
def test_output_layers(activation, outputs, engine):
    net = gj.stack(naive(gj.GRU(17)), naive(gj.GRU(6)), norm="rms")
    model, x = gj.models.readout(net, I, outputs, steps="all", activation=activation), frames((3,))
    params = jax.tree.map(lambda a: a + 0.1, model.init(jax.random.key(0)))
    stream = gj.Stream(model, params)
    y, h = model.apply(params, x, return_state=True)
    np.testing.assert_allclose(streamed(stream, x), y, rtol=0, atol=TOLERANCE * max(1, np.abs(y).max()))
    assert stream.engine == engine and jax.tree.structure(stream.state) == jax.tree.structure(h)

    last = gj.models.readout(net, I, outputs, activation=activation)
    np.testing.assert_array_equal(streamed(gj.Stream(last, params), x), streamed(gj.Stream(model, params), x))
    with pytest.raises(ValueError, match=r"in a config model.pool: mean\); make and train it .*pool: last"):
        gj.Stream(gj.models.readout(net, I, outputs, steps="mean"), params)


def test_what_gives_no_states_is_no_network():
    net = naive(gj.GRU(6))
    alone = gj.Layer(net.init, lambda *args, **options: net.apply(*args, **options)[0])
    stream = gj.Stream(alone, net.init(jax.random.key(0), I))
    with pytest.raises(TypeError, match="needs a network whose apply gives .y, states.; got Layer"):
        stream(frames((2,))[:, 0])


def test_the_input_size_is_that_of_the_network_and_not_of_a_cell_within():
    block = gj.models.min_block(I + 3)
    params, x = block.init(jax.random.key(0), I), frames((2,))
    stream = gj.Stream(block, params)
    np.testing.assert_allclose(streamed(stream, x), block.apply(params, x)[0], rtol=0, atol=1e-5)


def test_no_sequences():
    stream = gj.Stream(gru(6))
    assert stream(np.zeros((0, I), np.float32)).shape == (0, 6)
    stream.update(gru(6))
    stream.reset()
    assert stream(np.zeros((2, I), np.float32)).shape == (2, 6)


def test_what_llvm_cannot_compile_falls_back(monkeypatch):
    def fail(*args):
        raise host.NoKernel("LLVM cannot")

    monkeypatch.setattr(host, "addresses", fail)
    layer, x = gru(6), frames((2,))
    with pytest.warns(RuntimeWarning, match="LLVM cannot; XLA's step runs in its place"):
        stream = gj.Stream(layer, batch=2)
    assert stream.engine == "xla"
    np.testing.assert_allclose(streamed(stream, x), layer(x)[0], rtol=0, atol=TOLERANCE)
