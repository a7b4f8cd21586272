"""All tables on one page, docs/tables.md, and listed in the README; `python -m gru_jax.tables.overview` writes both."""

import collections
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from gru_jax.tables.rendering import Entry, as_printed, below, escaped, mean_and_sd, not_here, number
from gru_jax.tables.results import PUBLISHED, WITHOUT_RUNS, needed, shown, write_if_changed
from gru_jax.tables.spec import Table, known, load_table

PAGE, LIST = Path("docs/tables.md"), Path("README.md")
_MARKED = re.compile(r"(?<=<!-- tables -->\n).*?(?=<!-- /tables -->)", flags=re.DOTALL)
_HEAD = """\
# Tables, as they were made here

Every table of `experiments/` at its full scale, from their results by `python -m gru_jax.tables.overview`. A cell is
the mean over the seeds with its standard deviation, or, where a table says so, the best seed; in brackets stands what
was published. `gru-jax table NAME --show` has the seeds, the seconds and the hardware as well, and
[Tables](guide/tables.md) says what a status means.
"""


def written(tables: Sequence[Table]) -> dict[Path, str]:
    """The text of both files.

    Args:
        tables: those that are listed, read from the current directory.

    Raises:
        ConfigError: a config that a table names is wrong.
        OSError: there is no README.
    """
    entries = {table.name: shown(table, "full") for table in tables}
    page = "\n".join([_HEAD, *(_section(table, entries[table.name]) for table in tables)])
    lines = ["| table | rows at full scale |", "|---|---|"]
    for table in tables:
        file = os.path.relpath(_readme(table), LIST.parent)
        named = f"[{escaped(table.name)}]({file}): {escaped(table.spec.title)}"
        lines.append(f"| {named} | {_said(table, entries[table.name])} |")
    listed = "\n".join(lines) + "\n"
    return {PAGE: page, LIST: _MARKED.sub(lambda _: listed, LIST.read_text(encoding="utf-8"))}


def _readme(table: Table) -> Path:
    """The nearest README above a table: several tables may be of one experiment."""
    folders = (table.folder, *table.folder.parents)
    return next(folder / "README.md" for folder in folders if (folder / "README.md").exists())


def _said(table: Table, entries: Sequence[Entry]) -> str:
    """How many rows have come to what."""
    counts = collections.Counter(entry["status"] for entry in entries if entry["status"] != PUBLISHED)
    said = [f"{count} {status}" for status, count in sorted(counts.items())]
    wanting = len(needed(table, "full", entries))
    return ", ".join(said + [f"{wanting} wanting data or a machine"] * bool(wanting))


def _section(table: Table, entries: Sequence[Entry]) -> str:
    lines = [f"## {escaped(table.name)}", "", f"{escaped(table.spec.title)}. {_said(table, entries)}.", ""]
    said = not_here(table, "full", entries)
    if any(entry["status"] not in WITHOUT_RUNS for entry in entries):
        lines += [*_grid(table, entries), ""]
        said = below(table, "full", []) + said
    return "\n".join([*lines, *([escaped(" ".join(said)), ""] if said else [])])


def _grid(table: Table, entries: Sequence[Entry]) -> list[str]:
    """Labels such as "parity: GRU" as columns and rows, where all are; else a line a row."""
    cells = {tuple(entry["label"].split(": ", 1)): _cell(table, entry) for entry in entries}
    columns = list(dict.fromkeys(key[0] for key in cells))
    rows = list(dict.fromkeys(key[-1] for key in cells))
    if {len(key) for key in cells} != {2} or len(rows) == len(cells):
        lines = (f"| {escaped(each['label'])} | {_cell(table, each)} | {each['status']} |" for each in entries)
        return ["| row | ours (published) | status |", "| --- | ---: | --- |", *lines]
    return [
        "| | " + " | ".join(map(escaped, columns)) + " |",
        "| --- |" + " ---: |" * len(columns),
        *(f"| {escaped(row)} | " + " | ".join(_at(cells, column, row) for column in columns) + " |" for row in rows),
    ]


def _at(cells: Mapping[tuple[str, ...], str], column: str, row: str) -> str:
    return cells.get((column, row), "")


def _cell(table: Table, entry: Entry) -> str:
    """Ours, and in brackets what was published."""
    best = table.spec.compared == "best"
    ours, sd = (entry["best"], None) if best else (entry["mean"], entry["sd"])
    said = "-" if ours is None else number(ours) if best else mean_and_sd(ours, sd)
    if entry["published"] is None:
        return said
    printed = f"({as_printed(table, entry)})"
    return printed if entry["status"] == PUBLISHED else f"{said} {printed}"


def main() -> None:
    """Writes both files, of the tables below the current directory."""
    for path, text in written([load_table(name) for name in known()]).items():
        write_if_changed(path, text)


if __name__ == "__main__":
    main()
