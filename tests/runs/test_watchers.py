"""Who watches a run: event files by TensorBoard's own reader, wandb by a stand-in, the profiler by what it was told."""

import itertools
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.watching import plots, profile_trace
from gru_jax.runs.watching.progress import Reporter
from gru_jax.runs.watching.watchers import Watchers

from ..training.experiments import config
from .event_files import scalars

WANDB = {"project": "p", "entity": "e", "mode": "online"}


class Said(Reporter):
    """What a user would read."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def lines(*steps: int) -> list[dict[str, Any]]:
    """A line of training for each step, and one of validation for every even one."""
    found: list[dict[str, Any]] = []
    for step in steps:
        head = {"step": step, "epoch": step / 10, "time_s": 0.5 * step, "examples": 8 * step}
        found.append(head | {"train/loss": 1 / step})
        if step % 2 == 0:
            found.append(head | {"valid/loss": 2 / step})
    return found


def watched(log: dict[str, Any], folder: Path, resume_step: int, *steps: int, cut: bool = False) -> Said:
    """One session of a run: `metrics.jsonl` and its watchers get the lines of these steps."""
    said = Said()
    directory = RunDirectory(folder)
    watchers = Watchers(config(log=log), directory, resume_step, said)
    with open(directory.metrics, "a") as file:
        for line in lines(*steps):
            file.write(str(line).replace("'", '"') + "\n")
            watchers.write(line)
    if not cut:
        watchers.close()
    LEFT_OPEN.append(watchers)
    return said


LEFT_OPEN: list[Watchers] = []


@pytest.fixture(autouse=True)
def close_what_was_cut() -> Iterator[None]:
    """A process that ends closes its files."""
    yield
    while LEFT_OPEN:
        LEFT_OPEN.pop().close()


def expected(*steps: int) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value) of all its points, that a reader should find."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines(*steps):
        for key in line.keys() - {"step"}:
            found.setdefault(key, []).append((line["step"], float(np.float32(line[key]))))
    return found


def test_tensorboard_reads_every_number_once_however_often_a_run_is_cut(tmp_path: Path) -> None:
    log = {"tensorboard": True}
    assert watched(log, tmp_path, 0, 1, 2, 3, 4, 5, cut=True).warnings == []
    assert scalars(tmp_path) == expected(1, 2, 3, 4, 5), "readable while the run goes on"
    newest = max((tmp_path / "tensorboard").iterdir())
    newest.write_bytes(newest.read_bytes()[:-7])
    watched(log, tmp_path, 2, 3, 4, cut=True)
    watched(log, tmp_path, 2, 3, 4, 5, 6)
    watched(log, tmp_path, 6, 7)
    assert scalars(tmp_path) == expected(1, 2, 3, 4, 5, 6, 7)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 4


def test_tensorboard_of_a_run_that_was_not_watched_at_first(tmp_path: Path) -> None:
    watched({}, tmp_path, 0, 1, 2, 3)
    assert not (tmp_path / "tensorboard").exists()
    watched({"tensorboard": True}, tmp_path, 2, 3)
    assert scalars(tmp_path) == expected(1, 2, 3)


def test_a_log_that_cannot_be_written_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorboard").write_text("mine")
    said = watched({"tensorboard": True, "profile": {"start_step": 99}}, tmp_path, 0, 1)
    assert len(said.warnings) == 1 and said.warnings[0].startswith("log.tensorboard: ")
    assert said.warnings[0].endswith("; the run goes on without it")
    assert (tmp_path / "tensorboard").read_text() == "mine"
    from tensorboardX.event_file_writer import EventsWriter

    write = EventsWriter.write_event

    def full(self: EventsWriter, event: Any) -> None:
        if event.step == 2:
            raise OSError(28, "No space left on device")
        write(self, event)

    monkeypatch.setattr(EventsWriter, "write_event", full)
    (tmp_path / "tensorboard").unlink()
    said = watched({"tensorboard": True}, tmp_path, 0, 1, 2, 3)
    assert len(said.warnings) == 1 and "No space left on device" in said.warnings[0]
    assert scalars(tmp_path) == expected(1)


class Wandb(types.ModuleType):
    """Stands for the package: remembers its sessions, and what the server has of each run."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.sessions: list[dict[str, Any]] = []
        self.server: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.down = False
        self.logged_in = True
        self.finished = 0

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def login(self, prompt: bool, verify: bool) -> bool:
        assert verify and not prompt, "nobody answers"
        if self.down:
            raise ConnectionError("cannot be reached.\nand more")
        return self.logged_in

    def init(self, **asked: Any) -> Any:
        self.sessions.append(asked)
        rows = [] if asked["mode"] == "offline" else self.server.setdefault(asked["id"], [])
        folder = Path(asked["dir"]) / "wandb" / f"offline-run-{len(self.sessions)}-{asked['id']}"
        if asked["mode"] == "offline":
            folder.mkdir(parents=True)

        def log(row: dict[str, float], step: int, commit: bool) -> None:
            assert commit and (not rows or step > rows[-1][0]), "it would drop the row"
            rows.append((step, row))

        def finish() -> None:
            self.finished += 1

        asked["rows"] = rows
        return types.SimpleNamespace(log=log, finish=finish, starting_step=rows[-1][0] + 1 if rows else 0)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    """In the place of the package."""
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def rows(*steps: int) -> list[tuple[int, dict[str, float]]]:
    """What wandb should have: one row a step, with all that the lines of the step say."""
    found = []
    for step, same in itertools.groupby(lines(*steps), key=lambda line: line["step"]):
        row: dict[str, float] = {}
        for line in same:
            row |= line
        del row["step"]
        found.append((step, row))
    return found


