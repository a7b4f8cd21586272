"""The JSON schema for editors: takes what the loader takes, refuses what it refuses, as far as a schema can."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gru_jax.config import yaml_document
from gru_jax.config.config import Config
from gru_jax.config.loading import load_config
from gru_jax.config.schema import DIALECT, config_schema

from .config_files import GOOD

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    file
    for folder in ("configs", "experiments")
    for file in (ROOT / folder).rglob("*.yaml")
    if file.name != "table.yaml"
)
SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def values_of(text: str) -> Any:
    document = yaml_document.parse(text)
    assert not document.complaints
    return document.value


def takes(values: Any) -> bool:
    """Whether the schema does."""
    return VALIDATOR.is_valid(values)


@pytest.mark.slow
def test_it_is_a_schema_of_its_dialect() -> None:
    assert SCHEMA["$schema"] == DIALECT == jsonschema.Draft202012Validator.META_SCHEMA["$schema"]
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_every_shipped_config_is_taken(file: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(values_of(file.read_text()))] == []
    assert takes(load_config(file).config.resolved())


# (line of GOOD, what stands there instead)
BROKEN = [
    ("  hidden: 16", "  hiden: 16"),
    ("  hidden: 16", "  hidden: 0"),
    ("  hidden: 16", "  hidden: '16'"),
    ("  hidden: 16", "  hidden: 16.5"),
    ("  hidden: 16", "  hidden: true"),
    ("  hidden: 16", "  hidden:"),
    ("  hidden: 16", "  window: 16"),
    ("  layers: 1", "  method: nwton"),
    ("  layers: 1", "  method: 3"),
    ("  layers: 1", "  method: {window: 3}"),
    ("  layers: 1", "  method: {kind: auto, window: 3}"),
    ("  layers: 1", "  method: {kind: newton, tol: 0}"),
    ("  layers: 1", "  norm: batch"),
    ("  kind: gru", "  kind: gruu"),
    ("  kind: gru", "  kind: 3"),
    ("  kind: gru", ""),
    ("  lr: 1e-3", "  lr: fast"),
    ("  lr: 1e-3", "  lr: 0"),
    ("  momentum: 0.9", "  momentum: 1.0"),
    ("  momentum: 0.9", "  b1: 0.9"),
    ("  schedule: {kind: cosine, final: 0.1}", "  schedule: cosin"),
    ("  schedule: {kind: cosine, final: 0.1}", "  schedule: {kind: cosine, final: 1.1}"),
    ("checkpoint: {every: 20 steps, keep: 2}", "checkpoint: {every: 20}"),
    ("checkpoint: {every: 20 steps, keep: 2}", "checkpoint: {every: 0 steps}"),
    ("checkpoint: {every: 20 steps, keep: 2}", "checkpoint: {every: 1.5 epochs}"),
    ("checkpoint: {every: 20 steps, keep: 2}", "checkpoint: {every: 20 minutes}"),
    ("log: {every: 5}", "logs: {every: 5}"),
    ("log: {every: 5}", "log:"),
    ("log: {every: 5}", "log: {wandb: {}}"),
    ("log: {every: 5}", "log: {profile: {num_steps: 0}}"),
    ("log: {every: 5}", "precision: {compute: float64}"),
    ("log: {every: 5}", "distributed: {mode: manual, processes: 0}"),
    ("log: {every: 5}", "sweep: {optim.lr: 1e-3}"),
    ("log: {every: 5}", "sweep: {optim.lr: []}"),
    ("log: {every: 5}", "sweep: {optim.lr: [1, 1]}"),
    ("log: {every: 5}", "sweep: {optim: {lr: 3}}"),
    ("log: {every: 5}", "sweep: {seed: 0..3}"),
    ("log: {every: 5}", "sweep: {seed: 0-3, vmap: 0}"),
    ("log: {every: 5}", "sweep: {seed: 0-3, pick: loss}"),
    ("log: {every: 5}", "sweep: {name: [a, b]}"),
    ("log: {every: 5}", "sweep: {log.every: [1, 2]}"),
    ("log: {every: 5}", "sweep: {over: 3}"),
    ("log: {every: 5}", "sweep: {optim.lr: {log_uniform: [1e-4, 1e-2]}}"),
    ("log: {every: 5}", "sweep: {optim.lr: {log_uniform: [1e-4], n: 3}}"),
    ("log: {every: 5}", "sweep: {optim.lr: {uniform: [1e-4, 1], n: 3, sed: 3}}"),
    ("log: {every: 5}", "base: 3"),
    ("log: {every: 5}", "base: ''"),
    ("schema: 1", "schema: 2"),
    ("schema: 1", "# none"),
    ("name: digits/test", "name: ../escape"),
    ("name: digits/test", "# none"),
    ("seed: 0", "seed: -1"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: digit}"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: formal}"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: formal"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: formal, language: parity, test_lengths: [3]}"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: formal, language: parity, test_lengths: [0, 3]}"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: tsv, sizes: {train: 1}}"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: python, file: x, options: {a: [1]}}"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "broken"), BROKEN)
def test_both_refuse(line: str, broken: str) -> None:
    assert line in GOOD
    values = values_of(GOOD.replace(line, broken))
    assert not takes(values)
    with pytest.raises(ValidationError):
        Config.model_validate(values)


ACCEPTED = [
    ("  layers: 1", "  method: newton"),
    ("  schedule: {kind: cosine, final: 0.1}", "  schedule: cosine"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: digits"),
    ("  layers: 1", "  method: {kind: newton, window: 3, tol: null}"),
    ("  layers: 1", "  method: {kind: sequential, hoist: true}"),
    ("  lr: 1e-3", "  lr: 1"),
    ("log: {every: 5}", "sweep: null"),
    ("log: {every: 5}", "sweep: {optim: {lr: [1, 2], schedule.kind: [constant, cosine]}, seed: ' 0-3 ', vmap: 4}"),
    ("log: {every: 5}", "sweep: {over: {optim.lr: {log_uniform: [1e-4, 1e-2], n: 3}}, pick: null, vmap: false}"),
    ("log: {every: 5}", "sweep: {model: [{kind: gru}, {kind: tanh, hidden: 3}]}"),
    ("checkpoint: {every: 20 steps, keep: 2}", "checkpoint: {every: 1epoch}"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: formal, language: parity, test_lengths: [3, 9]}"),
    ("task: {kind: digits, view: rows, batch: 32}", "task: {kind: forecast}"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "other"), ACCEPTED)
def test_both_take(line: str, other: str) -> None:
    values = values_of(GOOD.replace(line, other))
    assert [error.message for error in VALIDATOR.iter_errors(values)] == []
    Config.model_validate(values)


OVER_A_BASE = [
    ("", True),
    ("seed: 3", True),
    ("seed: -3", False),
    ("model: {hidden: 3}", True),
    ("model: {hidden: 0}", False),
    ("model: {hiden: 3}", False),
    ("model: {kind: gru, form: log}", False),
    ("model: {method: {window: 3}}", True),
    ("model: {method: newton}", True),
    ("model: {method: nwton}", False),
    ("optim: {momentum: 0.5}", True),
    ("optim: {kind: adam, momentum: 0.5}", False),
    ("optim: {schedule: {final: 0.5}}", True),
    ("task: {kind: uea, sizes: {train: 3}}", True),
    ("log: {wandb: {mode: offline}}", True),
    ("log:", False),
    ("sweep: {optim.lr: {uniform: [0, 1]}}", False),
    ("sweep: {seed: 0-3}", True),
]


@pytest.mark.parametrize(("own", "good"), OVER_A_BASE)
def test_over_a_base_anything_may_be_left_out(own: str, good: bool) -> None:
    assert takes({"base": "gru.yaml"} | (values_of(own) or {})) == good


def test_every_key_says_something() -> None:
    for section in (SCHEMA["else"], *SCHEMA["$defs"].values()):
        for key, value in section.get("properties", {}).items():
            assert value.get("description"), key
    assert "accumulate" in SCHEMA["$defs"]["ParallelConfig"]["properties"]["accumulate"]["description"]


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [path] * bool(path) + [place for key, value in inner for place in places(value, (*path, key))]


SWEPT = {"over": {"optim.lr": [0.1, 1.5], "model.hidden": [2, 4]}, "pick": "valid/loss"}
MADE = [
    load_config(file).config.resolved() | extra
    for file in SHIPPED
    for extra in ({}, {"sweep": SWEPT}, {"log": {"wandb": {"project": "p"}, "profile": {"num_steps": 3}}})
]
VALUES = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([10**8, 2**70, 0.5, -0.5, 1.5, True, False, None, "", "auto", "newton", "gru", "adam", "sgd"]),
    st.sampled_from(["mean", "1 epoch", "0 epochs", "3", "cosine", "0-3", [], {}, [1.5], [3, 2], {"kind": "newton"}]),
    st.sampled_from([{"kind": "cosine"}, {"uniform": [0.5, 1.5], "n": 2}, {"n": 2}, {"a": [1.5]}, {"a": {"b": "0-1"}}]),
)
KEYS = ["kind", "lr", "hidden", "base_", "seed", "window", "every", "x", "over", "vmap", "cell", "time", "tol"]


def sayable(detail: Any) -> bool:
    """Whether a schema can say it: no rule between keys, nor which of two lengths is the longer one."""
    return detail["type"] != "rule" and detail["loc"][-1:] != ("test_lengths",)


@settings(max_examples=500)
@given(st.data())
def test_schema_and_loader_agree(data: st.DataObject) -> None:
    values = copy.deepcopy(data.draw(st.sampled_from(MADE)))
    for _ in range(data.draw(st.integers(1, 2))):
        *around, last = data.draw(st.sampled_from(places(values)))
        section = values
        for key in around:
            section = section[key]
        action = data.draw(st.sampled_from(["value", "delete", "add"]))
        if action == "delete":
            del section[last]
        elif action == "add" and isinstance(section, dict):
            section[data.draw(st.sampled_from(KEYS))] = copy.deepcopy(data.draw(VALUES))
        else:
            section[last] = copy.deepcopy(data.draw(VALUES))
    try:
        Config.model_validate(copy.deepcopy(values))
    except ValidationError as error:
        if any(map(sayable, error.errors())):
            assert not takes(values), values
    else:
        assert [error.message for error in VALIDATOR.iter_errors(values)] == []
