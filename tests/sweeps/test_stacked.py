"""Runs trained at once: each as if alone, whatever becomes of the others, cut or not."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gru_jax.config.loading import load_config
from gru_jax.runs import load_trained, runner
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.watching.progress import Reporter
from gru_jax.sweeps import groups, stacked
from gru_jax.sweeps.members import load_sweep

from .sweeps import CONFIG, STEPS, folder_with, numbers, sweep, untimed

SWEEP = "{optim.lr: [3e-3, 1e-2], seed: 0-1}"


@pytest.mark.slow
def test_each_is_what_it_would_be_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files and the same numbers, up to rounding; the command that makes one alone finds it finished."""
    folder_with(tmp_path / "alone", monkeypatch, SWEEP)
    for member in load_sweep("config.yaml").members:
        with Reporter() as reporter:
            assert runner.run(member.task.loaded, out=None, fresh=False, fork=False, reporter=reporter) == 0
    together = folder_with(tmp_path / "together", monkeypatch, SWEEP)
    assert sweep() == 0
    alone, at_once = numbers(tmp_path / "alone"), numbers(together)
    assert alone.keys() == at_once.keys() and len(alone) == 4
    for name, (result, lines) in alone.items():
        ours, our_lines = at_once[name]
        assert ours.keys() == result.keys() and len(our_lines) == len(lines)
        for line, our_line in [(result, ours), *zip(lines, our_lines, strict=True)]:
            assert line.keys() == our_line.keys()
            for key, value in line.items():
                if isinstance(value, float):
                    np.testing.assert_allclose(our_line[key], value, rtol=2e-3, atol=2e-3, err_msg=key)
                else:
                    assert our_line[key] == value, key
        path = together / "runs" / "tiny" / name
        theirs = {file.name for file in (tmp_path / "alone" / "runs" / "tiny" / name).iterdir()}
        assert {file.name for file in path.iterdir()} == theirs
        evaluated = load_trained.evaluate_run(path)
        assert evaluated == {key: value for key, value in ours.items() if key.startswith("test/")}
        with Reporter() as reporter:
            again = load_config(path / "config.yaml")
            assert runner.run(again, out=path, fresh=False, fork=False, reporter=reporter) == 0
    assert numbers(together) == at_once
    assert not list(together.rglob("stack-*"))


class StopsAt:
    """Hears a signal at a step."""

    def __init__(self, step: int) -> None:
        self.left = step

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The numbers of a sweep that was left alone, with early stopping, dropout and a run that diverges."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = folder_with(tmp_path_factory.mktemp("uncut"), monkeypatch, EVENTFUL, EVENTFUL_CONFIG)
        assert sweep() == 0
        yield numbers(folder)


EVENTFUL = "{optim.lr: [1e-4, 3e-2, 3e38], seed: 0-1}"
EVENTFUL_CONFIG = CONFIG.replace("hidden: 4}", "hidden: 4, layers: 2, dropout: 0.3}").replace(
    "eval_every: 5 steps", "eval_every: 5 steps, early_stop: {metric: valid/accuracy, patience: 2}"
)


def test_the_runs_of_a_stack_end_one_by_one(uncut: dict[str, Any]) -> None:
    results = [result for result, _ in uncut.values()]
    assert sorted(result["status"] for result in results) == ["diverged"] * 2 + ["done"] * 4
    assert len({result["steps"] for result in results}) >= 2
    for result, lines in uncut.values():
        assert all(line["step"] <= result["steps"] for line in lines)
        assert ("test/loss" in result) == (result["status"] == "done")


CUTS = [(9,), *(pytest.param(cuts, marks=pytest.mark.slow) for cuts in ((4, 1, 9), (0, 7), (13, 12)))]


@pytest.mark.parametrize("cuts", CUTS)
def test_cut_and_continued_it_is_the_same_bit_for_bit(
    cuts: tuple[int, ...], uncut: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path, monkeypatch, EVENTFUL, EVENTFUL_CONFIG)
    for cut in cuts:
        with monkeypatch.context() as patched:
            patched.setattr("gru_jax.sweeps.command.StopRequest", lambda cut=cut: _Context(StopsAt(cut)))
            assert sweep() == 75
        statuses = {path.read_text() for path in tmp_path.rglob("STATUS")}
        assert statuses <= {"preempted\n", "done\n", "diverged\n"}
    assert sweep() == 0
    assert numbers(tmp_path) == uncut


