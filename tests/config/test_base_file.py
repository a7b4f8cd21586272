"""`base: other.yaml`: what a config has from its base, what it changes, and where its errors are."""

from pathlib import Path

import pytest

from gru_jax.cli.listing import listing
from gru_jax.config.config import config_hash
from gru_jax.config.loading import ConfigError, LoadedConfig, load_config
from gru_jax.runs.on_disk.run_directory import RunDirectory

from .config_files import GOOD

ROOT = Path(__file__).parents[2]


def laid(folder: Path, own: str, base: str = GOOD, *overrides: str) -> LoadedConfig:
    """What config.yaml with this text is over gru.yaml with the other."""
    (folder / "gru.yaml").write_text(base)
    (folder / "config.yaml").write_text(f"base: gru.yaml\n{own}")
    return load_config(folder / "config.yaml", overrides)


def wrong(folder: Path, own: str, base: str = GOOD, *overrides: str) -> list[str]:
    """What is wrong with it, the paths without the folder."""
    with pytest.raises(ConfigError) as error:
        laid(folder, own, base, *overrides)
    return [line.replace(f"{folder}/", "") for line in error.value.lines]


# (what stands over GOOD, the overrides that say the same)
SAME = [
    ("", []),
    ("name: digits/other", ["name=digits/other"]),
    ("model: {hidden: 8}", ["model.hidden=8"]),
    ("model: {method: newton}", ["model.method=newton"]),
    ("model: {method: {kind: newton, window: 4}}", ["model.method.kind=newton", "model.method.window=4"]),
    ("optim: {kind: adam}", ["optim.kind=adam"]),
    ("optim: {lr: 1, kind: adam, b1: 0.5}", ["optim.kind=adam", "optim.lr=1", "optim.b1=0.5"]),
    ("optim: {schedule: {kind: constant}}", ["optim.schedule.kind=constant"]),
    ("optim: {schedule: {kind: warmup_cosine, warmup: 3 steps}}",
     ["optim.schedule.kind=warmup_cosine", "optim.schedule.warmup=3 steps"]),
    ("train: {early_stop: {patience: 3}}", ["train.early_stop.patience=3"]),
    ("task: {kind: formal, language: parity}", ["task.kind=formal", "task.language=parity"]),
    ("sweep: {optim.lr: [1, 2], seed: 0-3}", ["sweep.seed=0-3", "sweep.optim.lr=[1, 2]"]),
]  # fmt: skip


@pytest.mark.parametrize(("own", "overrides"), SAME)
def test_a_file_over_a_base_is_the_base_with_overrides(own: str, overrides: list[str], tmp_path: Path) -> None:
    config = laid(tmp_path, own).config
    assert config == load_config(tmp_path / "gru.yaml", overrides).config
    assert "base" not in config.resolved()


def test_what_the_base_leaves_out_has_the_default_kind(tmp_path: Path) -> None:
    base = GOOD[: GOOD.index("optim:")] + GOOD[GOOD.index("train:") :]
    assert laid(tmp_path, "optim: {lr: 0.5}", base).config.optim.kind == "adam"
    assert laid(tmp_path, "optim: {kind: sgd, schedule: {kind: cosine}}", base).config.optim.lr == 0.1


def test_a_name_of_a_kind_in_the_base_gets_keys(tmp_path: Path) -> None:
    base = GOOD.replace("  layers: 1", "  method: newton")
    assert laid(tmp_path, "model: {method: {window: 4}}", base).config.model.method.window == 4
    base = GOOD.replace("  layers: 1", "  method: {kind: newton, window: 8}")
    assert laid(tmp_path, "model: {method: newton}", base).config.model.method.window is None
    assert laid(tmp_path, "model: {method: {tol: 1.0}}", base).config.model.method.window == 8


def test_lists_and_draws_are_replaced_whole(tmp_path: Path) -> None:
    base = GOOD + "sweep: {optim.lr: {uniform: [0.1, 0.2], n: 2}, model.hidden: [4, 8], pick: valid/loss}\n"
    sweep = laid(tmp_path, "sweep: {optim.lr: {log_uniform: [1, 2], n: 3}, model.hidden: [2]}", base).config.sweep
    assert len(sweep.over["optim.lr"]) == 3 and sweep.over["model.hidden"] == [2] and sweep.pick == "valid/loss"
    nested = laid(tmp_path, "sweep: {optim: {lr: [7]}, over: {model.hidden: [3]}}", base).config.sweep
    assert nested.over == {"optim.lr": [7], "model.hidden": [3]}
    assert laid(tmp_path, "sweep: null", base).config.sweep is None


def test_overrides_come_last(tmp_path: Path) -> None:
    config = laid(tmp_path, "optim: {lr: 0.5}", GOOD, "optim.lr=0.25", "model.hidden=4").config
    assert config.optim.lr == 0.25 and config.model.hidden == 4 and config.optim.momentum == 0.9


def test_values_kept_by_a_new_kind_are_noted(tmp_path: Path) -> None:
    base = GOOD.replace("1e-3", "0.5")
    assert laid(tmp_path, "optim: {kind: adam, schedule: {kind: constant}}", base).notes() == [
        f"optim.kind=adam keeps optim.lr=0.5 from {tmp_path}/gru.yaml; the default of adam is 0.001"
    ]
    (note,) = laid(
        tmp_path, "optim: {kind: adam}", base, "optim.kind=rmsprop", "optim.schedule={kind: constant}"
    ).notes()
    assert note == "optim.kind=rmsprop keeps optim.lr=0.5 from the file; the default of rmsprop is 0.001"


