"""The rows, how they are run, and the files that hold what came of them."""

import dataclasses
import io
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import gru_jax as gj
from experiments.memory import environments, ppo
from gru_jax.runs.environment import cpu
from gru_jax.runs.on_disk.json_files import write_bytes, write_text
from gru_jax.tables.rendering import mean_and_sd, number

HIDDEN = 64
SEEDS = (0, 1, 2)
EPISODES = 512
POINTS = 50

POLICIES: Mapping[str, Callable[[], ppo.Memory]] = {
    "GRU": lambda: ppo.recurrent(gj.GRU(HIDDEN)),
    "minGRU": lambda: ppo.recurrent(gj.MinGRU(HIDDEN)),
    "ParaGRU": lambda: ppo.recurrent(gj.GRU(HIDDEN, heads=HIDDEN)),
    "LSTM": lambda: ppo.recurrent(gj.models.LSTM(HIDDEN)),
    "no memory": ppo.without,
}


class Task(NamedTuple):
    """A task of the table.

    Attributes:
      make: its environment.
      updates: rollouts that are learned from.
      chance, best: the mean return of the best policy without memory, and of the best policy.
    """

    make: Callable[[], ppo.Environment]
    updates: int
    chance: float
    best: float


TASKS: Mapping[str, Task] = {
    # Without memory the best guess is another suit than the one that is shown: 13 of the other 51 cards.
    "RepeatPrevious, easy": Task(environments.repeat_previous, 150, 2 * 13 / 51 - 1, 1.0),
    # The first card to recite is still shown; any suit is right a quarter of the time.
    "Autoencode, easy": Task(environments.autoencode, 150, 1 / 52 - 0.5 * 51 / 52, 1.0),
    "T-maze of 20 steps": Task(environments.t_maze, 100, (4 - 0.1) / 2, 4.0),
    "memory chain of 20 steps": Task(environments.memory_chain, 100, 0.0, 1.0),
}


class Row(NamedTuple):
    """A policy on a task."""

    task: str
    policy: str

    @property
    def label(self) -> str:
        """Its name in the table."""
        return f"{self.task}: {self.policy}"

    @property
    def options(self) -> ppo.Options:
        """How it learns."""
        return ppo.Options(updates=TASKS[self.task].updates, hidden=HIDDEN)


ROWS = tuple(Row(task, policy) for task in TASKS for policy in POLICIES)


class Ran(NamedTuple):
    """One seed: the mean return of evaluation, that of training in `POINTS` parts, processor seconds of training."""

    value: float
    curve: list[float | None]
    seconds: float


def run(row: Row, seeds: Sequence[int]) -> Any:
    """Trains and evaluates one seed after the other, by one program."""
    env, memory = TASKS[row.task].make(), POLICIES[row.policy]()
    keys = [jax.random.split(jax.random.key(seed)) for seed in seeds]
    program = ppo.train.lower(keys[0][0], env, memory, row.options).compile()
    for seed, (key, key_evaluate) in zip(seeds, keys, strict=True):
        start = time.process_time()
        params, returns = jax.block_until_ready(program(key))
        seconds = time.process_time() - start
        value = float(ppo.evaluate(key_evaluate, params, env, memory, EPISODES))
        yield seed, Ran(_six(value), _curve(returns), _six(seconds))


def _curve(returns: Any) -> list[float | None]:
    """The mean return in each part of training; None where no episode ended."""
    parts = [[float(r) for r in part if r == r] for part in jax.device_get(returns).reshape(POINTS, -1)]
    return [round(statistics.fmean(part), 3) if part else None for part in parts]


