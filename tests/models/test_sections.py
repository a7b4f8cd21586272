"""The sections of models in configs: every kind, for every kind of task, is a model with outputs of the right shape."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from pydantic import TypeAdapter, ValidationError

import gru_jax as gj
from gru_jax.config.sections.models import MODELS, AnyModel
from gru_jax.data.dataset import TaskShape
from gru_jax.models import Model

B, T, I, O = 2, 5, 3, 4
SECTIONS: TypeAdapter[Any] = TypeAdapter(AnyModel)
# Of a Python file, `python` has tests of its own.
KINDS = sorted({section.model_fields["kind"].annotation.__args__[0] for section in MODELS} - {"python"})
TARGETS = ("class", "values", "tags", "notes")


def section(kind: str, **options: Any) -> Any:
    size = {"width": 4} if kind == "min_blocks" else {"hidden": 4}
    size |= {"heads": 2} if kind == "dreamer_gru" else {}
    return SECTIONS.validate_python({"kind": kind, **size, **options})


def task(target: str = "class", tokens: bool = False, features: int = I, outputs: int = O) -> TaskShape:
    return TaskShape(8, 8, 8, T, features, outputs, target, tokens)  # type: ignore[arg-type]


def outputs_of(model: Model, tokens: bool, **options: Any) -> Any:
    def run(key: jax.Array) -> Any:
        x = jnp.zeros((B, T), jnp.int32) if tokens else jnp.ones((B, T, I))
        return model.apply(model.init(key), x, lengths=jnp.array([3, 5]), **options)

    return jax.eval_shape(run, jax.random.key(0))


# What is asked is decided in code that all kinds share: one of them sees all of it, the others the two ends.
CASES = [(kind, "class", False) for kind in KINDS] + [(kind, "tags", True) for kind in KINDS]
CASES += [("tanh", target, tokens) for target, tokens in itertools.product(TARGETS, (False, True))]


@pytest.mark.parametrize(("kind", "target", "tokens"), sorted(set(CASES)))
def test_every_kind_builds_for_every_task(kind: str, target: str, tokens: bool) -> None:
    model = section(kind).build(task(target, tokens))
    assert isinstance(model, Model)
    expected = (B, O) if target in ("class", "values") else (B, T, O)
    assert outputs_of(model, tokens, deterministic=True).shape == expected


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_the_options_that_recurrent_models_share(kind: str) -> None:
    """Two directions, an embedding, the mean, and dropout with a key for each sequence, as training gives them."""
    options = {"bidirectional": True, "embedding": 6, "pool": "mean", "dropout": 0.1, "input_dropout": 0.1}
    found = section(kind, **options, norm="layer", residual=True, merge="sum")
    assert found.stochastic and not section(kind).stochastic
    keys = jax.random.split(jax.random.key(1), B)
    assert outputs_of(found.build(task(tokens=True)), True, key=keys).shape == (B, O)


def test_blocks_draw_dropout_with_a_key_for_each_sequence() -> None:
    found = section("min_blocks", dropout=0.1, cell="min_lstm", forget_bias=1.0)
    assert found.stochastic and not section("min_blocks").stochastic
    keys = jax.random.split(jax.random.key(1), B)
    assert outputs_of(found.build(task("tags", True)), True, key=keys).shape == (B, T, O)


def test_the_embedding_has_its_width_and_is_shared() -> None:
    def params(found: Any) -> Any:
        return jax.eval_shape(found.build(task("tags", True, O)).init, jax.random.key(0))

    assert params(section("gru")).embedding is None and params(section("gru")).net.layers[0].w_x.shape == (O, 12)
    assert params(section("gru", embedding=6)).embedding.shape == (O, 6)
    assert params(section("min_blocks")).embedding.shape == (O, 4)
    for tied in (section("lstm", embedding=4, tied=True), section("min_blocks", tied=True)):
        assert params(tied).w is None


def test_options_reach_the_cell() -> None:
    assert section("lstm", forget_bias=2.0).cell() == gj.models.LSTM(4, 2.0)
    assert section("tanh").cell() == gj.models.TanhRNN(4)
    assert section("gru", heads=4, reset="before").cell() == gj.GRU(4, heads=4, reset="before")
    assert section("mgu", reset_gate=False).cell() == gj.MGU(4, reset_gate=False)
    assert section("min_gru", form="log").cell() == gj.MinGRU(4, form="log")
    assert section("min_lstm", bias=False, init="torch").cell() == gj.MinLSTM(4, bias=False, init="torch")
    assert section("mgu", recurrent_dropout=0.1).stochastic
    dreamer = section("dreamer_gru", cell_layers=1, cell_norm="rms", projection_size=3, norm="layer", layers=2)
    assert dreamer.cells() == [gj.DreamerGRU(4, heads=2, layers=1, norm="rms", projection_size=3)] * 2
    above = gj.GRU(4, reset="before", bias="none")
    assert section("gru_d", bias="none", layers=2).cells() == [gj.GRUD(4, bias="none"), above]


BROKEN = [
    ("dreamer_gru", {"heads": 8}, "8 heads do not divide hidden"),
    ("dreamer_gru", {"activation": "tanh"}, "set cell_layers: 1"),
    ("dreamer_gru", {"projection_size": 4}, "set cell_layers: 1"),
    ("dreamer_gru", {"recurrent_dropout": 0.1}, "recurrent_dropout"),
    ("gru", {"heads": 3}, "3 heads do not divide hidden"),
    ("lstm", {"tied": True}, "no embedding to share; set embedding: 4"),
    ("lstm", {"tied": True, "bidirectional": True, "embedding": 4}, "sees 8 features, and the embedding has 4"),
    ("tanh", {"recurrent_dropout": 0.1}, "recurrent_dropout"),
    ("min_blocks", {"feed_forward": None, "dropout": 0.1}, "acts on the feed-forward"),
    ("min_blocks", {"forget_bias": 1.0}, "min_gru has no forget gate"),
    ("min_blocks", {"expansion": 0.1}, "less than one unit"),
    ("min_blocks", {"embedding": 8}, "embedding"),
]


@pytest.mark.parametrize(("kind", "options", "match"), BROKEN)
def test_what_does_not_fit_is_refused(kind: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        section(kind, **options)


TOGETHER = [
    ({"embedding": 4}, task(), ["embedding"]),
    ({"embedding": 4, "tied": True}, task("tags", True), ["tied"]),
    ({"embedding": 4, "tied": True}, task("tags", True, O), []),
    ({"embedding": 4, "tied": True}, task("notes", True, O), ["tied"]),
    ({"bidirectional": True}, task("tags", True)._replace(next_step=True), ["bidirectional"]),
    ({"bidirectional": True}, task("tags", True), []),
    ({}, task(), []),
]


@pytest.mark.parametrize(("options", "shape", "keys"), TOGETHER)
def test_what_does_not_fit_the_task(options: dict[str, Any], shape: TaskShape, keys: list[str]) -> None:
    assert [key for key, _ in section("gru", **options).broken_rules(shape)] == keys


def test_gru_d_takes_what_it_is_shown_in_one_direction() -> None:
    shape = task()._replace(gaps=True)
    assert section("gru_d").broken_rules(shape) == []
    assert [key for key, _ in section("gru_d").broken_rules(task())] == ["kind"]
    broken = section("gru_d", bidirectional=True, input_dropout=0.1).broken_rules(shape)
    assert [key for key, _ in broken] == ["bidirectional", "input_dropout"]


def test_blocks_have_no_embedding_to_share_without_tokens() -> None:
    assert [key for key, _ in section("min_blocks", tied=True).broken_rules(task())] == ["tied"]
