"""Newton's method on networks fresh from torch's initial values, at the sizes that people train: all of it slow."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from .cases import weigh

pytestmark = pytest.mark.slow

SIZES = (8, 32, 64, 128)
SITUATIONS = ("plain", "lengths", "lengths, held, reverse", "holes", "resets", "left padding, holes, resets, reverse")
NETS = {
    "one": lambda rnn: rnn,
    "both ways": gj.bidirectional,
    "two layers both ways": lambda rnn: gj.stack(gj.bidirectional(rnn), gj.bidirectional(rnn)),
}
BOUNDS = {jnp.float32: (1e-5, 2e-4), jnp.float64: (1e-11, 1e-9)}


def options(situation, steps, batch):
    rng = np.random.default_rng(0)
    holes = jnp.asarray(rng.random((batch, steps)) > 0.2)
    resets = jnp.asarray(rng.random((batch, steps)) > 0.999)
    lengths = jnp.asarray([steps - 7, 0, steps, steps // 3][:batch])
    left = jnp.arange(steps)[None] >= jnp.asarray([5, steps // 2, steps - 3, 0][:batch])[:, None]
    return {
        "plain": {},
        "lengths": {"lengths": lengths},
        "lengths, held, reverse": {"lengths": lengths, "padding": "hold", "reverse": True},
        "holes": {"mask": holes},
        "resets": {"resets": resets},
        "left padding, holes, resets, reverse": {"mask": left & holes, "resets": resets, "reverse": True},
    }[situation]


def check(cell, steps, batch, situation, *, net="one", method="newton", dtype=jnp.float32):
    """Converged without the fallback; outputs, final states and every gradient are those of the steps."""
    make, given = NETS[net], options(situation, steps, batch)
    params = make(gj.recurrent(cell)).init(jax.random.key(0), 8, dtype)
    x = jax.random.normal(jax.random.key(1), (batch, steps, 8), dtype)
    h0 = jax.random.normal(jax.random.key(2), (batch, cell.hidden_size), dtype)
    start = {"one": h0, "both ways": (h0, -h0), "two layers both ways": ((h0, -h0), (-h0, h0))}[net]

    def run(method):
        def loss(params, x, start):
            y, h, stats = make(gj.recurrent(cell, method=method)).apply(params, x, start, stats=True, **given)
            return weigh((y, h)), ((y, h), stats)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, x, start)

    ((_, (ours, stats)), gradient), ((_, (theirs, _)), expected) = run(method), run("sequential")
    for each in jax.tree.leaves(stats, is_leaf=lambda part: isinstance(part, gj.Stats)):
        assert each.converged.all() and not each.fell_back.any()
    of_values, of_gradients = BOUNDS[dtype]
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, atol=of_values, rtol=0)
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        assert np.abs(a - b).max() <= of_gradients * np.abs(b).max()


@pytest.mark.parametrize(
    "hidden, reset, blocks, situation",
    [
        pytest.param(*row, id=", ".join(map(str, row)))
        for row in itertools.product(SIZES, ("after", "before"), ("dense", "block", "diagonal"), SITUATIONS)
    ],
)
def test_all_options(hidden, reset, blocks, situation):
    heads = {"dense": 1, "block": 4, "diagonal": hidden}[blocks]
    check(gj.GRU(hidden, reset=reset, heads=heads, init="torch"), 2048, 4, situation)


@pytest.mark.parametrize("net", ("both ways", "two layers both ways"))
@pytest.mark.parametrize("hidden", SIZES)
def test_nets(hidden, net):
    check(gj.GRU(hidden, init="torch"), 2048, 4, "lengths", net=net)


@pytest.mark.parametrize("hidden", SIZES[:3])
def test_the_whole_jacobian(hidden):
    check(gj.GRU(hidden, init="torch"), 1024, 2, "holes", method=gj.Newton("dense"))


@pytest.mark.parametrize("situation", ("plain", "left padding, holes, resets, reverse"))
@pytest.mark.parametrize("reset", ("after", "before"))
@pytest.mark.parametrize("hidden", SIZES)
def test_sixty_five_thousand_steps(hidden, reset, situation):
    check(gj.GRU(hidden, reset=reset, init="torch"), 65_536, 1, situation)


@pytest.mark.parametrize("steps, situation", ((4096, "holes"), (65_536, "plain")))
@pytest.mark.parametrize("hidden", SIZES)
def test_double_precision(x64, hidden, steps, situation):
    check(gj.GRU(hidden, init="torch"), steps, 1, situation, dtype=jnp.float64)
