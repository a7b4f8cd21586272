"""Mixed precision: every model trains in bfloat16, learns what it learns in float32, and nothing else is narrow."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.config.config import Config, config_hash
from gru_jax.config.sections.devices import PrecisionConfig
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.sweeps.groups import _may_be_stacked
from gru_jax.training.experiment import abstract_state, build, to_checkpoint
from gru_jax.training.losses import add_up, metrics_of
from gru_jax.training.precision import in_precision, narrowed
from gru_jax.training.step import init_state, train_step

from .experiments import batch_of_step, config, experiment, some_data, state_of, train
from .test_accumulation import on_devices, placed
from .test_targets import I, O, batch_of, pieces, split

HALF = {"params": "bfloat16", "compute": "bfloat16"}
COMPUTE = {"params": "float32", "compute": "bfloat16"}
HELD = {"params": "bfloat16", "compute": "float32"}
NEWTON = {"kind": "newton"}

MODELS: list[dict[str, Any]] = [
    {"kind": "gru", "layers": 2, "bidirectional": True, "norm": "layer", "dropout": 0.1, "input_dropout": 0.1},
    {"kind": "gru", "reset": "before", "heads": 2, "pool": "mean", "norm": "rms", "recurrent_dropout": 0.1},
    {"kind": "gru", "heads": 2, "method": NEWTON},
    {"kind": "mgu"},
    {"kind": "mgu", "method": {"kind": "newton", "jacobian": "diagonal", "window": 4}},
    {"kind": "min_gru", "form": "log"},
    {"kind": "min_lstm"},
    {"kind": "lstm"},
    {"kind": "lstm", "method": NEWTON},
    {"kind": "tanh"},
    {"kind": "tanh", "method": NEWTON},
    {"kind": "min_blocks", "width": 8, "dropout": 0.1},
]


def of_model(model: dict[str, Any], precision: dict[str, str], **sections: Any) -> Config:
    """A config of this model alone, in this precision."""
    sizes = {} if model["kind"] == "min_blocks" else {"hidden": 8}
    values = config().resolved() | {"model": sizes | model, "precision": precision} | sections
    return Config.model_validate(values)


def dtypes(tree: Any) -> set[str]:
    """Those of its floating-point arrays."""
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_near_its_losses_in_float32(model: dict[str, Any]) -> None:
    def losses(precision: dict[str, str]) -> Any:
        made = build(of_model(model, precision))
        state = train(made, state_of(made), 3)
        assert dtypes(state.params) == {precision["params"]}
        assert dtypes((state.opt_state, state.sums, state.rate)) == {"float32"}
        assert float(state.sums.bad_steps) == 0
        totals = jax.jit(made.eval_step)(state.params, batch_of_step(some_data(), 0, 0))
        assert dtypes(totals) == {"float32"}
        return [float(state.sums.loss / state.sums.targets), float(totals.loss / totals.targets)]

    np.testing.assert_allclose(losses(HALF), losses({"params": "float32", "compute": "float32"}), rtol=0.02)


@pytest.mark.parametrize("precision", [pytest.param(COMPUTE, marks=pytest.mark.slow), HELD])
def test_one_of_the_two_alone(precision: dict[str, str]) -> None:
    made = experiment(precision=precision, optim={"weight_noise": 0.01, "weight_decay": 0.1})
    state = train(made, state_of(made), 3)
    assert dtypes(state.params) == {precision["params"]} and dtypes(state.opt_state) == {"float32"}
    whole = experiment(optim={"weight_noise": 0.01, "weight_decay": 0.1})
    expected = train(whole, state_of(whole), 3)
    np.testing.assert_allclose(float(state.sums.loss), float(expected.sums.loss), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel",
    [
        {"strategy": "pmap", "devices": 2, "accumulate": 2},
        pytest.param({"strategy": "data", "devices": 4}, marks=pytest.mark.slow),
        pytest.param({"strategy": "time", "devices": 4, "parts": 2}, marks=pytest.mark.slow),
    ],
)
def test_devices_hold_the_same_parameters(parallel: dict[str, Any]) -> None:
    """What is rounded by chance is rounded alike on all of them."""
    made = on_devices(parallel, precision=HALF)
    placement = placed(made)
    state, data = placement.put_state(state_of(made)), jax.device_put(some_data())
    for step in range(3):
        state = placement.train_step(state, placement.put_batch(batch_of_step(data, 0, step)))
    for leaf in jax.tree.leaves(state.params):
        copies = [np.asarray(shard.data).reshape(-1).astype(np.float32) for shard in leaf.addressable_shards]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])
    alone = experiment(precision=HALF)
    expected = train(alone, state_of(alone), 3).sums
    np.testing.assert_allclose(float(placement.get(state).sums.loss), float(expected.loss), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["notes", pytest.param("tags", marks=pytest.mark.slow)])
def test_targets_are_counted_in_float32(target: str) -> None:
    model, optimizer = pieces(target)
    half = in_precision(model, PrecisionConfig(**HALF))
    sums = []
    for each in (model, half):
        state = init_state(jnp.uint32(0), jnp.float32(0.1), each, optimizer)
        step = jax.jit(
            lambda state, batch, each=each: train_step(
                state, batch, model=each, optimizer=optimizer, schedule=lambda _: 1.0, target=target
            )
        )
        sums.append(step(state, batch_of(split(target), target)).sums)
    assert dtypes(sums) == {"float32"}
    np.testing.assert_allclose(float(sums[1].loss), float(sums[0].loss), rtol=0.02)
    assert float(sums[1].targets) == float(sums[0].targets)


@pytest.mark.slow
def test_stacked_runs_are_those_of_one() -> None:
    made = experiment(precision=HALF)
    assert _may_be_stacked(made.config)
    seeds, rates = jnp.array([0, 1], jnp.uint32), jnp.array([1e-2, 3e-2], jnp.float32)
    states, data = jax.jit(jax.vmap(made.init_state))(seeds, rates), jax.device_put(some_data())
    step_once = jax.jit(jax.vmap(lambda state: made.train_step(state, batch_of_step(data, state.seed, state.step))))
    for _ in range(3):
        states = step_once(states)
    alone = train(made, state_of(made, 1, 3e-2), 3)
    np.testing.assert_allclose(float(states.sums.loss[1]), float(alone.sums.loss), rtol=0.02)


def test_a_checkpoint_holds_bfloat16(tmp_path: Path) -> None:
    made = experiment(precision=HALF)
    state = to_checkpoint(jax.device_get(train(made, state_of(made), 2)))
    checkpoint.save(tmp_path, Checkpoint(2, state, state.params, {}), keep=1)
    like = abstract_state(made)
    found, warnings = checkpoint.restore(tmp_path, like, like.params)
    assert found is not None and warnings == []
    jax.tree.map(np.testing.assert_array_equal, found.state, state)
    assert dtypes(found.best_params) == {"bfloat16"}
    again = train(made, jax.device_put(found.state), 1)
    jax.tree.map(np.testing.assert_array_equal, again, train(made, jax.device_put(state), 1))


@pytest.mark.slow
def test_tokens_are_drawn_by_the_model_that_was_trained() -> None:
    model = in_precision(gj.models.sequence_model(gj.recurrent(gj.GRU(8)), 5), PrecisionConfig(**HALF))
    params, prompt = model.init(jax.random.key(0)), jnp.array([[0, 3]])
    drawn, states = model.sample(params, jax.random.key(1), prompt, 4, return_state=True)
    assert drawn.shape == (1, 4) and dtypes(states) == {"float32"}
    assert model.sample(params, jax.random.key(1), drawn[:, -1:], 4, h0=states).shape == (1, 4)


def test_rounding_by_chance_keeps_small_steps() -> None:
    """A quarter of the distance between two bfloat16 is lost by rounding to the nearest, and kept in the mean."""
    old = jnp.ones(40_000, jnp.bfloat16)
    distance = 2**-7
    moved = old.astype(jnp.float32) + 0.25 * distance
    new = narrowed({"w": moved}, {"w": old}, jax.random.key(0))["w"]
    assert new.dtype == jnp.bfloat16
    assert set(np.unique(new.astype(jnp.float32))) == {1.0, 1.0 + distance}
    assert abs(float((new.astype(jnp.float32) - 1).mean()) / distance - 0.25) < 0.02
    odd = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0, -1.5], jnp.float32)
    same = narrowed(odd, odd.astype(jnp.bfloat16), jax.random.key(0))
    np.testing.assert_array_equal(same.astype(jnp.float32), odd)
    assert narrowed(moved, moved, jax.random.key(0)) is moved


def test_a_loss_that_is_not_finite_is_seen() -> None:
    made = experiment(precision=HALF)
    state = state_of(made)
    state = state._replace(params=state.params._replace(b=state.params.b.at[0].set(jnp.nan)))
    assert float(train(made, state, 2).sums.bad_steps) == 2


@pytest.mark.slow
def test_it_learns_as_much() -> None:
    def accuracy(precision: dict[str, str]) -> float:
        made = experiment(precision=precision, model={"hidden": 32})
        state = train(made, state_of(made), 200)
        totals = jax.jit(made.eval_step)(state.params, batch_of(some_data(), "class"))
        return metrics_of(add_up([jax.device_get(totals)]), "class", "valid")["valid/accuracy"]

    assert accuracy(HALF) > 0.97 * accuracy({"params": "float32", "compute": "float32"}) > 0.8


def test_it_counts_for_the_hash_and_its_default_does_not() -> None:
    hashes = [config_hash(config(precision=each)) for each in (HALF, COMPUTE, HELD)]
    assert len({*hashes, config_hash(config())}) == 4
    assert config_hash(config(precision={"params": "float32", "compute": "float32"})) == config_hash(config())


def test_what_the_network_is_told_is_of_its_dtype() -> None:
    model = gj.models.readout(gj.recurrent(gj.GRU(4)), I, O)
    assert in_precision(model, PrecisionConfig()) is model
    mixed = in_precision(model, PrecisionConfig(**COMPUTE))
    params = mixed.init(jax.random.key(0))
    assert dtypes(params) == {"float32"}
    text = str(jax.make_jaxpr(lambda p, x: mixed.apply(p, x))(params, jnp.ones((2, 3, I))))
    assert "bf16[2,3,3]" in text and "f32[2,5]" in text
