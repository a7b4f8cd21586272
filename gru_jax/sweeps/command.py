"""What `gru-jax sweep` does: trains what is missing, as much of it at once as may be, and compares."""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from gru_jax.data.dataset import DataMissing, Dataset
from gru_jax.runs import many_runs
from gru_jax.runs.exit_codes import DIVERGED, DONE, FAILED, MISSING, STOPPED
from gru_jax.runs.finished import require_data_of
from gru_jax.runs.many_runs import Outcome, Quiet, Task, finished
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import CheckpointError
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.stop_request import StopRequest
from gru_jax.sweeps import groups, summary
from gru_jax.sweeps.groups import Group
from gru_jax.sweeps.members import Member, Sweep, load_sweep
from gru_jax.sweeps.stacked import Stack

_CODES = {"done": DONE, "diverged": DIVERGED, "preempted": STOPPED}


class Request(NamedTuple):
    """The arguments of the command.

    Attributes:
        config: the file that holds the sweep.
        overrides: `key.sub=value`.
        jobs: runs at a time, of those that cannot be trained at once.
        show: print what there is, run nothing.
    """

    config: str
    overrides: Sequence[str]
    jobs: int
    show: bool


def make_sweep(request: Request) -> int:
    """Runs the command.

    Returns:
        The exit code: 0 done, also when some runs have diverged; 1 some run failed, 3 the data are missing, 4 all
        runs have diverged, 75 stopped by a signal.

    Raises:
        ConfigError: the config or one of its combinations is wrong; nothing was started.
        OSError: something could not be written; what was there is whole.
    """
    sweep = load_sweep(request.config, request.overrides)
    code = DONE if request.show else _train(sweep, request.jobs)
    lines = summary.lines_of(sweep)
    if not request.show:
        at = summary.write(sweep, lines)
        try:
            pictures = summary.draw(sweep, lines, at)
        except ImportError as error:
            _say(f"warning: pictures were not drawn: {error}")
            pictures = []
        for path in [at / "summary.json", at / "summary.md", *pictures]:
            _say(f"written: {path}")
    print(summary.markdown(sweep, lines), end="")
    return code


class _OfStack(Quiet):
    """Tells on standard error how far the runs of a stack are; who looks at `stop` is the stack itself."""

    def progress(self, text: str) -> None:
        _say(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _train(sweep: Sweep, jobs: int) -> int:
    tasks = [member.task for member in sweep.members]
    many_runs.prepare([task for task in tasks if finished(task) is None])
    _require_data_of_finished(sweep)
    done = sum(finished(task) is not None for task in tasks)
    _say(f"{len(tasks)} runs, {done} finished before")
    codes: list[int] = []
    with StopRequest() as stop:
        for task, outcome in _made(sweep, jobs, stop):
            codes.append(outcome.code)
            done += outcome.code in (DONE, DIVERGED)
            _say(f"[{done}/{len(tasks)}] {task.name}: {_said(task, outcome, sweep.pick)}")
        stopped = stop.requested or STOPPED in codes
    if stopped:
        _say("stopped by a signal and saved; the same command goes on")
        return STOPPED
    for code in (MISSING, FAILED):
        if code in codes:
            return code
    results = [finished(task) for task in tasks]
    return DIVERGED if all(result is not None and result["status"] == "diverged" for result in results) else DONE


def _require_data_of_finished(sweep: Sweep) -> None:
    ended = {id(member): result for member in sweep.members if (result := finished(member.task)) is not None}
    for same_task in _by_task([member for member in sweep.members if id(member) in ended]):
        results = {member.task.path: ended[id(member)] for member in same_task}
        require_data_of(same_task[0].task.loaded.config, results, _say, "remove it to train it anew")


def _said(task: Task, outcome: Outcome, pick: str) -> str:
    result = finished(task)
    if outcome.code == DONE and result is not None:
        return f"{pick} {result[pick]:.6g} at step {result['best_step']}, {result['wall_s']:.1f} s"
    words = {DIVERGED: "diverged", STOPPED: "saved", MISSING: f"no data: {outcome.message}"}
    return words.get(outcome.code, f"error: {outcome.message}")


def _made(sweep: Sweep, jobs: int, stop: StopRequest) -> Iterator[tuple[Task, Outcome]]:
    for group in groups.begun(sweep.members):
        if any(finished(member.task) is None for member in group.members):
            _say(f"going on with {len(group.members)} runs that are trained at once: {group.path}")
        yield from _stack(group, stop)
    # Looked at again: a group that could not go on keeps its runs.
    kept = {id(member) for group in groups.begun(sweep.members) for member in group.members}
    waiting = [member for member in sweep.members if finished(member.task) is None and id(member) not in kept]
    # What was begun alone goes on alone.
    alone = [member for member in waiting if checkpoint.steps(RunDirectory(member.task.path).checkpoints)]
    begun_alone = {id(member) for member in alone}
    for same_task in _by_task([member for member in waiting if id(member) not in begun_alone]):
        dataset = _dataset(same_task)
        if isinstance(dataset, Outcome):
            yield from ((member.task, dataset) for member in same_task)
            continue
        stacks, rest = groups.groups(same_task, sweep.at_once, groups.needs_one_seed(dataset.train))
        alone += rest
        for group in stacks:
            if stop.requested:
                return
            _say(f"{len(group.members)} runs trained at once: {group.path}")
            yield from _stack(group, stop, dataset)
    if not stop.requested:
        yield from many_runs.make([member.task for member in alone], jobs, stop)


def _by_task(members: Sequence[Member]) -> list[list[Member]]:
    same: dict[str, list[Member]] = {}
    for member in members:
        same.setdefault(member.task.loaded.config.task.model_dump_json(), []).append(member)
    return list(same.values())


def _dataset(members: Sequence[Member]) -> Dataset | Outcome:
    config = members[0].task.loaded.config
    try:
        return config.task.load(config.data_root)
    except DataMissing as error:
        return Outcome(MISSING, str(error))


def _stack(group: Group, stop: StopRequest, dataset: Dataset | None = None) -> Iterator[tuple[Task, Outcome]]:
    found = _dataset(group.members) if dataset is None else dataset
    missing = [member.task for member in group.members if finished(member.task) is None]
    if isinstance(found, Outcome):
        yield from ((task, found) for task in missing)
        return
    try:
        with _OfStack(f"{len(missing)} runs", None) as reporter:
            for task, status in Stack(group, found, reporter, stop).train():
                yield task, Outcome(_CODES[status])
    except (RunError, CheckpointError) as error:
        yield from ((task, Outcome(FAILED, str(error))) for task in missing if finished(task) is None)
    except jax.errors.JaxRuntimeError as error:
        said = f"the device could not go on: {str(error).splitlines()[0]}; sweep.vmap=4 trains at most four at once"
        yield from ((task, Outcome(FAILED, said)) for task in missing if finished(task) is None)
    jax.clear_caches()
