"""`gru-jax sweep` as a command: killed again and again, it ends with the numbers of one that was left alone."""

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gru_jax.cli import main

from .command import command, environment, gru_jax

CONFIG = """\
schema: 1
name: tiny
task: {kind: digits, view: rows, batch: 32}
model: {kind: gru, hidden: 4, dropout: 0.2, layers: 2}
optim: {kind: adam, lr: 1e-2}
train: {epochs: 14, eval_every: 50 steps, early_stop: {metric: valid/loss, patience: 9}}
checkpoint: {every: 20 steps, keep: 2}
log: {every: 10}
sweep: {optim.lr: [3e-3, 3e-2], seed: 0-3}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with config.yaml."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def numbers(folder: Path) -> dict[str, Any]:
    """Every run's result and metrics, without what the clock says."""
    timed = ("wall_s", "compile_s", "time_s")
    found = {}
    for run in sorted(path.parent for path in folder.rglob("result.json")):
        lines = [json.loads((run / "result.json").read_text())]
        lines += [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found[run.name] = [{key: value for key, value in line.items() if key not in timed} for line in lines]
    return found


def lines(folder: Path) -> list[list[str]]:
    """The lines of every run's metrics."""
    return [path.read_text().splitlines() for path in folder.glob("runs/tiny/*-s?/metrics.jsonl")]


@pytest.mark.slow
def test_killed_ten_times(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = tmp_path_factory.mktemp("alone")
    (alone / "config.yaml").write_text(CONFIG)
    done = gru_jax("sweep", "config.yaml", cwd=alone)
    assert done.returncode == 0, done.stderr
    assert "| 0.003 |" in done.stdout and "8 runs trained at once" in done.stderr
    moments, killed = random.Random(0), 0
    for _ in range(10):
        written, more = sum(map(len, lines(folder))), moments.randint(8, 80)
        process = subprocess.Popen(
            command("sweep", "config.yaml"),
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # What the newest checkpoint has not seen is dropped first: not the lines there are, but those that come.
        while process.poll() is None and sum(map(len, lines(folder))) < written + more:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.2))
        if process.poll() is None:
            process.kill()
            killed += 1
        process.wait()
    last = gru_jax("sweep", "config.yaml", cwd=folder)
    assert last.returncode == 0, last.stderr
    assert killed >= 5 and numbers(folder) == numbers(alone) and len(numbers(folder)) == 8
    assert not list(folder.rglob("stack-*")) and not list(folder.rglob("*.writing"))


def test_what_is_wrong_is_said_and_nothing_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["sweep", "config.yaml", "sweep.optim.lr=[1e-3, fast]"]) == 2
    assert "optim.lr: expected a number > 0, got 'fast'" in capsys.readouterr().err
    assert main(["sweep", "config.yaml", "sweep=null"]) == 2
    assert "config.yaml: has no section sweep" in capsys.readouterr().err
    assert main(["sweep", "nowhere.yaml"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "config.yaml", "--jbos", "2"])
    assert ended.value.code == 2 and "did you mean '--jobs'?" in capsys.readouterr().err
    assert main(["sweep", "config.yaml", "--show"]) == 0
    assert "4 not finished" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
