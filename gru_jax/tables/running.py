"""The runs behind a table: in this process one after the other, or in several at a time."""

import collections
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.runs import many_runs
from gru_jax.runs.exit_codes import DIVERGED, DONE, FAILED, MISSING, STOPPED
from gru_jax.runs.many_runs import Outcome, Task, finished
from gru_jax.runs.stop_request import StopRequest
from gru_jax.tables import results
from gru_jax.tables.plans import RowPlan, Run
from gru_jax.tables.results import Ended
from gru_jax.tables.spec import Table
from gru_jax.types import Plain

Say = Callable[[str], None]


class _Wanted(NamedTuple):
    """A run, and the row that shows it."""

    plan: RowPlan
    seed: int
    task: Task


def ended(table: Table, plan: RowPlan, task: Task) -> Ended | str:
    """What a finished run gave, or what is wrong with its result."""
    result = finished(task)
    path = task.path / "result.json"
    if result is None:
        return f"{path} is missing or damaged"
    value, metric = None, table.metric(plan.row)
    if result["status"] != "diverged":
        value = result.get(metric)
        if not results.is_finite(value):
            numbers = (key for key, each in result.items() if "/" in key and results.is_finite(each))
            return f"{path} has no {metric!r}; it has {', '.join(map(repr, numbers))}"
    return Ended(value, result["steps"], _seconds(result.get("wall_s")), _hardware(task.path, result))


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and results.is_finite(value) else 0.0


def _hardware(path: Path, result: Mapping[str, Plain]) -> str:
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
    wanted = [_Wanted(plan, run.seed, _task(plan, run)) for plan in plans for run in plan.runs]
    before = [each for each in wanted if finished(each.task) is not None]
    # Rows may show different metrics of one run.
    missing = list({each.task.path: each.task for each in wanted if each not in before}.values())
    many_runs.prepare(missing)
    say(f"{table.name}: {len(wanted)} runs, {len(before)} finished before")
    for line in _changed(table, plans):
        say(line)
    told = _Told(table, wanted, say, jobs)
    for each in before:
        told.end(each, Outcome(DONE), before=True)
    if missing:
        say(told.time_left())
    stopped = False
    with StopRequest() as stop:
        for task, outcome in many_runs.make(missing, jobs, stop):
            stopped |= outcome.code == STOPPED
            for each in [each for each in wanted if each.task.path == task.path]:
                told.end(each, outcome)
        stopped |= stop.requested
    if stopped:
        say("stopped by a signal; what was finished is kept, the same command goes on")
        return STOPPED
    return told.exit_code()


def _changed(table: Table, plans: Sequence[RowPlan]) -> list[str]:
    """A line for each row whose results are of another config than it has now."""
    kept = {(entry["scale"], entry["label"]): entry["config_hash"] for entry in results.read(table)}
    return [
        f"{each.row.label}: stale, its config has changed since it was run; it is run anew"
        for each in plans
        if kept.get((each.scale, each.row.label), each.config_hash) != each.config_hash
    ]


def _in_words(seconds: float) -> str:
    """A time as one says it.

    Example:
        >>> _in_words(50), _in_words(600), _in_words(8000), _in_words(400_000)
        ('1 min', '10 min', '2 h 13 min', '4 d 15 h')
    """
    minutes = max(1, round(seconds / 60))
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    return f"{days} d {hours_of_day} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _named(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _task(plan: RowPlan, run: Run) -> Task:
    return Task(f"{plan.row.label}, seed {run.seed}", run.loaded, run.path)


class _Told:
    """What has come of each run so far; says it, and writes the row whose last run has ended."""

    def __init__(self, table: Table, wanted: Sequence[_Wanted], say: Say, jobs: int) -> None:
        self.table, self.say, self.jobs = table, say, jobs
        # What a run of each row has taken, here or where the results were made, and the runs that have not ended.
        kept = {(entry["scale"], entry["label"]): entry["seconds"] for entry in results.read(table)}
        self.seconds = {id(plan): kept.get((plan.scale, plan.row.label)) for plan, _, _ in wanted}
        self.left = {each.task.path: id(each.plan) for each in reversed(wanted)}
        self.open = collections.Counter(id(plan) for plan, _, _ in wanted)
        self.found: dict[tuple[int, int], Ended] = {}
        self.total, self.count = sum(self.open.values()), 0
        self.no_data: set[int] = set()
        self.said: set[str] = set()
        self.failed = False
        self.began = time.perf_counter()

    def end(self, wanted: _Wanted, outcome: Outcome, before: bool = False) -> None:
        """Takes down how one run of a row has ended."""
        plan, key = wanted.plan, id(wanted.plan)
        self.count += 1
        self.open[key] -= 1
        self.left.pop(wanted.task.path, None)
        head = f"[{self.count}/{self.total}] {wanted.task.name}: "
        if outcome.code in (DONE, DIVERGED):
            got = ended(self.table, plan, wanted.task)
            if isinstance(got, str):
                self.failed = True
                self.say(f"{head}error: {got}")
            else:
                self.found[key, wanted.seed] = got
                self.seconds[key] = got.seconds
                value = "diverged" if got.value is None else f"{self.table.metric(plan.row)} {got.value:.6g}"
                after = " (finished before)" if before else f"; {self.time_left()}" if self.left else ""
                self.say(f"{head}{value}, {got.seconds:.1f} s{after}")
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

    def time_left(self) -> str:
        """How long the runs that have not ended will train, as far as anything is known of their rows."""
        times = [self.seconds[key] for key in self.left.values()]
        unknown = times.count(None)
        more = [f"{unknown} run{'s' if unknown > 1 else ''} of rows that were never run"] if unknown else []
        known = [f"some {_in_words(sum(filter(None, times)) / self.jobs)}"] if unknown < len(times) else []
        return f"left: {', and '.join(known + more)}"

    def _write(self, plan: RowPlan) -> None:
        found = [self.found.get((id(plan), run.seed)) for run in plan.runs]
        whole = [each for each in found if each is not None]
        if len(whole) == len(found):
            seeds = [run.seed for run in plan.runs]
            kept = results.kept_seeds(self.table, plan)
            if kept and kept != seeds:
                every = ",".join(map(str, dict.fromkeys([*kept, *seeds])))
                said = f"now of {_named(seeds)}, in place of {_named(kept)}"
                self.say(f"{plan.row.label}: {said}; no run is lost, --seeds {every} shows all")
            results.keep(self.table, results.row_result(self.table, plan, whole))
        elif id(plan) in self.no_data:
            results.keep(self.table, results.row_without_data(self.table, plan))

    def exit_code(self) -> int:
        """The exit code of a table that came to its end."""
        if self.failed:
            return FAILED
        return MISSING if len(self.no_data) == len(self.open) else DONE
