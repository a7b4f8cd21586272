"""The summary of a sweep: means over seeds, the best combination, what is missing."""

import json
from pathlib import Path

import pytest

from gru_jax.runs.on_disk.json_files import write_json
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.sweeps import summary
from gru_jax.sweeps.members import load_sweep

from .sweeps import folder_with, sweep


def finish(member: object, **values: object) -> None:
    """Writes what a finished run leaves."""
    task = member.task  # type: ignore[attr-defined]
    directory, total = RunDirectory(task.path), task.loaded.config.total_steps
    directory.path.mkdir(parents=True)
    directory.write_inputs(task.loaded, {})
    result = {"status": "done", "name": "tiny", "seed": task.loaded.config.seed, "steps": total}
    result |= {"total_steps": total, "stopped_early": False, **values}
    write_json(directory.path / "result.json", result)
    directory.set_status(str(result["status"]))


def test_the_best_is_picked_by_its_mean_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(tmp_path, monkeypatch, "{optim.lr: [1e-3, 1e-2, 0.1, 1.0], seed: 0-1}")
    whole = load_sweep("config.yaml")
    for place, (loss, test) in enumerate([(0.1, 3), (0.5, 5), (0.25, 7), (0.25, 9), (0.2, 1)]):
        finish(whole.members[place], **{"valid/loss": loss, "test/loss": test})
    finish(whole.members[5], status="diverged")
    finish(whole.members[6], **{"valid/loss": 0.0, "test/loss": 0})
    lines = summary.lines_of(whole)
    assert [line.name for line in lines] == [f"optim.lr={lr}" for lr in ("0.001", "0.01", "0.1", "1.0")]
    assert [line.pick for line in lines] == [pytest.approx(0.3), 0.25, None, None]
    assert summary.best_of(lines, "valid/loss") is lines[1]
    assert summary.best_of(lines, "valid/accuracy") is lines[0]
    assert sweep(show=True) == 0
    assert capsys.readouterr().out == (
        "| optim.lr | valid/loss | test/loss | seeds | status |\n"
        "| --- | ---: | ---: | ---: | --- |\n"
        "| 0.001 | 0.3 ± 0.28 | 4 ± 1.4 | 2 |  |\n"
        "| 0.01 | 0.25 ± 0 | 8 ± 1.4 | 2 | best |\n"
        "| 0.1 | - | - | 2 | 1 diverged |\n"
        "| 1.0 | - | - | 2 | 1 not finished |\n"
        "\nBest valid/loss: optim.lr=0.01: 0.25 ± 0\n"
    )
    at = summary.write(whole, lines)
    written = json.loads((at / "summary.json").read_text())
    assert written["best"] == {"values": {"optim.lr": 0.01}, "mean": 0.25, "sd": 0.0}
    assert [row["status"] for row in written["runs"]] == ["done"] * 5 + ["diverged", "done", "not finished"]
    assert written["runs"][3]["run"] == str(whole.members[3].task.path)
    for picture in summary.draw(whole, lines, at):
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in at.iterdir()} == {"summary.json", "summary.md", "curves.png", "values.png"}


def test_seeds_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(tmp_path, monkeypatch, "{seed: 0-2}")
    assert sweep(show=True) == 0
    assert "3 not finished" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    for member in load_sweep("config.yaml").members:
        finish(member, **{"valid/loss": 0.5, "test/loss": 1.0})
    assert sweep(show=True) == 0
    assert "| 0.5 ± 0 | 1 ± 0 | 3 | best |" in capsys.readouterr().out
