"""`gru-jax launch`: one run made by several processes of this machine, on its CPU."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, NamedTuple

from gru_jax.runs.exit_codes import BAD_ARGUMENTS, FAILED, INTERRUPTED
from gru_jax.runs.lifelines import ORDERLY

# After one process has died the others end by themselves; those that do not are killed.
_GRACE_S = 15.0
_LAST_LINES = 20


class _Process(NamedTuple):
    """One process of the run; what those after the first say is kept, and shown when they fail."""

    number: int
    popen: "subprocess.Popen[bytes]"
    said: IO[bytes] | None


def launch(count: int, command: Sequence[str]) -> int:
    """Starts a command of `gru-jax` as several processes, and waits for them.

    The first one's output is shown. A signal is passed on to all, which save and stop; a second one kills them.

    Args:
        count: of processes.
        command: the words after `gru-jax`: `run CONFIG ...`.

    Returns:
        The exit code of the run; that of the process that failed first, when they differ.
    """
    if not command or command[0] != "run":
        said = f"got {command[0]!r}" if command else "got nothing"
        print(f"gru-jax launch: expected a run, {said}; gru-jax launch -n 2 -- run CONFIG", file=sys.stderr)
        return BAD_ARGUMENTS
    address = f"127.0.0.1:{_free_port()}"
    processes = [_start(index, count, address, command) for index in range(count)]
    heard: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        heard.append(number)
        for process in processes:
            if len(heard) == 1:
                process.popen.send_signal(signal.SIGTERM)
            else:
                process.popen.kill()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _explained(_wait(processes), processes, bool(heard))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in processes:
            process.popen.kill()
            process.popen.wait()
            if process.said is not None:
                process.said.close()


def _start(index: int, count: int, address: str, command: Sequence[str]) -> _Process:
    where = f'distributed={{mode: manual, coordinator: "{address}", processes: {count}, process_id: {index}}}'
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {
        "NPROC": threads,
        "OMP_NUM_THREADS": threads,
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        # Nobody outside this machine has to reach the coordinator.
        "JAX_COORDINATOR_BIND_ADDRESS": address,
    }
    said = tempfile.TemporaryFile() if index else None  # noqa: SIM115 - open as long as the process lives
    popen = subprocess.Popen(
        # -P: whatever files the current directory holds, the package is the installed one.
        [sys.executable, "-P", "-m", "gru_jax", *command, where],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        # Ctrl-C on the terminal reaches this process alone, which passes it on.
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    return _Process(index, popen, said)


def _end_with_parent() -> None:
    """Asks Linux to send this process SIGTERM when its parent dies, however that dies."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait(processes: Sequence[_Process]) -> _Process:
    """Waits for all; the one that decided how the run ended: one that was killed, the first to fail, or the first."""
    live, failed, deadline = list(processes), [], float("inf")
    while live:
        for process in [process for process in live if process.popen.poll() is not None]:
            live.remove(process)
            if process.popen.returncode != 0:
                failed.append(process)
                # Those that were asked to stop are saving: they have all the time that they need.
                if process.popen.returncode not in ORDERLY and deadline == float("inf"):
                    deadline = time.monotonic() + _GRACE_S
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for process in live:
        process.popen.kill()
        process.popen.wait()
    # The others end so soon after one was killed that they may be seen first.
    killed = [process for process in failed if process.popen.returncode < 0]
    return (killed or failed or list(processes))[0]


def _explained(decided: _Process, processes: Sequence[_Process], interrupted: bool) -> int:
    """The exit code, after what there is to say and the first process has not said."""
    code, first = decided.popen.returncode, processes[0]
    if code in ORDERLY or (code >= 0 and first.popen.returncode == code):
        return code
    if code < 0 and interrupted:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if decided is first:
        # The others have said to nobody that they end too.
        how += ", and the others with it; the same command goes on from the newest checkpoint"
    print(f"error: process {decided.number} of {len(processes)} {how}", file=sys.stderr)
    if decided.said is not None:
        decided.said.seek(0)
        for line in decided.said.read().decode(errors="replace").splitlines()[-_LAST_LINES:]:
            print(f"  process {decided.number}: {line}", file=sys.stderr)
    return FAILED if code < 0 else code
