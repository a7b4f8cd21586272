"""The runs behind a table: which are made, what becomes of those that fail, how it stops."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gru_jax.config.loading import LoadedConfig
from gru_jax.data.dataset import DataMissing
from gru_jax.runs import many_runs, runner
from gru_jax.runs import plan as run_plan
from gru_jax.runs.on_disk.json_files import write_json
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError, default_path
from gru_jax.runs.watching.progress import Reporter
from gru_jax.tables.plans import plan
from gru_jax.tables.results import read
from gru_jax.tables.running import make
from gru_jax.tables.spec import Table

from .tables import row, table

Behaviour = Callable[[LoadedConfig], int]


class Runs:
    """Stands for `runner.run`: writes what a run leaves, at once; `behaviour` decides how each ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[int, int]] = []
        self.behaviour: Behaviour = lambda loaded: 0
        monkeypatch.setattr(runner, "run", self)
        monkeypatch.setattr(run_plan, "prepare", lambda loaded: None)

    def __call__(self, loaded: LoadedConfig, *, out: None, fresh: bool, fork: bool, reporter: Reporter) -> int:
        reporter.start(0, 10)
        hidden = loaded.config.model.hidden
        self.made.append((hidden, loaded.config.seed))
        code = self.behaviour(loaded)
        if code in (0, 4):
            status = "done" if code == 0 else "diverged"
            directory = RunDirectory(default_path(loaded.config))
            directory.path.mkdir(parents=True)
            directory.write_inputs(loaded, {"device_platform": "cpu", "cpu": "a CPU, 2 cores"})
            numbers = {"test/loss": hidden + loaded.config.seed / 8} if code == 0 else {}
            total = loaded.config.total_steps
            write_json(
                directory.path / "result.json",
                {"status": status, "name": loaded.config.name, "seed": loaded.config.seed, "steps": total}
                | {"total_steps": total, "stopped_early": False, "wall_s": 1.5, "device_kind": "cpu", "devices": 1}
                | numbers,
            )
            directory.set_status(status)
        return code


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def rows_of(small: Table, scale: str = "full", **options: Any) -> tuple[int, list[str], dict[str, dict[str, Any]]]:
    """(exit code, lines said, entries by label)."""
    said: list[str] = []
    code = make(small, plan(small, scale, **options), 1, said.append)  # type: ignore[arg-type]
    return code, said, {each["label"]: each for each in read(small)}


def test_missing_runs_are_made_and_finished_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    small = table(tmp_path, monkeypatch, row("a"), row("b", set={"model.hidden": 8}), row("a again", better="higher"))
    code, said, entries = rows_of(small)
    assert code == 0 and runs.made == [(4, 0), (4, 1), (4, 2), (8, 0), (8, 1), (8, 2)]
    assert said[0] == "small: 9 runs, 0 finished before"
    assert said[1] == "left: 6 runs of rows that were never run"
    left = "; left: some 1 min, and 3 runs of rows that were never run"
    assert "[1/9] a, seed 0: test/loss 4, 1.5 s" + left in said and "[9/9] b, seed 2: test/loss 8.25, 1.5 s" in said
    assert entries["a"]["values"] == [4, 4.125, 4.25] and entries["a"]["best"] == 4
    assert entries["a again"]["best"] == 4.25 and entries["b"]["hardware"] == "a CPU, 2 cores"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, said, again = rows_of(small)
    assert code == 0 and len(runs.made) == 6 and again == entries
    assert said[0] == "small: 9 runs, 9 finished before" and said[1].endswith("(finished before)")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_chosen_rows_and_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    small = table(tmp_path, monkeypatch, row("a"), row("b", set={"model.hidden": 8}))
    rows_of(small)
    _, _, entries = rows_of(small, seeds=[2, 5], rows=re.compile("b"))
    assert runs.made[6:] == [(8, 5)]
    assert entries["b"]["seeds"] == [2, 5] and entries["a"]["seeds"] == [0, 1, 2]


def test_a_run_that_diverged_is_counted_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    small = table(tmp_path, monkeypatch, row("a", published=4.0, tolerance=1.0))
    runs.behaviour = lambda loaded: 4 if loaded.config.seed == 1 else 0
    for _ in range(2):
        code, said, entries = rows_of(small)
        assert code == 0 and len(runs.made) == 3
        assert any("a, seed 1: diverged" in line for line in said)
        assert entries["a"]["values"] == [4, None, 4.25] and entries["a"]["status"] == "differs"


def no_data(loaded: LoadedConfig) -> int:
    if loaded.config.model.hidden == 8:
        raise DataMissing("no file here: get it from there")
    return 0