def _six(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of results.json that were made as they are asked for now, by their labels."""
    file = folder / "results.json"
    found = json.loads(file.read_text())["rows"] if file.exists() else []
    asked = {row.label: dataclasses.asdict(row.options) for row in ROWS}
    return {entry["label"]: entry for entry in found if asked.get(entry["label"]) == entry["options"]}


def entry_of(row: Row, seeds: Mapping[int, Ran]) -> dict[str, Any]:
    """A row as results.json has it."""
    values = [ran.value for ran in seeds.values()]
    return {
        "label": row.label,
        "metric": "return",
        "better": "higher",
        "published": None,
        "mean": _six(statistics.fmean(values)),
        "sd": _six(statistics.stdev(values)) if len(values) > 1 else None,
        "best": max(values),
        "steps": row.options.updates * row.options.envs * row.options.steps,
        "seconds": _six(statistics.fmean(ran.seconds for ran in seeds.values())),
        "seeds": list(seeds),
        "values": values,
        "status": "new",
        "hardware": cpu().partition(",")[0],
        "command": f"python -m experiments.memory --table --rows '^{row.label}$'",
        "options": dataclasses.asdict(row.options),
        "of_seeds": {str(seed): ran._asdict() for seed, ran in seeds.items()},
    }


def make(rows: Sequence[Row], folder: Path) -> None:
    """Runs the seeds of rows that results.json does not have, and writes them there, each as soon as it is there."""
    for row in rows:
        had = read(folder).get(row.label, {"of_seeds": {}})["of_seeds"]
        ran = {int(seed): Ran(**values) for seed, values in had.items()}
        missing = [seed for seed in SEEDS if seed not in ran]
        for seed, one in run(row, missing) if missing else ():
            ran[seed] = one
            entries = read(folder) | {row.label: entry_of(row, dict(sorted(ran.items())))}
            keep(entries, folder)
            print(f"{row.label}, seed {seed}: return {one.value}, {one.seconds} s", flush=True)
            write_page(folder)


def keep(entries: Mapping[str, Any], folder: Path) -> None:
    """Writes results.json, rows in the order of the table."""
    ordered = [entries[row.label] for row in ROWS if row.label in entries]
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in ordered)
    write_text(folder / "results.json", f'{{"table": "memory", "rows": [\n{lines}\n]}}\n')


HEADS = ("row", "published", "ours, mean ± sd", "best", "seeds", "steps", "processor seconds", "hardware", "status")


def page(folder: Path) -> str:
    """What table.md holds."""
    entries = read(folder)

    def cells(row: Row) -> list[str]:
        if row.label not in entries:
            return [row.label, *"-------", "not run"]
        e = entries[row.label]
        numbers = [mean_and_sd(e["mean"], e["sd"]), number(e["best"]), str(len(e["seeds"])), str(e["steps"])]
        return [row.label, "-", *numbers, f"{e['seconds']:.0f}", e["hardware"], e["status"]]

    rule = ["---" if head in ("row", "hardware", "status") else "---:" for head in HEADS]
    lines = ["**Tasks that need memory, mean return of 512 episodes after training with PPO**", ""]
    lines += ["| " + " | ".join(each) + " |" for each in (HEADS, rule, *map(cells, ROWS))]
    lines += ["", "return, higher is better. What the best policy without memory and the best policy come to:", ""]
    lines += [f"- {name}: {number(task.chance)} and {number(task.best)}." for name, task in TASKS.items()]
    lines += ["", "Made by `python -m experiments.memory --table`."]
    if (folder / "speed.json").exists():
        from experiments.memory import speed

        lines += ["", *speed.lines(json.loads((folder / "speed.json").read_text()))]
    return "\n".join(lines) + "\n"


def write_page(folder: Path) -> None:
    """Writes table.md, and a picture with the curves of all tasks."""
    write_text(folder / "table.md", page(folder))
    draw(read(folder), folder / "curves.png")


def draw(entries: Mapping[str, Any], path: Path) -> None:
    """Mean return of training against the step, a panel a task, a band over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    for axis, (name, task) in zip(figure.subplots(2, 2).flat, TASKS.items(), strict=True):
        for colour, policy in enumerate(POLICIES):
            if (entry := entries.get(Row(name, policy).label)) is None:
                continue
            curves = np.array([ran["curve"] for ran in entry["of_seeds"].values()], float)
            steps = (np.arange(POINTS) + 1) / POINTS * entry["steps"] / 1000
            axis.plot(steps, curves.mean(0), color=f"C{colour}", label=policy, linewidth=1)
            axis.fill_between(steps, curves.min(0), curves.max(0), color=f"C{colour}", alpha=0.2, linewidth=0)
        for level in (task.chance, task.best):
            axis.axhline(level, color="grey", linestyle=":", linewidth=1)
        axis.set(title=name, xlabel="thousands of steps", ylabel="return")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())
