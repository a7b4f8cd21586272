"""Which runs a sweep amounts to, and what is said of one that cannot be."""

from pathlib import Path
from typing import Any

import pytest

from gru_jax.config.loading import ConfigError, load_config
from gru_jax.config.sections.sweep import values_of
from gru_jax.runs.on_disk.run_directory import default_path
from gru_jax.sweeps.members import load_sweep

from .sweeps import CONFIG


def write(folder: Path, sweep: str) -> Path:
    """A config with that sweep."""
    (folder / "config.yaml").write_text(f"{CONFIG}sweep: {sweep}\n")
    return folder / "config.yaml"


def wrong(folder: Path, sweep: str, *overrides: str) -> str:
    """What is said of it, the file's path left out."""
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(folder, sweep), overrides)
    return "\n".join(caught.value.lines).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ([1e-3, 1e-2], [1e-3, 1e-2]),
        (["a", None, True, {"kind": "adam"}], ["a", None, True, {"kind": "adam"}]),
        ("2-5", [2, 3, 4, 5]),
        ("7-7", [7]),
    ],
)
def test_values(given: Any, values: list[Any]) -> None:
    assert values_of("optim.lr", given) == values


def test_draws_are_the_same_every_time_and_lie_between_their_bounds() -> None:
    drawn = values_of("optim.lr", {"log_uniform": [1e-5, 1e-1], "n": 200, "seed": 3})
    assert drawn == values_of("optim.lr", {"log_uniform": [1e-5, 1e-1], "n": 200, "seed": 3})
    assert drawn != values_of("optim.lr", {"log_uniform": [1e-5, 1e-1], "n": 200, "seed": 4})
    assert len(drawn) == 200 and 1e-5 <= min(drawn) < 2e-5 and 5e-2 < max(drawn) <= 1e-1
    # As many in every decade, up to chance.
    assert all(30 <= sum(10.0**-d <= value < 10.0 ** (1 - d) for value in drawn) <= 70 for d in (2, 3, 4, 5))
    flat = values_of("optim.lr", {"uniform": [-1, 1], "n": 200})
    assert -1 <= min(flat) < -0.9 and 0.9 < max(flat) <= 1 and abs(sum(flat)) < 30


def test_every_combination_is_a_run(tmp_path: Path) -> None:
    file = write(tmp_path, "{optim.lr: [1e-3, 1e-2], seed: 0-2, pick: valid/accuracy}")
    sweep = load_sweep(file)
    assert [member.values for member in sweep.members] == [
        {"optim.lr": lr, "seed": seed} for lr in (1e-3, 1e-2) for seed in (0, 1, 2)
    ]
    assert sweep.pick == "valid/accuracy" and sweep.at_once is None
    for member in sweep.members:
        alone = load_config(file, [f"optim.lr={member.values['optim.lr']}", f"seed={member.values['seed']}"])
        loaded = member.task.loaded.config
        assert loaded == alone.config.model_copy(update={"sweep": None})
        assert member.task.path == default_path(alone.config)
    assert len({member.task.path for member in sweep.members}) == 6


NESTED = ["{model: {hidden: [2, 3]}}", "{model.hidden: [2, 3]}", "{over: {model.hidden: [2, 3]}}"]


@pytest.mark.parametrize("sweep", NESTED)
def test_keys_may_be_nested(sweep: str, tmp_path: Path) -> None:
    assert [member.values for member in load_sweep(write(tmp_path, sweep)).members] == [
        {"model.hidden": 2},
        {"model.hidden": 3},
    ]


def test_a_resolved_config_holds_the_same_sweep(tmp_path: Path) -> None:
    from gru_jax.config import yaml_document

    file = write(tmp_path, "{optim.lr: {log_uniform: [1e-4, 1e-2], n: 3}, vmap: 2}")
    config = load_config(file).config
    (tmp_path / "resolved.yaml").write_text(yaml_document.dump(config.resolved()))
    assert load_config(tmp_path / "resolved.yaml").config == config


def test_overrides_reach_the_sweep(tmp_path: Path) -> None:
    file = write(tmp_path, "{seed: 0-1}")
    assert len(load_sweep(file, ["sweep.seed=0-4", "sweep.optim.lr=[1e-3, 1e-2]"]).members) == 10
    assert load_sweep(file, ["model.hidden=9"]).members[0].task.loaded.config.model.hidden == 9


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("{optim.lrr: [1, 2]}", "config.yaml:9:9: sweep: optim.lrr=1: optim.lrr: unknown key for kind 'adam'; did you"),
        ("{optim.lr: [1e-3, -1]}", "config.yaml:9:9: sweep: optim.lr=-1: optim.lr: expected a number > 0, got -1"),
        ("{optim: {lr: [x]}}", "config.yaml:9:17: sweep: optim.lr=x: optim.lr: expected a number > 0, got 'x'"),
        ("{seed: 5}", "sweep.seed: expected a list of values, whole numbers such as 0-7, or draws"),
        ("{seed: 5-3}", "expected at most 1000 whole numbers from low to high, got '5-3'"),
        ("{seed: []}", "sweep.seed: expected a list"),
        ("{pikc: valid/loss}", "or did you mean 'pick'?"),
        ("{optim.lr: [1e-3, 0.001]}", "sweep.optim.lr: has a value twice"),
        ("{optim.lr: {log_uniform: [0, 1], n: 3}}", "expected two numbers above 0, the lower one first, got [0, 1]"),
        ("{optim.lr: {uniform: [2, 1], n: 3}}", "uniform: expected two numbers, the lower one first, got [2, 1]"),
        ("{optim.lr: {log_uniform: [1, 2]}}", "n: expected a whole number from 1 to 1000, got nothing"),
        ("{optim.lr: {n: 3}}", "expected draws such as"),
        ("{optim.lr: {log_uniform: [1, 2], n: 3, sed: 1}}", "got a key 'sed'"),
        ("{log.every: [1, 2]}", "sweep.log.every: decides nothing about the numbers of a run"),
        ("{model.method: [auto, sequential]}", "model.method=auto and model.method=sequential are one run"),
        ("{seed: 0-3, pick: valid/nll}", "config.yaml:9:26: sweep.pick: task kind 'digits' has 'valid/loss' and"),
        ("{seed: 0-3, vmap: 0}", "sweep.vmap: expected true, false, or how many at once, got 0"),
        ("{seed: 0-999, optim.lr: {uniform: [1, 2], n: 11}}", "its 11000 combinations are more than 10000 runs"),
        ("{}", "has no section sweep"),
        ("null", "has no section sweep"),
        ("[1]", "sweep: expected a section"),
    ],
)  # fmt: skip
def test_mistakes(sweep: str, said: str, tmp_path: Path) -> None:
    assert said in wrong(tmp_path, sweep)


def test_a_run_alone_takes_no_notice_of_the_sweep(tmp_path: Path) -> None:
    from gru_jax.config.config import config_hash

    with_one, without = load_config(write(tmp_path, "{seed: 0-3}")).config, load_config(write(tmp_path, "null")).config
    assert config_hash(with_one) == config_hash(without)
