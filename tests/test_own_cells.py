"""Cells of a user's own, written as the guide and the protocol say, in every combinator, model and method."""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from .scans.cases import table

B, T, I, H = 2, 5, 3, 4
X = jax.random.normal(jax.random.key(0), (B, T, I))
LENGTHS = jnp.array([5, 3])
GUIDE = Path(__file__).parent.parent / "docs" / "guide"


def of_the_guide(page, name):
    """The class as the page has it."""
    code = (GUIDE / page).read_text()
    block = re.search(rf"@dataclasses\.dataclass.*?\nclass {name}:.*?(?=\n\S|\n```)", code, flags=re.DOTALL).group()
    names = {"dataclasses": dataclasses, "jax": jax, "jnp": jnp}
    exec(block, names)
    return names[name]


@dataclasses.dataclass(frozen=True)
class LiGRU:
    """h' = z * h + (1 - z) * relu(x w_n + h u_n), z = sigmoid(x w_z + h u_z): Ravanelli et al. 2018."""

    size: int

    def init(self, key, input_size):
        k_x, k_h = jax.random.split(key)
        return {
            "x": jax.random.normal(k_x, (input_size, 2 * self.size)) / input_size**0.5,
            "h": jax.random.normal(k_h, (self.size, 2 * self.size)) / (2 * self.size) ** 0.5,
        }

    def project(self, params, x):
        return x @ params["x"]

    def step(self, params, u, h):
        z, n = jnp.split(u + h @ params["h"], 2, -1)
        z = jax.nn.sigmoid(z)
        return z * h + (1 - z) * jax.nn.relu(n)

    def initial_state(self, batch, dtype):
        return jnp.zeros((*batch, self.size), dtype)

    def output(self, h):
        return h


class Memory(NamedTuple):
    slow: jax.Array
    fast: jax.Array


@dataclasses.dataclass(frozen=True)
class PeepholeGRU:
    """A GRU whose gates see a memory that another part of the state holds; the state's kind is the row's."""

    size: int
    kind: type = tuple

    def init(self, key, input_size, scale=0.5):
        k_x, k_h = jax.random.split(key)
        w_h = scale * jax.random.normal(k_h, (self.size, 3 * self.size))
        return (jax.random.normal(k_x, (input_size, 3 * self.size)) * scale, w_h, jnp.ones((3, self.size)))

    def project(self, params, x):
        return x @ params[0]

    def step(self, params, u, state):
        slow, fast = state
        peep = [jnp.broadcast_to(p, slow.shape) * slow for p in params[2]]
        r, z, n = jnp.split(u + fast @ params[1], 3, -1)
        r, z = jax.nn.sigmoid(r + peep[0]), jax.nn.sigmoid(z + peep[1])
        after = z * fast + (1 - z) * jnp.tanh(r * n + peep[2])
        made = (0.5 * slow + 0.5 * after, after)
        return Memory(*made) if self.kind is Memory else made

    def initial_state(self, batch, dtype):
        zeros = jnp.zeros((*batch, self.size), dtype)
        return Memory(zeros, zeros) if self.kind is Memory else (zeros, zeros)

    def output(self, state):
        return state[1]


class Typed(LiGRU):
    """One that does take a dtype."""

    def init(self, key, input_size, dtype):
        return jax.tree.map(lambda p: p.astype(dtype), super().init(key, input_size))


CELLS = {
    "cell.md": lambda: of_the_guide("cell.md", "LeakySum")(I, 0.5),
    "newton.md": lambda: of_the_guide("newton.md", "Leaky")(H),
    "LiGRU": lambda: LiGRU(H),
    "peephole, a pair as state": lambda: PeepholeGRU(H),
    "peephole, a named state": lambda: PeepholeGRU(H, Memory),
    "with a dtype": lambda: Typed(H),
}


