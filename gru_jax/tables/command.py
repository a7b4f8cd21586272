"""What `gru-jax table` does: runs what is missing, writes the results, prints the table."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.config.loading import ConfigError
from gru_jax.runs.by_length import of_run
from gru_jax.runs.many_runs import Task, finished
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.pictures import check_picture
from gru_jax.runs.watching import plots
from gru_jax.tables import rendering, results
from gru_jax.tables.plans import RowPlan, plan
from gru_jax.tables.running import make
from gru_jax.tables.spec import SCALES, ScaleName, known, load_table


class Request(NamedTuple):
    """The arguments of the command.

    Attributes:
        name: of the table, or its path.
        scale: None, with `show`, for both.
        form: "md", "tex" or "csv".
        data_root: where the data files are.
        jobs: runs at a time.
        show: print what there is, run nothing.
        rows: a regular expression found in the labels of the rows to run.
        seeds: such as "0-9" or "0,2,5-7".
        curves: a picture to draw of the rows' runs.
        lengths: a picture to draw of their accuracy against length.
    """

    name: str
    scale: ScaleName | None
    form: rendering.Format
    data_root: str | None
    jobs: int
    show: bool
    rows: str | None
    seeds: str | None
    curves: Path | None
    lengths: Path | None


def make_table(request: Request) -> int:
    """Runs the command.

    Returns:
        The exit code.

    Raises:
        ConfigError: the table, one of its configs or an argument is wrong; nothing was started.
        OSError: something could not be written; what was there is whole.
    """
    table = load_table(request.name)
    for picture, option in ((request.curves, "--curves"), (request.lengths, "--lengths")):
        if picture is not None:
            check_picture(picture, option)
    rows = _pattern(request.rows)
    seeds = _seeds(request.seeds) if request.seeds is not None else None
    if request.show:
        if request.curves or request.lengths:
            _draw(plan(table, request.scale or "full", rows=rows, seeds=seeds), request)
        print(rendering.render(table, [request.scale] if request.scale else list(SCALES), request.form), end="")
        return 0
    if request.scale is None:
        raise ConfigError(["--scale: choose smoke (minutes) or full (as published); --show prints what there is"])
    if request.jobs > 1:
        # This process only builds the models: the memory of the device is for those that run them.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    plans = plan(table, request.scale, rows=rows, seeds=seeds, data_root=request.data_root)
    code = make(table, plans, request.jobs, _say)
    with results.alone(table):
        results.write_if_changed(table.folder / rendering.PAGE, rendering.page(table))
    _draw(plans, request)
    print(rendering.render(table, [request.scale], request.form), end="")
    return code


def _draw(plans: Sequence[RowPlan], request: Request) -> None:
    if request.curves is not None:
        _draw_curves(plans, request.curves)
    if request.lengths is not None:
        _draw_lengths(plans, request.lengths, request.data_root)


def _draw_curves(plans: Sequence[RowPlan], picture: Path) -> None:
    """The curves of the rows of which there are runs."""
    rows: dict[str, list[plots.Lines]] = {}
    for each in plans:
        for run in each.runs:
            lines = RunDirectory(run.path).metrics_lines() if run.path.is_dir() else []
            if lines:
                rows.setdefault(each.row.label, []).append(lines)
    if not rows:
        _say(f"{picture} was not drawn: there are no runs of these rows here")
        return
    plots.curves(rows, picture, plots.metrics_of(run.loaded.config for each in plans for run in each.runs))
    _say(f"picture: {picture}")


def _draw_lengths(plans: Sequence[RowPlan], picture: Path, data_root: str | None) -> None:
    """Accuracy against length of the rows of which there are runs; a panel for each head of labels, before ": "."""
    panels: dict[str, dict[str, list[plots.Lengths]]] = {}
    trained = 0
    for each in plans:
        for run in each.runs:
            if finished(Task(each.row.label, run.loaded, run.path)) is None:
                continue
            places, accuracy, longest = of_run(run.path, data_root)
            panel, _, label = each.row.label.rpartition(": ")
            panels.setdefault(panel, {}).setdefault(label, []).append((places, accuracy))
            trained = max(trained, longest)
    if not panels:
        _say(f"{picture} was not drawn: there are no finished runs of these rows here")
        return
    plots.against_length(panels, trained, picture)
    _say(f"picture: {picture}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise ConfigError([f"--rows: {text!r} is no regular expression: {error}"]) from error


def _seeds(text: str) -> list[int]:
    """The numbers of "0-9", "3" or "0,2,5-7"."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        last = int(match[2] or match[1]) if match else -1
        if match is None or not int(match[1]) <= last < int(match[1]) + 1000:
            raise ConfigError([f"--seeds: expected numbers such as 0-9 or 0,2,5-7, got {text!r}"])
        seeds += range(int(match[1]), last + 1)
    return list(dict.fromkeys(seeds))


def listed() -> Sequence[str]:
    """One line for each table under experiments/ here: its name and title."""
    lines = []
    for name in known():
        try:
            lines.append(f"{name}  {load_table(name).spec.title}")
        except ConfigError as error:
            lines.append(f"{name}  {error.lines[0]}")
    return lines
