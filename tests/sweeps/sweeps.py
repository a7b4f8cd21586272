"""A folder with a config that holds a sweep, for tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from gru_jax.sweeps.command import Request, make_sweep

CONFIG = """\
schema: 1
name: tiny
task: {kind: digits, view: rows, batch: 128}
model: {kind: gru, hidden: 4}
optim: {kind: adam, lr: 1e-2}
train: {epochs: 3, eval_every: 5 steps}
checkpoint: {every: 4 steps, keep: 2}
log: {every: 3}
"""
STEPS = 3 * (1266 // 128)
# What differs between two runs of the same command, and between a run alone and one of several.
OF_THE_CLOCK = {"wall_s", "compile_s", "wall_s_is", "time_s"}


def folder_with(folder: Path, monkeypatch: pytest.MonkeyPatch, sweep: str, config: str = CONFIG) -> Path:
    """Writes config.yaml, with `sweep` as its section, and makes the folder the current one; draws no pictures."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(f"{config}sweep: {sweep}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("gru_jax.runs.final_result.draw", lambda *_: [])
    return folder


def sweep(*overrides: str, jobs: int = 1, show: bool = False) -> int:
    """`gru-jax sweep config.yaml ...` in this process."""
    return make_sweep(Request("config.yaml", list(overrides), jobs, show))


def numbers(folder: Path) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Name of a run's directory -> (its result, its lines of metrics), the clock left out."""
    found = {}
    for run in sorted(path.parent for path in folder.rglob("result.json")):
        result = json.loads((run / "result.json").read_text())
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found[run.name] = (untimed(result), [untimed(line) for line in lines])
    return found


def untimed(values: dict[str, Any]) -> dict[str, Any]:
    """The values that a clock does not decide."""
    return {key: value for key, value in values.items() if key not in OF_THE_CLOCK}
