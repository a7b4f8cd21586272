"""Flax's RNN and ours over one cell: the same numbers, gradients, trees and draws."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gru_jax as gj
from gru_jax import inside
from gru_jax.inside import flax_run

B, T, I, H = 3, 7, 2, 4
LENGTHS = jnp.array([7, 4, 1])

CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "carry": {"return_carry": True},
    "lengths": {"seq_lengths": LENGTHS, "return_carry": True},
    "lengths-only": {"seq_lengths": LENGTHS},
    "reverse": {"reverse": True, "return_carry": True},
    "reverse-lengths": {"reverse": True, "seq_lengths": LENGTHS, "return_carry": True},
    "keep-order": {"reverse": True, "keep_order": True},
    "keep-order-lengths": {"reverse": True, "keep_order": True, "seq_lengths": LENGTHS, "return_carry": True},
    "time-major": {"time_major": True, "reverse": True, "seq_lengths": LENGTHS, "return_carry": True},
    "from-a-carry": {"initial_carry": True, "return_carry": True},
}
NNX: dict[str, Any] = {
    "GRU": lambda rngs: nnx.GRUCell(I, H, rngs=rngs),
    "GRU-relu": lambda rngs: nnx.GRUCell(I, H, activation_fn=nnx.relu, gate_fn=nnx.hard_sigmoid, rngs=rngs),
    "LSTM": lambda rngs: nnx.LSTMCell(I, H, rngs=rngs),
    "OptimizedLSTM": lambda rngs: nnx.OptimizedLSTMCell(I, H, bias_init=nnx.initializers.normal(), rngs=rngs),
    "Simple": lambda rngs: nnx.SimpleCell(I, H, rngs=rngs),
    "Simple-residual": lambda rngs: nnx.SimpleCell(I, H, residual=True, rngs=rngs),
    "ours": lambda rngs: gj.nnx.GRUCell(I, H, init="torch", rngs=rngs),
    "ours-any": lambda rngs: inside.nnx.Cell(gj.MinGRU(H), I, rngs=rngs),
}
normal = linen.initializers.normal()
LINEN: dict[str, Any] = {
    "GRU": lambda: linen.GRUCell(H, bias_init=normal),
    "MGU": lambda: linen.MGUCell(H, activation_bias_init=normal),
    "MGU-no-reset": lambda: linen.MGUCell(H, reset_gate=False),
    "LSTM": lambda: linen.LSTMCell(H),
    "OptimizedLSTM": lambda: linen.OptimizedLSTMCell(H, bias_init=normal),
    "Simple": lambda: linen.SimpleCell(H),
    "Simple-residual": lambda: linen.SimpleCell(H, residual=True),
    "ours": lambda: gj.linen.GRUCell(H, param_init="torch"),
    "ours-any": lambda: inside.linen.Cell(gj.MinGRU(H)),
}
ROWS = [(api, cell) for api, cells in (("nnx", NNX), ("linen", LINEN)) for cell in cells]
# One row for each reason: a state of two parts at its length; a turned one; biases inside; every API.
QUICK = {
    ("nnx", "GRU", "reverse"),
    ("nnx", "OptimizedLSTM", "lengths"),
    ("nnx", "ours", "from-a-carry"),
    ("linen", "GRU", "keep-order-lengths"),
    ("linen", "MGU", "time-major"),
    ("linen", "Simple-residual", "reverse-lengths"),
}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The cells that were run by our engines."""
    seen = []
    run = flax_run.run

    def noted(known: Any, *args: Any) -> Any:
        seen.append(known.cell)
        return run(known, *args)

    monkeypatch.setattr(flax_run, "run", noted)
    return seen


def weighed(outputs: Any) -> jax.Array:
    """A number that every output has its own part in."""
    leaves = jax.tree.leaves(outputs)
    return sum((jnp.sin(jnp.arange(1.0, leaf.size + 1).reshape(leaf.shape)) * leaf).sum() for leaf in leaves)


def close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max(initial=0))))


def case(cell: Any, call: dict[str, Any], getkey: Any, api: str) -> tuple[jax.Array, dict[str, Any]]:
    """An input and the arguments of a call, a carry among them where one is wanted."""
    shape = (T, B, I) if call.get("time_major") else (B, T, I)
    call = dict(call)
    if call.get("initial_carry"):
        if api == "nnx":
            made = cell.initialize_carry((B, I), nnx.Rngs(1), nnx.initializers.normal(1.0))
        else:
            made = cell.initialize_carry(getkey(), (B, I))
        call["initial_carry"] = jax.tree.map(lambda h: jax.random.normal(getkey(), h.shape), made)
    return jax.random.normal(getkey(), shape), call


