"""Optimizers against their formulas and against optax, schedules at their corners."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from gru_jax.config.sections import optim
from gru_jax.config.sections.optim import OPTIMIZERS, SGD, Adam, AdamW, Optimizer, RMSProp
from gru_jax.config.sections.schedules import SCHEDULES, Schedule
from gru_jax.training.optimizer import average_of, factors, optimizer_of, plateau_factor

from .config_files import GOOD, errors

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
    transform = optimizer_of(ours, 10)(jnp.float32(RATE))
    state, other_state = transform.init(mine), theirs.init(other)
    for step in range(5):
        gradient = {"w": jnp.array([step - 1.5, 0.3]), "b": jnp.array(2.0)}
        updates, state = transform.update(gradient, state, mine, value=1.0)
        mine = optax.apply_updates(mine, updates)
        with jax.numpy_dtype_promotion("standard"):
            updates, other_state = theirs.update(gradient, other_state, other)
        other = optax.apply_updates(other, updates)
    for key in start:
        np.testing.assert_allclose(mine[key], other[key], rtol=1e-6)


OF_OPTAX = {section.__name__: section for section in OPTIMIZERS[4:]}
# One for each way in which they differ: linear in the rate, by matrices, factored, with an average, told the loss.
QUICK = ("lion", "muon", "adafactor", "schedule_free_sgd", "momo")


def slow_unless(name: str, quick: tuple[str, ...]) -> Any:
    return pytest.param(name, marks=() if name in quick else pytest.mark.slow)


def weights() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(3, 6)).astype(np.float32), "b": rng.normal(size=6).astype(np.float32)}


def loss(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum((params["w"] - 0.3) ** 2) + jnp.sum(jnp.cos(params["b"]))


def descend(of_rate: Callable[[Any], Any], rate: Any, steps: int = 4) -> tuple[Any, Any]:
    """(parameters, state) after some steps, all of them one program."""

    @jax.jit
    def run(rate: Any) -> tuple[Any, Any]:
        transform = optax.with_extra_args_support(of_rate(rate))
        params = jax.tree.map(jnp.asarray, weights())
        state = transform.init(params)
        for _ in range(steps):
            value, gradient = jax.value_and_grad(loss)(params)
            updates, state = transform.update(gradient, state, params, value=value)
            params = jax.tree.map(jnp.add, params, updates)
        return params, state

    return run(rate)


@pytest.mark.parametrize("kind", [slow_unless(name, QUICK) for name in OF_OPTAX])
def test_an_optimizer_of_optax_is_that_of_optax(kind: str) -> None:
    section = OF_OPTAX[kind].model_validate({"kind": kind})
    params, state = descend(optimizer_of(section, 10), jnp.float32(0.02))
    make = getattr(optax, kind, None) or getattr(contrib, kind)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs, _ = descend(lambda _: make(0.02), 0.0)
    for key, start in weights().items():
        np.testing.assert_allclose(params[key], theirs[key], rtol=1e-4, atol=1e-6)
        assert np.isfinite(params[key]).all() and start.shape == params[key].shape
    assert any(not np.array_equal(params[key], start) for key, start in weights().items())
    # What a checkpoint can hold, and what tells a run that goes on from one that has diverged.
    assert all(leaf.dtype.kind in "biuf" and np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("section", OPTIMIZERS)
def test_what_is_written_down_reads_back(section: type[Optimizer]) -> None:
    made = section.model_validate({"kind": section.model_fields["kind"].annotation.__args__[0]})
    assert section.model_validate(made.model_dump(mode="json")) == made


MISTAKES = [
    ("{kind: lion, b11: 0.5}", "b11: unknown key for kind 'lion'; did you mean 'b1'?"),
    ("{kind: lion, b1: x}", "b1: expected a number >= 0 and < 1, got 'x'"),
    ("{kind: adafactor, factored: 1}", "factored: expected true or false, got 1"),
    ("{kind: muon, ns_steps: 5.5}", "ns_steps: expected a whole number >= 0 and <= 1000000000, got 5.5"),
    ("{kind: muon, preconditioning: spektral}", "preconditioning: expected one of 'frobenius', 'spectral', 'aol',"
     " 'schatten', got 'spektral'; did you mean 'spectral'?"),
    ("{kind: prodigy, betas: [1]}", "betas: expected 2 numbers >= 0 and < 1, such as [0.9, 0.999], got a list"),
    ("{kind: schedule_free}", "kind: unknown kind 'schedule_free'; did you mean 'schedule_free_sgd'?"),
    ("{kind: schedule_free_sgd, ema: 0.9}", "ema: schedule_free_sgd has an average of its own; leave it out"),
    ("{kind: adam, rates: {w: -1}}", "rates: expected names of parameters with factors >= 0, such as {embedding: 0.1,"
     " 'net.layers.0.*': 0}, got a mapping"),
    ("{kind: adam, rates: {net.layer.*: 0}}", "rates: no parameter is called 'net.layer.*'; did you mean"),
    ("{kind: adam, rates: {qqq: 0}}", "rates: no parameter is called 'qqq'; they are net.layers.0.w_x, "),
    ("{kind: adam, schedule: {kind: exponentialdecay}}",
     "schedule.kind: unknown kind 'exponentialdecay'; did you mean 'exponential_decay'?"),
    ("{kind: adam, schedule: exponential_decay}", "schedule.decay_rate: is missing; expected a number > 0"),
    ("{kind: adam, schedule: {kind: sgdr, cycles: [20]}}", "schedule.cycles: expected a list of intervals, such as"),
    ("{kind: adam, schedule: {kind: wsd, decay: 5}}", "schedule.decay: expected an interval such as '20 steps' or"),
    ("{kind: adam, schedule: {kind: wsd, decay: 999999999 epochs}}", "schedule.decay: 999999999 epochs is more steps"),
    ("{kind: adam, schedule: {kind: piecewise_constant, boundaries_and_scales: {a: 1}}}",
     "schedule.boundaries_and_scales: expected intervals since the start with factors >= 0"),
    ("{kind: adam, schedule: {kind: warmup_cosine_decay, warmup_steps: 3 epochs, decay_steps: 1 epoch}}",
     "schedule.kind: optax does not take these values: "),
    ("{kind: adam, schedule: {kind: cosine_onecycle, div_factor: 0}}", "schedule.kind: optax does not take these"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "error"), MISTAKES)
def test_a_mistake_is_answered_as_everywhere(section: str, error: str, tmp_path: Path) -> None:
    text = re.sub(r"optim:\n(  .*\n)+", f"optim: {section}\n", GOOD)
    (line,) = errors(tmp_path, text)
    assert f": optim.{error}" in line


def test_every_optimizer_of_optax_is_there() -> None:
    """All that stand beside `sgd` in optax, and those of contrib; what wraps them and parts of them aside."""
    kinds = {section.model_fields["kind"].annotation.__args__[0] for section in OPTIMIZERS}
    ours = {name for name in vars(optax._src.alias) if name in vars(optax) and not name.startswith("scale_by")}
    makers = {name for name in ours if callable(getattr(optax, name)) and name.islower()}
    assert makers - kinds == {"lbfgs", "noisy_sgd", "optimistic_adam"}
    wrappers = {"mechanize", "sam", "schedule_free", "split_real_and_imaginary", "reduce_on_plateau", "normalize"}
    others = {"differentially_private_aggregate", "schedule_free_eval_params", "hutchinson_estimator_diag_hessian"}
    theirs = {name for name, each in vars(contrib).items() if inspect.isfunction(each) and "scale_by" not in name}
    assert (
        theirs - kinds - wrappers - others
        == {"sophia", "dpsgd"}
        == set(optim._MORE_THAN_A_GRADIENT) - {"lbfgs", "noisy_sgd"}
    )


def test_rates_are_factors_on_the_parameters_they_name() -> None:
    names = {"net": {"w": 1, "b": 1}, "b": 1}
    assert factors({"net.*": 0.5, "*.b": 0.0}, names) == {"net": {"w": 0.5, "b": 0.0}, "b": 1}
    for section in (SGD(kind="sgd", rates={"w": 0.5, "b": 0}), OF_OPTAX["lion"](kind="lion", rates={"w": 0.5, "b": 0})):
        params, _ = descend(optimizer_of(section, 10), jnp.float32(0.02))
        half, _ = descend(optimizer_of(section.model_copy(update={"rates": None}), 10), jnp.float32(0.01))
        np.testing.assert_allclose(params["w"], half["w"], rtol=1e-6)
        np.testing.assert_array_equal(params["b"], weights()["b"])


def test_schedule_free_is_evaluated_at_its_average() -> None:
    for rates in (None, {"w": 0.5}):
        section = OF_OPTAX["schedule_free_sgd"](kind="schedule_free_sgd", rates=rates)
        params, state = descend(optimizer_of(section, 10), jnp.float32(0.02))
        average = average_of(section)
        assert average is not None
        found = average(params, params, state, jnp.int32(3))
        if rates is None:
            with jax.numpy_dtype_promotion("standard"):
                close(found, contrib.schedule_free_eval_params(state[-1], params))
        assert all(not np.allclose(found[key], params[key]) for key in params)


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_an_average_weighs_all_steps_as_if_there_were_no_first() -> None:
    average = average_of(SGD(kind="sgd", ema=0.9))
    assert average is not None
    values = [jnp.float32(value) for value in (3.0, -1.0, 4.0)]
    found = jnp.float32(100.0)
    for step, value in enumerate(values):
        found = average(found, value, None, jnp.int32(step))
    parts = 0.9 ** np.arange(2, -1, -1)
    np.testing.assert_allclose(found, np.sum(parts * np.array(values)) / parts.sum(), rtol=1e-5)


def test_a_plateau_lowers_the_rate() -> None:
    schedule = {"kind": "plateau", "every": "2 steps", "patience": 2, "factor": 0.5}
    section = SGD.model_validate({"kind": "sgd", "schedule": schedule})
    transform = optimizer_of(section, 10)(jnp.float32(1.0))
    one = jnp.ones(())
    state, seen = transform.init(one), []
    for value in [3.0, 3.0, 2.0, 2.0, *[2.0] * 10]:
        updates, state = transform.update(one, state, one, value=jnp.float32(value))
        seen.append(float(-updates))
        assert plateau_factor(state) == seen[-1] and all(np.isfinite(leaf) for leaf in jax.tree.leaves(state))
    # The best mean is that of steps 3 and 4; two more means are no better: at step 8, and again at step 12.
    assert seen == [1.0] * 7 + [0.5] * 4 + [0.25] * 3


def of(kind: str, **keys: Any) -> Callable[[object], object]:
    """A schedule over 100 steps, ten of them an epoch."""
    (section,) = [each for each in SCHEDULES if each.model_fields["kind"].annotation.__args__[0] == kind]
    made = section.model_validate({"kind": kind, **keys})
    assert isinstance(made, Schedule)
    return made.build(100, 10)


SCHEDULED: list[tuple[str, dict[str, Any], dict[int, float]]] = [
    ("constant", {}, {0: 1, 50: 1, 99: 1}),
    ("cosine", {}, {0: 1, 50: 0.5, 100: 0}),
    ("cosine", {"final": 0.2}, {0: 1, 50: 0.6, 100: 0.2}),
    ("warmup_cosine", {"warmup": "2 epochs"}, {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0}),
    ("warmup_cosine", {"warmup": "500 steps"}, {0: 0, 50: 0.1, 99: 0.198}),
    ("wsd", {"decay": "4 epochs", "final": 0.2}, {0: 0, 5: 0.5, 10: 1, 60: 1, 80: 0.6, 100: 0.2}),
    ("wsd", {"warmup": "500 steps"}, {0: 0, 50: 0.1, 99: 0.198}),
    ("sgdr", {"cycles": ["2 epochs", "8 epochs"]}, {0: 1, 10: 0.5, 19: 0.00616, 20: 1, 60: 0.5}),
    ("plateau", {}, {0: 1, 99: 1}),
    ("cosine_decay", {"decay_steps": "50 steps", "alpha": 0.1}, {0: 1, 25: 0.55, 50: 0.1, 99: 0.1}),
    ("cosine_onecycle", {}, {0: 1 / 25, 30: 1, 100: 1 / 25e4}),
    ("linear_onecycle", {"pct_final": 0.8}, {0: 1 / 25, 15: 0.52, 30: 1, 80: 1 / 25, 100: 1 / 25e4}),
    ("exponential_decay", {"decay_rate": 0.01}, {0: 1, 50: 0.1, 100: 0.01}),
    ("exponential_decay", {"decay_rate": 0.5, "transition_steps": "1 epoch", "transition_begin": "10 steps"},
     {0: 1, 10: 1, 20: 0.5, 30: 0.25}),
    ("linear", {"end_value": 0.5}, {0: 1, 50: 0.75, 100: 0.5}),
    ("piecewise_constant", {"boundaries_and_scales": {"2 epochs": 0.5, "50 steps": 0.1}}, {0: 1, 21: 0.5, 51: 0.05}),
    ("piecewise_interpolate", {"boundaries_and_scales": {"2 epochs": 0.5}}, {0: 1, 10: 0.75, 20: 0.5, 90: 0.5}),
    ("polynomial", {"power": 2.0}, {0: 1, 50: 0.25, 100: 0}),
    ("warmup_constant", {}, {0: 0, 5: 0.5, 10: 1, 99: 1}),
    ("warmup_cosine_decay", {"end_value": 0.2}, {0: 0, 10: 1, 55: 0.6, 100: 0.2}),
    ("warmup_exponential_decay", {"decay_rate": 0.5, "transition_steps": "1 epoch"}, {0: 0, 10: 1, 20: 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "keys", "values"), SCHEDULED)
def test_schedule(kind: str, keys: dict[str, Any], values: dict[int, float]) -> None:
    found = jax.vmap(of(kind, **keys))(jnp.asarray(list(values), jnp.int32))
    np.testing.assert_allclose(found, list(values.values()), atol=1e-5)


def test_every_schedule_is_looked_at() -> None:
    assert {kind for kind, *_ in SCHEDULED} == {each.model_fields["kind"].annotation.__args__[0] for each in SCHEDULES}
