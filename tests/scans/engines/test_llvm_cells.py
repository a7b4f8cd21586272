"""Every gated cell and option by code that is compiled for this processor: the numbers of the naive loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.cells.activations import ACTIVATIONS
from gru_jax.models import LSTM, TanhRNN
from gru_jax.scans import select
from gru_jax.scans.choices import Sizes
from gru_jax.scans.engines import registry
from gru_jax.scans.engines.llvm import cells, gated, host
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.masking import takes_dropout

from ..cases import assert_close, table, weigh

CELLS = {
    "after": lambda H: gj.GRU(H, init="torch"),
    "before": lambda H: gj.GRU(H, reset="before", init="torch"),
    "before, minimal": lambda H: gj.GRU(H, reset="before", bias="minimal", init="torch"),
    "before, none": lambda H: gj.GRU(H, reset="before", bias="none", init="torch"),
    "before, kept slopes": lambda H: gj.GRU(H, reset="before", activation="gelu", gate_activation="hard_sigmoid"),
    "after, kept slopes": lambda H: gj.GRU(H, activation="silu", gate_activation="hard_sigmoid"),
    "ReLU": lambda H: gj.GRU(H, activation="relu"),
    "heads": lambda H: gj.GRU(H, heads=2 if H % 2 == 0 else H, init="torch"),
    "diagonal, before": lambda H: gj.GRU(H, heads=H, reset="before", init="torch"),
    "MGU": gj.MGU,
    "MGU, no reset": lambda H: gj.MGU(H, reset_gate=False, activation="softsign"),
    "tanh RNN": TanhRNN,
    "LSTM": lambda H: LSTM(H, forget_bias=1.0),
}
B, T, I = 5, 11, 3
UNITS = {"whole": 16, "a tail": 22, "one": 1}  # 22: a vector and pieces of four and of two
MASK = jax.random.bernoulli(jax.random.key(5), 0.7, (B, T)).at[3].set(False)
RESETS = jax.random.bernoulli(jax.random.key(6), 0.3, (B, T)).at[0, 0].set(True).at[1, -1].set(True)
KEY = jax.random.key(7)
SITUATIONS = {
    "plain": {},
    "resets": {"resets": RESETS},
    "resets to another, and holes": {"resets": RESETS, "reset_to": True, "mask": MASK, "padding": "hold"},
    "recurrent dropout": {"recurrent_dropout": 0.4, "key": KEY},
    "everything": {
        "resets": RESETS, "reset_to": True, "mask": MASK, "recurrent_dropout": 0.3, "input_dropout": 0.2, "key": KEY,
    },
}  # fmt: skip


def by_kernel(keep="gates", cores=2):
    return gj.Sequential(kernel="llvm", keep=keep, cores=cores)


def given_to(cell, steps=T, batch=B, features=I, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[1], (batch, steps, features), dtype)
    start = cell.initial_state((batch,), dtype)
    h0 = jax.tree.map(lambda a, k: jax.random.normal(k, a.shape, dtype) / 2, start, like(start, keys[2]))
    return cell.init(keys[0], features, dtype), x, h0


def like(tree, key):
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(list(jax.random.split(key, len(leaves))))


def found(cell, params, x, h0, method, **options):
    """(y, h_T) and the gradients of a weighted sum of both with respect to all that made them."""
    options = dict(options)
    if not takes_dropout(cell):
        options.pop("recurrent_dropout", None)
    sets = (jax.tree.map(jnp.cos, h0),) if options.pop("reset_to", False) else ()

    def loss(params, x, h0, *sets):
        to = {"reset_to": sets[0]} if sets else {}
        outputs = gj.scan(cell, params, x, h0, method=method, **to, **options)
        return weigh(outputs), outputs

    run = jax.value_and_grad(loss, tuple(range(3 + len(sets))), has_aux=True)
    (_, outputs), gradients = jax.jit(run)(params, x, h0, *sets)
    return outputs, gradients


SCAN = gj.Sequential(kernel="scan")
QUICK = {
    # "before" with all its biases, and the LSTM: in other sizes and on vectors of other processors, below.
    ("before, minimal", "a tail", "everything", True, "gates"),
    ("MGU, no reset", "whole", "plain", False, "gates"),
    ("tanh RNN", "a tail", "resets to another, and holes", True, "gates"),
    ("after, kept slopes", "whole", "everything", False, "gates"),
    ("heads", "a tail", "plain", True, "gates"), ("diagonal, before", "a tail", "everything", False, "states"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name, units, situation, reverse, keep",
    table(
        CELLS, UNITS, SITUATIONS, (False, True), ("states", "gates"), quick=lambda *row: row in QUICK,
    ),
)  # fmt: skip
def test_the_numbers_of_the_loop(name, units, situation, reverse, keep):
    cell = CELLS[name](UNITS[units])
    given = given_to(cell)
    cores = 1 + (keep == "gates")
    ours, plain = (
        found(cell, *given, method, reverse=reverse, **SITUATIONS[situation])
        for method in (by_kernel(keep, cores), SCAN)
    )
    assert_close(ours, plain, 2e-6, 5e-5)


# Threads that share units; rows of several tiles; chunks of time with a rest; a wide layer.
SIZES = {"one sequence": (40, 1, 7, 33), "many rows": (5, 37, 2, 17), "chunks": (150, 2, 5, 16), "wide": (3, 2, 9, 300)}


@pytest.mark.parametrize(
    "name, size, keep, cores",
    table(
        ("before", "LSTM", "MGU", "tanh RNN", "heads"), SIZES, ("states", "gates"), (1, 2, 3),
        quick=lambda *row: row in {
            ("before", "one sequence", "states", 2), ("LSTM", "chunks", "gates", 2),
        },
    ),
)  # fmt: skip
def test_sizes_and_threads(name, size, keep, cores):
    steps, batch, features, units = SIZES[size]
    cell = CELLS[name](units)
    given = given_to(cell, steps, batch, features)
    resets = jax.random.bernoulli(jax.random.key(8), 0.1, (batch, steps))
    ours, plain = (
        found(cell, *given, method, resets=resets, reset_to=True) for method in (by_kernel(keep, cores), SCAN)
    )
    assert_close(ours, plain, 2e-6, 5e-5)


@pytest.mark.parametrize(
    "lanes, name, units",
    table(
        (4, 8, 16), CELLS, (0, 1, -1),
        quick=lambda lanes, name, units: (lanes, name, units) in {(8, "before", 1), (4, "LSTM", -1)},
    ),
    indirect=["lanes"],
)  # fmt: skip
def test_vectors_of_other_processors(lanes, name, units):
    cell = CELLS[name](lanes + units)
    given = given_to(cell)
    ours, plain = (found(cell, *given, m, **SITUATIONS["everything"]) for m in (by_kernel("states"), SCAN))
    assert_close(ours, plain, 2e-6, 2e-5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "gelu" else pytest.mark.slow) for n in ACTIVATIONS],
)
def test_activations_and_their_slopes(name):
    # One unit that sees nothing but x: h = n where f is 0.
    cell = gj.MGU(1, reset_gate=False, activation=name)
    params = cell.init(jax.random.key(0), 1)
    params = params._replace(w_x=jnp.array([[0.0, 1.0]]), b_x=jnp.array([-100.0, 0.0]), w_h=jnp.zeros((1, 2)))
    sizes = np.concatenate([np.linspace(-s, s, 2001) for s in (1e-3, 1.0, 8.0, 80.0)])
    x = jnp.asarray(np.concatenate([sizes, [-3.0, 0.0, 1.0, 3.0, 6.0]]), jnp.float32)[:, None, None]
    y, pull = jax.vjp(lambda x: gj.scan(cell, params, x, method=by_kernel())[0], x)
    function = ACTIVATIONS[name]
    with jax.enable_x64(True):
        wide = x.astype(jnp.float64)
        exact, slope = function(wide), jax.vmap(jax.grad(function))(wide.reshape(-1)).reshape(x.shape)
    np.testing.assert_allclose(y, exact, rtol=5e-7, atol=2e-7 * float(jnp.abs(x).max() if name == "gelu" else 1))
    np.testing.assert_allclose(pull(jnp.ones_like(y))[0], slope, rtol=5e-7, atol=1e-6)


@pytest.mark.parametrize(
    "of, name, keep, situation",
    table(
        (("_forward", "_backward"), ("_forward",), ("_backward",)), CELLS, ("gates", "states"),
        ("everything", "resets"),
        # Both, and the forward one alone: test_llvm_compiling.py.
        quick=lambda *row: row == (("_backward",), "tanh RNN", "gates", "resets"),
    ),
)  # fmt: skip
def test_without_a_kernel_it_is_a_loop(of, name, keep, situation, monkeypatch):
    def no_kernel(*_):
        raise host.NoKernel("none today")

    monkeypatch.setattr(host, "_SAID", set())
    jax.clear_caches()
    for each in of:
        monkeypatch.setattr(gated, each, no_kernel)
    cell = CELLS[name](4)
    given = given_to(cell)
    with pytest.warns(RuntimeWarning, match="Sequential: none today; XLA's loop runs in its place"):
        ours = found(cell, *given, by_kernel(keep, 1), **SITUATIONS[situation])
    assert_close(ours, found(cell, *given, SCAN, **SITUATIONS[situation]), 2e-6, 2e-5)


# Quick for one GRU: test_llvm.py.
@pytest.mark.slow
@pytest.mark.parametrize("over", ("x", "params"))
@pytest.mark.parametrize("name", CELLS)
def test_under_vmap(name, over):
    cell = CELLS[name](6)
    params, x, h0 = given_to(cell)
    axes, args = (None, 0, None), (params, jnp.stack([x, -x]), h0)
    if over == "params":
        several = jax.vmap(lambda key: cell.init(key, I))(jax.random.split(jax.random.key(3), 2))
        axes, args = (0, None, None), (several, x, h0)
    run = lambda method: lambda *given: found(cell, *given, method, **SITUATIONS["everything"])  # noqa: E731
    ours, plain = (jax.vmap(run(method), axes)(*args) for method in (by_kernel(), SCAN))
    chex.assert_trees_all_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_every_mode_of_differentiation(name):
    cell = CELLS[name](4)
    given = given_to(cell)
    options = {"resets": RESETS, "mask": MASK}
    directions = jax.tree.map(jnp.cos, given)
    modes = []
    for method in (by_kernel(), SCAN):
        loss = lambda *given, m=method: weigh(gj.scan(cell, *given, method=m, **options)) ** 2 / 100  # noqa: E731
        pushed = lambda *given, loss=loss: jax.jvp(loss, given, directions)[1]  # noqa: E731
        modes.append((pushed(*given), jax.grad(pushed, (0, 1, 2))(*given)))
    chex.assert_trees_all_close(*modes, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["gates", "states"])
@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_is_rounded_as_elsewhere(name, keep):
    cell = CELLS[name](20)
    given = given_to(cell, dtype=jnp.bfloat16)
    ours, plain = (found(cell, *given, m, resets=RESETS) for m in (by_kernel(keep), SCAN))
    wide = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)  # noqa: E731
    exact = found(cell, *wide(given), SCAN, resets=RESETS)

    def error(found):
        off = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), wide(found[0]), exact[0])
        return max(jax.tree.leaves(off))

    assert error(ours) <= 1.5 * error(plain) + 2**-9


def test_resets_let_no_gradient_through():
    cell = gj.GRU(5, reset="before")
    params, x, h0 = given_to(cell)
    resets = jnp.zeros((B, T), bool).at[:, 6].set(True)
    last = lambda x, h0: gj.scan(cell, params, x, h0, resets=resets, method=by_kernel())[1].sum()  # noqa: E731
    d_x, d_h0 = jax.grad(last, (0, 1))(x, h0)
    assert not d_x[:, :6].any() and not d_h0.any() and d_x[:, 6:].all()


class Louder(gj.GRU):
    """One whose step is its own."""

    def step(self, params, u, h, *more):
        return 2 * super().step(params, u, h, *more)


def test_a_class_that_changes_the_step_is_not_taken_for_what_it_is_derived_from():
    assert registry.engine("llvm").refusal(gj.GRU(4), Asked(jnp.float32)) is None
    assert registry.engine("llvm").refusal(Louder(4), Asked(jnp.float32)).startswith("Louder (whose equations")


@pytest.mark.parametrize("name", CELLS)
def test_auto_takes_it(name, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    asked = Asked(jnp.float32, resets=True, recurrent_dropout=True)
    resolved = select.resolve("auto", CELLS[name](64), Sizes(1000, 16, 64), asked)
    assert getattr(resolved, "differentiated", resolved).kernel == "llvm"


@pytest.mark.parametrize("name", CELLS)
def test_a_description_is_consistent(name):
    cell = cells.described(CELLS[name](4).equations)
    assert sorted(gate for phase in cell.phases for gate in phase) == list(range(cell.gates))
    assert {cell.slot_of_u(g) for g in range(cell.gates)} == set(range(cell.gates))
    assert {cell.slot_of_q(g) for g in range(cell.gates)} == set(range(cell.slots - cell.gates, cell.slots))
