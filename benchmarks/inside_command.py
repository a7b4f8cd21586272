"""What the benchmarks of models with our computation inside share: the command, a row, the table."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import timing
from benchmarks.layer_shapes import Shape
from benchmarks.timing import Timing

BUDGET_S = 30.0


def row(
    part: str, kind: str, case: str, shape: Shape, apart: float, times: tuple[Timing, Timing, float]
) -> dict[str, Any]:
    """What is written of two sides: `times` as `timing.side_by_side` gives them, `apart` how far their numbers are."""
    ours, theirs, ratio = times
    return {
        "part": part,
        "kind": kind,
        "case": case,
        "shape": shape._asdict(),
        "dtype": "float32",
        "apart": apart,
        "ours_ms": ours.ms,
        "ours_spread_ms": ours.spread_ms,
        "theirs_ms": theirs.ms,
        "theirs_spread_ms": theirs.spread_ms,
        "theirs_over_ours": round(1 / ratio, 4),
        "iterations": ours.rounds,
    }


def printed(row: dict[str, Any]) -> str:
    """The row as a line."""
    return (
        f"{row['part']:<6} {row['kind']:<9}{row['case']:<26}{Shape(**row['shape'])!s:>18}  ours {row['ours_ms']:.4g}"
        f"  {row['part']} {row['theirs_ms']:.4g} ms  ({row['theirs_over_ours']:.2f} x ours)"
    )


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"# {record['name']}: {record['device']}, {record['date']}",
        "",
        f"`{record['command'].strip()}`: {record['cpu']}, {record['cores']} cores; {versions}. Milliseconds, medians"
        " with the interquartile range; the ratio is the median, over rounds, of their time over ours.",
        "",
        "| | | | T, B, I, H | ours | theirs | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        times = [f"{row[f'{who}_ms']:.4g} ± {row[f'{who}_spread_ms']:.2g}" for who in ("ours", "theirs")]
        cells = [row["part"], row["kind"], row["case"], str(Shape(**row["shape"])), *times]
        lines.append(f"| {' | '.join(cells)} | {row['theirs_over_ours']:.2f} |")
    return "\n".join(lines) + "\n"


def main(name: str, module: str, rows: Callable[[bool, float], Iterator[dict[str, Any]]]) -> None:
    """The command of one benchmark.

    Args:
      name: in the file's name.
      module: of the command.
      rows: `(quick, budget_s) -> rows`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS", help="for each row")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    asked = parser.parse_args()
    if asked.quick and asked.write:
        parser.error("--quick measures nothing worth writing; leave out one of the two")
    found = []
    for one in rows(asked.quick, 0.1 if asked.quick else asked.budget):
        print(printed(one), flush=True)
        found.append(one)
    if asked.write:
        timing.write(name, found, module=module, table=markdown)
