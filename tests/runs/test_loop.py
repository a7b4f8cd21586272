"""The loop: what it fetches and when, and the same task with every strategy."""

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from gru_jax.config.loading import load_config
from gru_jax.runs import runner
from gru_jax.runs.loop import Loop
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.stopwatch import Stopwatch
from gru_jax.runs.watching.progress import Reporter
from gru_jax.training.devices import place

CONFIG = """\
schema: 1
name: tiny
task: {kind: digits, view: rows, batch: 128}
model: {kind: gru, hidden: 8}
optim: {kind: adam, lr: 1e-2}
train: {epochs: 2, eval_every: 9 steps}
checkpoint: {every: 18 steps}
log: {every: 4}
"""
STEPS, LOGGED, EVALUATED, SAVED = 18, (4, 8, 12, 16, 18), (9, 18), (18,)


def run(folder: Path, *overrides: str) -> Path:
    """Runs CONFIG to its end; its directory."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    loaded = load_config(folder / "config.yaml", overrides)
    with Reporter() as reporter:
        assert runner.run(loaded, out=folder / "run", fresh=False, fork=False, reporter=reporter) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru_jax.runs.final_result.draw", lambda *_: [])


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to the devices and comes back, in order."""
    seen: list[str] = []

    def recorded(name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            seen.append(name)
            return function(*arguments)

        return call

    def placed(*arguments: Any) -> Any:
        placement = place(*arguments)
        return placement._replace(
            train_step=recorded("step", placement.train_step),
            eval_step=recorded("eval", placement.eval_step),
            get=recorded("get", placement.get),
        )

    monkeypatch.setattr(runner, "place", placed)
    monkeypatch.setattr(jax, "block_until_ready", recorded("wait", jax.block_until_ready))
    return seen


def test_metrics_are_fetched_when_the_next_step_is_on_its_way(tmp_path: Path, events: list[str]) -> None:
    run(tmp_path)
    fetched_after: list[int] = []
    steps = 0
    for event in events:
        steps += event == "step"
        if event == "get":
            fetched_after.append(steps)
    valid, test = 2, 3  # batches of an evaluation: each gives its own totals
    wanted = []
    for step in range(1, STEPS + 1):
        waits_anyhow = step in EVALUATED or step in SAVED
        wanted += [step] * (step - 1 in LOGGED and step - 1 not in EVALUATED)
        wanted += [step] * (step in LOGGED and waits_anyhow)
        # The totals, and the parameters where they are the best so far, as they are here both times.
        wanted += [step] * ((valid + 1) * (step in EVALUATED) + (step in SAVED))
    assert fetched_after == wanted + [STEPS] * test
    # The first call of a program is waited for, to know how long it compiled; no other one is.
    assert events.count("wait") == len(("batch", "step", "eval"))



@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The metrics of one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.final_result.draw", lambda *_: [])
        return RunDirectory(run(tmp_path_factory.mktemp("single"))).metrics_lines()


@pytest.mark.parametrize(
    "parallel",
    [
        pytest.param("{strategy: data}", marks=pytest.mark.slow),
        pytest.param("{strategy: pmap}", marks=pytest.mark.slow),
        pytest.param("{strategy: time}", marks=pytest.mark.slow),
        pytest.param("{strategy: time, parts: 4}", marks=pytest.mark.slow),
        "{strategy: data, accumulate: 4}",
        pytest.param("{strategy: time, parts: 4, accumulate: 2}", marks=pytest.mark.slow),
    ],
)
def test_all_strategies_train_to_the_same_loss(
    parallel: str, tmp_path: Path, single: list[dict[str, Any]]
) -> None:
    lines = RunDirectory(run(tmp_path, f"parallel={parallel}")).metrics_lines()
    assert [line["step"] for line in lines] == [line["step"] for line in single]
    for line, want in zip(lines, single, strict=True):
        for key in want.keys() & {"train/loss", "valid/loss", "grad_norm"}:
            np.testing.assert_allclose(line[key], want[key], rtol=1e-3, err_msg=f"step {line['step']}: {key}")


def test_runs_that_end_at_once_have_equal_shares_of_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("gru_jax.runs.stopwatch.time.perf_counter", lambda: now)
    clock, loop = History(), object.__new__(Loop)
    made = {"at_once": 2, "close": lambda: None, "open": True}
    records: Any = [SimpleNamespace(history=History(), **made) for _ in range(2)]
    loop.trainees, loop.watch = cast(Any, SimpleNamespace(clock=clock)), Stopwatch(clock)
    now = 6.0
    for _ in loop._end(records, 9, "done"):
        now += 100.0  # the test and the pictures of one
    now += 2.0
    loop.watch.mark()
    assert [record.history.train_s for record in records] == [3.0, 3.0] and clock.train_s == 8.0
