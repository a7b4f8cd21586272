"""Config errors: all at once, each with its place, its fact and the nearest right thing."""

from pathlib import Path

import pytest

import gru_jax as gj
from gru_jax.config.loading import load_config
from gru_jax.config.sections.methods import AutoMethod, NewtonMethod, SequentialMethod
from gru_jax.config.sections.optim import OPTIMIZERS, SCHEDULES

from .config_files import GOOD, errors, write


def kinds_but(first: int, sections: tuple) -> str:
    """The kinds that a message lists, twelve of many, but for the first ones."""
    kinds = [repr(section.model_fields["kind"].annotation.__args__[0]) for section in sections]
    return f"{', '.join(kinds[first:12])} and {len(kinds) - 12} more"


# (line of GOOD, what stands there instead, the error)
BROKEN = [
    ("  hidden: 16", "  hiden: 16", "7:3: model.hiden: unknown key for kind 'gru'; did you mean 'hidden'?"),
    ("  lr: 1e-3", "  lr: fast", "11:7: optim.lr: expected a number > 0, got 'fast'"),
    ("  lr: 1e-3", "  lr: '1e-3'", "11:7: optim.lr: expected a number > 0, got '1e-3'; write it without quotes"),
    ("  lr: 1e-3", "  lr: .nan", "11:7: optim.lr: expected a number > 0, got .nan"),
    ("  lr: 1e-3", "  lr: .inf", "11:7: optim.lr: expected a number > 0, got .inf"),
    ("  lr: 1e-3", "  lr: 0", "11:7: optim.lr: expected a number > 0, got 0"),
    ("  lr: 1e-3", "  lr: true", "11:7: optim.lr: expected a number > 0, got true"),
    ("  lr: 1e-3", "  lr:", "11:6: optim.lr: expected a number > 0, got nothing"),
    ("  lr: 1e-3", "  lr: [1]", "11:7: optim.lr: expected a number > 0, got a list"),
    (
        "  lr: 1e-3",
        "  lr: " + "9" * 400,
        "11:7: optim.lr: expected a number > 0, got an integer of more than 38 digits",
    ),
    ("  momentum: 0.9", "  momentum: 1.0", "12:13: optim.momentum: expected a number >= 0 and < 1, got 1.0"),
    ("  layers: 1", "  layers: 1.0", "8:11: model.layers: expected a whole number >= 1 and <= 256, got 1.0"),
    ("  layers: 1", "  layers: yes", "8:11: model.layers: expected a whole number >= 1 and <= 256, got 'yes'"),
    ("  layers: 1", "  layers: true", "8:11: model.layers: expected a whole number >= 1 and <= 256, got true"),
    ("  layers: 1", "  bidirectional: yes", "8:18: model.bidirectional: expected true or false, got 'yes'"),
    ("  layers: 1", "  bidirectional: 1", "8:18: model.bidirectional: expected true or false, got 1"),
    ("  layers: 1", "  pool: lst", "8:9: model.pool: expected one of 'last', 'mean', got 'lst'; did you mean 'last'?"),
    ("  layers: 1", "  heads: 3", "8:10: model.heads: 3 heads do not divide hidden, 16, evenly"),
    ("  layers: 1", "  norm: batch", "8:9: model.norm: expected one of 'layer', 'rms' or null, got 'batch'"),
    ("  layers: 1", "  method: nwton", "8:11: model.method.kind: unknown kind 'nwton'; did you mean 'newton'?"),
    (
        "  layers: 1",
        "  method: 3",
        "8:11: model.method: expected 'auto', 'sequential', 'newton' or a section with such a kind, got 3",
    ),
    (
        "  layers: 1",
        "  method: {tol: 1}",
        "8:11: model.method.kind: is missing; choose one of 'auto', 'sequential', 'newton'",
    ),
    (
        "  layers: 1",
        "  method: {kind: newton, tol: 0}",
        "8:31: model.method.tol: expected a number > 0 or null, got 0",
    ),
    (
        "  layers: 1",
        "  method: {kind: newton, windw: 8}",
        "8:26: model.method.windw: unknown key for kind 'newton'; did you mean 'window'?",
    ),
    (
        "  layers: 1",
        "  method: {kind: newton, fallback: error}",
        "8:36: model.method.fallback: expected one of 'sequential', 'nan', got 'error'",
    ),
    (
        "  layers: 1",
        "  method: {kind: auto, tol: 1}",
        "8:24: model.method.tol: unknown key for kind 'auto'; it is a key of 'newton'",
    ),
    (
        "  layers: 1",
        "  method: {kind: sequential, hoist: 1}",
        "8:37: model.method.hoist: expected 'auto', true or false, got 1",
    ),
    ("  kind: sgd", "  kind: sdg", "10:9: optim.kind: unknown kind 'sdg'; did you mean 'sgd'?"),
    (
        "  kind: sgd",
        "  kind: 3",
        f"10:9: optim.kind: unknown kind 3; choose one of 'adam', 'adamw', 'sgd', {kinds_but(3, OPTIMIZERS)}",
    ),
    ("  kind: gru", "  kind: gruu", "6:9: model.kind: unknown kind 'gruu'; did you mean 'gru'?"),
    (
        "  schedule: {kind: cosine, final: 0.1}",
        "  schedule: cosin",
        "13:13: optim.schedule.kind: unknown kind 'cosin'; did you mean 'cosine'?",
    ),
    (
        "  schedule: {kind: cosine, final: 0.1}",
        "  schedule: {final: 0.1}",
        f"13:13: optim.schedule.kind: is missing; choose one of 'constant', {kinds_but(1, SCHEDULES)}",
    ),
    (
        "checkpoint: {every: 20 steps, keep: 2}",
        "checkpoint: {every: 20}",
        "15:21: checkpoint.every: expected an interval such as '20 steps' or '1 epoch', got 20;"
        " of what? '20 steps' or '20 epochs'",
    ),
    (
        "checkpoint: {every: 20 steps, keep: 2}",
        "checkpoint: {every: 0 steps}",
        "15:21: checkpoint.every: expected an interval such as '20 steps' or '1 epoch', got '0 steps';"
        " its number is whole, from 1 to 999999999",
    ),
    ("log: {every: 5}", "log:", "16:5: log: expected a section (a mapping of keys to values), got nothing"),
    ("log: {every: 5}", "logs: {every: 5}", "16:1: logs: unknown key; did you mean 'log'?"),
    ("schema: 1", "schema: 2", "1:9: schema: expected 1, the only version, got 2"),
    ("schema: 1", "schema: true", "1:9: schema: expected 1, the only version, got true"),
    ("schema: 1", "# none", "1:1: schema: is missing; expected 1, the only version"),
    (
        "name: digits/test",
        "name: ../escape",
        "2:7: name: expected a name such as 'digits/gru' (letters, digits, '_', '-', '.', '/'), got '../escape'",
    ),
    ("seed: 0", "seed: -1", "3:7: seed: expected a whole number >= 0 and <= 4294967295, got -1"),
    ("seed: 0", "seed: 0\nseed: 1", "4:1: seed: key is repeated (first on line 3); keep one of the two"),
    (
        "task: {kind: digits, view: rows, batch: 32}",
        "task: {kind: digits, batch: 5000}",
        "4:29: task.batch: 5000 is more than the 1266 training examples",
    ),
    (
        "log: {every: 5}",
        "parallel: {devices: 2}",
        "16:21: parallel.devices: strategy 'single' uses one device; choose 'data' or 'pmap'",
    ),
]  # fmt: skip


