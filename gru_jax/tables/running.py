"""The runs behind a table: in this process one after the other, or in several at a time."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gru_jax.data.dataset import DataDamaged, DataMissing
from gru_jax.tables import results
from gru_jax.tables.plans import RowPlan, Run
from gru_jax.tables.results import Ended
from gru_jax.tables.spec import Table
from gru_jax.training import runner
from gru_jax.training.checkpoint import CheckpointError
from gru_jax.training.loading import ConfigError
from gru_jax.training.progress import Reporter
from gru_jax.training.run_directory import RunDirectory, RunError
from gru_jax.training.signals import StopRequest

DONE, FAILED, MISSING, DIVERGED, STOPPED = 0, 1, 3, 4, 75

_PATIENCE = 1.0  # seconds between two looks at a run that another command is making

Say = Callable[[str], None]


class Task(NamedTuple):
    """One run to make, and the row it belongs to."""

    plan: RowPlan
    run: Run


class Outcome(NamedTuple):
    """How one run ended: an exit code of `gru-jax run`, and what it said if it could not."""

    code: int
    message: str = ""


class _Quiet(Reporter):
    """The live bar on a terminal, and warnings with the name of their row: nothing else."""

    def __init__(self, name: str, stop: StopRequest) -> None:
        super().__init__()
        # Standard output is for the table alone.
        self.console.file = sys.stderr
        self._name, self._stop = name, stop

    def note(self, text: str) -> None:
        pass

    def result(self, values: Mapping[str, Any]) -> None:
        pass

    def warn(self, text: str) -> None:
        super().warn(f"{self._name}: {text}")

    def start(self, step: int, total: int) -> None:
        if self.console.is_terminal:
            self.console.print(self._name, markup=False)
        super().start(step, total)
        if self._stop.requested:
            # Asked for before the run could listen: it saves and stops as if asked for now.
            signal.raise_signal(signal.SIGTERM)


def finished(run: Run) -> dict[str, Any] | None:
    """The result of a run that has come to its end, None of any other.

    The directory's name holds the hash of all that decides the numbers, so there is nothing else to compare.
    """
    directory = RunDirectory(run.path)
    try:
        if not directory.is_run() or directory.status() not in ("done", "diverged"):
            return None
    except RunError:
        return None  # its turn comes, and says what is wrong
    result = directory.result()
    return result if result is not None and result["total_steps"] == run.loaded.config.total_steps else None


def ended(table: Table, task: Task) -> Ended | str:
    """What a finished run gave, or what is wrong with its result."""
    result = finished(task.run)
    path = task.run.path / "result.json"
    if result is None:
        return f"{path} is missing or damaged"
    value, metric = None, table.metric(task.plan.row)
    if result["status"] != "diverged":
        value = result.get(metric)
        if not results.is_finite(value):
            numbers = (key for key, each in result.items() if "/" in key and results.is_finite(each))
            return f"{path} has no {metric!r}; it has {', '.join(map(repr, numbers))}"
    return Ended(value, result["steps"], _seconds(result.get("wall_s")), _hardware(task.run.path, result))


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and results.is_finite(value) else 0.0


def _hardware(path: Path, result: Mapping[str, Any]) -> str:
    try:
        env = json.loads((path / "env.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        env = {}
    env = env if isinstance(env, dict) else {}
    kind, devices = str(result.get("device_kind", "unknown")), result.get("devices", 1)
    if env.get("device_platform", kind) == "cpu":
        return str(env.get("cpu", kind))
    return kind if devices == 1 else f"{devices} x {kind}"


def make(table: Table, plans: Sequence[RowPlan], jobs: int, say: Say) -> int:
    """Makes what is missing of the rows; results.json follows row by row.

    Args:
        table: the table.
        plans: its rows.
        jobs: how many runs at a time; more than one are processes of their own.
        say: takes one line for each run.

    Returns:
        The exit code: 0 done, 1 some run failed, 3 no row has its data, 75 stopped by a signal.

    Raises:
        ConfigError: a model cannot be built, or does not fit the devices; nothing was started.
        OSError: the results cannot be written; the runs are kept.
    """
    tasks = [Task(plan, run) for plan in plans for run in plan.runs]
    before = [task for task in tasks if finished(task.run) is not None]
    # Rows may show different metrics of one run.
    missing = list({task.run.path: task for task in tasks if task not in before}.values())
    _prepare(missing)
    say(f"{table.name}: {len(tasks)} runs, {len(before)} finished before")
    told = _Told(table, plans, say)
    for task in before:
        told.end(task, Outcome(DONE), before=True)
    stopped = False
    with StopRequest() as stop:
        run_all = functools.partial(_in_processes, jobs=jobs) if jobs > 1 and len(missing) > 1 else _here
        for task, outcome in run_all(missing, stop):
            stopped |= outcome.code == STOPPED
            for each in [each for each in tasks if each.run.path == task.run.path]:
                told.end(each, outcome)
        stopped |= stop.requested
    if stopped:
        say("stopped by a signal; what was finished is kept, the same command goes on")
        return STOPPED
    return told.exit_code()


def _prepare(tasks: Sequence[Task]) -> None:
    """Builds every model once, without its arrays."""
    lines: list[str] = []
    for task in {task.run.path.name.rpartition("-s")[0]: task for task in tasks}.values():
        try:
            runner.prepare(task.run.loaded)
        except ConfigError as error:
            lines += [f"row {task.plan.row.label!r}: {line}" for line in error.lines]
    if lines:
        raise ConfigError(lines)


class _Told:
    """What has come of each run so far; says it, and writes the row whose last run has ended."""

    def __init__(self, table: Table, plans: Sequence[RowPlan], say: Say) -> None:
        self.table, self.say = table, say
        self.open = {id(plan): len(plan.runs) for plan in plans}
        self.found: dict[tuple[int, int], Ended] = {}
        self.total, self.count = sum(self.open.values()), 0
        self.no_data: set[int] = set()
        self.said: set[str] = set()
        self.failed = False
        self.began = time.perf_counter()

    def end(self, task: Task, outcome: Outcome, before: bool = False) -> None:
        """Takes down how one run of a row has ended."""
        plan, key = task.plan, id(task.plan)
        self.count += 1
        self.open[key] -= 1
        head = f"[{self.count}/{self.total}] {plan.row.label}, seed {task.run.seed}: "
        if outcome.code in (DONE, DIVERGED):
            got = ended(self.table, task)
            if isinstance(got, str):
                self.failed = True
                self.say(f"{head}error: {got}")
            else:
                self.found[key, task.run.seed] = got
                value = "diverged" if got.value is None else f"{self.table.metric(plan.row)} {got.value:.6g}"
                self.say(f"{head}{value}, {got.seconds:.1f} s{' (finished before)' if before else ''}")
        elif outcome.code == MISSING:
            self.no_data.add(key)
            if outcome.message not in self.said:
                self.said.add(outcome.message)
                self.say(f"{head}no data: {outcome.message}")
        elif outcome.code != STOPPED:
            self.failed = True
            self.say(f"{head}error: {outcome.message}")
        if not self.open[key]:
            self._write(plan)

    def _write(self, plan: RowPlan) -> None:
        found = [self.found.get((id(plan), run.seed)) for run in plan.runs]
        whole = [each for each in found if each is not None]
        if len(whole) == len(found):
            results.keep(self.table, results.row_result(self.table, plan, whole))
        elif id(plan) in self.no_data:
            results.keep(self.table, results.row_without_data(self.table, plan))

    def exit_code(self) -> int:
        """The exit code of a table that came to its end."""
        if self.failed:
            return FAILED
        return MISSING if len(self.no_data) == len(self.open) else DONE


def _here(tasks: Sequence[Task], stop: StopRequest) -> Iterator[tuple[Task, Outcome]]:
    """One run after the other in this process."""
    waiting = deque(tasks)
    while waiting:
        if stop.requested:
            return
        task = waiting.popleft()
        outcome = Outcome(DONE) if finished(task.run) else _one(task, stop)
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
    name = f"{task.plan.row.label}, seed {task.run.seed}"
    try:
        with _Quiet(name, stop) as reporter:
            return Outcome(runner.run(task.run.loaded, out=None, fresh=False, fork=False, reporter=reporter))
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
    live: dict[subprocess.Popen[bytes], tuple[Task, Any]] = {}
    environment = _environment(jobs)
    try:
        while live or (waiting and not stop.requested):
            while waiting and len(live) < jobs and not stop.requested:
                task = waiting.popleft()
                if finished(task.run):
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


def _start(task: Task, environment: Mapping[str, str], errors: Any) -> "subprocess.Popen[bytes]":
    loaded = task.run.loaded
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


def _last_words(errors: Any, code: int) -> str:
    """What a process said on standard error: its error if it has one, else its last line."""
    errors.seek(0)
    lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    errors.close()
    if code < 0:
        return f"killed by signal {-code}"
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or [f"exit code {code}"])[-1]