def test_wandb_is_one_run_with_every_step_once(tmp_path: Path, wandb: Wandb) -> None:
    assert watched({"wandb": WANDB}, tmp_path, 0, 1, 2, 3, 4, cut=True).warnings == []
    # The killed session has lost its last rows, one of them a step that has been saved.
    name = wandb.sessions[0]["id"]
    assert wandb.server[name] == rows(1, 2, 3)
    del wandb.server[name][1:]
    watched({"wandb": WANDB}, tmp_path, 2, 3, 4, 5, cut=True)
    watched({"wandb": WANDB}, tmp_path, 2, 3, 4, 5, 6)
    assert list(wandb.server) == [name] and wandb.server[name] == rows(1, 2, 3, 4, 5, 6)
    assert wandb.finished == 1
    first = wandb.sessions[0]
    assert (first["project"], first["entity"], first["mode"], first["resume"]) == ("p", "e", "online", "allow")
    assert first["config"]["model"]["hidden"] == 8 and first["dir"] == str(tmp_path)
    assert first["settings"]["console"] == "off"


def test_wandb_offline_keeps_one_folder_that_has_it_all(tmp_path: Path, wandb: Wandb) -> None:
    log = {"wandb": WANDB | {"mode": "offline"}}
    watched(log, tmp_path, 0, 1, 2, 3, cut=True)
    # As the loop does: lines of later steps are dropped.
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.read_text().splitlines(True) if '"step": 3' not in line))
    watched(log, tmp_path, 2, 3, 4)
    assert wandb.sessions[1]["rows"] == rows(1, 2, 3, 4)
    name = wandb.sessions[0]["id"]
    assert name == wandb.sessions[1]["id"] == (tmp_path / "wandb" / "id").read_text().strip()
    assert [path.name for path in (tmp_path / "wandb").glob("offline-*")] == [f"offline-run-2-{name}"]
    assert [path.name for path in (tmp_path / "wandb" / "superseded").iterdir()] == [f"offline-run-1-{name}"]


def test_wandb_out_of_reach_is_kept_offline(tmp_path: Path, wandb: Wandb) -> None:
    wandb.down = True
    said = watched({"wandb": WANDB}, tmp_path, 0, 1, 2)
    assert [session["mode"] for session in wandb.sessions] == ["offline"]
    assert wandb.sessions[0]["rows"] == rows(1, 2)
    sends = f"wandb sync {tmp_path}/wandb/offline-run-* sends it"
    assert said.warnings == [f"log.wandb: cannot be reached; kept offline: {sends}"]


def test_wandb_without_an_account_is_kept_offline(tmp_path: Path, wandb: Wandb) -> None:
    wandb.logged_in = False
    said = watched({"wandb": WANDB}, tmp_path, 0, 1)
    assert [session["mode"] for session in wandb.sessions] == ["offline"] and wandb.sessions[0]["rows"] == rows(1)
    assert said.warnings[0].startswith("log.wandb: nobody is logged in; wandb login does so; kept offline: ")