@pytest.mark.parametrize(
    ("api", "cell", "name"),
    [
        pytest.param(api, cell, name, marks=() if (api, cell, name) in QUICK else pytest.mark.slow)
        for (api, cell), name in itertools.product(ROWS, CALLS)
    ],
)
def test_values_and_gradients_are_those_of_flax(api: str, cell: str, name: str, getkey: Any, runs: list[Any]) -> None:
    if api == "nnx":
        module = NNX[cell](nnx.Rngs(0))
        x, call = case(module, CALLS[name], getkey, api)
        state: Any
        structure, state = nnx.split(module)

        def outputs(RNN: Any, state: Any, x: Any, carry: Any) -> Any:
            given = call if carry is None else call | {"initial_carry": carry}
            return RNN(nnx.merge(structure, state))(x, **given)

        ours, theirs = inside.nnx.RNN, nnx.RNN
    else:
        x, call = case(LINEN[cell](), CALLS[name], getkey, api)
        state = inside.linen.RNN(LINEN[cell]()).init(getkey(), x)

        def outputs(RNN: Any, state: Any, x: Any, carry: Any) -> Any:
            given = call if carry is None else call | {"initial_carry": carry}
            return RNN(LINEN[cell]()).apply(state, x, **given)

        ours, theirs = inside.linen.RNN, linen.RNN
    carry = call.get("initial_carry")

    @jax.jit
    def both(state: Any, x: Any, carry: Any) -> Any:
        made = []
        for RNN in (ours, theirs):
            run = lambda *moving, RNN=RNN: (weighed(y := outputs(RNN, *moving)), y)  # noqa: E731
            which = (0, 1) if carry is None else (0, 1, 2)
            made.append(jax.value_and_grad(run, which, has_aux=True)(state, x, carry))
        return made

    close(*both(state, x, carry))
    # The last states of our own cells with more to them than an array go flax's way.
    assert len(runs) >= 1


def test_a_linen_model_has_the_tree_the_draws_and_the_numbers_of_flax(getkey: Any) -> None:
    def model(where: Any) -> Any:
        class Tagger(linen.Module):
            @linen.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                rnns = [where.RNN(linen.OptimizedLSTMCell(H)), where.RNN(linen.GRUCell(H))]
                y = where.Bidirectional(*rnns)(x, seq_lengths=LENGTHS)
                self.sow("intermediates", "y", y)
                return linen.Dense(2)(where.RNN(linen.MGUCell(H))(y))

        return Tagger()

    x = jax.random.normal(getkey(), (B, T, I))
    ours, theirs = model(inside.linen), model(linen)
    variables = theirs.init(jax.random.key(0), x)
    made = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, made, variables)
    close(ours.apply(variables, x, mutable=["intermediates"]), theirs.apply(variables, x, mutable=["intermediates"]))


def test_an_nnx_model_has_the_tree_and_the_numbers_of_flax_in_a_training_step(getkey: Any) -> None:
    class Tagger(nnx.Module):
        def __init__(self, where: Any, rngs: nnx.Rngs) -> None:
            rnns = [where.RNN(nnx.GRUCell(I, H, rngs=rngs), rngs=rngs) for _ in range(2)]
            self.both = where.Bidirectional(*rnns, rngs=rngs)
            self.out = nnx.Linear(2 * H, 1, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.out(self.both(x, seq_lengths=LENGTHS))

    @nnx.jit
    def step(model: Tagger, x: jax.Array) -> Any:
        return nnx.value_and_grad(lambda model: (model(x) ** 2).mean())(model)

    x = jax.random.normal(getkey(), (B, T, I))
    ours, theirs = (Tagger(where, nnx.Rngs(0)) for where in (inside.nnx, nnx))
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(ours, nnx.Param)),
                 nnx.to_pure_dict(nnx.state(theirs, nnx.Param)))  # fmt: skip
    close(*(jax.tree.map(jnp.asarray, step(model, x)) for model in (ours, theirs)))
    # The streams of random numbers stand where flax's stand, too: a checkpoint of one is one of the other.
    counts = [
        [v.get_value() for _, v in nnx.to_flat_state(nnx.state(model, nnx.RngCount))] for model in (ours, theirs)
    ]
    assert counts[0] and counts[0] == counts[1]
    structure, state = nnx.split(ours)
    nnx.update(theirs, state)
    close(nnx.merge(structure, nnx.state(theirs))(x), theirs(x))


