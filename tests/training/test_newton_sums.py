"""Newton's statistics in training: totals over sequences, layers and devices, and what is said of them."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.config.sections.methods import NewtonMethod
from gru_jax.data.batches import taken
from gru_jax.training.devices import place
from gru_jax.training.experiment import abstract_state, from_checkpoint, to_checkpoint
from gru_jax.training.losses import plus
from gru_jax.training.newton_sums import (
    NewtonSums,
    from_meta,
    joined,
    newton_metrics,
    newton_sums,
    to_meta,
    why_not_finite,
    why_slow,
)
from gru_jax.training.step import batch_of

from .experiments import BATCH, batch_of_step, experiment, some_data, state_of, train


def stats(iterations: list[int], residual: list[float], converged: list[bool]) -> gj.Stats:
    bad = ~jnp.array(converged)
    left = jnp.array(residual, jnp.float32)
    return gj.Stats(jnp.array(iterations, jnp.int32), left, left, ~bad, bad)


TWO_LAYERS = (
    (stats([3, 9, 5], [1e-7, 9.0, 1e-6], [True, False, True]), stats([1, 9, 2], [0.0, jnp.nan, 0.0], [True] * 3)),
    (stats([4, 9, 64], [2e-7, jnp.inf, 0.5], [True, False, False]), stats([2, 9, 2], [0.0] * 3, [True] * 3)),
)
SUMS = [
    ([1, 1, 1], [3 + 9 + 5 + 1 + 9 + 2 + 4 + 9 + 64 + 2 + 9 + 2, 64, np.finfo(np.float32).max, 3, 12]),
    ([1, 0, 1], [3 + 5 + 1 + 2 + 4 + 64 + 2 + 2, 64, 0.5, 1, 8]),
    ([1, 0, 0], [3 + 1 + 4 + 2, 4, 2e-7, 0, 4]),
]


@pytest.mark.parametrize(("weight", "expected"), SUMS)
def test_sums_over_sequences_and_layers(weight: list[float], expected: list[float]) -> None:
    sums = jax.jit(newton_sums)(TWO_LAYERS, jnp.array(weight, jnp.float32))
    np.testing.assert_allclose(np.array(sums), np.array(expected, np.float32), rtol=1e-6)
    assert json.loads(json.dumps(newton_metrics(sums), allow_nan=False))["newton/iterations_max"] == expected[1]


def test_sums_join_and_become_metrics() -> None:
    a, b = (NewtonSums(*map(np.float32, v)) for v in ((10, 4, 2e-7, 0, 4), (70, 64, 0.5, 3, 4)))
    together = joined(a, b)
    assert newton_metrics(together, "valid/") == pytest.approx(
        {
            "valid/newton/iterations": 10.0,
            "valid/newton/iterations_max": 64.0,
            "valid/newton/residual": 0.5,
            "valid/newton/fell_back": 3 / 8,
        }
    )
    # Through the JSON of a checkpoint not a bit is lost.
    assert from_meta(json.loads(json.dumps(to_meta(together)))) == together
    assert from_meta(None) == from_meta(to_meta(jax.tree.map(np.zeros_like, a))) and to_meta(None) is None


SEQUENTIAL, NAN = NewtonMethod(kind="newton"), NewtonMethod(kind="newton", fallback="nan", max_iters=7)
SAID = [
    (SEQUENTIAL, 5, "Newton: 5 of 8 sequences in steps 51 to 100 did not converge within 64 iterations", None),
    (SEQUENTIAL, 4, None, None),
    (NAN, 5, None, "Newton: 5 of 8 sequences did not converge within 7 iterations and became NaN"),
    (NAN, 0, None, None),
]


@pytest.mark.parametrize(("method", "unconverged", "slow", "not_finite"), SAID)
def test_what_is_said(method: NewtonMethod, unconverged: int, slow: str | None, not_finite: str | None) -> None:
    sums = NewtonSums(*map(np.float32, (80, 64, 0.5, unconverged, 8)))
    for said, expected in ((why_slow(method, sums, 51, 100), slow), (why_not_finite(method, sums), not_finite)):
        assert said is None if expected is None else said is not None and said.startswith(expected)


MODEL: dict[str, Any] = {"hidden": 4, "layers": 2, "recurrent_dropout": 0.2}


@pytest.mark.parametrize("model", [{"hidden": 4}, pytest.param(MODEL, marks=pytest.mark.slow)], ids=str)
def test_a_step_counts_every_sequence_of_every_layer(model: dict[str, Any]) -> None:
    newton, steps = experiment(model=model | {"method": "newton"}), experiment(model=model)
    state, plain = train(newton, state_of(newton), 3), train(steps, state_of(steps), 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, plain.params)
    assert plain.sums.newton is None and len(jax.tree.leaves(plain.sums)) == 6
    sums = state.sums.newton
    assert float(sums.solves) == 3 * BATCH * model.get("layers", 1)
    assert 0 < float(sums.iterations) / float(sums.solves) <= float(sums.most_iterations) <= 8
    assert 0 < float(sums.residual) <= 8 * np.finfo(np.float32).eps and float(sums.unconverged) == 0
    twice = plus(state.sums, state.sums)
    assert float(twice.newton.solves) == 2 * float(sums.solves) and float(twice.steps) == 6
    assert float(twice.newton.most_iterations) == float(sums.most_iterations)
    # A checkpoint is the same for every method; what is Newton's goes through its meta.
    host = jax.device_get(state)
    saved, meta = to_checkpoint(host), json.loads(json.dumps({"newton": to_meta(host.sums.newton)}))
    assert jax.tree.structure(saved) == jax.tree.structure(abstract_state(newton)) == jax.tree.structure(plain)
    jax.tree.map(np.testing.assert_array_equal, from_checkpoint(newton, saved, meta), host)
    assert from_checkpoint(newton, saved, {}).sums.newton == from_meta(None)
    assert from_checkpoint(steps, saved, meta) is saved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "devices"), [pytest.param("data", 8, marks=pytest.mark.slow), ("pmap", 2)]
)
def test_sums_do_not_depend_on_devices(strategy: str, devices: int) -> None:
    exp, data = experiment(model={"hidden": 4, "method": "newton"}), jax.device_put(some_data())
    expected = train(exp, state_of(exp), 3).sums.newton
    placement = place(strategy, exp.train_step, exp.eval_step, jax.devices()[:devices])
    state = placement.put_state(state_of(exp))
    for step in range(3):
        batch = batch_of_step(data, 0, step)
        state = placement.train_step(state, placement.put_batch(batch))
    sums = placement.get(state.sums).newton
    assert sums.solves == expected.solves and sums.unconverged == 0
    # A rounding error more or less can be a round more or less.
    np.testing.assert_allclose(sums.iterations, expected.iterations, rtol=0.02)
    assert 0 < sums.residual <= 8 * np.finfo(np.float32).eps
    batch = batch_of(taken(some_data(), slice(BATCH)), "class", (np.arange(BATCH) < 11).astype(np.float32))
    found = placement.get(placement.eval_step(state.params, placement.put_batch(batch))).newton
    assert found.solves == 11 and 11 <= found.iterations <= 11 * found.most_iterations