@pytest.mark.parametrize("at", ["init", "log", "finish"])
def test_wandb_that_fails_ends_no_run(at: str, tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    begin = wandb.init

    def begin_badly(**asked: Any) -> Any:
        run = begin(**asked)
        setattr(run, at, fail)
        return run

    monkeypatch.setattr(wandb, "init", fail if at == "init" else begin_badly)
    said = watched({"wandb": WANDB, "tensorboard": True}, tmp_path, 0, 1, 2, 3)
    assert said.warnings[-1] == "log.wandb: broken; the run goes on without it"
    assert len(said.warnings) == (2 if at == "init" else 1)
    assert scalars(tmp_path) == expected(1, 2, 3)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the profiler was told."""
    told: list[str] = []
    profiler = types.SimpleNamespace(
        start_trace=lambda folder: told.append("start"),
        stop_trace=lambda: told.append("stop"),
        StepTraceAnnotation=lambda name, step_num: _Mark(told, step_num),
    )
    waits: Callable[[Any], None] = lambda state: told.append(f"wait {int(state)}")  # noqa: E731
    jax = types.SimpleNamespace(profiler=profiler, block_until_ready=waits)
    monkeypatch.setattr(profile_trace, "jax", jax)
    return told


class _Mark:
    def __init__(self, told: list[str], step: int) -> None:
        self.told, self.step = told, step

    def __enter__(self) -> None:
        self.told.append(f"[{self.step}")

    def __exit__(self, *_: object) -> None:
        self.told.append(f"{self.step}]")


MARKS = ["wait 3", "start", "[3", "3]", "[4", "4]", "wait 5", "stop"]
TRACES = [
    (0, 8, MARKS[:5] + ["wait 5", "4]", "stop"], "trace of steps 4 to 5: "),
    (3, 8, MARKS[:5] + ["wait 5", "4]", "stop"], "trace of steps 4 to 5: "),
    (0, 5, MARKS[:5] + ["4]", "stop"], "trace of steps 4 to 5: "),
    (0, 4, ["wait 3", "start", "[3", "3]", "stop"], "trace of steps 4 to 4: "),
    (0, 3, [], "no trace: the run ended before log.profile.start_step 3"),
    (4, 8, [], "no trace: the run goes on at step 4, past log.profile.start_step 3"),
]


@pytest.mark.parametrize(("begin", "end", "told", "said"), TRACES)
def test_a_trace_holds_its_steps_and_no_other(
    begin: int, end: int, told: list[str], said: str, tmp_path: Path, traced: list[str]
) -> None:
    reporter = Said()
    log = {"profile": {"start_step": 3, "num_steps": 2}}
    watchers = Watchers(config(log=log), RunDirectory(tmp_path), begin, reporter)
    for step in range(begin, end):
        watchers.step(step, jnp.asarray(step))
    watchers.close()
    watchers.close()
    assert traced == told
    assert reporter.notes[0].startswith(said) and reporter.warnings == []


def test_a_trace_that_would_begin_after_the_end(tmp_path: Path, traced: list[str]) -> None:
    total = config().total_steps
    reporter = Said()
    watchers = Watchers(config(log={"profile": {"start_step": total}}), RunDirectory(tmp_path), 0, reporter)
    watchers.close()
    assert traced == [] and reporter.notes == []
    assert reporter.warnings == [f"no trace: log.profile.start_step {total} is not before the end, step {total}"]


def test_a_trace_that_cannot_be_begun(tmp_path: Path, traced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(folder: str) -> None:
        raise RuntimeError("Profile has already been started.")

    monkeypatch.setattr(profile_trace.jax.profiler, "start_trace", busy)
    reporter = Said()
    watchers = Watchers(config(log={"profile": {"start_step": 0}}), RunDirectory(tmp_path), 0, reporter)
    for step in range(3):
        watchers.step(step, jnp.asarray(step))
    watchers.close()
    assert reporter.warnings == ["log.profile: Profile has already been started.; the run goes on without it"]
    assert traced == ["wait 0"]


def test_a_band_over_seeds() -> None:
    slow = [{"step": step, "time_s": 2.0 * step, "valid/loss": 4.0 - step} for step in (1, 2, 3)]
    fast = [{"step": step, "time_s": 1.0 * step, "valid/loss": 2.0 - step} for step in (1, 2)]
    steps, low, mean, high = plots.over_seeds([slow, fast], "valid/loss", "step")
    np.testing.assert_allclose([steps, low, mean, high], [[1, 2, 3], [1, 0, 1], [2, 1, 1], [3, 2, 1]])
    # At second 2 both have come: slow to its first step, fast to its second.
    seconds, low, mean, high = plots.over_seeds([slow, fast], "valid/loss", "time_s")
    np.testing.assert_allclose(
        [seconds, low, mean, high], [[1, 2, 4, 6], [1, 0, 2, 1], [1, 1.5, 2, 1], [1, 3, 2, 1]]
    )
    # Alone, between its points, it goes straight.
    other = [{"step": step, "time_s": 1.0 + 2 * step, "valid/loss": 1.0} for step in (1, 2)]
    seconds, low, _, _ = plots.over_seeds([slow, other], "valid/loss", "time_s")
    assert low[list(seconds).index(3)] == 1.0
    assert plots.over_seeds([slow, other], "valid/loss", "time_s")[3][list(seconds).index(3)] == 2.5
    assert plots.over_seeds([slow, [], []], "valid/loss")[0].size == 0
    assert plots.over_seeds([slow], "valid/accuracy")[0].size == 0
