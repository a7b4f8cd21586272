"""results.json of a table: what its runs gave, row by row, and whether that is what was published."""

import contextlib
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax import files
from gru_jax.runs.on_disk.json_files import write_text
from gru_jax.tables import plans
from gru_jax.tables.plans import RowPlan
from gru_jax.tables.spec import SCALES, Row, ScaleName, Table
from gru_jax.types import Plain

FILE = "results.json"
NO_DATA = "no data"
NOT_RUN = "not run"
STALE = "stale"  # it was run, and its config has changed since
PUBLISHED = "published"  # alone: there is nothing to run
WITHOUT_RUNS = (NO_DATA, NOT_RUN, STALE, PUBLISHED)


class Ended(NamedTuple):
    """One finished run.

    Attributes:
        value: the row's metric; None when the run diverged.
        steps: optimizer steps.
        seconds: of training, compilation apart.
        hardware: what it ran on.
    """

    value: float | None
    steps: int
    seconds: float
    hardware: str


def status(scale: str, published: float | None, tolerance: float | None, ours: float | None, diverged: int) -> str:
    """What a row has come to.

    `reproduced`: |ours - published| <= tolerance, and no run diverged; `differs`: it is not; `new`: nothing was
    published; `smoke only`: a number was, but this row ran at a smaller scale.

    Example:
        >>> status("full", 8.54, 0.2, 8.7, diverged=0), status("full", 8.54, 0.2, 8.7, diverged=1)
        ('reproduced', 'differs')
    """
    if published is None:
        return "new"
    if scale != "full":
        return "smoke only"
    assert tolerance is not None
    # 8.74 - 8.54 is a little more than 0.2 in binary.
    near = ours is not None and abs(ours - published) <= tolerance * (1 + 1e-9)
    return "reproduced" if near and not diverged else "differs"


def row_result(table: Table, plan: RowPlan, ended: Sequence[Ended]) -> dict[str, Plain]:
    """The entry of a row whose runs have all ended.

    Args:
        table: the table.
        plan: the row.
        ended: its runs, in the order of `plan.runs`.
    """
    values = [each.value for each in ended]
    finite = [value for value in values if value is not None]
    mean = statistics.fmean(finite) if finite else None
    better = table.better(plan.row)
    best = (min if better == "lower" else max)(finite) if finite else None
    ours = best if table.spec.compared == "best" else mean
    return _entry(table, plan) | {
        "mean": _six(mean),
        "sd": _six(statistics.stdev(finite)) if len(finite) > 1 else None,
        "best": _six(best),
        "seeds": [run.seed for run in plan.runs],
        "values": [_six(value) for value in values],
        "status": status(plan.scale, plan.row.published, plan.row.tolerance, ours, len(values) - len(finite)),
        "steps": round(statistics.fmean(each.steps for each in ended)),
        "seconds": _six(statistics.fmean(each.seconds for each in ended)),
        "hardware": "; ".join(dict.fromkeys(each.hardware for each in ended)),
    }


def row_without_data(table: Table, plan: RowPlan) -> dict[str, Plain]:
    """The entry of a row whose data are not on this machine."""
    nothing: dict[str, Plain] = {"mean": None, "sd": None, "best": None, "seeds": [], "values": [], "status": NO_DATA}
    return _entry(table, plan) | nothing | {"steps": None, "seconds": None, "hardware": None}


def not_run(table: Table, index: int, scale: str, stale: bool = False) -> dict[str, Plain]:
    """What is shown of a row that has no entry, or that of another config: it is not kept."""
    row = table.spec.rows[index]
    said = PUBLISHED if row.config is None else STALE if stale else NOT_RUN
    nothing: dict[str, Plain] = {"mean": None, "sd": None, "best": None, "seeds": [], "values": [], "status": said}
    nothing |= {"steps": None, "seconds": None, "hardware": None, "command": None, "config_hash": None}
    return _of_row(table, row, scale) | nothing


def _of_row(table: Table, row: Row, scale: str) -> dict[str, Plain]:
    said = {
        "label": row.label,
        "scale": scale,
        "metric": table.metric(row),
        "better": table.better(row),
        "published": row.published,
        "tolerance": row.tolerance,
        "source": row.source or table.spec.source,
        "note": row.note,
    }
    return said if row.published_sd is None else said | {"published_sd": row.published_sd}


def _entry(table: Table, plan: RowPlan) -> dict[str, Plain]:
    return _of_row(table, plan.row, plan.scale) | {"command": plan.command, "config_hash": plan.config_hash}


def _six(value: float | None) -> float | None:
    """Six significant digits."""
    return None if value is None else float(f"{value:.6g}")


