"""What a run writes and remembers: files by rename, metrics lines, history, directory, pictures."""

import json
import os
import types
from pathlib import Path

import numpy as np
import pytest

from gru_jax.cells.activations import ACTIVATIONS
from gru_jax.config import config as config_module
from gru_jax.config.sections.models.gru import Activation
from gru_jax.runs.on_disk import json_files, run_directory
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.metrics_log import MetricsLog, read_metrics
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.watching import gate_maps, plots

from ..training.experiments import config


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    json_files.write_json(path, {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        json_files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_files.write_json(tmp_path / "result.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("resume_step", "kept"), [(0, []), (3, [1, 2, 3]), (9, [1, 2, 3, 4])])
@pytest.mark.parametrize("tail", ["", '{"step": 5', "not json\n", '{"loss": 1}\n', "[]\n"])
def test_metrics_are_cut_at_the_checkpoint(resume_step: int, kept: list[int], tail: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3, 4)) + tail)
    log = MetricsLog(path, resume_step)
    log.write({"step": 99})
    log.close()
    assert [line["step"] for line in read_metrics(path)] == [*kept, 99]
    assert path.read_text().endswith("\n")


HISTORIES = [
    ("valid/loss", [3, 2, 2, 1], None, 4, 0, False),
    ("valid/loss", [1, 2, 3], 2, 1, 2, True),
    ("valid/accuracy", [0.1, 0.5, 0.5, 0.4], 3, 2, 2, False),
    ("valid/accuracy", [0.5, 0.4, 0.6, 0.1], 2, 3, 1, False),
]


@pytest.mark.parametrize(("best_by", "values", "patience", "best", "since", "stopped"), HISTORIES)
def test_history(best_by: str, values: list[float], patience: int | None, best: int, since: int, stopped: bool) -> None:
    history = History()
    for step, value in enumerate(values, start=1):
        # As if the run had been cut after every evaluation.
        history = History.from_meta(json.loads(json.dumps(history.to_meta())))
        is_best = history.evaluated(step, {best_by: value}, best_by, patience)
        assert is_best == (history.best_step == step)
    assert history.best_step == best and history.best == {best_by: values[best - 1]}
    assert history.evaluations_since_best == since and history.stopped_early == stopped


def test_numbered_directories(tmp_path: Path) -> None:
    for expected in ("run", "run-2", "run-3"):
        path = run_directory.numbered(tmp_path / "run")
        assert path.name == expected
        path.mkdir()


DECIDING = [
    {"model": {"hidden": 9}},
    {"optim": {"lr": 0.5}},
    {"task": {"batch": 8}},
    {"train": {"epochs": 3}},
    {"train": {"eval_every": "3 steps"}},
    {"model": {"method": {"kind": "newton", "tol": 1e-3}}},
]
FREE = [
    {"log": {"every": 3}},
    {"checkpoint": {"keep": 9}},
    {"parallel": {"strategy": "data"}},
    {"model": {"method": "newton"}},
    {"model": {"method": {"kind": "newton", "window": 4, "fallback": "nan"}}},
    {"model": {"method": {"kind": "sequential", "unroll": 4}}},
]


@pytest.mark.parametrize("sections", DECIDING)
def test_hash_changes_with_what_decides_the_numbers(sections: dict[str, dict[str, object]]) -> None:
    assert config_module.config_hash(config(**sections)) != config_module.config_hash(config())


@pytest.mark.parametrize("sections", FREE)
def test_hash_ignores_what_does_not(sections: dict[str, dict[str, object]]) -> None:
    assert config_module.config_hash(config(**sections)) == config_module.config_hash(config())


def test_hashes_stay_what_they_are() -> None:
    """Run directories carry them in their names: a new key must not change those of old configs."""
    assert config_module.config_hash(config()) == "beb93114"


@pytest.mark.parametrize("sections", [*DECIDING, *FREE])
def test_what_keeps_the_hash_may_change_in_a_run(sections: dict[str, dict[str, object]]) -> None:
    changed = config_module.changes(config(), config(**sections))
    assert changed
    free = all(config_module.is_free(key, *pair) for key, pair in changed.items())
    assert free == (sections in FREE or "epochs" in sections.get("train", {}))


@pytest.mark.parametrize(("old", "new", "free"), [(2, 3, True), (3, 2, False), (2, None, False), ("2", 3, False)])
def test_epochs_may_only_grow(old: object, new: object, free: bool) -> None:
    assert config_module.is_free("train.epochs", old, new) == free


def test_broken_config_of_an_existing_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("schema: 1\n")
    with pytest.raises(RunError, match="config cannot be read") as caught:
        RunDirectory(tmp_path).config()
    assert caught.value.exit_code == 1


def test_lock_is_exclusive_and_ends_with_its_holder(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    first.lock()
    with pytest.raises(RunError, match="in use by another live run") as caught:
        second.lock()
    assert caught.value.exit_code == 1
    second.unlock()
    first.unlock()
    second.lock()
    second.unlock()


def test_pictures_of_odd_runs(tmp_path: Path) -> None:
    lines = [{"step": 1, "train/loss": 2.0}, {"step": 2, "valid/loss": 1.0, "valid/accuracy": 0.5}]
    runs = {"none": [], "empty": [[]], "one": [lines[:1]], "seeds": [lines, lines[:1], []]}
    plots.curves(runs, tmp_path / "new" / "curves.png", plots.Metrics({"loss": "loss"}, "valid/loss"))
    frozen = types.SimpleNamespace(r=np.zeros((5, 1)), z=np.ones((5, 1)))
    gate_maps.draw([("layer 1", frozen)], tmp_path / "gates.png", "saturated")
    for path in (tmp_path / "new" / "curves.png", tmp_path / "gates.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_activations_of_a_config_are_those_of_the_cells() -> None:
    from typing import get_args

    assert set(get_args(Activation)) == set(ACTIVATIONS)