@pytest.mark.parametrize(
    ("cell", "x"),
    [
        (lambda rngs: nnx.GRUCell(I, H, activation_fn=nnx.softmax, rngs=rngs), None),
        (lambda rngs: nnx.GRUCell(I, H, dtype=jnp.bfloat16, rngs=rngs), None),
        (lambda rngs: type("Mine", (nnx.GRUCell,), {})(I, H, rngs=rngs), None),
        (lambda rngs: nnx.OptimizedLSTMCell(I, H, promote_dtype=lambda a, dtype: a, rngs=rngs), None),
    ],
    ids=["activation", "dtype", "subclass", "promotion"],
)
def test_what_the_engines_do_not_know_runs_in_flax_s_way(cell: Any, x: Any, getkey: Any, runs: list[Any]) -> None:
    made, x = cell(nnx.Rngs(0)), jax.random.normal(getkey(), (B, T, I))
    with jax.numpy_dtype_promotion("standard"):
        y, expected = inside.nnx.RNN(made)(x), nnx.RNN(made)(x)
    np.testing.assert_array_equal(y, expected)
    assert not runs


def test_an_exchanged_layer_of_a_cell_is_seen(getkey: Any, runs: list[Any]) -> None:
    cell = nnx.GRUCell(I, H, rngs=nnx.Rngs(0))
    cell.dense_h = nnx.Linear(H, 3 * H, rngs=nnx.Rngs(1))
    cell.dense_h.bias.set_value(jnp.ones(3 * H))
    x = jax.random.normal(getkey(), (B, T, I))
    np.testing.assert_array_equal(inside.nnx.RNN(cell)(x), nnx.RNN(cell)(x))
    assert not runs


def test_convolutions_and_partitioned_parameters() -> None:
    images = jnp.ones((2, 3, 4, 4, 1))
    cell = linen.ConvLSTMCell(2, kernel_size=(2, 2))
    y, variables = inside.linen.RNN(cell).init_with_output(jax.random.key(0), images)
    np.testing.assert_array_equal(y, linen.RNN(cell).apply(variables, images))
    kernel = linen.with_partitioning(linen.initializers.lecun_normal(), (None, "units"))
    split, x = linen.GRUCell(H, kernel_init=kernel), jnp.ones((2, 3, I))
    variables = inside.linen.RNN(split).init(jax.random.key(0), x)
    close(inside.linen.RNN(split).apply(variables, x), linen.RNN(split).apply(variables, x))


def test_whole_numbers_and_batches_of_batches() -> None:
    cell = nnx.OptimizedLSTMCell(I, H, rngs=nnx.Rngs(0))
    x = jnp.arange(2 * 2 * 5 * I).reshape(2, 2, 5, I) % 3
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = inside.nnx.RNN(cell), nnx.RNN(cell)
        close(ours(x), theirs(x))
        # flax picks the last carries of one batch dimension only.
        lengths = jnp.array([[5, 2], [1, 3]])
        carry, _ = ours(x, seq_lengths=lengths, return_carry=True)
        for row in range(2):
            expected, _ = theirs(x[row], seq_lengths=lengths[row], return_carry=True)
            close(jax.tree.map(lambda h, row=row: h[row], carry), expected)


def test_a_cell_of_ours_is_to_be_held() -> None:
    with pytest.raises(TypeError, match="wrap it in gj.inside.nnx.Cell"):
        inside.nnx.RNN(gj.GRU(H))


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "cell", [gj.GRU(H), gj.GRUD(H), gj.DreamerGRU(H, heads=2), gj.LSTM(H), gj.TanhRNN(H)], ids=type
)
def test_any_cell_of_ours_in_both_holders(cell: Any, half: bool, getkey: Any) -> None:
    options = {"dtype": jnp.bfloat16, "state_dtype": jnp.float32} if half else {}
    size = 3 * I if isinstance(cell, gj.GRUD) else I
    x, call = jax.random.normal(getkey(), (B, T, size)), {"seq_lengths": LENGTHS, "reverse": True, "keep_order": True}
    held = inside.nnx.Cell(cell, size, rngs=nnx.Rngs(0), **options)
    pairs = [[where.RNN(held, return_carry=True)(x, **call) for where in (inside.nnx, nnx)]]
    held = inside.linen.Cell(cell, **options)
    variables = linen.RNN(held).init(getkey(), x)
    pairs += [[where.RNN(held, return_carry=True).apply(variables, x, **call) for where in (inside.linen, linen)]]
    for ours, theirs in pairs:
        assert [leaf.dtype for leaf in jax.tree.leaves(ours)] == [leaf.dtype for leaf in jax.tree.leaves(theirs)]
        assert jax.tree.leaves(ours)[-1].dtype == (jnp.bfloat16 if half else jnp.float32)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(
                a.astype(jnp.float32), b.astype(jnp.float32), atol=0.05 if half else 1e-5
            ),
            ours,
            theirs,
        )