def read(table: Table) -> list[dict[str, Plain]]:
    """The entries of the rows that the table still asks for; of a missing or damaged file, none.

    A damaged file costs nothing: the runs are finished, and the same command writes it again.
    """
    try:
        found = json.loads((table.folder / FILE).read_text(encoding="utf-8"))
        entries = [dict(entry) for entry in found["rows"]]
        # An entry speaks of another number once the table asks for another metric.
        asked = {(row.label, table.metric(row), scale) for row in table.spec.rows for scale in SCALES}
        return [
            entry for entry in entries if (entry["label"], entry["metric"], entry["scale"]) in asked and _whole(entry)
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


_NUMBER = (int, float, type(None))  # finite ones, see _whole
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "mean": _NUMBER, "sd": _NUMBER, "best": _NUMBER, "steps": _NUMBER, "seconds": _NUMBER, "seeds": list,
    "values": list, "status": str, "hardware": (str, type(None)), "command": str, "config_hash": str,
}  # fmt: skip


def _whole(entry: Mapping[str, Plain]) -> bool:
    if not all(key in entry and isinstance(entry[key], kind) for key, kind in _TYPES.items()):
        return False
    numbers = [entry[key] for key, kind in _TYPES.items() if kind is _NUMBER] + entry["values"]
    if not all(number is None or is_finite(number) for number in numbers):
        return False
    # Half a surrogate pair can be read from JSON, and be written nowhere.
    json.dumps(entry, ensure_ascii=False).encode()
    return True


def kept_seeds(table: Table, plan: RowPlan) -> list[int]:
    """The seeds that results.json has of a row as its config is now; none where it has no such entry."""
    for entry in read(table):
        if (entry["scale"], entry["label"], entry["config_hash"]) == (plan.scale, plan.row.label, plan.config_hash):
            return list(entry["seeds"])
    return []


def keep(table: Table, new: Mapping[str, Plain]) -> None:
    """Puts the entry of one row into results.json, beside those of the other rows and scales.

    Raises:
        OSError: it cannot be written; what was there is whole.
    """
    with alone(table):
        _keep(table, new)


@contextlib.contextmanager
def alone(table: Table) -> Iterator[None]:
    """Keeps every other process that makes rows of the same table waiting, for as long as a small file takes."""
    with open(table.file, "rb") as file:
        files.lock(file, wait=True)
        yield


def _keep(table: Table, new: Mapping[str, Plain]) -> None:
    entries = {(entry["scale"], entry["label"]): entry for entry in read(table)}
    old = entries.get((new["scale"], new["label"]))
    # Runs that were made elsewhere are not undone by data that are missing here.
    if not (new["status"] == NO_DATA and old is not None and old["config_hash"] == new["config_hash"] and old["seeds"]):
        entries[new["scale"], new["label"]] = dict(new)
    ordered = []
    for scale in SCALES:
        for index, row in enumerate(table.spec.rows):
            entry = entries.get((scale, row.label))
            if entry is not None:
                ordered.append(up_to_date(table, index, entry))
    write_if_changed(table.folder / FILE, json.dumps({"table": table.name, "rows": ordered}, indent=2) + "\n")


def up_to_date(table: Table, index: int, entry: Mapping[str, Plain]) -> dict[str, Plain]:
    """An entry with what the table now says of its row: a note or a source may be added after the runs."""
    row, scale = table.spec.rows[index], entry["scale"]
    diverged = sum(value is None for value in entry["values"])
    said = entry["status"]
    if said not in WITHOUT_RUNS:
        said = status(scale, row.published, row.tolerance, entry[table.spec.compared], diverged)
    return _of_row(table, row, scale) | {key: entry[key] for key in _TYPES} | {"status": said}


def shown(table: Table, scale: ScaleName) -> list[dict[str, Plain]]:
    """Every row of a scale in the table's order: its entry, or that it was not run, with the config that it has now.

    A row that needs what is not here, and was not run, is none of them: see `needed`.

    Raises:
        ConfigError: a config that the table names is wrong.
    """
    hashes = {each.row.label: each.config_hash for each in plans.plan(table, scale, seeds=[0])}
    kept = {entry["label"]: entry for entry in read(table) if entry["scale"] == scale}
    rows = []
    for index, row in enumerate(table.spec.rows):
        if getattr(row.scales, scale).skip or (row.config is None and scale != "full"):
            continue
        entry = kept.get(row.label)
        stale = entry is not None and entry["config_hash"] != hashes.get(row.label)
        if entry is not None and not stale and not (row.needs and entry["status"] == NO_DATA):
            rows.append(up_to_date(table, index, entry))
        elif not row.needs:
            rows.append(not_run(table, index, scale, stale))
    return rows


def needed(table: Table, scale: ScaleName, entries: Sequence[Mapping[str, Plain]]) -> list[Row]:
    """The rows that were not run for want of something: those that `shown` leaves out."""
    there = {entry["label"] for entry in entries}
    return [
        row for row in table.spec.rows
        if row.needs and row.label not in there and not getattr(row.scales, scale).skip
    ]  # fmt: skip


def write_if_changed(path: Path, text: str) -> None:
    """Writes a text file, unless that is what it holds."""
    try:
        if path.read_bytes() == text.encode():
            return
    except OSError:
        pass
    write_text(path, text)


def is_finite(value: object) -> bool:
    """Whether a value of result.json is a number to average."""
    # Not math.isfinite, which cannot take every int of JSON.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