def test_a_row_without_data_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    small = table(tmp_path, monkeypatch, row("b", set={"model.hidden": 8}), row("a"))
    runs.behaviour = no_data
    code, said, entries = rows_of(small)
    assert code == 0 and [entries[label]["status"] for label in "ba"] == ["no data", "new"]
    assert [line for line in said if "no file here" in line] == [
        "[1/6] b, seed 0: no data: no file here: get it from there"
    ]
    code, _, _ = rows_of(small, rows=re.compile("b"))
    assert code == 3


@pytest.mark.parametrize("failure", [RunError("it is in use"), 1])
def test_a_run_that_fails_leaves_its_row_as_it_was(
    failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    def fail(loaded: LoadedConfig) -> int:
        if loaded.config.seed != 1 or loaded.config.model.hidden == 4:
            return 0
        if isinstance(failure, Exception):
            raise failure
        return failure

    small = table(tmp_path, monkeypatch, row("b", set={"model.hidden": 8}), row("a"))
    runs.behaviour = fail
    code, said, entries = rows_of(small)
    assert code == 1 and set(entries) == {"a"}
    assert any(line.startswith("[2/6] b, seed 1: error: ") for line in said)


def test_a_metric_that_the_run_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    small = table(tmp_path, monkeypatch, row("a", metric="test/accuracy"))
    code, said, entries = rows_of(small, seeds=[0])
    assert code == 1 and entries == {}
    assert said[2].endswith("result.json has no 'test/accuracy'; it has 'test/loss'")


def test_a_damaged_run_is_left_to_the_run_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    small = table(tmp_path, monkeypatch, row("a"))
    rows_of(small)
    (one,) = [each for each in plan(small, "full")[0].runs if each.seed == 1]
    (one.path / "STATUS").write_text("dnoe\n")
    runs.behaviour = lambda loaded: 1
    code, said, entries = rows_of(small)
    assert runs.made[3:] == [(4, 1)] and code == 1 and entries["a"]["values"] == [4, 4.125, 4.25]


@pytest.mark.parametrize("heard_by", ["the run", "the table"])
def test_a_signal_keeps_what_is_finished(
    heard_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    def stop(loaded: LoadedConfig) -> int:
        if loaded.config.model.hidden == 4:
            return 0
        if heard_by == "the run":
            return 75
        signal.raise_signal(signal.SIGTERM)
        return 0

    small = table(tmp_path, monkeypatch, row("a"), row("b", set={"model.hidden": 8}))
    runs.behaviour = stop
    code, said, entries = rows_of(small)
    assert code == 75 and set(entries) == {"a"} and len(runs.made) == 4
    assert said[-1] == "stopped by a signal; what was finished is kept, the same command goes on"
    runs.behaviour = lambda loaded: 0
    code, _, entries = rows_of(small)
    assert code == 0 and set(entries) == {"a", "b"}


def test_a_signal_before_the_run_can_listen_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    from gru_jax.runs.stop_request import StopRequest

    with StopRequest() as outer:
        outer.requested = True
        with StopRequest() as inner, many_runs.Quiet("a", outer) as reporter:
            reporter.start(0, 10)
            assert inner.requested


def test_every_model_is_built_before_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gru_jax.config.loading import ConfigError

    small = table(tmp_path, monkeypatch, row("a"), row("b", set={"model.hidden": 8}), row("c", set={"model.hidden": 9}))
    prepared = []

    def prepare(loaded: LoadedConfig) -> None:
        prepared.append(loaded.config.model.hidden)
        if loaded.config.model.hidden != 4:
            raise loaded.error([(("model",), "cannot be")])

    monkeypatch.setattr(run_plan, "prepare", prepare)
    monkeypatch.setattr(runner, "run", lambda *_, **__: pytest.fail("a run was started"))
    with pytest.raises(ConfigError) as caught:
        rows_of(small)
    assert prepared == [4, 8, 9]
    assert [line.partition(": ")[0] for line in caught.value.lines] == ["b, seed 0", "c, seed 0"]


def test_a_run_that_another_command_makes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    """The others come first; by then it may be finished, and counts."""
    monkeypatch.setattr(many_runs, "_PATIENCE", 0.0)
    looks = 0

    def busy_twice(loaded: LoadedConfig) -> int:
        nonlocal looks
        if loaded.config.seed == 0 and loaded.config.model.hidden == 4:
            looks += 1
            if looks <= 2:
                raise RunError("runs/tiny is in use by another live run (process 7); wait for it", exit_code=1)
        return 0

    small = table(tmp_path, monkeypatch, row("a"), row("b", set={"model.hidden": 8}))
    runs.behaviour = busy_twice
    code, said, entries = rows_of(small)
    assert code == 0 and set(entries) == {"a", "b"} and looks == 3
    assert not any("error" in line for line in said)
    assert runs.made[0] == runs.made[-1] == (4, 0)
