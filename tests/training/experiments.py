"""Small experiments for tests that run in this process."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config.config import Config
from gru_jax.data.dataset import Split
from gru_jax.training.experiment import Experiment, batch_at, build

BATCH = 16


def config(**sections: dict[str, Any]) -> Config:
    """A config of eight-step digits, sections changed by keyword."""
    values: dict[str, Any] = {
        "schema": 1,
        "name": "test",
        "task": {"kind": "digits", "view": "rows", "batch": BATCH},
        "model": {"kind": "gru", "hidden": 8},
        "optim": {"kind": "adam", "lr": 1e-2, "clip_norm": 1.0, "schedule": {"kind": "cosine"}},
        "train": {"epochs": 2},
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return Config.model_validate(values)


@functools.cache
def _build(config: Config) -> Experiment:
    return build(config)


def experiment(**sections: dict[str, Any]) -> Experiment:
    """The experiment of `config`; equal ones are one, so that they compile once."""
    return _build(config(**sections))


@functools.cache
def compiled(experiment: Experiment) -> tuple[Any, Any]:
    """(init_state, train_step) under jit."""
    return jax.jit(experiment.init_state), jax.jit(experiment.train_step)


def some_data() -> Split:
    """Random sequences of the digits' shape with labels that can be learnt from them."""
    rng = np.random.default_rng(0)
    x = rng.random((64, 8, 8), dtype=np.float32)
    return Split(x, x.mean(axis=1).argmax(axis=1).astype(np.int32))


def batch_of_step(data: Split, seed: Any, step: Any) -> Any:
    """The batch that a step sees of classified sequences."""
    return batch_at(data, jnp.asarray(seed, jnp.uint32), jnp.asarray(step, jnp.int32), target="class", size=BATCH)


def state_of(experiment: Experiment, seed: int = 0, rate: float = 1e-2) -> Any:
    """The state before the first step."""
    init_state, _ = compiled(experiment)
    return init_state(jnp.asarray(seed, jnp.uint32), jnp.asarray(rate, jnp.float32))


def train(experiment: Experiment, state: Any, steps: int) -> Any:
    """The state after so many steps on `some_data`, under jit."""
    _, step_once = compiled(experiment)
    data = jax.device_put(some_data())
    for step in range(steps):
        batch = batch_of_step(data, state.seed, step)
        state = step_once(state, batch)
    return state
