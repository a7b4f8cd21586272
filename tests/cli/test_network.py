"""Nothing that a default config does opens a connection: not the run, not what looks at it."""

import subprocess
import sys
from pathlib import Path

import pytest

from .command import PACKAGE_ROOT, command, environment

# Python reads a module of this name at its start. Libraries that connect without Python's sockets have no network.
GUARD = """\
import os, sys, traceback

def refuse(event, arguments):
    if event not in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        return
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], (str, bytes)):
        return  # between processes of this machine
    with open(os.environ["CONNECTIONS"], "a") as found:
        found.write(f"{event} {arguments[1:]}\\n" + "".join(traceback.format_stack()))
    raise OSError("the test allows no connection")

sys.addaudithook(refuse)
"""


def alone() -> list[str]:
    """What a command is started with to have no network at all, [] where that cannot be had."""
    try:
        subprocess.run(["unshare", "-rn", "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return ["unshare", "-rn"]


def guarded(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command that leaves a line in folder/connections for each one it tries to open."""
    (folder / "guard").mkdir(exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    own = {"PYTHONPATH": f"{folder / 'guard'}:{PACKAGE_ROOT}", "CONNECTIONS": str(folder / "connections")}
    return subprocess.run(
        [*alone(), *words],
        cwd=PACKAGE_ROOT,
        env=environment() | own,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("call", ["create_connection(('127.0.0.1', 9))", "getaddrinfo('localhost', 80)"])
def test_the_guard_sees_a_connection(call: str, tmp_path: Path) -> None:
    done = guarded(tmp_path, [sys.executable, "-c", f"import socket; socket.{call}"])
    assert done.returncode == 1 and "the test allows no connection" in done.stderr
    assert (tmp_path / "connections").read_text().startswith("socket.")


@pytest.mark.slow
@pytest.mark.parametrize("looking", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_default_run_and_what_looks_at_it_open_no_connection(looking: bool, tmp_path: Path) -> None:
    config, run = "configs/digits/rows.yaml", str(tmp_path / "run")
    small = ["train.epochs=1", "model.hidden=8", "task.batch=128"]
    looks = [["plot", run], ["check", config], ["list"], ["table", "stress", "--show"]]
    for words in [["run", config, *small, "--out", run], *(looks if looking else [])]:
        done = guarded(tmp_path, command(*words))
        assert done.returncode == 0, (words, done.stderr)
        assert not (tmp_path / "connections").exists(), (words, (tmp_path / "connections").read_text())
    assert (tmp_path / "run" / "STATUS").read_text() == "done\n"
    assert (tmp_path / "run" / "plots" / "curves.png").exists()