INTERVALS = {
    "'20'": "got '20'; of what? '20 steps' or '20 epochs'",
    "0": "got 0; its number is whole, from 1 to 999999999",
    "5 minutes": "got '5 minutes'; 'minutes' is no unit of it",
    "2h": "got '2h'; 'h' is no unit of it",
    "1.5 epochs": "got '1.5 epochs'; its number is whole, from 1 to 999999999",
    "-3 steps": "got '-3 steps'; its number is whole, from 1 to 999999999",
    "9999999999 steps": "got '9999999999 steps'; its number is whole, from 1 to 999999999",
    "steps": "got 'steps'",
    "[1]": "got a list",
}


@pytest.mark.parametrize(("written", "end"), INTERVALS.items())
def test_an_interval_says_what_is_wrong_with_it(written: str, end: str, tmp_path: Path) -> None:
    (line,) = errors(tmp_path, GOOD.replace("20 steps", written))
    assert line.endswith(f"expected an interval such as '20 steps' or '1 epoch', {end}")


def test_good_config_is_good(tmp_path: Path) -> None:
    assert errors(tmp_path) == []
    config = load_config(write(tmp_path)).config
    assert config.optim.lr == 1e-3 and config.total_steps == 2 * (1266 // 32)


@pytest.mark.parametrize(("line", "broken", "error"), BROKEN)
def test_one_broken_line_is_one_error(line: str, broken: str, error: str, tmp_path: Path) -> None:
    assert line in GOOD
    assert errors(tmp_path, GOOD.replace(line, broken)) == [f"config.yaml:{error}"]


def test_all_errors_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD
    for line, broken, _ in (BROKEN[0], BROKEN[1], BROKEN[-3]):
        text = text.replace(line, broken)
    found = errors(tmp_path, text, "log.every=0", "nonsense")
    assert [line.partition(": ")[0] for line in found] == [
        "config.yaml:4:1",
        "config.yaml:8:3",
        "config.yaml:12:7",
        "override 'nonsense'",
        "override 'log.every=0'",
    ]


METHODS = [
    ("auto", [], {"kind": "auto"}),
    ("newton", [], {"kind": "newton", "window": None}),
    ("newton", ["model.method.window=8"], {"kind": "newton", "window": 8}),
    ("auto", ["model.method=newton", "model.method.window=8"], {"kind": "newton", "window": 8}),
    ("auto", ["model.method.kind=newton", "model.method.window=8"], {"kind": "newton", "window": 8}),
    ("{kind: newton, window: 8}", ["model.method=newton"], {"kind": "newton", "window": None}),
    ("{kind: newton, window: 8}", ["model.method.kind=sequential"], {"kind": "sequential", "unroll": 1}),
    ("auto", ["model={kind: gru, method: newton}", "model.method.tol=1e-4"], {"kind": "newton", "tol": 1e-4}),
    ("{kind: sequential, hoist: true}", [], {"kind": "sequential", "hoist": True}),
]


@pytest.mark.parametrize(("method", "overrides", "expected"), METHODS)
def test_a_kind_stands_for_its_section(method: str, overrides: list[str], expected: dict, tmp_path: Path) -> None:
    text = GOOD.replace("  layers: 1", f"  method: {method}")
    found = load_config(write(tmp_path, text), overrides).config.model.method
    assert {key: getattr(found, key) for key in expected} == expected


def test_methods_have_the_defaults_of_the_library() -> None:
    newton, sequential = NewtonMethod(kind="newton"), SequentialMethod(kind="sequential", unroll=3, keep="states")
    assert newton.build() == gj.Newton() and AutoMethod(kind="auto").build() == "auto"
    assert sequential.build() == gj.Sequential(3, keep="states")
    own = {"jacobian": "dense", "damping": 0.5, "tol": 1e-3, "max_iters": 7, "window": 5, "fallback": "nan"}
    assert NewtonMethod(kind="newton", **own).build() == gj.Newton(**own)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "is empty; a config needs at least the keys schema, name, task and model"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "1:1: expected keys with values, got a list"),
        ("just text", "1:1: expected keys with values, got 'just text'"),
        ("3", "1:1: expected keys with values, got 3"),
        (GOOD + '"\\ud800": 1', r"17:1: expected a key made of letters, got '\ud800'"),
        (
            'schema: "\\ud800"\nname: x\ntask: {kind: digits}\nmodel: {kind: gru}',
            "1:9: schema: expected text, got half of a",
        ),
        ("a: [1,\nb: 2", "not valid YAML"),
    ],
)
def test_file_that_is_no_config(text: str, fact: str, tmp_path: Path) -> None:
    (line,) = errors(tmp_path, text)
    assert line.startswith("config.yaml:") and fact in line


def test_resolved_config_reads_back(tmp_path: Path) -> None:
    from gru_jax.config import yaml_document

    config = load_config(write(tmp_path)).config
    again = load_config(write(tmp_path, yaml_document.dump(config.resolved()))).config
    assert again == config
