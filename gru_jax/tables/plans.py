"""From the rows of a table to runs: every config read and checked before anything starts."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.config import yaml_document
from gru_jax.config.config import Config, changes, config_hash
from gru_jax.config.error_messages import suggestion
from gru_jax.config.loading import ConfigError, LoadedConfig, load_config, named_override
from gru_jax.config.yaml_document import KeyPath
from gru_jax.data.dataset import TARGET_METRICS
from gru_jax.runs.on_disk.run_directory import default_path
from gru_jax.tables.spec import Row, ScaleName, Table
from gru_jax.types import Plain


class Run(NamedTuple):
    """One run behind a row.

    Attributes:
        seed: its seed.
        loaded: its config.
        path: its directory.
    """

    seed: int
    loaded: LoadedConfig
    path: Path


class RowPlan(NamedTuple):
    """A row at one scale.

    Attributes:
        row: what the table says.
        scale: "full" or "smoke".
        runs: one for each seed.
        command: what makes these runs one by one.
    """

    row: Row
    scale: ScaleName
    runs: list[Run]
    command: str

    @property
    def config_hash(self) -> str:
        """The hash that the directories of all runs share."""
        return config_hash(self.runs[0].loaded.config)


def plan(
    table: Table,
    scale: ScaleName,
    *,
    rows: re.Pattern[str] | None = None,
    seeds: Sequence[int] | None = None,
    data_root: str | None = None,
) -> list[RowPlan]:
    """The rows to run at a scale.

    Args:
        table: the table.
        scale: "full" or "smoke".
        rows: only the rows in whose label this is found.
        seeds: in place of the table's own.
        data_root: where the data files are, in place of the configs' own.

    Raises:
        ConfigError: with everything that is wrong with any of the configs.
    """
    plans: list[RowPlan] = []
    lines: list[str] = []
    for index, row in enumerate(table.spec.rows):
        own = getattr(row.scales, scale)
        if row.config is None or own.skip or (rows is not None and not rows.search(row.label)):
            continue
        file = table.config_file(row)
        arguments = _arguments(table, index, row, scale)
        words = [word for _, word in arguments]
        rest = [] if data_root is None else [f"data_root={json.dumps(data_root)}"]
        chosen = seeds or own.seeds or getattr(table.spec.scales, scale).seeds
        try:
            loaded = [load_config(file, [*words, f"seed={seed}", *rest]) for seed in chosen]
        except ConfigError as error:
            lines += _placed(table, index, error.lines, arguments)
            continue
        lines += _unknown_metric(table, index, loaded[0].config)
        runs = [Run(each.config.seed, each, default_path(each.config)) for each in loaded]
        plans.append(RowPlan(row, scale, runs, _command(row.config, words, chosen)))
    lines += _clashes(table, plans)
    if not plans and not lines:
        lines.append(f"{table.file}: no row is left to run at scale {scale!r}; the labels are " + _labels(table))
    if lines:
        raise ConfigError(lines)
    return plans


def _labels(table: Table) -> str:
    return ", ".join(repr(row.label) for row in table.spec.rows)


_OF_ANY_RUN = ("steps", "best_step", "epochs", "wall_s")


def _unknown_metric(table: Table, index: int, config: Config) -> list[str]:
    """A metric that result.json will not have, found before hours of training."""
    row = table.spec.rows[index]
    metric, names = table.metric(row), TARGET_METRICS[config.shape.target]
    known = [f"{split}/{name}" for split in ("test", "valid", "train") for name in names]
    if metric in known or metric in _OF_ANY_RUN or (config.newton is not None and "newton/" in metric):
        return []
    # Where the table leaves its metric out, the row is what there is to point at.
    path: KeyPath = ("rows", index, "metric") if row.metric else ("metric",)
    path = path if path in table.document.marks else ("rows", index, "label")
    line, column = table.document.marks[path]
    fact = f"task {config.task.kind!r} gives no {metric!r}" + suggestion(metric, known)
    return [f"{table.file}:{line}:{column}: row {row.label!r}: {fact}"]


def _arguments(table: Table, index: int, row: Row, scale: ScaleName) -> list[tuple[KeyPath, str]]:
    """`key=value` arguments with the places in the table that ask for them; the later wins."""
    found: list[tuple[KeyPath, str]] = []
    whole: Iterable[tuple[KeyPath, Mapping[str, Plain]]] = (
        (("rows", index, "set"), row.set),
        (("scales", scale, "set"), getattr(table.spec.scales, scale).set),
        (("rows", index, "scales", scale, "set"), getattr(row.scales, scale).set),
    )
    for path, values in whole:
        found += [((*path, key), f"{key}={yaml_document.one_line(value)}") for key, value in values.items()]
    return found


def _command(config: str, words: Sequence[str], seeds: Sequence[int]) -> str:
    fixed = shlex.join(["gru-jax", "run", config, *words])
    if len(seeds) == 1:
        return f"{fixed} seed={seeds[0]}"
    return f"for seed in {' '.join(map(str, seeds))}; do {fixed} seed=$seed; done"


def _placed(table: Table, index: int, lines: Iterable[str], arguments: list[tuple[KeyPath, str]]) -> list[str]:
    """The errors of a row's config, at the place in the table that is to blame."""
    label = table.spec.rows[index].label
    placed = []
    for line in lines:
        path: KeyPath = ("rows", index, "config")
        for at, word in arguments:
            if line.startswith(named_override(word)):
                path = at
        mark = table.document.key_marks.get(path) or table.document.marks[path]
        placed.append(f"{table.file}:{mark[0]}:{mark[1]}: row {label!r}: {line}")
    return placed


def _clashes(table: Table, plans: Sequence[RowPlan]) -> list[str]:
    """Rows whose runs would share a directory though they are not the same run."""
    first: dict[Path, tuple[RowPlan, Run]] = {}
    lines = []
    for each in plans:
        run = each.runs[0]
        if run.path not in first:
            first[run.path] = (each, run)
            continue
        other, twin = first[run.path]
        differ = [key for key in changes(twin.loaded.config, run.loaded.config) if not key.startswith("log.")]
        if differ:
            index = table.spec.rows.index(each.row)
            line, column = table.document.marks[("rows", index, "label")]
            lines.append(
                f"{table.file}:{line}:{column}: row {each.row.label!r} differs from row {other.row.label!r} only in"
                f" {', '.join(differ)}, and would share its run directory; set another name: in its 'set'"
            )
    return lines
