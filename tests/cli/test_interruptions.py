"""Killed, stopped, torn: the same command again ends with the metrics of a run that was left alone."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .command import ONLY_READS, STEPS, command, environment, gru_jax, metrics, process, result, snapshot

RUN = ("run", "config.yaml", "--out", "out")
KILLED = Path(__file__).with_name("killed.py")


@pytest.fixture
def uninterrupted(finished: Path) -> Path:
    """The directory of a run that was left alone."""
    return finished / "out"


def finish(folder: Path, uninterrupted: Path) -> subprocess.CompletedProcess[str]:
    """Runs to the end and compares with the run that was left alone."""
    done = gru_jax(*RUN, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert metrics(folder / "out") == metrics(uninterrupted)
    timed = {"wall_s", "compile_s"}
    ours, theirs = result(folder / "out"), result(uninterrupted)
    assert {k: v for k, v in ours.items() if k not in timed} == {k: v for k, v in theirs.items() if k not in timed}
    leftovers = {p.name for p in (folder / "out").rglob("*") if ".tmp" in p.name or ".writing" in p.name}
    assert not leftovers
    return done


# One chain of starts: each is killed at this many file operations of its own. Small numbers fall on
# the first files of a start, larger ones into and between its checkpoints.
KILLS = (2, 7, 13, 40, 61, 90, 33, 120, 150)


def killed_at(operation: int, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """A run that is killed at this many file operations of its own."""
    words = [sys.executable, KILLED, str(operation), *RUN]
    return subprocess.run(words, cwd=folder, env=environment(**ONLY_READS), capture_output=True, timeout=240)


@pytest.mark.parametrize("kills", [(150,), pytest.param(KILLS, marks=pytest.mark.slow)], ids=("once", "nine"))
def test_killed_at_file_operations(kills: tuple[int, ...], folder: Path, uninterrupted: Path) -> None:
    for operation in kills:
        died = killed_at(operation, folder)
        assert died.returncode == -signal.SIGKILL, died.stderr
    assert "resuming at step" in finish(folder, uninterrupted).stdout


@pytest.mark.slow
@pytest.mark.parametrize("operation", range(1, 400, 7))
def test_killed_at_every_seventh_file_operation(operation: int, folder: Path, uninterrupted: Path) -> None:
    died = killed_at(operation, folder)
    assert died.returncode in (0, -signal.SIGKILL), died.stderr
    finish(folder, uninterrupted)


def start_and_wait(folder: Path, ready: Callable[[Path], bool]) -> subprocess.Popen[str]:
    """Starts a long run and waits until its directory is as asked for."""
    started = subprocess.Popen(
        command(*RUN, "train.epochs=100000"),
        cwd=folder,
        env=environment(**ONLY_READS),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not ready(folder / "out"):
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return started


def has_checkpoints(out: Path) -> bool:
    return (out / "ckpt").is_dir() and sum(p.name.isdigit() for p in (out / "ckpt").iterdir()) > 1


def test_a_second_run_is_kept_out_and_sigterm_saves_and_exits_75(folder: Path) -> None:
    first = start_and_wait(folder, has_checkpoints)
    second = gru_jax(*RUN, "train.epochs=100000", cwd=folder)
    assert second.returncode == 1
    assert f"in use by another live run (process {first.pid})" in second.stderr
    first.terminate()
    out, err = first.communicate(timeout=120)
    assert first.returncode == 75, err
    assert err == ""
    assert (folder / "out" / "STATUS").read_text() == "preempted\n"
    newest = max(int(p.name) for p in (folder / "out" / "ckpt").iterdir())
    assert f"saved at step {newest}" in out
    assert max(line["step"] for line in metrics(folder / "out")) <= newest


@pytest.mark.slow
def test_preempted_at_any_step_changes_no_number(folder: Path, uninterrupted: Path) -> None:
    # A signal that arrives before the first step: it is saved at a step that is on no boundary.
    script = (
        "import os, signal\n"
        "from gru_jax.runs import loop\n"
        "at_boundary = loop.Loop._at_boundary\n"
        "def stop_at(self, step, state):\n"
        "    if step == 17: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return at_boundary(self, step, state)\n"
        "loop.Loop._at_boundary = stop_at\n"
    )
    stopped = process(*RUN, cwd=folder, before=script)
    assert stopped.returncode == 75, stopped.stderr
    assert (folder / "out" / "ckpt" / "17").is_dir()
    assert "resuming at step 17" in finish(folder, uninterrupted).stdout


@pytest.mark.slow
def test_the_lock_dies_with_its_holder(folder: Path) -> None:
    first = start_and_wait(folder, has_checkpoints)
    try:
        second = gru_jax(*RUN, "train.epochs=100000", cwd=folder)
        assert second.returncode == 1
        assert f"in use by another live run (process {first.pid})" in second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert (folder / "out" / "STATUS").read_text() == "running\n"
    # The lock died with its holder.
    with open(folder / "out" / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def halfway(folder: Path, uninterrupted: Path) -> Path:
    """A folder whose run was killed after its last checkpoint but one, as far as files can tell."""
    shutil.copytree(uninterrupted, folder / "out")
    for name in ("result.json", f"ckpt/{STEPS}"):
        path = folder / "out" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "out" / "STATUS").write_text("running\n")
    return folder


@pytest.mark.slow
def test_a_run_that_goes_on_is_stopped_by_sigint_too(halfway: Path) -> None:
    (halfway / "out" / "STATUS").write_text("preempted\n")
    again = start_and_wait(halfway, lambda out: (out / "STATUS").read_text() == "running\n")
    again.send_signal(signal.SIGINT)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 75, err
    assert "resuming at step 35" in out


def test_torn_newest_checkpoint_is_skipped(halfway: Path, uninterrupted: Path) -> None:
    checkpoints = halfway / "out" / "ckpt"
    newest, older = sorted((int(p.name) for p in checkpoints.iterdir()), reverse=True)
    largest = max(
        (p for p in (checkpoints / str(newest)).rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    os.truncate(largest, largest.stat().st_size // 2)
    done = finish(halfway, uninterrupted)
    assert f"warning: checkpoint out/ckpt/{newest} is torn, skipped" in done.stderr
    assert f"resuming at step {older} " in done.stdout
    assert len(done.stderr.splitlines()) == 1


def test_when_all_are_torn_nothing_is_touched(halfway: Path) -> None:
    for step in (halfway / "out" / "ckpt").iterdir():
        for path in step.rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
    before = snapshot(halfway)
    refused = gru_jax(*RUN, cwd=halfway)
    assert refused.returncode == 1
    assert "never restarted from step 0" in refused.stderr and "Traceback" not in refused.stderr
    assert snapshot(halfway) == before


def test_vanished_checkpoints_are_no_fresh_start(halfway: Path) -> None:
    shutil.rmtree(halfway / "out" / "ckpt")
    (halfway / "out" / "STATUS").write_text("preempted\n")
    refused = gru_jax(*RUN, cwd=halfway)
    assert refused.returncode == 1 and "holds no checkpoint" in refused.stderr


@pytest.mark.slow
def test_half_a_line_of_metrics_is_dropped(halfway: Path, uninterrupted: Path) -> None:
    with open(halfway / "out" / "metrics.jsonl", "a") as file:
        file.write('{"step": 36, "epo')
    finish(halfway, uninterrupted)


@pytest.mark.parametrize(
    "module",
    ["pydantic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sklearn.datasets", "orbax.checkpoint"))],
)
def test_interrupted_before_the_training(module: str, folder: Path) -> None:
    script = (
        "import os, signal\n"
        # A shell has the commands that it runs in the background ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def interrupt(event, args):\n"
        f"    if event == 'import' and args[0] == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(interrupt)\n"
    )
    stopped = process(*RUN, cwd=folder, before=script)
    assert (stopped.returncode, stopped.stderr) == (130, "error: interrupted\n")
    assert not (folder / "out" / "config.yaml").exists()
