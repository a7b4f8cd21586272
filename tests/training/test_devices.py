"""One device, a mesh and pmap: the same numbers, one program each."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from gru_jax.data.batches import taken
from gru_jax.training.devices import place, time_mesh
from gru_jax.training.experiment import build
from gru_jax.training.step import TrainState, batch_of

from .experiments import BATCH, batch_of_step, experiment, some_data, state_of

PLAIN: dict[str, object] = {}
DROPOUT: dict[str, object] = {"input_dropout": 0.3, "recurrent_dropout": 0.2}
WAYS = [
    pytest.param("data", 8, PLAIN, marks=pytest.mark.slow),
    ("data", 2, DROPOUT),
    pytest.param("pmap", 8, PLAIN, marks=pytest.mark.slow),
    pytest.param("pmap", 8, DROPOUT, marks=pytest.mark.slow),
    pytest.param("pmap", 1, PLAIN, marks=pytest.mark.slow),
    pytest.param("time", 8, DROPOUT, marks=pytest.mark.slow),
    pytest.param("time", 8, PLAIN, marks=pytest.mark.slow),
    pytest.param("time of two axes", 8, PLAIN, marks=pytest.mark.slow),
    pytest.param("time of two axes", 8, DROPOUT, marks=pytest.mark.slow),
]
STEPS = 4


def trained(strategy: str, devices: int, model: dict[str, object], **optim: object) -> tuple[Any, Any]:
    """(state after STEPS steps, totals of an evaluation); asserts one compilation on the way."""
    exp, data = experiment(model=model, optim=optim), jax.device_put(some_data())
    parts = None
    if strategy.startswith("time"):
        strategy, parts = "time", 2 if "two" in strategy else None
        exp = build(exp.config, time_mesh(jax.devices()[:devices], parts))
    traces = 0

    def train_step(*args: Any, **options: Any) -> TrainState:
        nonlocal traces
        traces += 1
        return exp.train_step(*args, **options)

    placement = place(strategy, train_step, exp.eval_step, jax.devices()[:devices], parts)
    assert placement.devices == devices
    state = placement.put_state(state_of(exp))
    traced_by_step = []
    for step in range(STEPS):
        batch = batch_of_step(data, 0, step)
        state = placement.train_step(state, placement.put_batch(batch))
        traced_by_step.append(traces)
    assert traced_by_step == [traced_by_step[0]] * STEPS, "a later step was compiled again"
    batch = batch_of(taken(some_data(), slice(BATCH)), "class", (np.arange(BATCH) < 11).astype(np.float32))
    sums = placement.eval_step(state.params, placement.put_batch(batch))
    return placement.get(state), placement.get(sums)


_on_one = functools.cache(lambda dropout: trained("single", 1, DROPOUT if dropout else PLAIN))


@pytest.mark.parametrize(("strategy", "devices", "model"), WAYS)
def test_numbers_do_not_depend_on_devices(strategy: str, devices: int, model: dict[str, object]) -> None:
    expected, expected_sums = _on_one(model is DROPOUT)
    state, sums = trained(strategy, devices, model)
    # Adam divides by the root of the second moment: early on, a rounding error of a tiny gradient
    # becomes one of the update, so parameters agree less closely than the totals do.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state.params, expected.params)
    for got, want in ((state.sums, expected.sums), (sums, expected_sums)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), got, want)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data", "pmap"])
def test_averages_and_plateaus_do_not_depend_on_devices(strategy: str) -> None:
    # The loss of a step, which a plateau looks at, is that of all devices.
    schedule = {"kind": "plateau", "every": "1 step", "patience": 1, "factor": 0.5, "rtol": 0.9}
    optim = {"kind": "sgd", "lr": 0.1, "ema": 0.5, "schedule": schedule}
    states = [trained(way, devices, PLAIN, **optim)[0] for way, devices in (("single", 1), (strategy, 8))]
    assert float(states[0].opt_state.plateau.scale) < 1
    pairs = [(state.params, state.averaged, state.opt_state) for state in states]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *pairs)


def test_single_takes_the_first_device() -> None:
    exp = experiment()
    placement = place("single", exp.train_step, exp.eval_step, jax.devices())
    state = placement.put_state(state_of(exp))
    assert placement.devices == 1
    assert jax.tree.leaves(state)[0].devices() == {jax.devices()[0]}


@pytest.mark.parametrize(("strategy", "devices"), [("single", 1), ("data", 8), ("pmap", 8)])
def test_state_goes_in_and_out_unchanged(strategy: str, devices: int) -> None:
    exp = experiment()
    placement = place(strategy, exp.train_step, exp.eval_step, jax.devices()[:devices])
    state = jax.device_get(state_of(exp))
    jax.tree.map(np.testing.assert_array_equal, placement.get(placement.put_state(state)), state)


def test_unknown_strategy_is_refused() -> None:
    exp = experiment()
    with pytest.raises(ValueError, match="'single', 'data', 'pmap' or 'time', got 'both'"):
        place("both", exp.train_step, exp.eval_step, jax.devices())
