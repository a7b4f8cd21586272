"""A machine that others use too: what `method="auto"` takes beside busy processes, and what one core would.

    python -m benchmarks.busy [--budget SECONDS] [--quick] [--write]

A training step by what auto chooses, by one core and by all, in turn in one process, while no, one and two other
processes compute without end. `--write` writes benchmarks/results/.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

import gru_jax as gj
from benchmarks import timing
from gru_jax.scans.engines import registry

SHAPES = [(1024, 1, 64, 128), (256, 4, 64, 64), (256, 32, 64, 128), (64, 64, 128, 256), (32, 32, 256, 512)]
"""T, B, I and H."""
QUICK = [(6, 2, 3, 4)]
NEIGHBOURS = (0, 1, 2)
BUDGET_S = 8.0


@contextlib.contextmanager
def neighbours(number: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        time.sleep(0.5 if number else 0)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def steps(shape: tuple[int, ...]) -> dict[str, Any]:
    """Training steps of a GRU by each way."""
    T, B, I, H = shape
    cell = gj.GRU(H)
    params, x = cell.init(jax.random.key(0), I), jax.random.normal(jax.random.key(1), (B, T, I))

    def step(method: Any) -> Any:
        run = jax.jit(jax.value_and_grad(lambda params, x: (gj.scan(cell, params, x, method=method)[0] ** 2).mean()))
        return lambda: run(params, x)

    numbers = (1, registry.usable_cores())
    loops = {f"cores={n}": step(gj.Sequential(kernel="llvm", keep="gates", cores=n)) for n in numbers}
    return {"auto": step("auto")} | loops


def rows(shapes: Sequence[tuple[int, ...]], budget_s: float) -> Iterator[dict[str, Any]]:
    """The measurements, one of each shape and number of neighbours."""
    for shape in shapes:
        ways = steps(shape)
        for number in NEIGHBOURS:
            with neighbours(number):
                for step in ways.values():  # what is learned from calls before is learned here
                    for _ in range(20):
                        jax.block_until_ready(step())
                samples = timing.sampled(ways, budget_s, fewest=10, most=200)
            mean = {name: statistics.fmean(each) for name, each in samples.items()}
            row = {"shape": shape, "neighbours": number}
            row |= {f"{name}_ms": timing.digits(ms) for name, ms in mean.items()}
            yield row | {"auto_over_one_core": round(mean["auto"] / mean["cores=1"], 2)}


def printed(row: dict[str, Any]) -> str:
    """The row as a line."""
    times = "  ".join(f"{name[:-3]} {ms:.3g} ms" for name, ms in row.items() if name.endswith("_ms"))
    return f"{row['shape']!s:<22} {row['neighbours']} busy  {times}  auto / one core {row['auto_over_one_core']:.2f}"


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    names = [name for name in record["rows"][0] if name.endswith("_ms")]
    lines = [
        f"# Beside busy processes: {record['device']}, {record['date']}",
        "",
        f"`{record['command'].strip()}`: {record['cpu']}, {record['cores']} cores; {versions}. Milliseconds of a"
        " training step of a GRU, means, for a busy machine is not slow in every step; and how long what auto chooses"
        " takes beside one core, measured in turn beside the same processes.",
        "",
        f"| T, B, I, H | busy processes | {' | '.join(name[:-3] for name in names)} | auto / one core |",
        f"|{' --- |' * (3 + len(names))}",
    ]
    for row in record["rows"]:
        cells = [", ".join(map(str, row["shape"])), row["neighbours"], *(row[name] for name in names)]
        lines.append(f"| {' | '.join(map(str, [*cells, row['auto_over_one_core']]))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS", help="for each row")
    parser.add_argument("--quick", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    asked = parser.parse_args()
    if asked.quick and asked.write:
        parser.error("--quick measures nothing worth writing; leave out one of the two")
    found = []
    for row in rows(QUICK if asked.quick else SHAPES, 0.1 if asked.quick else asked.budget):
        print(printed(row), flush=True)
        found.append(row)
    if asked.write:
        timing.write("busy", found, table=markdown)


if __name__ == "__main__":
    main()
