"""Several runs: one after the other in this process, or each in a process of its own, some at a time."""

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import IO, NamedTuple

import jax

from gru_jax.config.loading import ConfigError, LoadedConfig
from gru_jax.data.dataset import DataDamaged, DataMissing
from gru_jax.runs import plan, runner
from gru_jax.runs.exit_codes import DONE, FAILED, MISSING, STOPPED
from gru_jax.runs.on_disk.checkpoint import CheckpointError
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.stop_request import StopRequest
from gru_jax.runs.watching.progress import Reporter
from gru_jax.types import Plain

_PATIENCE = 1.0  # seconds between two looks at a run that another command is making


class Task(NamedTuple):
    """One run to make.

    Attributes:
        name: what people are told it is.
        loaded: its config.
        path: its directory.
    """

    name: str
    loaded: LoadedConfig
    path: Path


class Outcome(NamedTuple):
    """How one run ended: an exit code of `gru-jax run`, and what it said if it could not."""

    code: int
    message: str = ""


class Quiet(Reporter):
    """The live bar on a terminal, and warnings with the name of their row: nothing else."""

    def __init__(self, name: str, stop: StopRequest | None) -> None:
        super().__init__()
        # Standard output is for the table alone.
        self.console.file = sys.stderr
        self._name, self._stop = name, stop

    def note(self, text: str) -> None:
        pass

    def result(self, values: Mapping[str, Plain]) -> None:
        pass

    def warn(self, text: str) -> None:
        super().warn(f"{self._name}: {text}")

    def start(self, step: int, total: int) -> None:
        if self.console.is_terminal:
            self.console.print(self._name, markup=False)
        super().start(step, total)
        if self._stop is not None and self._stop.requested:
            # Asked for before the run could listen: it saves and stops as if asked for now.
            signal.raise_signal(signal.SIGTERM)


def finished(task: Task) -> dict[str, Plain] | None:
    """The result of a run that has come to its end, None of any other.

    The directory's name holds the hash of all that decides the numbers, so there is nothing else to compare.
    """
    directory = RunDirectory(task.path)
    try:
        if not directory.is_run() or directory.status() not in ("done", "diverged"):
            return None
    except RunError:
        return None  # its turn comes, and says what is wrong
    result = directory.result()
    return result if result is not None and result["total_steps"] == task.loaded.config.total_steps else None


def prepare(tasks: Sequence[Task]) -> None:
    """Builds every model once, without its arrays."""
    lines: list[str] = []
    # The seed changes nothing about a model.
    one_of_each: dict[Path, Task] = {}
    for task in tasks:
        one_of_each.setdefault(task.path.with_name(task.path.name.rpartition("-s")[0]), task)
    for task in one_of_each.values():
        try:
            plan.require_alone(task.loaded)
            plan.prepare(task.loaded)
        except ConfigError as error:
            lines += [f"{task.name}: {line}" for line in error.lines]
    if lines:
        raise ConfigError(lines)


def make(tasks: Sequence[Task], jobs: int, stop: StopRequest) -> Iterator[tuple[Task, Outcome]]:
    """Makes runs, and yields each as it ends; a request to stop is passed on, and ends them all.

    Args:
        tasks: the runs; one that has ended by the time of its turn is not made again.
        jobs: how many at a time; more than one are processes of their own.
        stop: what hears of signals.
    """
    run_all = functools.partial(_in_processes, jobs=jobs) if jobs > 1 and len(tasks) > 1 else _here
    for task, outcome in run_all(tasks, stop):
        if outcome.code == DONE and finished(task) is None:
            outcome = Outcome(FAILED, f"{task.path} holds a run that went on to more epochs; move it away")
        yield task, outcome


def _here(tasks: Sequence[Task], stop: StopRequest) -> Iterator[tuple[Task, Outcome]]:
    """One run after the other in this process."""
    waiting = deque(tasks)
    while waiting:
        if stop.requested:
            return
        task = waiting.popleft()
        outcome = Outcome(DONE) if finished(task) else _one(task, stop)
        if _is_busy(outcome):
            # Another command makes it: the others first, and then what became of it.
            waiting.append(task)
            time.sleep(_PATIENCE)
            continue
        yield task, outcome
        if outcome.code == STOPPED:
            return
        jax.clear_caches()


def _is_busy(outcome: Outcome) -> bool:
    return outcome.code == FAILED and "in use by another live run" in outcome.message


def _one(task: Task, stop: StopRequest) -> Outcome:
    try:
        with Quiet(task.name, stop) as reporter:
            return Outcome(runner.run(task.loaded, out=None, fresh=False, fork=False, reporter=reporter))
    except DataMissing as error:
        return Outcome(MISSING, str(error))
    except ImportError as error:
        return Outcome(MISSING, f"{error.name} is not installed")
    except (ConfigError, DataDamaged, RunError, CheckpointError) as error:
        return Outcome(FAILED, str(error))
    except jax.errors.JaxRuntimeError as error:
        return Outcome(FAILED, f"the device could not go on: {str(error).splitlines()[0]}")


def _in_processes(tasks: Sequence[Task], stop: StopRequest, jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Several runs at a time, each as `gru-jax run` in a process of its own.

    A signal goes to the processes once, and each saves and stops. Should this process be killed, they come to their
    ends by themselves, and the table finds them finished.
    """
    waiting, passed_on = deque(tasks), False
    live: dict[subprocess.Popen[bytes], tuple[Task, BufferedRandom]] = {}
    environment = _environment(jobs)
    try:
        while live or (waiting and not stop.requested):
            while waiting and len(live) < jobs and not stop.requested:
                task = waiting.popleft()
                if finished(task):
                    yield task, Outcome(DONE)
                    continue
                errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process lives
                live[_start(task, environment, errors)] = (task, errors)
            if stop.requested and not passed_on:
                passed_on = True
                for process in live:
                    process.send_signal(signal.SIGTERM)
            for process in [process for process in live if process.poll() is not None]:
                task, errors = live.pop(process)
                message = _last_words(errors, process.returncode)
                # Before a run can listen, the signal ends it at once: there was nothing to save.
                outcome = Outcome(process.returncode, message)
                if _is_busy(outcome):
                    waiting.append(task)
                    time.sleep(_PATIENCE)
                    continue
                unheard = passed_on and process.returncode in (-signal.SIGTERM, -signal.SIGINT)
                yield task, outcome._replace(code=STOPPED) if unheard else outcome
            time.sleep(0.1)
    finally:
        for process, (_, errors) in live.items():
            process.terminate()
            errors.close()


def _start(task: Task, environment: Mapping[str, str], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    loaded = task.loaded
    return subprocess.Popen(
        [sys.executable, "-m", "gru_jax", "run", loaded.file, *loaded.arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        # Ctrl-C on the terminal reaches this process alone, which passes it on: a second signal would kill.
        start_new_session=True,
    )


def _environment(jobs: int) -> dict[str, str]:
    """Each process has its share of the cores, and takes of the device's memory only what it needs."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    added = {"NPROC": str(threads), "OMP_NUM_THREADS": str(threads), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    flags = os.environ.get("XLA_FLAGS", "")
    if threads == 1 and "xla_cpu_multi_thread_eigen" not in flags:
        flags += " --xla_cpu_multi_thread_eigen=false"
    return {**added, **os.environ, "XLA_FLAGS": flags.strip()}


def _last_words(errors: IO[bytes], code: int) -> str:
    """What a process said on standard error: its error if it has one, else its last line."""
    errors.seek(0)
    lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    errors.close()
    if code < 0:
        return f"killed by signal {-code}"
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or [f"exit code {code}"])[-1]
