"""What came of a sweep: a line for every combination of values, over its seeds; the best one; a picture."""

import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.config import yaml_document
from gru_jax.data.dataset import BETTER_HIGHER
from gru_jax.runs.comparison import in_short
from gru_jax.runs.many_runs import finished
from gru_jax.runs.on_disk.json_files import write_json, write_text
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.watching import plots
from gru_jax.sweeps.members import Member, Sweep
from gru_jax.types import Plain

MOST_CURVES = 10


class Line(NamedTuple):
    """A combination of values, over its seeds.

    Attributes:
        values: without the seed.
        members: its runs.
        results: of those that are finished.
        pick: mean over the seeds of the metric that picks; None when a run is missing or has diverged.
        sd: their standard deviation, n - 1; None of one seed.
        test: the same of every test metric: name -> (mean, sd).
    """

    values: dict[str, Plain]
    members: list[Member]
    results: list[dict[str, Plain]]
    pick: float | None
    sd: float | None
    test: dict[str, tuple[float, float | None]]

    @property
    def name(self) -> str:
        """`optim.lr=0.01 model.hidden=8`."""
        return " ".join(f"{key}={yaml_document.one_line(value)}" for key, value in self.values.items()) or "all seeds"

    @property
    def label(self) -> str:
        """The same for a legend: `lr=0.01, hidden=8`."""
        words = in_short(self.values)
        said = ", ".join(f"{words[key]}={yaml_document.one_line(value)}" for key, value in self.values.items())
        return said or "all seeds"

    @property
    def diverged(self) -> int:
        """How many of its runs have."""
        return sum(result["status"] == "diverged" for result in self.results)


def lines_of(sweep: Sweep) -> list[Line]:
    """One line for each combination of values, seeds apart, in the order of the sweep."""
    together: dict[str, list[Member]] = {}
    for member in sweep.members:
        together.setdefault(json.dumps(_without_seed(member.values)), []).append(member)
    return [_line(members, sweep.pick) for members in together.values()]


def _without_seed(values: dict[str, Plain]) -> dict[str, Plain]:
    return {key: value for key, value in values.items() if key != "seed"}


def _line(members: list[Member], pick: str) -> Line:
    results = [result for member in members if (result := finished(member.task)) is not None]
    whole = len(results) == len(members) and all(result["status"] == "done" for result in results)
    # A score may be of some runs alone: that of other data, or of answers that are finite.
    shared = [name for name in results[0] if all(name in result for result in results)] if whole else []
    names = [name for name in shared if name.startswith("test/") and name.count("/") == 1]
    mean, sd = _mean_and_sd([result[pick] for result in results]) if whole else (None, None)
    test = {name: _mean_and_sd([result[name] for result in results]) for name in names}
    return Line(_without_seed(members[0].values), members, results, mean, sd, test)


def _mean_and_sd(numbers: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None


def best_of(lines: Sequence[Line], pick: str) -> Line | None:
    """The line whose mean is best; None when no line is whole."""
    sign = 1 if pick.endswith(BETTER_HIGHER) else -1
    whole = [line for line in lines if line.pick is not None]
    return max(whole, key=lambda line: sign * (line.pick or 0.0), default=None)


def markdown(sweep: Sweep, lines: Sequence[Line]) -> str:
    """The lines as a table, the best one marked."""
    keys = list(lines[0].values)
    tests = list(dict.fromkeys(name for line in lines for name in line.test))
    head = [*keys, sweep.pick, *tests, "seeds", "status"]
    rows = [head, ["---", *["---:"] * (len(head) - 2), "---"]] if len(head) > 1 else [head]
    best = best_of(lines, sweep.pick)
    for line in lines:
        numbers = [_said(line.pick, line.sd), *(_said(*line.test.get(name, (None, None))) for name in tests)]
        status = "best" if line is best else _status(line)
        values = (yaml_document.one_line(line.values[key]) for key in keys)
        rows.append([*values, *numbers, str(len(line.members)), status])
    said = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    if best is None:
        return said + "\n"
    return f"{said}\n\nBest {sweep.pick}: {best.name}: {_said(best.pick, best.sd)}\n"


def _status(line: Line) -> str:
    missing = len(line.members) - len(line.results)
    said = [f"{line.diverged} diverged"] if line.diverged else []
    said += [f"{missing} not finished"] if missing else []
    return ", ".join(said)


def _said(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.5g}" if sd is None else f"{mean:.5g} ± {sd:.2g}"


def folder(sweep: Sweep) -> Path:
    """Where the summary lies: `runs/<name>/sweep-<hash>`."""
    paths = [str(member.task.path) for member in sweep.members]
    digest = hashlib.sha256(json.dumps([*paths, sweep.pick]).encode()).hexdigest()[:8]
    return Path("runs") / sweep.loaded.config.name / f"sweep-{digest}"


def write(sweep: Sweep, lines: Sequence[Line]) -> Path:
    """Writes summary.json and summary.md; returns their folder."""
    at, best = folder(sweep), best_of(lines, sweep.pick)
    at.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "values": member.values,
            "run": str(member.task.path),
            "status": result["status"] if result else "not finished",
            **{key: value for key, value in (result or {}).items() if key.startswith(("valid/", "test/"))},
        }
        for line in lines
        for member in line.members
        for result in [finished(member.task)]
    ]
    picked = None if best is None else {"values": best.values, "mean": best.pick, "sd": best.sd}
    write_json(at / "summary.json", {"pick": sweep.pick, "best": picked, "runs": rows})
    write_text(at / "summary.md", markdown(sweep, lines))
    return at


def draw(sweep: Sweep, lines: Sequence[Line], at: Path) -> list[Path]:
    """Draws the curves of the best lines, and the metric that picks against every number that was varied.

    Raises:
        ImportError: matplotlib is not installed.
    """
    sign = -1 if sweep.pick.endswith(BETTER_HIGHER) else 1
    whole = sorted((line for line in lines if line.pick is not None), key=lambda line: sign * (line.pick or 0.0))
    paths = []
    if whole:
        curves = {
            line.label: [RunDirectory(member.task.path).metrics_lines() for member in line.members]
            for line in whole[:MOST_CURVES]
        }
        paths.append(at / "curves.png")
        plots.curves(curves, paths[-1], plots.metrics_of([sweep.loaded.config]), title=sweep.loaded.config.name)
    numbers = {
        key: [(float(line.values[key]), [float(result[sweep.pick]) for result in line.results]) for line in whole]
        for key in lines[0].values
        if whole and all(_is_number(line.values[key]) for line in whole)
    }
    if numbers:
        paths.append(at / "values.png")
        plots.against_values(numbers, sweep.pick, paths[-1])
    return paths


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