def final(cell, params, x, lengths, reverse=False):
    return cell.output(gj.scan(cell, params, x, lengths=lengths, reverse=reverse)[1])


HARDEST = "peephole, a named state"


@pytest.mark.parametrize("name", table(CELLS, quick=lambda name: name == HARDEST))
def test_every_combinator_and_model(name):
    cell = CELLS[name]()
    rnn = gj.recurrent(cell)
    bi = gj.bidirectional(rnn)
    params = bi.init(jax.random.key(1), I)
    y, h = bi.apply(params, X, lengths=LENGTHS)
    ways = [gj.scan(cell, p, X, lengths=LENGTHS, reverse=back) for p, back in zip(params, (False, True), strict=True)]
    expected = jnp.concatenate([w[0] for w in ways], -1), tuple(w[1] for w in ways)
    jax.tree.map(np.testing.assert_array_equal, (y, h), expected)

    net = gj.stack(rnn, rnn, residual=True, norm="layer", dropout=0.5)
    params = net.init(jax.random.key(1), I, jnp.bfloat16)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    params = net.init(jax.random.key(1), I)
    whole, h = net.apply(params, X, deterministic=True)
    first, h = net.apply(params, X[:, :3], deterministic=True)
    rest, h = net.apply(params, X[:, 3:], h, deterministic=True)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), whole, atol=1e-5)
    assert (net.apply(params, X, lengths=LENGTHS, deterministic=True)[0][1, 3:] == 0).all() and len(h) == 2

    # The label is read off the last output, or off both ends, whatever the state looks like.
    for net, expected in (
        (rnn, lambda p: final(cell, p, X, LENGTHS)),
        (gj.stack(rnn), lambda p: final(cell, p.layers[0], X, LENGTHS)),
        (bi, lambda p: jnp.concatenate([final(cell, p[k], X, LENGTHS, k == 1) for k in (0, 1)], -1)),
        (gj.bidirectional(gj.stack(rnn)), lambda p: jnp.concatenate(
            [final(cell, p[k].layers[0], X, LENGTHS, k == 1) for k in (0, 1)], -1)),
    ):  # fmt: skip
        model = gj.models.readout(net, I, 2)
        made = model.init(jax.random.key(2))
        np.testing.assert_allclose(
            model.apply(made, X, lengths=LENGTHS), expected(made.net) @ made.w, atol=1e-5
        )

    language = gj.models.sequence_model(gj.stack(rnn), I)
    made = language.init(jax.random.key(3))
    prompt = jnp.array([[0, 1], [2, 0]])
    tokens, state = language.sample(made, jax.random.key(4), prompt, 3, 0, return_state=True)
    seen = jnp.concatenate([prompt, tokens], 1)
    np.testing.assert_array_equal(language.apply(made, seen)[:, 1:-1].argmax(-1), tokens)
    assert jax.tree.structure(state[0]) == jax.tree.structure(cell.initial_state((B,), jnp.float32))
    with pytest.raises(ValueError, match="reads its sequence from both ends"):
        both = gj.models.sequence_model(gj.stack(bi), I)
        both.sample(both.init(jax.random.key(3)), jax.random.key(4), prompt, 3)


def test_a_network_of_one_s_own_need_not_take_a_dtype_either():
    net = gj.Layer(lambda key, size: {"w": jnp.ones((size, 2))}, lambda p, x, h0=None, **_: (x @ p["w"], h0))
    model = gj.models.readout(net, I, 2, steps="mean")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(model.init(jax.random.key(0), jnp.bfloat16)))
    assert gj.stack(net, net).init(jax.random.key(0), I, jnp.float16).layers[0]["w"].dtype == jnp.float16


def test_the_block_in_both_directions_says_what_it_cannot():
    block = gj.models.min_block(4, conv=None)
    with pytest.raises(ValueError, match="steps='last' of two directions reads their final states"):
        gj.models.readout(gj.bidirectional(block), I, 2).init(jax.random.key(0))