class _Context:
    def __init__(self, stop: StopsAt) -> None:
        self.stop = stop

    def __enter__(self) -> StopsAt:
        return self.stop

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_a_crash_between_two_checkpoints(
    uncut: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written after the newest checkpoint is dropped and made again; what was finished stays."""
    folder_with(tmp_path, monkeypatch, EVENTFUL, EVENTFUL_CONFIG)
    saves = 0
    save = stacked.Stack.save

    def crash(self: stacked.Stack, step: int, host: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 4:
            raise KeyboardInterrupt
        save(self, step, host)

    with monkeypatch.context() as patched:
        patched.setattr(stacked.Stack, "save", crash)
        with pytest.raises(KeyboardInterrupt):
            sweep()
    assert list(tmp_path.rglob("stack-*/members.json"))
    assert sweep() == 0
    assert numbers(tmp_path) == uncut


@pytest.mark.slow
def test_a_finished_sweep_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, SWEEP)
    assert sweep() == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*-s?/*")}
    summary = next(tmp_path.rglob("summary.json")).read_bytes()
    assert sweep() == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*-s?/*")} == before
    assert next(tmp_path.rglob("summary.json")).read_bytes() == summary


@pytest.mark.slow
def test_more_values_leave_the_finished_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(tmp_path, monkeypatch, SWEEP)
    assert sweep() == 0
    before = numbers(tmp_path)
    capsys.readouterr()
    assert sweep("sweep.seed=0-2") == 0
    said = capsys.readouterr().err
    assert "6 runs, 4 finished before" in said and "2 runs trained at once" in said
    assert numbers(tmp_path).items() >= before.items() and len(numbers(tmp_path)) == 6


def test_what_may_not_be_trained_at_once_is_trained_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, "{optim.lr: [3e-3, 1e-2], seed: 0-2, model.hidden: [4, 5]}")
    members = load_sweep("config.yaml").members
    stacks, alone = groups.groups(members, None, one_seed=False)
    assert [len(stack.members) for stack in stacks] == [6, 6] and not alone
    stacks, alone = groups.groups(members, None, one_seed=True)
    assert [len(stack.members) for stack in stacks] == [2] * 6 and not alone
    stacks, alone = groups.groups(members, 4, one_seed=False)
    assert [len(stack.members) for stack in stacks] == [4, 2, 4, 2] and not alone
    stacks, alone = groups.groups(members, 5, one_seed=False)
    assert [len(stack.members) for stack in stacks] == [5, 5] and len(alone) == 2
    stacks, alone = groups.groups(members, 1, one_seed=False)
    assert not stacks and {member.task.path for member in alone} == {member.task.path for member in members}
    for newton in ("model.method=newton", "parallel.strategy=data"):
        assert groups.groups(load_sweep("config.yaml", [newton]).members, None, one_seed=False)[0] == []


WAYS = ("sweep.vmap=2", "sweep.vmap=false", "model.method=newton")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_one_after_the_other_gives_the_same(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path / "stacked", monkeypatch, SWEEP)
    assert sweep() == 0
    folder_with(tmp_path / "other", monkeypatch, SWEEP)
    assert sweep(way) == 0
    ours, theirs = numbers(tmp_path / "stacked"), numbers(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(theirs[name][0]["test/loss"], ours[name][0]["test/loss"], rtol=2e-3)


@pytest.mark.slow
def test_tasks_of_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated at every step; read from a file, where those of one seed share their batches."""
    rows = "\n".join(f"{i},{np.sin(i / 5)}" for i in range(400))
    (tmp_path / "sine.csv").write_text(f"t,value\n{rows}\n")
    digits = "{kind: digits, view: rows, batch: 128}"
    generated = CONFIG.replace(digits, "{kind: adding, time: 6, batch: 64, epoch: 640}")
    folder_with(tmp_path / "generated", monkeypatch, "{seed: 0-2}", generated)
    assert sweep() == 0
    task = "{kind: forecast, file: sine.csv, column: value, values: 400, window: 20, batch: 32}"
    of_file = CONFIG.replace(digits, f"{task}\ndata_root: {tmp_path}")
    folder_with(tmp_path / "file", monkeypatch, "{optim.lr: [1e-3, 1e-2], seed: 0-1}", of_file)
    assert sweep() == 0
    for folder, count in (("generated", 3), ("file", 4)):
        found = numbers(tmp_path / folder)
        assert len(found) == count and all(result["status"] == "done" for result, _ in found.values())
        assert len({result["test/loss"] for result, _ in found.values()}) == count


def test_data_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = f"{{kind: polyphonic, file: JSB_Chorales.mat, batch: 8}}\ndata_root: {tmp_path}"
    folder_with(tmp_path, monkeypatch, "{seed: 0-1}", CONFIG.replace("{kind: digits, view: rows, batch: 128}", task))
    assert sweep() == 3
    assert capsys.readouterr().err.count("no data: ") == 2
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("config.yaml"))


