"""The table of memory in reinforcement learning.

    python -m experiments.memory --table              every row that is missing; results.json, table.md, curves.png
    python -m experiments.memory --table --rows GRU   only rows in whose label the expression is found
    python -m experiments.memory --speed              steps a second, beside the same loop with flax's cell

A row that was stopped goes on with the next seed, in the same command.
"""

import argparse
import re
from pathlib import Path

from experiments.memory import speed, table

FOLDER = Path(__file__).parent


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m experiments.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="run what is missing, and write the files")
    parser.add_argument("--rows", metavar="REGEX", default="", help="only the rows in whose label it is found")
    parser.add_argument("--speed", action="store_true", help="measure steps a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each measurement of --speed")
    asked = parser.parse_args()
    if not (asked.table or asked.speed):
        parser.error("say --table, --speed or both")
    if asked.table:
        chosen = [row for row in table.ROWS if re.search(asked.rows, row.label)]
        if not chosen:
            parser.error(f"--rows {asked.rows}: no row has that in its label")
        table.make(chosen, FOLDER)
    if asked.speed:
        speed.make(asked.seconds, FOLDER)
    table.write_page(FOLDER)


if __name__ == "__main__":
    main()
