"""Resets begin a new episode: nothing of one reaches another, in whatever way a network is run."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.models.blocks import BlockState
from gru_jax.scans.episodes import other_way

from .cases import table, weigh

B, T, I, H = 2, 8, 3, 4
X = jax.random.normal(jax.random.key(0), (B, T, I))
FIRST = jnp.zeros((B, T), bool).at[0, 5].set(True).at[1, 2].set(True).at[1, 4].set(True)
CARRY = jnp.full((B, H), 0.5)


def close(a, b, bound=1e-6):
    np.testing.assert_allclose(a, b, atol=bound, rtol=0)


class OnesGRU(gj.GRU):
    """A GRU that starts from ones."""

    def initial_state(self, batch, dtype=jnp.float32):
        return jnp.ones((*batch, self.hidden_size), dtype)


class OnesMinGRU(gj.MinGRU):
    """A minGRU that starts from ones."""

    def initial_state(self, batch, dtype=jnp.float32):
        return jnp.ones((*batch, self.hidden_size), dtype)


STARTS = {
    "GRU": (OnesGRU(H, init="torch"), "sequential", True),
    "checkpoints": (OnesGRU(H, init="torch"), gj.Sequential(checkpoint_every=3), False),
    "windows": (OnesGRU(H, init="torch"), gj.Newton("diagonal", window=3), True),
    "fallback": (OnesGRU(H, init="torch"), gj.Newton(max_iters=1), False),
    "linear": (OnesMinGRU(H), "associative", False),
    "logarithms": (OnesMinGRU(H, form="log"), gj.Associative("chunked"), True),
    "two states": (gj.models.LSTM(H), "sequential", True),
}


def acting(cell, params, carry, to):
    """The loop of an agent, with the derivative that JAX gives it."""
    to = cell.initial_state((B,), X.dtype) if to is None else to

    def step(h, now):
        x, first = now
        h = jax.tree.map(lambda to, h: jnp.where(jnp.broadcast_to(first[:, None], h.shape), to, h), to, h)
        h = cell.step(params, cell.project(params, x), h)
        return h, cell.output(h)

    h, y = jax.lax.scan(step, carry, (jnp.swapaxes(X, 0, 1), FIRST.T))
    return jnp.swapaxes(y, 0, 1), h


@cache
def trained(cell, given, method):
    """Outputs, final state and gradients, from a carry and to the cell's start or a state that can be trained."""
    params = cell.init(jax.random.key(1), I)
    carry = jax.tree.map(lambda a: a + 0.5, cell.initial_state((B,), X.dtype))
    to = jax.tree.map(lambda a: a + 0.25, carry) if given else None

    def loss(params, carry, to):
        if method is None:
            made = acting(cell, params, carry, to)
        else:
            made = gj.scan(cell, params, X, carry, resets=FIRST, reset_to=to, method=method)
        return weigh(made), made

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2) if given else (0, 1), has_aux=True))(params, carry, to)


QUICK = ("GRU", "windows", "logarithms", "two states")


@pytest.mark.parametrize("name", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in STARTS])
def test_a_reset_goes_to_the_cell_s_start_or_a_state_of_the_caller_s(name):
    cell, method, given = STARTS[name]
    (_, ours), gradients = trained(cell, given, method)
    (_, expected), exact = trained(cell, given, None)
    jax.tree.map(close, ours, expected)
    jax.tree.map(lambda a, b: close(a, b, 1e-5), gradients, exact)
    if given:
        assert all((jnp.abs(leaf).max(-1) > 1e-3).all() for leaf in jax.tree.leaves(gradients[2]))


def test_chunks_replayed_from_their_carries_are_the_rollout():
    """A policy acts step by step, chunks of it are replayed from the carry at their start, a layer keeps its own."""
    layer = gj.nnx.GRU(I, H, num_layers=2, rngs=nnx.Rngs(0))
    linen = gj.linen.GRU(H, num_layers=2)
    variables = {"params": layer.spec.to_names(layer.functional()[1])}
    keeps = gj.nnx.GRU(I, H, num_layers=2, stateful=True, params=layer.functional()[1])
    h, acted, carries = None, [], []
    for t in range(T):
        if t % 4 == 0:
            carries.append(h)
        if t == 5:
            there = linen.apply(variables, X[:, t], h, resets=FIRST[:, t], method="step")[0]
        y, h = layer.step(X[:, t], h, resets=FIRST[:, t])
        acted.append(y)
    close(there, acted[5])
    acted = jnp.stack(acted, 1)
    close(layer(X, resets=FIRST)[0], acted)
    for k, carry in enumerate(carries):
        part = slice(4 * k, 4 * k + 4)
        close(layer(X[:, part], carry, resets=FIRST[:, part])[0], acted[:, part])
        close(keeps(X[:, part], resets=FIRST[:, part])[0], acted[:, part])
    linen = gj.linen.GRU(H, num_layers=2, stateful=True)
    _, carry = linen.apply(variables, X[:, :4], resets=FIRST[:, :4], mutable=["carry"])
    (y, _), _ = linen.apply({**variables, **carry}, X[:, 4:], resets=FIRST[:, 4:], mutable=["carry"])
    close(y, acted[:, 4:])


def test_a_step_goes_to_the_state_that_it_is_given():
    layer = gj.nnx.GRU(I, H, time_major=True, rngs=nnx.Rngs(0))
    learned = CARRY + 0.25
    y, h = layer.step(X[:, 0], CARRY, resets=jnp.array([True, False]), reset_to=learned)
    close(y, layer.step(X[:, 0], jnp.stack([learned[0], CARRY[1]]))[0])
    with pytest.raises(ValueError, match=r"GRU: resets must have shape \[2\]; got \[2, 8\]; one flag for each"):
        layer.step(X[:, 0], CARRY, resets=FIRST)