@pytest.mark.slow
def test_a_run_that_was_begun_alone_goes_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(tmp_path, monkeypatch, SWEEP)
    first = load_sweep("config.yaml").members[0].task
    with monkeypatch.context() as patched, Reporter() as reporter:
        patched.setattr(runner, "StopRequest", lambda: _Context(StopsAt(6)))
        assert runner.run(first.loaded, out=None, fresh=False, fork=False, reporter=reporter) == 75
    capsys.readouterr()
    assert sweep() == 0
    assert "3 runs trained at once" in capsys.readouterr().err
    assert [line["step"] for line in numbers(tmp_path)[first.path.name][1]][-1] == STEPS
    assert (first.path / "ckpt" / str(STEPS)).is_dir()


@pytest.mark.slow
def test_a_run_that_is_in_use_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(tmp_path, monkeypatch, SWEEP)
    busy = RunDirectory(load_sweep("config.yaml").members[2].task.path)
    busy.lock()
    try:
        assert sweep() == 1
        assert "in use by another live run" in capsys.readouterr().err
    finally:
        busy.unlock()
    assert sweep() == 0


@pytest.mark.slow
def test_data_that_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(tmp_path, monkeypatch, SWEEP)
    with monkeypatch.context() as patched:
        patched.setattr("gru_jax.sweeps.command.StopRequest", lambda: _Context(StopsAt(6)))
        assert sweep() == 75
    meta = next(tmp_path.rglob("stack-*/ckpt/*/meta/metadata"))
    values = json.loads(meta.read_text())
    meta.write_text(json.dumps(values | {"fingerprint": "other"}))
    manifest = meta.parents[1] / "sha256.json"
    from gru_jax.runs.on_disk import checkpoint

    manifest.write_text(json.dumps(checkpoint._hashes(meta.parents[1])))
    capsys.readouterr()
    assert sweep() == 1
    assert "the data have changed since" in capsys.readouterr().err


@pytest.mark.slow
def test_a_removed_run_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, SWEEP)
    assert sweep() == 0
    before = numbers(tmp_path)
    gone = load_sweep("config.yaml").members[0].task.path
    shutil.rmtree(gone)
    assert sweep() == 0
    after = numbers(tmp_path)
    assert after.keys() == before.keys()
    np.testing.assert_allclose(after[gone.name][0]["test/loss"], before[gone.name][0]["test/loss"], rtol=2e-3)
    assert {k: v for k, v in after.items() if k != gone.name} == {k: v for k, v in before.items() if k != gone.name}


@pytest.mark.slow
def test_a_signal_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, monkeypatch, SWEEP)
    step = Reporter.step

    def raise_at_seven(self: Reporter, number: int) -> None:
        step(self, number)
        if number == 7:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Reporter, "step", raise_at_seven)
        assert sweep() == 75
    assert {path.name for path in tmp_path.rglob("stack-*/ckpt/*")} >= {"7"}
    assert sweep() == 0
    assert all(result["steps"] == STEPS for result, _ in numbers(tmp_path).values())
    assert untimed({"wall_s": 1}) == {} and jax.device_count() == 8
