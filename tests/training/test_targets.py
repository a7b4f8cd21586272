"""Every kind of target: its loss, its metrics, and that padding counts in neither, whatever stands there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gru_jax as gj
from gru_jax.data.dataset import TARGET_METRICS, Split
from gru_jax.runs.on_disk.history import History
from gru_jax.training.devices import batch_in_parts
from gru_jax.training.losses import add_up, losses_and_hits, metrics_of
from gru_jax.training.step import Batch, batch_of, eval_step, init_state, train_step

B, T, I, O = 4, 6, 3, 5
LENGTHS = np.array([6, 3, 3, 6], np.int32)
TARGETS = ("class", "values", "tags", "notes")


def split(target: str) -> Split:
    """Random sequences with lengths and a target of one kind."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, I)).astype(np.float32)
    y = {
        "class": rng.integers(O, size=B).astype(np.int32),
        "values": rng.normal(size=(B, O)).astype(np.float32),
        "tags": rng.integers(O, size=(B, T)).astype(np.int32),
        "notes": rng.integers(2, size=(B, T, O)).astype(np.float32),
    }[target]
    return Split(x, y, LENGTHS)


def of_rate(rate) -> optax.GradientTransformationExtraArgs:
    """Plain gradient descent."""
    return optax.with_extra_args_support(optax.scale_by_learning_rate(rate))


def pieces(target: str):
    """(model, optimizer) for the random sequences."""
    steps = "all" if target in ("tags", "notes") else "last"
    return gj.models.readout(gj.recurrent(gj.GRU(4)), I, O, steps=steps), of_rate


def step_and_sums(target: str, batch: Batch, **options):
    """(parameters after a step of gradient descent, totals of that step, totals of an evaluation)."""
    return _compiled(target, tuple(options.items()))(batch)


@functools.cache
def _compiled(target: str, options: tuple):
    model, optimizer = pieces(target)
    fixed = {"model": model, "target": target}

    def both(batch: Batch):
        state = init_state(jnp.uint32(0), jnp.float32(0.1), model, optimizer)
        schedule = optax.constant_schedule(1.0)
        after = train_step(state, batch, optimizer=optimizer, schedule=schedule, **fixed, **dict(options))
        return after.params, after.sums, eval_step(state.params, batch, **fixed)

    return jax.jit(both)


def test_losses_by_hand() -> None:
    outputs = jnp.array([[0.0, jnp.log(3.0)]])
    loss, hits = losses_and_hits(outputs, jnp.array([1]), "class")
    np.testing.assert_allclose(loss, [-np.log(0.75)], rtol=1e-6)
    np.testing.assert_array_equal(hits, [1.0])
    loss, hits = losses_and_hits(outputs, jnp.array([[1.0, 0.0]]), "values")
    np.testing.assert_allclose(loss, [(1 + np.log(3) ** 2) / 2], rtol=1e-6)
    np.testing.assert_array_equal(hits, [0.0])
    loss, _ = losses_and_hits(outputs[None], jnp.array([[[1.0, 0.0]]]), "notes")
    np.testing.assert_allclose(loss, [[-np.log(0.5) - np.log(0.25)]], rtol=1e-6)
    extreme, _ = losses_and_hits(jnp.array([[1e4, -1e4]]), jnp.array([[0.0, 1.0]]), "notes")
    np.testing.assert_allclose(extreme, [2e4])


@pytest.mark.parametrize(
    "target", [pytest.param(one, marks=() if one == "class" else pytest.mark.slow) for one in TARGETS]
)
def test_padding_counts_nowhere(target: str) -> None:
    data = split(target)
    x, y = data.x.copy(), data.y.copy()
    for row, length in enumerate(LENGTHS):
        x[row, length:] = np.nan
        if target in ("tags", "notes"):
            y[row, length:] = 7 if target == "tags" else np.nan
    clean = step_and_sums(target, batch_of(data, target))
    dirty = step_and_sums(target, batch_of(Split(x, y, LENGTHS), target))
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(clean))
    # And the totals are those of the sequences one by one, without any padding.
    model, _ = pieces(target)
    params = init_state(jnp.uint32(0), jnp.float32(0.1), *pieces(target)).params
    loss, count = 0.0, 0
    for row, length in enumerate(LENGTHS):
        outputs = model.apply(params, jnp.asarray(data.x[row : row + 1, :length]), deterministic=True)
        told = data.y[row : row + 1, :length] if target in ("tags", "notes") else data.y[row : row + 1]
        losses, _ = losses_and_hits(outputs, jnp.asarray(told), target)
        loss, count = loss + float(losses.sum()), count + losses.size
    sums = clean[2]
    np.testing.assert_allclose(float(sums.loss), loss, rtol=1e-5)
    assert float(sums.targets) == count == (LENGTHS.sum() if target in ("tags", "notes") else B)


def test_only_what_is_asked_counts() -> None:
    data = split("tags")
    asked = np.zeros((B, T), bool)
    asked[:, 2:4] = True
    sums = step_and_sums("tags", batch_of(data._replace(asked=asked), "tags"))[1]
    assert float(sums.targets) == (asked & (np.arange(T) < LENGTHS[:, None])).sum() == 6
    # Nothing is asked of anybody: no gradient, and no division by 0.
    params, sums, _ = step_and_sums("tags", batch_of(data._replace(asked=np.zeros((B, T), bool)), "tags"))
    start = init_state(jnp.uint32(0), jnp.float32(0.1), *pieces("tags")).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, start)
    assert float(sums.targets) == 0 and float(sums.bad_steps) == 0


