"""Optimizers against their formulas, schedules at their corners."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gru_jax.config.sections.optim import (
    SGD,
    Adam,
    AdamW,
    ConstantSchedule,
    CosineSchedule,
    Optimizer,
    RMSProp,
    WarmupCosineSchedule,
)

RATE = 0.1

# Ours beside optax's own optimizer of the same meaning.
PAIRS: list[tuple[Optimizer, optax.GradientTransformation]] = [
    (Adam(kind="adam"), optax.adam(RATE)),
    (Adam(kind="adam", b1=0.5, eps=1e-3), optax.adam(RATE, b1=0.5, eps=1e-3)),
    (AdamW(kind="adamw", weight_decay=0.2), optax.adamw(RATE, weight_decay=0.2)),
    (SGD(kind="sgd"), optax.sgd(RATE)),
    (SGD(kind="sgd", momentum=0.9, nesterov=True), optax.sgd(RATE, 0.9, True)),
    (RMSProp(kind="rmsprop", decay=0.8), optax.rmsprop(RATE, 0.8)),
    (SGD(kind="sgd", clip_norm=0.5), optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(RATE))),
    (
        Adam(kind="adam", weight_decay=0.3, clip_norm=0.5),
        optax.chain(optax.clip_by_global_norm(0.5), optax.add_decayed_weights(0.3), optax.adam(RATE)),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_is_the_optimizer_it_names(ours: Optimizer, theirs: optax.GradientTransformation) -> None:
    start = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    mine, other = start, start
    transform = ours.build()
    state, other_state = transform.init(mine), theirs.init(other)
    for step in range(5):
        gradient = {"w": jnp.array([step - 1.5, 0.3]), "b": jnp.array(2.0)}
        direction, state = transform.update(gradient, state, mine)
        mine = {key: mine[key] - RATE * direction[key] for key in mine}
        with jax.numpy_dtype_promotion("standard"):
            updates, other_state = theirs.update(gradient, other_state, other)
        other = optax.apply_updates(other, updates)
    for key in start:
        np.testing.assert_allclose(mine[key], other[key], rtol=1e-6)


SCHEDULES: list[tuple[Callable[[int], object], dict[int, float]]] = [
    (ConstantSchedule(kind="constant").build(100, 10), {0: 1, 50: 1, 99: 1}),
    (CosineSchedule(kind="cosine").build(100, 10), {0: 1, 50: 0.5, 100: 0}),
    (CosineSchedule(kind="cosine", final=0.2).build(100, 10), {0: 1, 50: 0.6, 100: 0.2}),
    (
        WarmupCosineSchedule(kind="warmup_cosine", warmup="2 epochs").build(100, 10),
        {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0},
    ),
    (
        WarmupCosineSchedule(kind="warmup_cosine", warmup="500 steps").build(100, 10),
        {0: 0, 50: 0.1, 99: 0.198},
    ),
]


@pytest.mark.parametrize(("schedule", "values"), SCHEDULES)
def test_schedule(schedule: Callable[[object], object], values: dict[int, float]) -> None:
    for step, value in values.items():
        np.testing.assert_allclose(schedule(jnp.asarray(step, jnp.int32)), value, atol=1e-6)