NETWORKS = {
    "stack": lambda rnn: gj.stack(rnn, rnn, residual=True, norm="layer"),
    "two directions": lambda rnn: gj.stack(gj.bidirectional(rnn), gj.bidirectional(rnn, merge="sum")),
}


@pytest.mark.parametrize(
    "network, reverse", table(NETWORKS, (False, True), quick=lambda network, reverse: network != "stack" or not reverse)
)
def test_no_gradient_crosses_a_boundary(network, reverse):
    net = NETWORKS[network](gj.recurrent(gj.GRU(H, init="torch")))
    params = net.init(jax.random.key(0), I)
    flags = FIRST[:, ::-1] if reverse else FIRST
    # The steps of the first sequence that are one episode with its step 0.
    here = slice(0, 3) if reverse else slice(0, 5)
    inside = jnp.zeros(T, bool).at[here].set(True)

    @jax.jit
    @jax.grad
    def gradient(x, these):
        y = net.apply(params, x, resets=flags, reverse=reverse)[0][0]
        return weigh(jnp.where(these[:, None], y, 0))

    for these in (inside, ~inside):
        size = jnp.abs(gradient(X, these)[0]).max(-1)
        assert (size[~these] == 0).all() and (size[these] > 0).all()


def test_two_directions_see_the_same_episodes():
    """With holes, time leading and against time, from the states after a reset."""
    net = gj.bidirectional(gj.recurrent(gj.GRU(H, init="torch")))
    params, to = net.init(jax.random.key(0), I), (CARRY, CARRY + 0.25)
    x, first = X[0], FIRST[0]
    hole = jnp.ones(T, bool).at[jnp.array([1, 4])].set(False)
    given = {"resets": first, "reset_to": jax.tree.map(lambda a: a[0], to)}
    y, _ = net.apply(params, x, mask=hole, **given)
    start, end = x[jnp.array([0, 2, 3])], x[5:]
    parts = [net.apply(params, start)[0], net.apply(params, end)[0]]
    # A new episode begins from reset_to: forward the second, backward the first.
    for part, one, direction in ((end, 1, 0), (start, 0, 1)):
        half = slice(H * direction, H * direction + H)
        alone = gj.scan(gj.GRU(H), params[direction], part, given["reset_to"][direction], reverse=direction == 1)[0]
        parts[one] = parts[one].at[:, half].set(alone)
    close(y[hole], jnp.concatenate(parts))
    close(net.apply(params, x, mask=hole, time_major=True, **given)[0], y)
    mirrored = net.apply(params, x[::-1], mask=hole[::-1], reverse=True, **{**given, "resets": first[::-1]})[0]
    close(mirrored[::-1], y)


def test_where_episodes_begin_from_the_other_end():
    flags = lambda text: jnp.array([[c == "1" for c in row] for row in text.split()])  # noqa: E731
    first, mask = flags("0010010 1100001"), flags("1010111 1111110")
    turned = lambda **options: other_way({"resets": first, **options}, False)["resets"].astype(int).tolist()  # noqa: E731
    assert turned() == [[0, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1, 0]]
    # Of the steps that count the one before the flag; a flag at a masked step is none.
    assert turned(mask=mask)[0] == [1, 1, 0, 0, 1, 0, 0] and turned(mask=mask)[1][:6] == [1, 0, 0, 0, 0, 0]
    assert turned(lengths=jnp.array([5, 7])) == [[0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1, 0]]
    again = other_way({"resets": first.T[::-1], "time_major": True, "lengths": jnp.array([5, 7])}, True)
    assert again["resets"].shape == (7, 2)


def test_models_take_resets_and_the_state_after_them():
    net = gj.stack(gj.recurrent(gj.GRU(H)), gj.models.min_block(H, conv=None))
    to = (CARRY, BlockState(None, jnp.full((B, 6), 0.25)))
    first = jnp.zeros((B, T), bool).at[:, 3].set(True)
    tagger = gj.models.readout(net, I, 2, steps="all")
    params = tagger.init(jax.random.key(0))
    after = tagger.apply(params, X[:, 3:], to)
    close(tagger.apply(params, X, resets=first, reset_to=to)[:, 3:], after)
    tokens = jnp.argmax(jax.random.normal(jax.random.key(2), (B, T, 5)), -1)
    model = gj.models.sequence_model(net, 5)
    params = model.init(jax.random.key(0))
    close(model.apply(params, tokens, resets=first, reset_to=to)[:, 3:], model.apply(params, tokens[:, 3:], to))
    module = gj.models.GRUReadout(I, H, 2, rngs=nnx.Rngs(0))
    close(module(X, CARRY, resets=first), module(X[:, 3:]))


LOG = gj.MinGRU(H, form="log")
WRONG = {
    "without resets": (gj.GRU(H), {"resets": None}, "scan: reset_to is the state after resets; got it without resets"),
    "shape": (gj.GRU(H), {"reset_to": CARRY[0]}, r"scan: reset_to must have shape \[2, 4\]; got \[4\]; .*broadcast"),
    "sign": (LOG, {"reset_to": -CARRY}, "states are 0 at least; got reset_to with -0.5 in it"),
    "tree": (gj.models.LSTM(H), {}, "scan: reset_to must be .*LSTMState"),
    "dtype": (gj.GRU(H), {"reset_to": CARRY.astype(jnp.bfloat16)}, "scan: x is float32 but reset_to is bfloat16"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_state_is_refused(name):
    cell, options, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message):
        gj.scan(cell, cell.init(jax.random.key(0), I), X, **{"resets": FIRST, "reset_to": CARRY, **options})
