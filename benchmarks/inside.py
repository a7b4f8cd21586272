"""Models of other frameworks with our computation inside, beside the same models as they are.

    python -m benchmarks.inside [--parts keras] [--budget SECONDS] [--quick] [--write]

Each part is a framework; both sides are its own code, but for the one line that changes. They are compared first, then
timed in one process, in turn, in another order every round; `--write` writes benchmarks/results/.
"""

import argparse
import os
from typing import Any

from benchmarks import inside_keras, timing
from benchmarks.layer_shapes import Shape

PARTS = {"keras": inside_keras}
"""Modules with `rows(quick, budget_s)`."""
BUDGET_S = 20.0


def printed(row: dict[str, Any]) -> str:
    """The row as a line."""
    return (
        f"{row['part']:<6} {row['kind']:<9}{row['case']:<18}{Shape(**row['shape'])!s:>18}  ours {row['ours_ms']:.4g}"
        f"  {row['part']} {row['theirs_ms']:.4g} ms  ({row['theirs_over_ours']:.2f} x ours)"
    )


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"# Inside other people's models: {record['device']}, {record['date']}",
        "",
        f"`{record['command'].strip()}`: {record['cpu']}, {record['cores']} cores; {versions}. Milliseconds, medians"
        " with the interquartile range; the ratio is the median, over rounds, of their time over ours.",
        "",
        "| | | model | T, B, I, H | ours | theirs | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        times = [f"{row[f'{who}_ms']:.4g} ± {row[f'{who}_spread_ms']:.2g}" for who in ("ours", "theirs")]
        cells = [row["part"], row["kind"], row["case"], str(Shape(**row["shape"])), *times]
        lines.append(f"| {' | '.join(cells)} | {row['theirs_over_ours']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inside", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="all when left out")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS", help="for each row")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    asked = parser.parse_args()
    if asked.quick and asked.write:
        parser.error("--quick measures nothing worth writing; leave out one of the two")
    rows = []
    for part in asked.parts:
        for row in PARTS[part].rows(asked.quick, 0.1 if asked.quick else asked.budget):
            print(printed(row), flush=True)
            rows.append(row)
    if asked.write:
        timing.write("inside", rows, table=markdown)


if __name__ == "__main__":
    main()