@pytest.mark.slow
def test_uneven_devices_give_the_gradient_of_one() -> None:
    """Two devices, one with a single step that counts: the mean is over all steps, not over devices."""
    data = split("tags")._replace(lengths=np.array([6, 6, 1, 0], np.int32))
    batch = batch_of(data, "tags")
    whole, sums, _ = step_and_sums("tags", batch)
    halves = jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), batch)
    model, optimizer = pieces("tags")

    def step(batch: Batch):
        return step_and_sums("tags", batch, axis="data")[:2]

    parts, part_sums = jax.pmap(step, axis_name="data", devices=jax.devices()[:2])(halves)
    for ours, theirs in ((parts, whole), (part_sums, sums)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("target", TARGETS)
def test_metrics_are_those_announced(target: str) -> None:
    sums = add_up([jax.device_get(step_and_sums(target, batch_of(split(target), target))[2])])
    metrics = metrics_of(sums, target, "valid")
    assert list(metrics) == [f"valid/{name}" for name in TARGET_METRICS[target]]
    assert metrics["valid/loss"] == sums["loss"] / sums["targets"] > 0


@pytest.mark.slow
def test_weight_noise_is_drawn_at_each_step_and_leaves_the_weights_alone() -> None:
    batch = batch_of(split("class"), "class")
    plain, noisy, again = (step_and_sums("class", batch, weight_noise=sd)[0] for sd in (0.0, 0.1, 0.1))
    jax.tree.map(np.testing.assert_array_equal, noisy, again)
    assert not np.array_equal(noisy.w, plain.w)
    # What moves the weights is the gradient, at a rate of 0.1; noise of 0.1 in them would show.
    start = init_state(jnp.uint32(0), jnp.float32(0.1), *pieces("class")).params
    assert float(jnp.abs(noisy.w - start.w).max()) < 0.06


@pytest.mark.parametrize(
    ("metric", "values", "stops"),
    [("valid/loss", (0.5, 0.09), (False, True)), ("valid/accuracy", (0.05, 0.2), (False, True))],
)
def test_a_value_that_is_good_enough_stops(metric: str, values: tuple[float, ...], stops: tuple[bool, ...]) -> None:
    history = History()
    for step, (value, stop) in enumerate(zip(values, stops, strict=True)):
        history.evaluated(step, {metric: value}, metric, patience=10, reached=0.1)
        assert history.stopped_early == stop


@pytest.mark.parametrize("target", ["values", pytest.param("notes", marks=pytest.mark.slow)])
def test_time_is_padded_to_split_evenly(target: str) -> None:
    batch = batch_of(split(target)._replace(lengths=None), target)
    longer = batch_in_parts(batch, 4)
    assert longer.x.shape == (B, 8, I) and longer.lengths.tolist() == [T] * B
    assert batch_in_parts(batch, 3) is batch
    ours, theirs = step_and_sums(target, longer), step_and_sums(target, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def test_quantiles_by_hand() -> None:
    """Two values of three quantiles each; of the second sequence the second value is missing."""
    y = jnp.array([[1.0, 2.0], [1.0, jnp.nan]])
    outputs = jnp.array([[0.0, 1.0, 3.0, 2.0, 2.0, 2.0], [0.0, 1.0, 3.0, 9.0, 9.0, 9.0]])
    quantiles = (0.1, 0.5, 0.9)
    each = (0.1 * 1 + 0 + 0.1 * 2) / 3
    compiled = jax.jit(lambda outputs: losses_and_hits(outputs, y, "values", quantiles)[0])
    np.testing.assert_allclose(compiled(outputs), [each / 2, each], rtol=1e-6)


@pytest.mark.parametrize("quantiles", [(), (0.2, 0.5)])
def test_missing_values_have_no_gradient(quantiles: tuple[float, ...]) -> None:
    """A sequence whose values are all missing has the loss 0, and what is missing has no gradient, nor is it NaN."""
    y = jnp.array([[1.0, jnp.nan, 3.0], [jnp.nan, jnp.nan, jnp.nan]])
    many = max(1, len(quantiles))
    outputs = jnp.ones((2, 3 * many)) * 5

    def total(outputs):
        return losses_and_hits(outputs, y, "values", quantiles)[0].sum()

    loss, gradient = jax.jit(jax.value_and_grad(total))(outputs)
    known = np.repeat(~np.isnan(np.asarray(y)), many, 1)
    assert np.isfinite(loss) and (np.asarray(gradient)[~known] == 0).all() and (np.asarray(gradient)[known] != 0).all()
    whole = losses_and_hits(outputs[:1], y[:1].at[0, 1].set(5.0), "values", quantiles)[0]
    # The one that is missing would have been right: the mean is over two, not three.
    np.testing.assert_allclose(loss, whole[0] * 3 / 2, rtol=1e-6)


def test_values_that_are_all_there_have_the_loss_of_others() -> None:
    outputs, y = jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[1.0, 0.0, 1.0]])
    for quantiles in (None, ()):
        np.testing.assert_allclose(losses_and_hits(outputs, y, "values", quantiles)[0], [13 / 3], rtol=1e-6)