def test_a_method_of_ours(getkey: Any) -> None:
    cell, x = nnx.GRUCell(I, H, rngs=nnx.Rngs(0)), jax.random.normal(getkey(), (B, T, I))
    close(inside.nnx.RNN(cell, method="newton")(x), nnx.RNN(cell)(x))


@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_options_of_ours_are_those_of_scan(api: str, getkey: Any) -> None:
    x, carry, fresh = (jax.random.normal(getkey(), shape) for shape in ((B, T, I), (B, H), (B, H)))
    mask = jax.random.bernoulli(getkey(), 0.7, (B, T)).at[:, 0].set(True)
    resets = jax.random.bernoulli(getkey(), 0.3, (B, T))
    given = {"initial_carry": carry, "mask": mask, "resets": resets, "reset_to": fresh, "deterministic": True}
    options = {"return_carry": True, "keep_order": True, "reverse": True, "padding": "hold", "recurrent_dropout": 0.5}
    cell, key = gj.GRU(H), jax.random.key(1)
    if api == "nnx":
        rngs = nnx.Rngs(0, dropout=3)
        rnn: Any = inside.nnx.RNN(inside.nnx.Cell(cell, I, rngs=rngs), **options, rngs=rngs)
        params = type(cell.init(key, I))(*(leaf[...] for leaf in rnn.cell.params))
        h, y = rnn(x, **given)
        drawn = [rnn(x, **given | {"deterministic": off})[1] for off in (None, None, True)]
    else:
        rnn = inside.linen.RNN(inside.linen.Cell(cell), **options)
        variables = rnn.init(key, x, **given)
        params = variables["params"]["cell"]["cell"]
        h, y = rnn.apply(variables, x, **given)
        draws = [(False, 0), (False, 1), (True, 0)]
        drawn = [
            rnn.apply(variables, x, **given | {"deterministic": off}, rngs={"dropout": jax.random.key(seed)})[1]
            for off, seed in draws
        ]
    flags = {"mask": mask, "resets": resets, "reset_to": fresh}
    y_naive, h_naive = gj.scan(cell, params, x, carry, **flags, reverse=True, padding="hold", method="naive")
    assert np.abs(y - y_naive).max() < 1e-6 and np.abs(h - h_naive).max() < 1e-6
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3 and np.abs(drawn[0] - y).max() > 1e-3
    assert np.abs(drawn[2] - y).max() < 1e-6


def test_options_of_ours_with_a_cell_of_flax(getkey: Any) -> None:
    x, lengths = jax.random.normal(getkey(), (B, T, I)), LENGTHS
    cell = nnx.OptimizedLSTMCell(I, H, rngs=nnx.Rngs(0))
    theirs, y = nnx.RNN(cell, return_carry=True)(x, seq_lengths=lengths)
    carry, ours = inside.nnx.RNN(cell, return_carry=True, padding="zero")(x, seq_lengths=lengths)
    valid = np.asarray(np.arange(T)[:, None] < np.asarray(lengths)[:, None, None], np.float32)
    assert np.abs(ours - y * valid).max() < 1e-6
    assert all(np.abs(a - b).max() < 1e-6 for a, b in zip(carry, theirs, strict=True))
    convolving = nnx.GRUCell(I, H, activation_fn=lambda a: a, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="mask and resets need a cell that this library runs; GRUCell as it is"):
        inside.nnx.RNN(convolving)(x, mask=jnp.ones((B, T), bool), resets=jnp.zeros((B, T), bool))
    with pytest.raises(TypeError, match="rngs must be nnx.Rngs"):
        inside.nnx.RNN(cell, recurrent_dropout=0.5)
