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

from gru_jax.scans import choices
from gru_jax.tuning.timing import Timing as Timing
from gru_jax.tuning.timing import digits, sampled, timing
from gru_jax.tuning.timing import interleaved as interleaved

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "llvmlite", "torch", "keras", "equinox", "onnxruntime")

def side_by_side(
    ours: Callable[[], Any], theirs: Callable[[], Any], budget_s: float
) -> tuple[Timing, Timing, float]:
    """Times of both, and how many times as long as theirs ours take, the median over rounds.

    What changes with the hour, as a machine's clock does, then changes both sides of each ratio.
    """
    samples = sampled({"ours": ours, "theirs": theirs}, budget_s, fewest=15, most=200)
    ratios = [mine / other for mine, other in zip(*samples.values(), strict=True)]
    return timing(samples["ours"]), timing(samples["theirs"]), digits(statistics.median(ratios))


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


def write(
    name: str,
    rows: list[dict[str, Any]],
    *,
    module: str | None = None,
    table: Callable[[dict[str, Any]], str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Writes benchmarks/results/<date>-<platform>-<name>.json, with the command, the machine and the versions.

    Args:
      name: in the file's name.
      rows: the measurements.
      module: of the command, where it is not called as the file is.
      table: makes of the record the Markdown that is written beside it.
      **more: stands in the record too.
    """
    today = datetime.date.today().isoformat()
    device = jax.devices()[0]
    record = {
        "command": f"python -m benchmarks.{module or name} {' '.join(sys.argv[1:])}",
        "name": name,
        "date": today,
        "platform": device.platform,
        "device": device.device_kind,
        "cpu": choices.device("cpu"),
        "cores": os.cpu_count(),
        "threads": threads(),
        "machine": platform.machine(),
        "versions": versions(),
        **more,
        "rows": rows,
    }
    path = RESULTS / f"{today}-{device.platform}-{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to benchmarks/results/{path.name}")
    if table:
        path.with_suffix(".md").write_text(table(record))
        print(f"written to benchmarks/results/{path.with_suffix('.md').name}")
    return record


def versions() -> dict[str, str]:
    """Of the packages that are compared, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def threads() -> dict[str, Any]:
    """What decides how many threads there are: usable cores (one of XLA's each), torch's count, the environment."""
    found: dict[str, Any] = {}
    if hasattr(os, "sched_getaffinity"):
        found["usable_cores"] = len(os.sched_getaffinity(0))
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found | {name: os.environ[name] for name in ("OMP_NUM_THREADS", "XLA_FLAGS") if name in os.environ}
