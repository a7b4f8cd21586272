"""What is said of a run that goes on, or that ended before its last epoch."""

import math
from pathlib import Path
from typing import Any

import pytest

from gru_jax.config.yaml_document import dump
from gru_jax.runs import final_result
from gru_jax.runs.on_disk import run_directory
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError, default_path
from gru_jax.runs.runner import _other_rate

from ..training.experiments import config, experiment


@pytest.mark.parametrize(("kind", "more"), [("cosine", {}), ("warmup_cosine", {"warmup": "9 steps", "final": 0.1})])
def test_the_rate_of_a_schedule_that_ends_later(kind: str, more: dict[str, Any]) -> None:
    """Half a cosine over 2 epochs of 79 steps, at its step 150, and then over 5."""
    warmup, final = (9, 0.1) if more else (0, 0.0)

    def rate(step: int, total: int) -> float:
        part = (step - warmup) / (total - warmup)
        return 0.01 * (final + (1 - final) * (1 + math.cos(math.pi * part)) / 2)

    schedule = {"kind": kind, **more}
    old, new = (config(optim={"schedule": schedule}, train={"epochs": epochs}) for epochs in (2, 5))
    said = _other_rate(old, experiment(optim={"schedule": schedule}, train={"epochs": 5}), 150)
    assert f"the {kind} schedule now ends at step {new.total_steps} in place of {old.total_steps}" in said
    assert f"from {rate(149, 158):.2g} at step 150 to {rate(150, 395):.2g} at step 151" in said


def test_a_rate_that_stays_is_not_spoken_of() -> None:
    constant = {"schedule": {"kind": "constant"}}
    for old, new, step in (
        (config(), experiment(), 150),
        (config(), experiment(train={"epochs": 5}), 0),
        (config(optim=constant), experiment(optim=constant, train={"epochs": 5}), 150),
    ):
        assert _other_rate(old, new, step) == ""


@pytest.mark.parametrize(
    ("early", "best", "said"),
    [
        ({"patience": 3}, {"valid/loss": 0.5}, "valid/loss had no new best in 3 evaluations"),
        ({"patience": 1, "reached": 0.2}, {"valid/loss": 0.5}, "valid/loss had no new best in 1 evaluation;"),
        ({"reached": 0.5}, {"valid/loss": 0.5}, "valid/loss reached 0.5"),
        ({"metric": "valid/accuracy", "reached": 0.9}, {"valid/accuracy": 0.95}, "valid/accuracy reached 0.9"),
    ],
)
def test_why_a_run_stopped_early(early: dict[str, Any], best: dict[str, float], said: str) -> None:
    result = {"steps": 40, "total_steps": 158, "best_step": 30, **best}
    line = final_result.stopped_early(config(train={"early_stop": early}), result)
    assert line.startswith("stopped early at step 40 of 158: ") and said in line and line.endswith("best at step 30")


def test_a_run_that_went_on_in_its_default_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked, longer, other = config(), config(train={"epochs": 5}), config(model={"hidden": 9}, train={"epochs": 5})
    directory = RunDirectory(default_path(asked))
    directory.path.mkdir(parents=True)
    (directory.path / "config.yaml").write_text(dump(longer.resolved()))
    assert run_directory.went_on(directory, asked) == 5
    assert run_directory.went_on(directory, longer) == run_directory.went_on(directory, other) == 0
    with pytest.raises(RunError, match=r"train.epochs: was 5, now 2\n.*train.epochs=5 --out runs/test/\w+-s0 goes on"):
        run_directory.compare(directory, asked)
    (directory.path / "config.yaml").write_text(dump(asked.resolved()))
    first, second = run_directory.compare(directory, longer)
    assert first == "train.epochs: 2 -> 5" and "which stands for fewer epochs: --out names it" in second


def test_a_lock_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"\xff\xfe\r\n12")
    first, second = RunDirectory(tmp_path), RunDirectory(tmp_path)
    first.lock()
    first.unlock()
    assert (tmp_path / ".lock").read_bytes() == b"\xff\xfe\r\n12"
    first.lock()
    (tmp_path / ".lock").write_bytes(b"\xff" * 9)
    with pytest.raises(RunError, match=r"in use by another live run \(process unknown\)"):
        second.lock()
    first.unlock()