# (own, base, the errors)
BROKEN = [
    ("model: {hidden: 0}", GOOD, ["config.yaml:2:17: model.hidden: expected a whole number >= 1 and <= 65536"]),
    ("name: x", GOOD.replace("16", "0"), ["gru.yaml:7:11: model.hidden: expected a whole number >= 1 and <= 65536"]),
    ("modle: {hidden: 1}", GOOD, ["config.yaml:2:1: modle: unknown key; did you mean 'model'?"]),
    ("name: x", GOOD.replace("layers", "layer"), ["gru.yaml:8:3: model.layer: unknown key for kind 'gru'"]),
    ("model: {heads: 3}", GOOD, ["config.yaml:2:16: model.heads: 3 heads do not divide hidden, 16, evenly"]),
    ("model: {hidden: 7}", GOOD.replace("layers: 1", "heads: 2"), ["gru.yaml:8:10: model.heads: 2 heads do not"]),
    ("optim: {kind: adam, momentum: 0.5}", GOOD, ["config.yaml:2:21: optim.momentum: unknown key for kind 'adam'"]),
    ("log:", GOOD, ["config.yaml:2:5: log: expected a section (a mapping of keys to values), got nothing"]),
    ("optim: 3", GOOD.replace("1e-3", "x"), ["config.yaml:2:8: optim: expected a section"]),
    ("task: {kind: formal}", GOOD, ["config.yaml:2:1: task.language: is missing"]),
    ("seed: x", GOOD.replace("1e-3", "x"), ["config.yaml:2:7: seed: ", "gru.yaml:11:7: optim.lr: "]),
    ("seed: 1", "name: only\n", ["config.yaml:1:1: schema: is missing", "config.yaml:1:1: task: is missing",
                                 "config.yaml:1:1: model: is missing"]),
    ("seed: [", GOOD, ["config.yaml:2:8: not valid YAML: "]),
    ("seed: 1", "a: [1,\nb: 2", ["gru.yaml:2:5: not valid YAML: "]),
    ("seed: 1", GOOD + "seed: 3\n", ["gru.yaml:17:1: seed: key is repeated (first on line 3)"]),
    ("seed: 1", "", ["config.yaml:1:7: base: gru.yaml: is empty"]),
    ("seed: 1", "- a\n", ["gru.yaml:1:1: expected keys with values, got a list"]),
    ("seed: 1", GOOD + "base: third.yaml\n", ["gru.yaml:17:1: base: it is the base of config.yaml, and a base"]),
]  # fmt: skip


@pytest.mark.parametrize(("own", "base", "errors"), BROKEN)
def test_an_error_is_where_its_value_stands(own: str, base: str, errors: list[str], tmp_path: Path) -> None:
    found = wrong(tmp_path, own, base)
    assert len(found) == len(errors)
    for line, start in zip(sorted(found), sorted(errors), strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("named", "fact"),
    [
        ("nowhere.yaml", "nowhere.yaml: no such file"),
        (".", "expected a YAML file, got a directory"),
        ("config.yaml", "config.yaml is this file itself; name another one"),
        ("../folder/config.yaml", "is this file itself"),
        ('"\\0"', r"\x00': no such file"),
        ("3", "expected the path of a config, got 3"),
        ("", "expected the path of a config, got nothing"),
        ("[gru.yaml]", "expected the path of a config, got a list"),
        ("binary.yaml", "binary.yaml:2: expected UTF-8 text, got byte 0xff at offset 3"),
    ],
)
def test_a_base_that_is_none(named: str, fact: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "binary.yaml").write_bytes(b"a:\n\xff")
    path = folder / "config.yaml"
    path.write_text(f"name: x\nbase: {named}\nseed: nonsense\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    (line,) = error.value.lines
    assert fact in line and (line.startswith(f"{path}:2:") or named == "binary.yaml")


def test_no_override_of_the_base(tmp_path: Path) -> None:
    (line,) = wrong(tmp_path, "", GOOD, "base=other.yaml")
    assert line == "override 'base=other.yaml': base is read before any override; write it in the file"


TASK = """\
from gru_jax.data.dataset import TaskShape
def shape(): return TaskShape({train}, 3, 4, 8, 1, 2)
def load(): ...
"""


def test_a_python_file_is_beside_the_file_that_names_it(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "task.py").write_text(TASK.format(train=100))
    (tmp_path / "task.py").write_text(TASK.format(train=50))
    base = GOOD.replace("{kind: digits, view: rows, batch: 32}", "{kind: python, file: task.py, batch: 4}")
    (there / "gru.yaml").write_text(base)
    path = tmp_path / "config.yaml"
    path.write_text("base: there/gru.yaml\n")
    assert load_config(path).config.shape.train == 100
    path.write_text("base: there/gru.yaml\ntask: {file: task.py}\n")
    assert load_config(path).config.shape.train == 50


def test_the_run_keeps_both_texts(tmp_path: Path) -> None:
    loaded = laid(tmp_path, "seed: 4  # own", GOOD + "# of the base", "model.hidden=4")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.write_inputs(loaded, {})
    source = (run.path / "source.yaml").read_text()
    for line in ("seed: 4  # own", *GOOD.splitlines(), "# of the base", "# override: 'model.hidden=4'"):
        assert line in source
    assert run.config() == loaded.config


def test_the_shipped_one_is_the_run_it_was() -> None:
    configs = ROOT / "configs" / "digits"
    newton, gru = load_config(configs / "newton.yaml").config, load_config(configs / "gru.yaml").config
    assert newton.name == "digits/newton" and newton.model.method.window == 16
    assert config_hash(newton) == config_hash(gru)
    assert any(line.endswith("(base: gru.yaml)") for line in listing(configs).splitlines())
