"""What a report says: of a run all there is, of several a table of what differs and what came of it, and the curves."""

import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.config import yaml_document
from gru_jax.config.sections.in_words import short
from gru_jax.data.dataset import BETTER_HIGHER
from gru_jax.runs.comparison import Group, groups_of
from gru_jax.runs.file_names import without_folders
from gru_jax.runs.forecasting.baselines import NAMES
from gru_jax.runs.forecasting.forecasts import verdict
from gru_jax.runs.on_disk.json_files import write_text
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.pictures import run_directories
from gru_jax.runs.report.html import (
    PICTURES,
    Cell,
    Markup,
    Number,
    code,
    element,
    facts,
    folded,
    heading,
    page,
    picture,
    table,
    text,
)
from gru_jax.runs.watching import plots
from gru_jax.types import Plain

MOST_RUNS_IN_FULL = 24
"""Of more runs, only those of the best config are shown one by one."""

MOST_CURVES = 12

_COSTS = ("params", "best_step", "wall_s")


class Row(NamedTuple):
    """What came of a group.

    Attributes:
        group: the runs.
        metrics: name -> its value in every run that has it.
        done: whether all its runs are.
    """

    group: Group
    metrics: dict[str, list[float]]
    done: bool


def write_report(paths: Sequence[Path], out: Path) -> None:
    """Writes a page about runs.

    Args:
        paths: directories of runs, or of sweeps, which stand for their runs.
        out: the file.

    Raises:
        RunError: a directory holds no run, or the file may not be written there.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"{out}: a report ends in .html")
    if out.is_dir():
        raise RunError(f"{out} is a directory; --out names a file")
    members, picks = _with_those_of_sweeps(paths)
    groups = groups_of(run_directories(members))
    runs = [run for group in groups for run in group.runs]
    if len(runs) == 1:
        title, body = groups[0].config.name, _of_one(groups[0])
    else:
        names = list(dict.fromkeys(group.config.name for group in groups))
        title, body = short(", ".join(names), 80), _of_many(groups, picks.pop() if len(picks) == 1 else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(title, heading(1, title), *body))


def _with_those_of_sweeps(paths: Sequence[Path]) -> tuple[list[Path], set[str]]:
    """The directories of runs, where a sweep's lie beside it; and the metrics by which sweeps pick."""
    found: list[Path] = []
    picks: set[str] = set()
    for path in paths:
        summary = path / "summary.json"
        if not summary.is_file():
            found.append(path)
            continue
        try:
            said = json.loads(summary.read_text("utf-8"))
            found += [path.parent / Path(run["run"]).name for run in said["runs"]]
            picks.add(said["pick"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{summary} cannot be read: {error}; gru-jax sweep writes it anew", exit_code=1) from error
    # Of a sweep that goes on: what has not begun is not there yet.
    begun = [path for path in found if path in paths or path.exists()]
    if not begun:
        raise RunError(f"{paths[0]}: none of the runs of this sweep has begun")
    return begun, picks


def _of_one(group: Group) -> list[Markup]:
    run = group.runs[0]
    return [
        *_verdict(run),
        element("p", text(f"{_status(run)}; {without_folders(str(run.path))}")),
        comparison([_row(group)], None),
        *_curves([group]),
        *_pictures(run, 2),
        *_beside_baselines(run, 2),
        heading(2, "Result"),
        _result(run),
        heading(2, "Config"),
        code(_config(run)),
        heading(2, "Environment"),
        _environment(run),
    ]


def _of_many(groups: Sequence[Group], pick: str | None) -> list[Markup]:
    rows = [_row(group) for group in groups]
    best_by = pick or plots.metrics_of(group.config for group in groups).best_by
    best = best_of(rows, best_by)
    count = sum(len(group.runs) for group in groups)
    said = f"{count} runs of {len(groups)} config{'s' if len(groups) > 1 else ''}"
    if count > len(groups):
        said += "; means over the seeds ± their standard deviation (n - 1)"
    if best is not None:
        said += f"; the best by {best_by}, in the mean, is marked: {rows[best].group.label}"
    order = _best_first(rows, best_by)
    parts = [element("p", text(said)), comparison(rows, best), *_curves([rows[place].group for place in order])]
    parts += _against_values(rows, best_by)
    shown = order if count <= MOST_RUNS_IN_FULL else order[:1]
    parts.append(heading(2, "Runs" if len(shown) == len(rows) else "Runs of the best config"))
    for number in shown:
        group = rows[number].group
        for run in group.runs:
            config = heading(3, "Config"), code(_config(run))
            around = heading(3, "Environment"), _environment(run)
            inner = [*_verdict(run), *_pictures(run), *_beside_baselines(run), heading(3, "Result"), _result(run)]
            place = without_folders(str(run.path))
            title = f"{group.label}, seed {run.config().seed}: {place}, {_status(run)}"
            parts.append(folded(title, *inner, *config, *around))
    return parts


def _verdict(run: RunDirectory) -> list[Markup]:
    """Of a forecast, whether it is better than the baselines."""
    said = verdict(run.result() or {})
    return [element("p", text(said))] if said else []


def _row(group: Group) -> Row:
    results = [_values(run) for run in group.runs]
    names = dict.fromkeys(name for result in results for name in result)
    metrics = {name: [result[name] for result in results if name in result] for name in names}
    return Row(group, metrics, all(_status(run) == "done" for run in group.runs))


def _values(run: RunDirectory) -> dict[str, float]:
    """The numbers by which runs are compared: of validation, then of the test, then of the training."""
    result = run.result() or {}
    told = [key for prefix in ("valid/", "test/") for key in result if key.startswith(prefix) and key.count("/") == 1]
    told += _COSTS
    numbers = {key: result.get(key) for key in told}
    return {key: float(value) for key, value in numbers.items() if isinstance(value, int | float)}


def best_of(rows: Sequence[Row], best_by: str | None) -> int | None:
    """The number of the row whose mean is best, of those that are done; None when there is no other to compare with.

    Example:
        >>> rows = [Row(None, {"valid/loss": values}, True) for values in ([2.0, 1.0], [1.4, 1.4], [])]
        >>> best_of(rows, "valid/loss"), best_of(rows, "valid/accuracy")
        (1, None)
    """
    return _best_first(rows, best_by)[0] if len(rows) > 1 and _means(rows, best_by) else None


def _means(rows: Sequence[Row], metric: str | None) -> dict[int, float]:
    numbers = {place: row.metrics.get(metric or "", []) for place, row in enumerate(rows) if row.done}
    return {place: statistics.fmean(values) for place, values in numbers.items() if values}


def _best_first(rows: Sequence[Row], best_by: str | None) -> list[int]:
    means, sign = _means(rows, best_by), -1 if (best_by or "").endswith(BETTER_HIGHER) else 1
    return sorted(range(len(rows)), key=lambda place: sign * means[place] if place in means else math.inf)


def comparison(rows: Sequence[Row], best: int | None) -> Markup:
    """The table: what differs, the metrics over the seeds, how many, what is to be said, and what it cost."""
    keys = list(dict.fromkeys(key for row in rows for key in row.group.values))
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    # Where names tell the runs apart, they come first.
    named = len({row.group.config.name for row in rows}) > 1
    costs = [name for name in names if name in _COSTS]
    names = [name for name in names if name not in _COSTS]
    head = [*(["name"] if named else []), *keys, *names, "seeds", "status", *costs]
    cells: list[list[Cell]] = []
    for row in rows:
        values: list[Cell] = [row.group.config.name] if named else []
        values += [_as_number(row.group.values[key]) for key in keys]
        values += [over_seeds(row.metrics.get(name, [])) for name in names]
        statuses = list(dict.fromkeys(_status(run) for run in row.group.runs))
        values += [Number(str(len(row.group.runs)), len(row.group.runs)), ", ".join(statuses)]
        cells.append([*values, *(over_seeds(row.metrics.get(name, [])) for name in costs)])
    return table(head, cells, best)


def _as_number(value: str) -> Cell:
    read = yaml_document.parse(value).value
    is_number = isinstance(read, int | float) and not isinstance(read, bool)
    return Number(value, float(read)) if is_number else value


def over_seeds(values: Sequence[float]) -> Number:
    """Mean and standard deviation.

    Example:
        >>> over_seeds([0.5, 0.7]).shown, over_seeds([0.51234567]).shown, over_seeds([])
        ('0.6 ± 0.14', '0.51235', Number(shown='-', value=None))
    """
    if not values:
        return Number("-", None)
    mean = statistics.fmean(values)
    shown = f"{mean:.5g}" if abs(mean) < 1e5 else f"{mean:,.0f}"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Number(f"{shown} ± {spread:.2g}" if spread else shown, mean)


def _status(run: RunDirectory) -> str:
    return run.status() or "unknown"


def _curves(groups: Sequence[Group]) -> list[Markup]:
    shown = groups[:MOST_CURVES]
    lines = {group.label: [run.metrics_lines() for run in group.runs] for group in shown}
    caption = "loss and other metrics against the training step; a dot is the best evaluation"
    if len(shown) < len(groups):
        caption += f"; the {len(shown)} best of {len(groups)} configs"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        plots.curves(lines, path, plots.metrics_of(group.config for group in shown))
        return [heading(2, "Curves"), picture(path, caption)]


def _against_values(rows: Sequence[Row], metric: str | None) -> list[Markup]:
    """A picture of the metric against every number that differs."""
    whole = [row for row in rows if row.done and row.metrics.get(metric or "")]
    numbers: dict[str, list[tuple[float, list[float]]]] = {}
    for key in whole[0].group.values if len(whole) > 1 else ():
        cells = [_as_number(row.group.values[key]) for row in whole]
        if all(isinstance(cell, Number) for cell in cells) and len(set(cells)) > 1:
            numbers[key] = [
                (cell.value or 0.0, row.metrics[metric or ""])
                for cell, row in zip(cells, whole, strict=True) if isinstance(cell, Number)
            ]  # fmt: skip
    if not numbers or metric is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values.png"
        plots.against_values(numbers, metric, path)
        caption = f"{plots.in_words(metric)}; a point a config, bars as in the table"
        return [heading(2, "Against what differs"), picture(path, caption)]


def _pictures(run: RunDirectory, level: int = 3) -> list[Markup]:
    """Those that the run has drawn, but for its curves, which a report draws itself."""
    files = sorted(run.plots.glob("*")) if run.plots.is_dir() else []
    own = [path for path in files if path.suffix in PICTURES and path.stem != "curves" and path.name[0] != "."]
    # One of each, where it was drawn in several forms.
    found = {path.stem: path for path in own}
    shown = [picture(path, stem.replace("_", " ")) for stem, path in found.items()]
    return [heading(level, "Pictures"), *shown] if shown else []


def _beside_baselines(run: RunDirectory, level: int = 3) -> list[Markup]:
    """A table of the errors of a run that forecasts and of what it has to beat; of other runs nothing."""
    result = run.result() or {}
    others = result.get("baselines")
    if not isinstance(others, Mapping) or not others:
        return []
    own = {name.removeprefix("test/"): value for name, value in result.items()}
    errors: dict[str, Mapping[str, Plain]] = {"this run": own}
    errors |= {str(NAMES.get(name, name)): each for name, each in others.items()}
    measures = [name for name in next(iter(others.values())) if name in own and name != "mae_by_horizon"]
    rows: list[list[Cell]] = [[name, *(_to_four(each.get(it)) for it in measures)] for name, each in errors.items()]
    return [heading(level, "Beside baselines, test split"), table(["", *measures], rows, best=0)]


def _to_four(value: object) -> Number:
    return Number(f"{value:.4g}", float(value)) if isinstance(value, int | float) else Number("-", None)


def _result(run: RunDirectory) -> Markup:
    result = run.result()
    if result is None:
        lines = run.metrics_lines()
        return facts({"no result yet; the newest line of metrics": json.dumps(lines[-1]) if lines else "none"})
    # What baselines do is in a table of its own.
    return facts(_flat(without_folders({key: value for key, value in result.items() if key != "baselines"})))


def _environment(run: RunDirectory) -> Markup:
    try:
        said = json.loads((run.path / "env.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        said = None
    if not isinstance(said, Mapping):
        return facts({"env.json": "cannot be read"})
    return facts(_flat(without_folders(said)))


def _flat(values: Mapping[str, Plain]) -> dict[str, str]:
    """What a file of JSON says: key -> value, a mapping's own below its key."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}: {below}": said for below, said in _flat(value).items()}
        else:
            flat[key] = short(_shown(value), 400)
    return flat


def _shown(value: Plain) -> str:
    if isinstance(value, list):
        # Many numbers are read for their course.
        return ", ".join(f"{each:.4g}" if isinstance(each, float) else _shown(each) for each in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _config(run: RunDirectory) -> str:
    """What config.yaml says, without the folders of this machine; a damaged one as it is."""
    try:
        read = (run.path / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    parsed = yaml_document.parse(read)
    return read if parsed.complaints else yaml_document.dump(without_folders(parsed.value))
