"""A batch in parts: the numbers of the whole batch, in less memory, and no row on another device than before."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.config.config import broken_device_rules, config_hash
from gru_jax.training.devices import place, time_mesh
from gru_jax.training.experiment import Experiment, build
from gru_jax.training.step import batch_of, init_state, train_step

from ..config.config_files import GOOD, errors
from .experiments import BATCH, batch_of_step, config, some_data, state_of
from .test_targets import B, pieces, split

DROPOUT = {"layers": 2, "dropout": 0.3, "input_dropout": 0.3, "recurrent_dropout": 0.2}
STEPS = 3


def trained(parallel: dict[str, Any], **sections: dict[str, Any]) -> Any:
    """The state after STEPS steps, on the devices that `parallel` names."""
    experiment = on_devices(parallel, **sections)
    placement = placed(experiment)
    state, data = placement.put_state(state_of(experiment)), jax.device_put(some_data())
    for step in range(STEPS):
        state = placement.train_step(state, placement.put_batch(batch_of_step(data, 0, step)))
    return placement.get(state)


def on_devices(parallel: dict[str, Any], **sections: dict[str, Any]) -> Experiment:
    """The experiment for the devices that `parallel` names."""
    made = config(parallel=parallel, **sections)
    devices = jax.devices()[: made.parallel.devices]
    assert broken_device_rules(made, len(devices), "cpu") == []
    return build(made, time_mesh(devices, made.parallel.parts) if made.parallel.strategy == "time" else None)


def placed(experiment: Experiment) -> Any:
    """Its steps on its devices."""
    parallel = experiment.config.parallel
    devices = jax.devices()[: parallel.devices]
    return place(parallel.strategy, experiment.train_step, experiment.eval_step, devices, parallel.parts)


def close(got: Any, want: Any) -> None:
    """States agree up to the order of summation, which Adam makes larger while its moments are small."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got.params, want.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got.sums, want.sums)


NOISE = {"weight_noise": 0.05}
WAYS = [
    pytest.param({"accumulate": 4}, DROPOUT, {}, marks=pytest.mark.slow),
    ({"accumulate": BATCH}, {}, NOISE),
    pytest.param({"strategy": "data", "devices": 2, "accumulate": 4}, DROPOUT, NOISE, marks=pytest.mark.slow),
    pytest.param(
        {"strategy": "pmap", "devices": 4, "accumulate": 2}, {"input_dropout": 0.3}, NOISE, marks=pytest.mark.slow
    ),
    pytest.param({"accumulate": 2}, {"method": {"kind": "newton"}}, {}, marks=pytest.mark.slow),
    pytest.param(
        {"strategy": "pmap", "devices": 2, "accumulate": 2}, {"method": {"kind": "newton"}}, {}, marks=pytest.mark.slow
    ),
    pytest.param({"strategy": "time", "devices": 8, "parts": 4, "accumulate": 2}, {}, {}, marks=pytest.mark.slow),
    pytest.param(
        {"strategy": "time", "devices": 4, "parts": 2, "accumulate": 4},
        {"input_dropout": 0.3},
        NOISE,
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("parallel", "model", "optim"), WAYS)
def test_numbers_are_those_of_the_whole_batch(
    parallel: dict[str, Any], model: dict[str, Any], optim: dict[str, Any]
) -> None:
    whole = trained(parallel | {"accumulate": 1}, model=model, optim=optim)
    in_parts = trained(parallel, model=model, optim=optim)
    close(in_parts, whole)
    assert float(in_parts.sums.targets) == STEPS * BATCH and float(in_parts.sums.bad_steps) == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tags", "values"])
def test_parts_with_more_and_with_less_to_tell(target: str) -> None:
    """The mean is over all that is asked, not over parts; a part in which nothing is asked changes nothing."""
    batch = batch_of(split(target)._replace(lengths=np.array([6, 0, 2, 0], np.int32)), target)
    if target == "values":
        batch = batch._replace(weight=jnp.array([1.0, 0.0, 1.0, 0.0]))
    model, optimizer = pieces(target)
    state = init_state(jnp.uint32(0), jnp.float32(0.1), model, optimizer)
    options = {"model": model, "optimizer": optimizer, "target": target}
    states = [
        jax.jit(lambda parts: train_step(state, batch, schedule=lambda _: 1.0, accumulate=parts, **options),
                static_argnums=0)(parts)
        for parts in (1, 2, B)
    ]  # fmt: skip
    for other in states[1:]:
        close(other, states[0])


def test_a_loss_that_is_not_finite_is_counted_once() -> None:
    experiment = on_devices({"accumulate": 4})
    batch = batch_of_step(some_data(), 0, 0)
    bad = batch._replace(x=batch.x.at[5].set(jnp.nan))
    assert float(jax.jit(experiment.train_step)(state_of(experiment), bad).sums.bad_steps) == 1


def test_memory_falls() -> None:
    net = gj.stack(gj.recurrent(gj.GRU(16), method=gj.Sequential(keep="gates")))
    model, optimizer = gj.models.readout(net, 8, 10), pieces("class")[1]
    shapes = jax.eval_shape(lambda: init_state(jnp.uint32(0), jnp.float32(0.1), model, optimizer))
    x, y = jax.ShapeDtypeStruct((64, 200, 8), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32)
    batch = jax.eval_shape(lambda x, y: batch_of(split("class")._replace(x=x, y=y, lengths=None), "class"), x, y)

    def temporaries(parts: int) -> int:
        def step(state: Any, batch: Any) -> Any:
            return train_step(
                state, batch, model=model, optimizer=optimizer, schedule=lambda _: 1.0, accumulate=parts
            )

        return jax.jit(step).lower(shapes, batch).compile().memory_analysis().temp_size_in_bytes

    whole, eighth = temporaries(1), temporaries(8)
    assert eighth < whole / 4


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_no_row_moves_to_another_device(devices: int) -> None:
    """Under jit the compiler decides what moves: gradients and totals are added up, and nothing else is sent."""
    experiment = on_devices({"strategy": "data", "devices": devices, "accumulate": 2}, model=DROPOUT)
    placement = placed(experiment)
    state = placement.put_state(state_of(experiment))
    batch = placement.put_batch(batch_of_step(some_data(), 0, 0))
    text = placement.train_step.lower(state, batch).compile().as_text()
    moves = set(re.findall(r" (all-\w+|collective-\w+|reduce-scatter|ragged-all-to-all)(?:-start)?\(", text))
    assert moves == {"all-reduce"}


def test_it_decides_no_numbers() -> None:
    assert config_hash(config(parallel={"accumulate": 4})) == config_hash(config())


def test_parts_have_to_divide_the_batch(tmp_path: Path) -> None:
    text = GOOD + "parallel: {accumulate: 5}\n"
    assert errors(tmp_path, text) == [
        "config.yaml:17:24: parallel.accumulate: 5 parts do not divide the batch of 32 sequences evenly"
    ]
    assert errors(tmp_path, text, "parallel.accumulate=0") != []
    assert errors(tmp_path, text, "parallel.accumulate=8") == []
    made = config(parallel={"strategy": "data", "devices": 4, "accumulate": 8})
    assert broken_device_rules(made, 8, "cpu") == [
        (("parallel", "accumulate"), "8 parts do not divide the 4 sequences of each device evenly")
    ]
