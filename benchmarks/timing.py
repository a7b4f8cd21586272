"""What the benchmarks share: candidates timed in turn in one process, and results written with where they come from."""

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def medians(steps: dict[str, Callable[[], Any]], rounds: int, warmups: int = 2) -> dict[str, float]:
    """Milliseconds of each, the median over rounds in which all take their turn, after rounds that do not count."""
    for _ in range(warmups):
        jax.block_until_ready([step() for step in steps.values()])
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def write(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes benchmarks/results/<date>-<platform>-<name>.json, with the command, the machine and the versions."""
    today = datetime.date.today().isoformat()
    device = jax.devices()[0]
    record = {
        "command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}",
        "date": today,
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {package: importlib.metadata.version(package) for package in ("jax", "jaxlib", "flax")},
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / f"{today}-{device.platform}-{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to benchmarks/results/{path.name}")
    return record
