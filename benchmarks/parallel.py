"""Memory and rounds of Newton's method, and the time of minGRU by every form of the linear recurrence.

    python -m benchmarks.parallel [--rounds 5] [--quick | --write]
    python -m benchmarks.parallel --draw benchmarks/results/<file>.json

Where Newton's method is the faster one is the business of `benchmarks.crossover`. Here, for a GRU with torch's initial
values: memory against T and H, with the dense and the diagonal Jacobian, and rounds and the largest Lyapunov exponent
against the scale of the parameters. For minGRU: the sequential scan, and the linear recurrence in its three forms. What
runs is measured in a fresh process (`benchmarks.alone`), which compares the outputs with the sequential ones and times
the two in turn ("x seq." is the ratio, under 1 where the method is faster); the backend is JAX's own choice, and on an
accelerator the list of shapes is longer. `--write` writes benchmarks/results/ and the plots of docs/images/; `--quick`
is a smoke test that keeps nothing; `--draw` draws the plots of a file again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import parallel_plots, timing
from gru_jax.scans.linear.forms import KERNELS

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"

LINEAR = ("sequential", *(f"associative {kernel}" for kernel in KERNELS))

LINEAR_SHAPES = [(1024, 8, 64), (65536, 1, 128)]
"""(T, B, H) of minGRU."""
ON_ACCELERATORS = [(262144, 1, 32), (1024, 64, 128), (16384, 16, 32), (65536, 16, 8), (65536, 16, 128), (1048576, 1, 8)]
"""More of them."""

MEMORY_OVER_TIME = [(T, 1, 128) for T in (8192, 16384, 32768, 65536)]
MEMORY_OVER_WIDTH = [(16384, 1, H) for H in (32, 64, 128, 256)]
LARGEST, ALLOWED = (65536, 1, 128), 2560
"""A shape, and how many MiB the training step with the diagonal Jacobian may take there."""

SCALES = {"T": 2048, "B": 4, "H": 32, "scales": [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8, 10, 14, 20]}

HEADER = (
    f"{'cell':>7} {'T':>8} {'B':>3} {'H':>4}  {'method':<24}{'forward ms':>11}{'x seq.':>8}"
    f"{'training ms':>12}{'x seq.':>8}"
    f"{'compile s':>12}{'temp MiB':>10}{'peak MiB':>10}{'rounds':>7}"
)


def jobs(backend: str, rounds: int, quick: bool) -> list[dict[str, Any]]:
    """What is to be measured, one object for each process."""
    linear, scales = LINEAR_SHAPES, SCALES
    over_time, over_width = MEMORY_OVER_TIME, MEMORY_OVER_WIDTH
    if backend != "cpu":
        linear = [*linear, *ON_ACCELERATORS]
    if quick:
        linear = [(32, 1, 8)]
        over_time, over_width = [(32, 1, 8), (64, 1, 8)], [(32, 1, 8)]
        scales = {"T": 50, "B": 2, "H": 8, "scales": [1, 20]}
    wanted = [("GRU", *shape, "newton diagonal") for shape in [*over_time, *over_width]]
    wanted += [("MinGRU", *shape, name) for shape in linear for name in (LINEAR[:2] if quick else LINEAR)]
    runs = [
        {"measure": "run", "cell": cell, "T": T, "B": B, "H": H, "method": name, "rounds": rounds}
        for cell, T, B, H, name in dict.fromkeys(wanted)
    ]
    unrun = [
        {"measure": "compiled_memory", "T": T, "B": B, "H": H, "method": "newton dense"}
        for T, B, H in dict.fromkeys([*over_time, *over_width])
    ]
    return [*runs, *unrun, {"measure": "scales", **scales}]


def shape_of(row: dict[str, Any]) -> tuple[int, int, int]:
    """(T, B, H) of a row."""
    return row["T"], row["B"], row["H"]


def alone(job: dict[str, Any]) -> dict[str, Any] | None:
    """The job's numbers, from a process that does nothing else; None, and a message, where it failed."""
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    command = [sys.executable, "-m", "benchmarks.alone", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        print(f"benchmarks.parallel: {json.dumps(job)} failed:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def printed(row: dict[str, Any]) -> str:
    """The row as text."""
    if row["measure"] == "compiled_memory":
        return f"{'GRU':>7} {row['T']:8} {row['B']:3} {row['H']:4}  {row['method']:<24}{'':51}{row['temporary_MiB']:10}"
    if row["measure"] == "scales":
        lines = ["", "parameters times   Lyapunov   dense: rounds, converged   diagonal: rounds, converged"]
        for each in row["rows"]:
            found = (f"{each[kind]['rounds']:>20}{each[kind]['converged']:>8}" for kind in ("dense", "diagonal"))
            lines.append(f"{each['scale']:16}{each['lyapunov']:11.3f}{''.join(found)}")
        return "\n".join(lines)
    compiling = f"{row['forward_compile_s']} + {row['training_compile_s']}"
    temporary, peak = ("-" if row[name] is None else row[name] for name in ("temporary_MiB", "peak_MiB"))
    return (
        f"{row['cell']:>7} {row['T']:8} {row['B']:3} {row['H']:4}  {row['method']:<24}{row['forward_ms']:11.2f}"
        f"{row['forward_of_sequential']:8.2f}{row['training_ms']:12.2f}{row['training_of_sequential']:8.2f}"
        f"{compiling:>12}{temporary:>10}{peak:>10}"
        f"{row['rounds_taken']:7}{'  fell back' if row['fell_back'] else ''}"
    )


def growth(rows: list[dict[str, Any]], along: str, B: int, **fixed: int) -> float | None:
    """k where the diagonal training step's memory grows as `along` to the power k; None for fewer than two sizes."""
    points = parallel_plots.memory(rows, "newton diagonal", along, B=B, **fixed)
    if len(points) < 2:
        return None
    sizes, mib = zip(*points, strict=True)
    return float(np.polyfit(np.log(sizes), np.log(mib), 1)[0])


def report_memory(rows: list[dict[str, Any]]) -> None:
    """How memory grows, and whether the largest shape stays within bounds."""
    for along, fixed in (("T", {"H": 128}), ("H", {"T": 16384})):
        power = growth(rows, along, 1, **fixed)
        if power is not None:
            print(f"memory of the diagonal training step grows as {along}^{power:.2f} ({fixed}, B = 1)")
    for row in rows:
        if row["measure"] == "run" and shape_of(row) == LARGEST and row["method"] == "newton diagonal":
            verdict = "within" if max(row["temporary_MiB"] or 0, row["peak_MiB"] or 0) <= ALLOWED else "OVER"
            print(f"T, B, H = {LARGEST}: {row['temporary_MiB']} MiB, {verdict} the bound of {ALLOWED} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny shapes, nothing is kept")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/ and docs/images/")
    parser.add_argument("--draw", type=Path, help="draw the plots of this results file and measure nothing")
    args = parser.parse_args()
    if args.quick and args.write:
        parser.error("--quick measures nothing worth writing; leave one of the two out")
    if args.draw:
        parallel_plots.draw(json.loads(args.draw.read_text()), IMAGES)
        return
    # Asked of another process: this one must not take an accelerator's memory from those that measure.
    backend = subprocess.check_output([sys.executable, "-c", "import jax; print(jax.default_backend())"], text=True)
    print(HEADER)
    start, rows, failed = time.monotonic(), [], 0
    for job in jobs(backend.split()[-1], args.rounds, args.quick):
        row = alone(job)
        # One shape too many for this machine does not undo the measurements of the others.
        failed += row is None
        if row is not None:
            rows.append(row)
            print(printed(row), flush=True)
    report_memory(rows)
    print(f"measured in {(time.monotonic() - start) / 60:.1f} minutes")
    if args.write:
        parallel_plots.draw(timing.write("parallel", rows), IMAGES)
    else:
        with tempfile.TemporaryDirectory() as folder:
            parallel_plots.draw({"device": backend.strip(), "cores": os.cpu_count(), "rows": rows}, Path(folder))
    if failed:
        raise SystemExit(f"{failed} measurements failed; what they wrote stands above")


if __name__ == "__main__":
    main()
