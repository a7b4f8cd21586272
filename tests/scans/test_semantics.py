"""Every method computes what `naive` writes down: outputs, final state and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax as gj

from .cases import (
    CELLS,
    CHUNKED,
    SITUATIONS,
    B,
    H,
    I,
    T,
    arrays,
    assert_close,
    oracle,
    outputs_and_gradients,
    table,
    to_time_major,
    weigh,
)

METHODS = {
    "states": gj.Sequential(keep="states"),
    "gates": gj.Sequential(keep="gates", hoist=True),
    "hoisted": gj.Sequential(unroll=2, keep="states", hoist=True),
} | CHUNKED


# Compiling is what these tests cost, so the quick ones are a cut through the full cross product.
MAIN = ("after-full-1", "before-minimal-2")
# Both resets, all biases, several heads, and activations of one's own.
VARIED = (*MAIN, "after-none-2", "before-full-4", "callables")


@pytest.mark.parametrize(
    "method, cell, situation, reverse",
    table(
        METHODS,
        CELLS,
        SITUATIONS,
        (False, True),
        # "everything" holds mask, resets and dropouts; besides, lengths and resets alone, and every method once.
        quick=lambda method, cell, situation, reverse: (
            (method == "states" and cell in VARIED and situation == "everything" and reverse)
            or (method == "states" and cell == "after-full-1" and situation in ("lengths", "resets") and not reverse)
        )
        or (
            method not in ("chunks of 1", "one chunk")
            and (cell, situation, reverse) == ("after-full-1", "everything", False)
        )
        or (method == "chunks" and cell == MAIN[1] and situation == "everything" and reverse)
        or (method == "kept chunks" and cell == MAIN[0] and situation == "everything" and reverse),
    ),
)
def test_every_method_equals_naive(method, cell, situation, reverse):
    options = {"reverse": reverse, **SITUATIONS[situation]}
    ours = outputs_and_gradients(CELLS[cell], *arrays(CELLS[cell]), method=METHODS[method], **options)
    assert_close(ours, oracle(cell, situation, reverse), 1e-6, 1e-5)


@pytest.mark.parametrize(
    "method, cell, situation, reverse",
    table(
        ("auto", "kept chunks"),
        CELLS,
        SITUATIONS,
        (False, True),
        quick=lambda *row: row == ("auto", MAIN[1], "everything", False),
    ),
)
def test_float64_to_1e_12(x64, method, cell, situation, reverse):
    cell = CELLS[cell]
    given = arrays(cell, jnp.float64)
    options = {"reverse": reverse, **SITUATIONS[situation]}
    ours = outputs_and_gradients(cell, *given, method=CHUNKED.get(method, method), **options)
    assert_close(ours, outputs_and_gradients(cell, *given, method="naive", **options), 1e-12, 1e-12)


# Half precision: the state is rounded once a step, everything between is computed in float32. Over
# 40 steps the states, which lie in [-1, 1], stay within 4 (bfloat16) and 4 (float16) units of the
# last place at 1 of what float32 computes from the same rounded numbers; gradients within 5 %.
@pytest.mark.parametrize(
    "method, cell, dtype",
    table(
        ("auto", "chunks", "kept chunks"),
        ("after-full-1", "before-full-1", "before-none-4"),
        ("bfloat16", "float16"),
        quick=lambda *row: row in (
            ("auto", "before-full-1", "float16"), ("kept chunks", "after-full-1", "bfloat16"),
        ),
    ),
)
def test_half_precision_within_its_bound(method, cell, dtype):
    cell, dtype, method = CELLS[cell], jnp.dtype(dtype), CHUNKED.get(method, method)
    half = arrays(cell, dtype, steps=40)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), half)
    (y, h), gradients = outputs_and_gradients(cell, *half, method=method, lengths=jnp.array([40, 17, 0]))
    (y_single, _), gradients_single = outputs_and_gradients(
        cell, *single, lengths=jnp.array([40, 17, 0])
    )
    assert y.dtype == h.dtype == dtype
    bound = 4 * float(jnp.finfo(dtype).eps)
    assert float(np.abs(y.astype(jnp.float32) - y_single).max()) < bound
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradients_single), strict=True):
        assert a.dtype == dtype
        assert float(np.abs(a.astype(jnp.float32) - b).max()) < 0.05 * float(np.abs(b).max())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_time_major_is_the_same_with_time_first(situation):
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell)
    y, h = gj.scan(cell, params, x, h0, **SITUATIONS[situation])
    for method in ("auto", "naive"):
        y_major, h_major = gj.scan(
            cell, params, x.swapaxes(0, 1), h0, method=method, **to_time_major(SITUATIONS[situation])
        )
        assert np.abs(y_major.swapaxes(0, 1) - y).max() <= 1e-6
        assert np.abs(h_major - h).max() <= 1e-6


@pytest.mark.parametrize(
    "method, situation",
    table(CHUNKED, SITUATIONS, quick=lambda method, situation: (method, situation) == ("chunks", "everything")),
)
def test_gradients_of_chunks_with_time_first(method, situation):
    cell, options, method = CELLS["after-full-1"], SITUATIONS[situation], CHUNKED[method]
    params, x, h0 = arrays(cell)
    x = x.swapaxes(0, 1)
    naive = outputs_and_gradients(cell, params, x, h0, method="naive", **to_time_major(options))
    assert_close(
        outputs_and_gradients(cell, params, x, h0, method=method, **to_time_major(options)), naive, 1e-6, 1e-5
    )


SIZES = [((), 4, False), ((0,), 4, True), ((1,), 1, True), ((2, 3), 0, False), ((2, 1, 2), 3, True), ((2,), 0, True)]


@pytest.mark.parametrize(
    "method, size",
    table(
        ("auto", "chunks", "kept chunks"), SIZES,
        quick=lambda m, size: size in {"auto": SIZES[1:4:2], "kept chunks": SIZES[4:5]}.get(m, ()),
    ),
)  # fmt: skip
def test_any_batch_and_any_number_of_steps(method, size):
    cell, (batch, steps, reverse) = CELLS["after-full-1"], size
    params, x, h0 = arrays(cell, batch=batch, steps=steps)
    lengths = (jnp.arange(h0[..., 0].size) % (steps + 1)).reshape(batch)
    options = {"lengths": lengths, "reverse": reverse}
    ours = outputs_and_gradients(cell, params, x, h0, method=CHUNKED.get(method, method), **options)
    assert ours[0][0].shape == (*batch, steps, H) and ours[0][1].shape == (*batch, H)
    assert_close(ours, outputs_and_gradients(cell, params, x, h0, method="naive", **options), 1e-6, 1e-5)


@pytest.mark.parametrize(
    "method, name", [("states", "after-full-2"), ("states", "before-minimal-4"), ("chunks", "before-minimal-4")]
)
def test_an_empty_batch_of_heads(name, method):
    params, x, h0 = arrays(CELLS[name], batch=(0,))
    (y, h), gradients = outputs_and_gradients(CELLS[name], params, x, h0, method=METHODS[method])
    assert y.shape == (0, T, H) and h.shape == (0, H)
    assert all(float(np.abs(leaf).max(initial=0)) == 0 for leaf in jax.tree.leaves(gradients))


def test_one_hidden_unit_and_no_initial_state():
    cell = gj.GRU(1)
    params = cell.init(jax.random.key(0), 1)
    x = jax.random.normal(jax.random.key(1), (2, 6, 1))
    y, h = gj.scan(cell, params, x)
    expected, _ = gj.scan(cell, params, x, jnp.zeros((2, 1)), method="naive")
    assert y.shape == (2, 6, 1) and h.shape == (2, 1)
    assert np.abs(y - expected).max() <= 1e-6


# What a program depends on is enumerated, and what it takes as numbers is drawn: each row compiles two programs.
@pytest.mark.parametrize(
    "name, reverse, padding, rate",
    [
        ("after-full-1", True, "hold", 0.5),
        ("before-minimal-2", False, "zero", 0.0),
        pytest.param("activations", False, "hold", 0.0, marks=pytest.mark.slow),
        pytest.param("before-none-4", True, "zero", 0.5, marks=pytest.mark.slow),
    ],
)
def test_random_flags_equal_naive(name, reverse, padding, rate):
    cell, batch, steps = CELLS[name], (2, 2), 4
    given_arrays = arrays(cell, batch=batch, steps=steps)
    options = {"reverse": reverse, "padding": padding, "recurrent_dropout": rate}

    def by(method):
        def run(mask, resets, seed):
            flags = {"mask": mask, "resets": resets, "key": jax.random.key(seed)}
            return outputs_and_gradients(cell, *given_arrays, method=method, **options, **flags)

        return jax.jit(run)

    ours, naive = by("auto"), by("naive")
    flags = st.lists(st.booleans(), min_size=16, max_size=16).map(lambda drawn: jnp.array(drawn).reshape(*batch, steps))

    @settings(max_examples=40)
    @given(mask=flags, resets=flags, seed=st.integers(0, 2**31 - 1))
    def check(mask, resets, seed):
        assert_close(ours(mask, resets, seed), naive(mask, resets, seed), 1e-6, 1e-5)

    check()


@pytest.mark.parametrize("method", ["auto", "chunks"])
def test_a_masked_step_sees_nothing_of_its_input(method):
    cell = CELLS["before-full-1"]
    params, x, h0 = arrays(cell)
    mask = SITUATIONS["holes"]["mask"]
    poisoned = jnp.where(mask[..., None], x, jnp.nan)
    options = {"mask": mask, "method": CHUNKED.get(method, method)}
    clean = outputs_and_gradients(cell, params, x, h0, **options)
    ours = outputs_and_gradients(cell, params, poisoned, h0, **options)
    assert_close(ours, clean, 0.0, 0.0)


def test_length_zero_ends_where_it_began_and_lengths_are_a_mask():
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell)
    lengths = SITUATIONS["lengths"]["lengths"]
    y, h = gj.scan(cell, params, x, h0, lengths=lengths)
    assert (h[2] == h0[2]).all() and (y[2] == 0).all()
    assert (h[1] == y[1, 1]).all() and (y[1, 2:] == 0).all()
    held, _ = gj.scan(cell, params, x, h0, lengths=lengths, padding="hold")
    assert (held[2] == h0[2][None]).all() and (held[1, 2:] == h[1][None]).all()


def test_reverse_starts_at_each_sequence_s_own_last_step():
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell)
    y, h = gj.scan(cell, params, x, h0, lengths=jnp.array([T, 2, 1]), reverse=True)
    alone, h_alone = gj.scan(cell, params, x[1:2, 1::-1], h0[1:2])
    assert np.abs(y[1, :2] - alone[0, ::-1]).max() <= 1e-6
    assert np.abs(h[1] - h_alone[0]).max() <= 1e-6


def test_a_reset_splits_a_sequence_in_two():
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell)
    resets = jnp.zeros((B, T), bool).at[:, 3].set(True)
    y, _ = gj.scan(cell, params, x, h0, resets=resets)
    first, _ = gj.scan(cell, params, x[:, :3], h0)
    second, _ = gj.scan(cell, params, x[:, 3:])
    assert np.abs(y - jnp.concatenate([first, second], 1)).max() <= 1e-6


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16])
def test_lengths_may_be_narrow_integers(dtype):
    cell = CELLS["after-full-1"]
    params, x, _ = arrays(cell, batch=(1,), steps=300)
    y, h = gj.scan(cell, params, x, lengths=jnp.array([100]))
    for method in ("auto", "naive") if dtype == jnp.int8 else ("auto",):
        narrow = gj.scan(cell, params, x, lengths=jnp.array([100], dtype), method=method)
        assert np.abs(narrow[0] - y).max() <= 1e-6 and np.abs(narrow[1] - h).max() <= 1e-6


def test_lengths_out_of_range_act_as_the_nearest_under_jit():
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell)
    run = jax.jit(lambda lengths: gj.scan(cell, params, x, h0, lengths=lengths)[0])
    assert (run(jnp.array([T + 3, 2, -4])) == run(jnp.array([T, 2, 0]))).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_gates_explain_every_step(reverse):
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell)
    options = {"mask": SITUATIONS["holes"]["mask"], "reverse": reverse, "return_gates": True}
    y, h, gates = gj.scan(cell, params, x, h0, padding="hold", **options)
    _, _, expected = gj.scan(cell, params, x, h0, method="naive", **options)
    for ours, naive in zip(gates, expected, strict=True):
        assert ours.shape == (B, T, H) and np.abs(ours - naive).max() <= 1e-6
    before = jnp.concatenate([y[:, 1:], h0[:, None]] if reverse else [h0[:, None], y[:, :-1]], 1)
    rebuilt = gates.n + gates.z * (before - gates.n)
    used = options["mask"][..., None]
    assert jnp.where(used, np.abs(rebuilt - y), 0).max() <= 1e-6
    assert jnp.where(used, 0, gates.z).max() == 0


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_is_one_scaled_mask_a_sequence(rate):
    # With w_h = 0, tanh at 0 and open gates the state shows which inputs were dropped.
    cell = gj.GRU(64, activation="linear", gate_activation=jnp.zeros_like, bias="none")
    params = gj.GRUParams(
        jnp.concatenate([jnp.zeros((64, 128)), jnp.eye(64)], 1), jnp.zeros((64, 192)), None, None
    )
    x = jnp.ones((50, 4, 64))
    y, _ = gj.scan(cell, params, x, input_dropout=rate, key=jax.random.key(0))
    assert (y == y[:, :1]).all()
    kept = y > 0
    assert jnp.allclose(jnp.where(kept, y, 1 / (1 - rate)), 1 / (1 - rate))
    assert abs(float(kept.mean()) - (1 - rate)) < 0.03


def test_a_cell_without_a_closed_form_has_the_same_derivative():
    class Plain(gj.GRU):
        linearize = property()

    whole, plain = CELLS["before-full-1"], Plain(H, reset="before", init="torch")
    assert not hasattr(plain, "linearize")
    for situation in (SITUATIONS["plain"], SITUATIONS["everything"]):
        ours = outputs_and_gradients(plain, *arrays(whole), **situation)
        assert_close(ours, outputs_and_gradients(whole, *arrays(whole), **situation), 1e-6, 1e-5)


@pytest.mark.slow
def test_states_may_be_trees():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Pair:
        """Two leaky sums at different speeds; only the slow one is put out."""

        def init(self, key, input_size):
            return jax.random.uniform(key, (2, input_size))

        def project(self, params, x):
            return x

        def step(self, params, u, h):
            fast = h["fast"] * 0.5 + u * jnp.broadcast_to(params[0], u.shape)
            return {"fast": fast, "slow": 0.9 * h["slow"] + fast * jnp.broadcast_to(params[1], u.shape)}

        def initial_state(self, batch, dtype):
            return {"fast": jnp.zeros((*batch, I), dtype), "slow": jnp.ones((*batch, I), dtype)}

        def output(self, h):
            return h["slow"]

    cell = Pair()
    params, x = cell.init(jax.random.key(0), I), jax.random.normal(jax.random.key(1), (B, T, I))
    h0 = jax.tree.map(lambda h: h + 0.5, cell.initial_state((B,), x.dtype))
    for reverse in (False, True):
        options = {"mask": SITUATIONS["holes"]["mask"], "reverse": reverse}
        ours = outputs_and_gradients(cell, params, x, h0, **options)
        naive = outputs_and_gradients(cell, params, x, h0, method="naive", **options)
        assert_close(ours, naive, 1e-6, 1e-5)
    assert weigh(ours[1]) != 0
