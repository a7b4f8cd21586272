"""The loss of training with weights of classes and smoothed labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import ValidationError

import gru_jax as gj
from gru_jax.config.config import Config, broken_rules, config_hash
from gru_jax.data.dataset import Dataset, Sequences, Split
from gru_jax.training.class_weights import balanced, scaled, weighed
from gru_jax.training.losses import cross_entropy
from gru_jax.training.step import batch_of, init_state, train_step

from .experiments import config, experiment

WEIGHTS = np.array([1.0, 3.0, 2.0], np.float32)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_torch_has_the_same_loss(weights: np.ndarray | None, smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.integers(3, size=(2, 4))
    theirs = torch.tensor(logits.reshape(8, 3), requires_grad=True)
    weight = None if weights is None else torch.tensor(weights)
    loss = torch.nn.CrossEntropyLoss(weight, label_smoothing=smoothing)(theirs, torch.tensor(labels.ravel()))
    loss.backward()
    counted = 8 if weights is None else float(weights[labels].sum())

    @jax.jit
    @jax.value_and_grad
    def ours(logits):
        return cross_entropy(logits, jnp.asarray(labels, jnp.int32), weights, smoothing).sum() / counted

    value, gradient = ours(jnp.asarray(logits))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient.reshape(8, 3), theirs.grad.numpy(), atol=1e-7)


def _split(target: str, rows: int) -> Split:
    """Sequences with lengths; the classes are such that the weights of eight sequences add up to 16."""
    rng = np.random.default_rng(1)
    y = np.array([1, 2, 0, 2, 0, 1, 2, 1], np.int32)
    if target == "tags":
        y = rng.integers(3, size=(8, 5)).astype(np.int32)
    lengths = np.array([5, 3, 2, 5, 4, 5, 1, 5], np.int32)
    return Split(rng.normal(size=(8, 5, 2)).astype(np.float32)[:rows], y[:rows], lengths[:rows])


def _step(target: str, axis: str | None = None, **options):
    steps = "all" if target == "tags" else "last"
    model = gj.models.readout(gj.recurrent(gj.GRU(3)), 2, 3, steps=steps)

    def of_rate(rate):
        return optax.with_extra_args_support(optax.scale_by_learning_rate(rate))

    def step(batch):
        state = init_state(jnp.uint32(0), jnp.float32(0.1), model, of_rate)
        fixed = {"model": model, "optimizer": of_rate, "schedule": optax.constant_schedule(1.0), "target": target}
        after = train_step(state, batch, axis=axis, **fixed, **options)
        return after.params, after.sums

    return step


def _agree(ours, theirs) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), ours[0], theirs[0])
    mean = [float(sums.loss) / float(sums.targets) for _, sums in (ours, theirs)]
    assert mean[0] == pytest.approx(mean[1], rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_weight_is_a_sequence_so_many_times(accumulate: int) -> None:
    split = _split("class", 8)
    often = np.repeat(np.arange(8), WEIGHTS[split.y].astype(int))
    repeated = jax.tree.map(lambda leaf: leaf[often], split)
    ours = jax.jit(_step("class", class_weights=WEIGHTS, accumulate=accumulate))(batch_of(split, "class"))
    _agree(ours, jax.jit(_step("class"))(batch_of(repeated, "class")))
    assert float(ours[1].targets) == 8 and 0 <= float(ours[1].correct) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("target", ["class", "tags"])
def test_devices_share_the_sum_of_the_weights(target: str) -> None:
    batch = batch_of(_split(target, 8), target)
    options = {"class_weights": WEIGHTS, "label_smoothing": 0.1}
    over = jax.tree.map(lambda leaf: leaf.reshape(2, 4, *leaf.shape[1:]), batch)
    shared = jax.pmap(_step(target, "data", **options), axis_name="data", devices=jax.devices()[:2])(over)
    _agree(jax.tree.map(lambda leaf: leaf[0], shared), jax.jit(_step(target, **options))(batch))


def test_balanced_weights_of_the_training_split() -> None:
    made = experiment(train={"class_weights": "balanced"})
    split = Split(np.zeros((20, 8, 8), np.float32), np.repeat(np.arange(3), [12, 2, 6]).astype(np.int32))
    for train in (split, Sequences(list(split.x), list(split.y))):
        weights = weighed(made, Dataset(train, split, split, "", "")).train_step.keywords["class_weights"]
        np.testing.assert_allclose(weights, [1, 6, 2, *[0] * 7], rtol=1e-6)
        assert weights.dtype == np.float32
    with pytest.raises(ValueError, match="these are generated; give a list"):
        weighed(made, Dataset(lambda key, size: split, split, split, "", ""))
    listed = weighed(experiment(train={"class_weights": [0.5] * 9 + [2]}), Dataset(split, split, split, "", ""))
    np.testing.assert_allclose(listed.train_step.keywords["class_weights"], [1] * 9 + [4])
    assert weighed(experiment(), Dataset(split, split, split, "", "")) is experiment()
    assert scaled(balanced(np.array([4, 0, 1]))).tolist() == [1, 0, 4]


RULES = [
    ({"class_weights": [1, 2]}, "there are 10 classes, got 2 weights"),
    ({"label_smoothing": 1.0}, None),
    ({"class_weights": "even"}, None),
    ({"class_weights": [1.0] * 9 + [0]}, None),
]


@pytest.mark.parametrize(("train", "fact"), RULES)
def test_what_they_may_be(train: dict, fact: str | None) -> None:
    if fact is None:
        with pytest.raises(ValidationError):
            config(train=train)
    else:
        assert broken_rules(config(train=train)) == [(("train", "class_weights"), fact)]


def test_they_are_of_classes_and_part_of_the_hash() -> None:
    stop = {"metric": "valid/macro_f1", "reached": 1.5}
    given = config(train={"class_weights": "balanced", "label_smoothing": 0.1, "early_stop": stop})
    assert [fact for _, fact in broken_rules(given)] == ["an F1 is at most 1, got 1.5"]
    values = Config.model_validate(given.resolved() | {"task": {"kind": "adding"}})
    keys = ["early_stop", "early_stop", "class_weights", "label_smoothing"]
    assert [path[1] for path, _ in broken_rules(values)] == keys
    hashes = {config_hash(config(train=each)) for each in ({}, {"class_weights": "balanced"}, {"label_smoothing": 0.1})}
    assert len(hashes) == 3
    assert config_hash(config(train={"class_weights": None, "label_smoothing": 0.0})) == config_hash(config())
