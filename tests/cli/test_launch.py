"""Several processes make one run: the numbers of one process, and one end for all of them."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from .command import ONLY_READS, TINY, command, environment, gru_jax, metrics, process, result, snapshot

RUN = ("run", "config.yaml", "--out", "out")
LAUNCH = ("launch", "-n", "2", "--", *RUN)
ENDS_S = 30


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two processes that was left alone."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "config.yaml").write_text(TINY)
    done = process(*LAUNCH, devices=1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "2 processes, 2 devices, strategy data" in done.stdout
    assert not done.stderr and "Gloo" not in done.stdout
    return folder


def assert_same_numbers(run: Path, other: Path, rtol: float) -> None:
    lines, others = metrics(run), metrics(other)
    assert [line.keys() for line in lines] == [line.keys() for line in others]
    for line, want in zip(lines, others, strict=True):
        for key, value in line.items():
            # A sequence at the border between two classes counts as a whole one.
            atol = 1 / 178 if key.endswith("accuracy") else 1e-5
            np.testing.assert_allclose(value, want[key], rtol=rtol, atol=atol, err_msg=key)


@pytest.mark.slow
def test_the_numbers_of_one_process_with_two_devices(uninterrupted: Path, folder: Path) -> None:
    done = process(*RUN, "parallel.strategy=data", cwd=folder, devices=2)
    assert done.returncode == 0, done.stderr
    assert_same_numbers(uninterrupted / "out", folder / "out", rtol=2e-3)
    ours, theirs = result(uninterrupted / "out"), result(folder / "out")
    assert ours["devices"] == theirs["devices"] == 2
    np.testing.assert_allclose(ours["test/loss"], theirs["test/loss"], rtol=2e-3)


def test_the_run_is_one_that_a_process_alone_can_go_on_with(folder: Path) -> None:
    # Four steps, of data that take no import.
    task = "task={kind: adding, time: 4, batch: 16, epoch: 64}"
    short = (task, "train.epochs=1", "train.eval_every=1 epoch")
    done = process(*LAUNCH, *short, devices=1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "2 processes, 2 devices, strategy data" in done.stdout and not done.stderr
    before = snapshot(folder / "out")
    assert "mode: 'off'" in (folder / "out" / "config.yaml").read_text()
    again = gru_jax(*RUN, *short, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "this run is finished" in again.stdout
    assert snapshot(folder / "out") == before


@pytest.mark.slow
def test_a_finished_run_is_left_alone(uninterrupted: Path) -> None:
    before = snapshot(uninterrupted / "out")
    at_once = process(*LAUNCH, devices=1, cwd=uninterrupted)
    assert at_once.returncode == 0, at_once.stderr
    assert "this run is finished" in at_once.stdout
    assert snapshot(uninterrupted / "out") == before


def launched(folder: Path, *more: str) -> "subprocess.Popen[str]":
    return started(folder, *LAUNCH, *more)


def started(folder: Path, *words: str) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(*words), cwd=folder, env=environment(1, **ONLY_READS), text=True, **pipes)


def children(launcher: "subprocess.Popen[str]") -> list[int]:
    """The processes of the run, in the order of their numbers."""
    for _ in range(100):
        found = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        if len(found) == 2:
            return [int(pid) for pid in found]
        time.sleep(0.1)
    raise AssertionError("the launcher has not started two processes")


def wait_for(path: Path, launcher: "subprocess.Popen[str]") -> None:
    for _ in range(6000):  # beside other work two processes have taken ten times as long as alone
        if path.exists() or launcher.poll() is not None:
            break
        time.sleep(0.1)
    assert path.exists(), launcher.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_one_that_is_killed_ends_the_other_and_the_run_resumes(
    victim: int, folder: Path, uninterrupted: Path
) -> None:
    launcher = launched(folder)
    pids = children(launcher)
    wait_for(folder / "out" / "ckpt" / "5", launcher)
    os.kill(pids[victim], signal.SIGKILL)
    killed_at = time.monotonic()
    _, said = launcher.communicate(timeout=2 * ENDS_S)
    assert time.monotonic() - killed_at < ENDS_S
    assert launcher.returncode == 1
    assert f"process {victim} of 2 was killed by signal 9" in said and "goes on from the newest checkpoint" in said
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    done = process(*LAUNCH, devices=1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert metrics(folder / "out") == metrics(uninterrupted / "out")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["launcher", "process 0", "process 1"])
def test_a_signal_to_any_of_them_stops_all_after_saving(to: str, folder: Path, uninterrupted: Path) -> None:
    launcher = launched(folder)
    pids = children(launcher)
    wait_for(folder / "out" / "ckpt" / "5", launcher)
    os.kill(launcher.pid if to == "launcher" else pids[int(to[-1])], signal.SIGTERM)
    said, errors = launcher.communicate(timeout=2 * ENDS_S)
    assert launcher.returncode == 75, errors
    assert "stopped by a signal and saved at step" in said
    assert (folder / "out" / "STATUS").read_text() == "preempted\n"
    done = process(*LAUNCH, devices=1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert metrics(folder / "out") == metrics(uninterrupted / "out")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def started_by_hand(folder: Path, index: int, port: int, *more: str) -> "subprocess.Popen[str]":
    where = f"distributed={{mode: manual, coordinator: '127.0.0.1:{port}', processes: 2, process_id: {index}}}"
    return started(folder, *RUN, where, *more)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_without_a_launcher_the_others_end_by_themselves(victim: int, folder: Path) -> None:
    port = free_port()
    both = [started_by_hand(folder, index, port) for index in (0, 1)]
    wait_for(folder / "out" / "ckpt" / "5", both[0])
    both[victim].kill()
    _, said = both[1 - victim].communicate(timeout=ENDS_S)
    both[victim].communicate()
    assert both[1 - victim].returncode == 1
    assert f"process {victim} of 2 is gone, so process {1 - victim} ends too" in said
    assert "Traceback" not in said


def write_tables(folder: Path, sources: list[str]) -> None:
    rows = "".join(f"{source}\t{row % 2}\n" for row, source in enumerate(sources))
    for name in ("basic_train", "basic_val", "basic_test"):
        (folder / f"{name}.tsv").write_text("Source\tTarget\n" + rows)


def tables(time: int) -> str:
    sizes = f"{{train: 64, valid: 64, test: 64, time: {time}, vocabulary: 2, classes: 2}}"
    return f"task={{kind: tsv, batch: 16, sizes: {sizes}}}"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data", "time"])
def test_sequences_in_files_are_shared_out(strategy: str, folder: Path) -> None:
    """Of all lengths: a process reads its own, and pads them as the whole batch needs."""
    write_tables(folder, [" ".join("ab"[(row * step) % 3 == 0] for step in range(1 + row % 20)) for row in range(64)])
    words = (tables(20), f"parallel.strategy={strategy}", "model.dropout=0.1", f"data_root={folder}")
    one = process("run", "config.yaml", "--out", "one", *words, cwd=folder, devices=2)
    assert one.returncode == 0, one.stderr
    two = process("launch", "-n", "2", "--", "run", "config.yaml", "--out", "two", *words, cwd=folder, devices=1)
    assert two.returncode == 0, two.stderr
    assert_same_numbers(folder / "two", folder / "one", rtol=2e-3)


@pytest.mark.slow
def test_other_data_and_other_directories_are_noticed(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for where, word in ((folder, "a"), (other, "b")):
        write_tables(where, [f"a b {word}"] * 64)
    (other / "config.yaml").write_text((folder / "config.yaml").read_text())
    task = tables(3)
    port = free_port()
    both = [
        started_by_hand(where, index, port, task, f"data_root={where}") for index, where in enumerate((folder, other))
    ]
    said = [each.communicate(timeout=240)[1] for each in both]
    assert [each.returncode for each in both] == [1, 1], said
    assert "process 1 has other data than process 0" in said[1], said


@pytest.mark.slow
@pytest.mark.parametrize("key", ["seed=5", "train.epochs=5", "model.dropout=0.1"])
def test_another_config_is_noticed_before_anything_is_written(key: str, folder: Path) -> None:
    port = free_port()
    both = [started_by_hand(folder, index, port, *words) for index, words in enumerate([(), (key,)])]
    said = [each.communicate(timeout=240)[1] for each in both]
    assert [each.returncode for each in both] == [2, 2], said
    assert "process 1 is told to make another run than process 0" in said[1]
    name, value = key.split("=")
    assert f"  {name}: {value}, there " in said[1]
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("launch",), "-n/--processes"),
        (("launch", "-n", "0", "--", *RUN), "expected a number from 1 to 1024"),
        (("launch", "-n", "2"), "expected a run, got nothing"),
        (("launch", "-n", "2", "--", "sweep", "config.yaml"), "expected a run, got 'sweep'"),
        (("launch", "-n", "2", "--nodes", "2", "--", *RUN), "unknown argument '--nodes'"),
        (("run", "config.yaml", "distributed.mode=auto"), "finds no cluster that has started this process"),
        (("run", "config.yaml", "distributed.mode=manual"), "needs coordinator (host:port), processes and process_id"),
        (("run", "config.yaml", "distributed.processes=2"), "is for mode 'manual'; mode is 'off'"),
        (("sweep", "config.yaml", "distributed.mode=auto", "sweep={seed: [0, 1]}"), "only gru-jax run is made by"),
    ],
)  # fmt: skip
def test_what_cannot_be_launched_is_said(words: tuple[str, ...], said: str, folder: Path) -> None:
    # A cluster can be looked for only where JAX has not begun to compute.
    start = process if words[0] == "run" and "distributed.mode=auto" in words else gru_jax
    done = start(*words, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("parallel.strategy=single", "'single' is for one process, and these are 2; choose 'data' or 'time'"),
        ("parallel={strategy: data, devices: 1}", "2 processes use all of their 2 devices; leave it out"),
        ("model.hiden=3", "did you mean 'hidden'?"),
        ("task.batch=127", "127 does not split evenly over 2 devices"),
    ],
)
def test_what_two_processes_cannot_run_is_said_once(override: str, said: str, folder: Path) -> None:
    done = process(*LAUNCH, override, devices=1, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(said) == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
