"""Time and memory of one step after another and of all of time at once, forward and training step.

    python -m benchmarks.parallel [--rounds 5] [--write]

For a GRU with torch's initial values: the sequential scan, and Newton's method with the dense (up to H = 32) and the
diagonal Jacobian. For minGRU: the sequential scan, and the linear recurrence in its three forms. The candidates run in
turn in one process; medians are printed, and written to benchmarks/results/ with --write. Memory is what the compiled
training step allocates beside its arguments and results. Every candidate's outputs are compared with the sequential
ones before its time counts.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import gru_jax as gj
from benchmarks import timing
from gru_jax.scans.recurrences import KERNELS

SHAPES = [(1024, 8, 8), (1024, 8, 64), (16384, 1, 8), (16384, 1, 64), (16384, 1, 128)]
"""(T, B, H); the input has 8 features."""


def methods(cell: Any, hidden: int) -> dict[str, Any]:
    """What runs the cell."""
    if isinstance(cell, gj.MinGRU):
        return {"sequential": gj.Sequential(), **{kernel: gj.Associative(kernel) for kernel in KERNELS}}
    dense = {"newton dense": gj.Newton("dense")} if hidden <= 32 else {}
    return {"sequential": gj.Sequential(), **dense, "newton diagonal": gj.Newton("diagonal")}


def measure(cell: Any, T: int, B: int, hidden: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each method."""
    params = cell.init(jax.random.key(0), 8)
    x = jax.random.normal(jax.random.key(1), (B, T, 8))
    forward: dict[str, Callable[[], Any]] = {}
    training: dict[str, Callable[[], Any]] = {}
    rows = {}
    expected = gj.scan(cell, params, x, method="sequential")[0]
    for name, method in methods(cell, hidden).items():
        y, _, stats = gj.scan(cell, params, x, method=method, stats=True)
        off = float(jnp.abs(y - expected).max())
        assert off < 1e-4, f"{name}: off by {off}"

        def loss(params: Any, x: Any, method: Any = method) -> Any:
            return (gj.scan(cell, params, x, method=method)[0] ** 2).sum()

        run = jax.jit(lambda params, x, method=method: gj.scan(cell, params, x, method=method))
        step = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, x).compile()
        forward[name] = lambda run=run: run(params, x)
        training[name] = lambda step=step: step(params, x)
        rows[name] = {
            "cell": type(cell).__name__,
            "T, B, H": [T, B, hidden],
            "method": name,
            "iterations": int(stats.iterations.max()),
            "fell_back": bool(stats.fell_back.any()),
            "largest_difference": off,
            "training_MiB": round(step.memory_analysis().temp_size_in_bytes / 2**20, 1),
        }
    for name, ms in timing.medians(forward, rounds).items():
        rows[name]["forward_ms"] = ms
    for name, ms in timing.medians(training, rounds).items():
        rows[name]["training_ms"] = ms
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/")
    args = parser.parse_args()
    rows = []
    print(f"{'cell':>8} {'T, B, H':>14} {'method':>16} {'forward ms':>11} {'training ms':>12} {'MiB':>7} {'rounds':>7}")
    for T, B, hidden in SHAPES:
        for cell in (gj.GRU(hidden, init="torch"), gj.MinGRU(hidden)):
            for row in measure(cell, T, B, hidden, args.rounds):
                rows.append(row)
                shape = ", ".join(map(str, row["T, B, H"]))
                print(
                    f"{row['cell']:>8} {shape:>14} {row['method']:>16} {row['forward_ms']:11.2f}"
                    f" {row['training_ms']:12.2f} {row['training_MiB']:7.1f} {row['iterations']:7d}",
                    flush=True,
                )
    if args.write:
        timing.write("parallel", rows)


if __name__ == "__main__":
    main()
