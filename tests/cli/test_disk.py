"""Disks that are full or cannot be written, and a clock that goes backwards: said, and nothing lost."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .command import metrics, process, snapshot

pytestmark = pytest.mark.slow  # test_failures.py has a full disk that every machine can have
Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount(options)`: a file system of its own in memory, or the same one with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = False

    def mounts(options: str) -> Path:
        nonlocal mounted
        again = "remount," if mounted else ""
        words = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(disk)]
        if sys.platform != "linux" or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        mounted = True
        return disk

    yield mounts
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def uninterrupted(finished: Path) -> Path:
    """The directory of a run that was left alone."""
    return finished / "out"


@pytest.mark.parametrize("kilobytes", [8, 40, 64, 100, 160])
def test_a_full_disk_is_said_and_the_run_goes_on_later(
    kilobytes: int, folder: Path, mount: Mount, uninterrupted: Path
) -> None:
    disk = mount(f"size={kilobytes}k")
    run = ("run", "config.yaml", "--out", disk / "out")
    full = process(*run, cwd=folder)
    assert full.returncode == 1, full.stderr
    assert "error: " in full.stderr and str(disk) in full.stderr
    assert "written" in full.stderr or "No space left" in full.stderr
    assert "Traceback" not in full.stderr
    mount("size=100m")
    done = process(*run, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert metrics(disk / "out") == metrics(uninterrupted)
    assert not [path for path in (disk / "out").rglob("*") if ".tmp" in path.name or ".writing" in path.name]


def test_a_disk_that_cannot_be_written_any_more(folder: Path, mount: Mount, uninterrupted: Path) -> None:
    disk = mount("size=100m")
    run = ("run", "config.yaml", "--out", disk / "out")
    assert process(*run, "train.epochs=2", cwd=folder).returncode == 0
    mount("ro")
    before = snapshot(disk)
    refused = process(*run, cwd=folder)
    assert refused.returncode in (1, 2), refused.stderr
    assert "Read-only file system" in refused.stderr and "Traceback" not in refused.stderr
    elsewhere = process("run", "config.yaml", "--out", disk / "other", cwd=folder)
    assert elsewhere.returncode in (1, 2) and "Read-only file system" in elsewhere.stderr
    # What needs no writing still works.
    evaluated = process("eval", disk / "out", cwd=folder)
    assert evaluated.returncode == 0, evaluated.stderr
    assert snapshot(disk) == before
    mount("rw")
    done = process(*run, cwd=folder)
    assert done.returncode == 0, done.stderr
    longer = {line["step"]: line for line in metrics(disk / "out")}
    # The two epochs before have a line of their own at their end.
    assert longer.keys() == {line["step"] for line in metrics(uninterrupted)}


BACKWARDS = """
import time
now = [2e9]
def backwards():
    now[0] -= 3600
    return now[0]
time.time = backwards
time.time_ns = lambda: int(backwards() * 1e9)
"""


def test_a_clock_that_goes_backwards(folder: Path, uninterrupted: Path) -> None:
    done = process("run", "config.yaml", "--out", "out", "log.tensorboard=true", cwd=folder, before=BACKWARDS)
    assert done.returncode == 0, done.stderr
    assert metrics(folder / "out") == metrics(uninterrupted)
    times = [json.loads(line)["time_s"] for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    assert times == sorted(times) and times[0] >= 0
