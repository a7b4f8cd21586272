"""The training step is a pure function of its state: under jit, under vmap, and cut in two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.data.batches import taken
from gru_jax.training.losses import add_up, correct, cross_entropy
from gru_jax.training.step import batch_of

from .experiments import BATCH, batch_of_step, compiled, experiment, some_data, state_of, train

DROPOUT = {"layers": 2, "dropout": 0.2, "input_dropout": 0.1, "recurrent_dropout": 0.1}


def close(a: object, b: object, **tolerance: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_loss_falls() -> None:
    exp = experiment()
    start = state_of(exp)
    early, late = train(exp, start, 4).sums, train(exp, start, 60).sums
    assert float(late.loss / late.targets) < 0.95 * float(early.loss / early.targets)


def test_sums_are_totals_over_steps() -> None:
    sums = add_up([jax.device_get(train(experiment(), state_of(experiment()), 3).sums)])
    assert sums["steps"] == 3 and sums["targets"] == 3 * BATCH and sums["bad_steps"] == 0
    assert 0 <= sums["correct"] <= sums["targets"] and sums["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("model", [{}, pytest.param(DROPOUT, marks=pytest.mark.slow)])
def test_seeds_and_rates_under_vmap(model: dict[str, object]) -> None:
    exp, data = experiment(model=model), jax.device_put(some_data())
    seeds = jnp.array([0, 1, 2], jnp.uint32)
    rates = jnp.array([1e-2, 1e-3, 3e-2], jnp.float32)
    states = jax.jit(jax.vmap(exp.init_state))(seeds, rates)

    @jax.jit
    @jax.vmap
    def step_once(state):
        return exp.train_step(state, batch_of_step(data, state.seed, state.step))

    for _ in range(5):
        states = step_once(states)
    for member, (seed, rate) in enumerate(zip(seeds.tolist(), rates.tolist(), strict=True)):
        alone = train(exp, state_of(exp, seed, rate), 5)
        together = jax.tree.map(lambda leaf, at=member: leaf[at], states)
        close(together.params, alone.params, atol=2e-6)
        close(together.sums, alone.sums, rtol=1e-5)


@pytest.mark.parametrize("model", [pytest.param({}, marks=pytest.mark.slow), DROPOUT])
def test_state_alone_continues_bit_for_bit(model: dict[str, object]) -> None:
    exp, data = experiment(model=model), jax.device_put(some_data())
    whole = train(exp, state_of(exp), 6)
    half = jax.device_get(train(exp, state_of(exp), 3))
    _, step_once = compiled(exp)
    state = jax.device_put(half)
    for step in range(3, 6):
        state = step_once(state, batch_of_step(data, state.seed, step))
    jax.tree.map(np.testing.assert_array_equal, state, whole)


def test_rate_scales_the_update() -> None:
    exp = experiment(optim={"kind": "sgd", "clip_norm": None, "schedule": {"kind": "constant"}})
    start = state_of(exp).params
    moved = [jax.tree.map(jnp.subtract, train(exp, state_of(exp, rate=rate), 1).params, start) for rate in (0.5, 1.0)]
    close(jax.tree.map(lambda d: 2 * d, moved[0]), moved[1], rtol=1e-3, atol=1e-6)


def test_dropout_masks_change_with_the_step_only() -> None:
    exp = experiment(model=DROPOUT)
    state = state_of(exp)
    data = some_data()
    batch = batch_of(taken(data, slice(BATCH)), "class")
    _, step_once = compiled(exp)
    losses = [float(step_once(state._replace(step=jnp.asarray(step)), batch).sums.loss) for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_bad_steps_are_counted() -> None:
    exp = experiment()
    state = state_of(exp)
    state = state._replace(params=state.params._replace(b=state.params.b.at[0].set(jnp.nan)))
    assert float(train(exp, state, 3).sums.bad_steps) == 3


def test_evaluation_ignores_padding() -> None:
    exp, data = experiment(), some_data()
    params = state_of(exp).params
    weight = jnp.array([1, 1, 1, 0, 0, 0, 0, 0], jnp.float32)
    eval_step = jax.jit(exp.eval_step)
    padded = eval_step(params, batch_of(taken(data, slice(8)), "class", weight))
    alone = eval_step(params, batch_of(taken(data, slice(3)), "class"))
    close(padded, alone, rtol=1e-6)
    assert float(padded.targets) == 3


def test_cross_entropy_and_accuracy_by_hand() -> None:
    logits = jnp.array([[0.0, jnp.log(3.0)], [1.0, 1.0], [1e4, -1e4]])
    labels = jnp.array([1, 0, 1])
    expected = [-np.log(0.75), np.log(2), 2e4]
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-6)
    np.testing.assert_array_equal(correct(logits, labels), [1.0, 1.0, 0.0])
