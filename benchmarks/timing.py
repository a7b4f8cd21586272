"""What the benchmarks share: candidates timed in turn in one process, and results written with where they come from."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "llvmlite", "torch", "keras", "equinox", "onnxruntime")

SAMPLE_S = 2e-3
"""Shorter calls are repeated until one sample takes this long: a clock and a scheduler have their own noise."""
SETTLED_S = 20e-3
"""Before each sample a candidate runs for so long without being counted: threads of the one before go on waiting for
more work for a while, on cores that the next one wants, and cores that were idle take time to wake up."""


class Timing(NamedTuple):
    """Milliseconds of a call: the median, the interquartile range, and the number of samples."""

    ms: float
    spread_ms: float
    rounds: int


def interleaved(
    steps: dict[str, Callable[[], Any]], budget_s: float, fewest: int = 5, most: int = 200
) -> dict[str, Timing]:
    """Times of each, from rounds in which all take their turn, in another order every round.

    Args:
      steps: what is to be timed, each called before.
      budget_s: seconds after which no new round begins, once there are `fewest`.
      fewest: rounds that are run in any case.
      most: rounds after which it is enough.
    """
    samples = _sampled(steps, budget_s, fewest, most)
    return {name: _timing(each) for name, each in samples.items()}


def side_by_side(
    ours: Callable[[], Any], theirs: Callable[[], Any], budget_s: float
) -> tuple[Timing, Timing, float]:
    """Times of both, and how many times as long as theirs ours take, the median over rounds.

    What changes with the hour, as a machine's clock does, then changes both sides of each ratio.
    """
    samples = _sampled({"ours": ours, "theirs": theirs}, budget_s, fewest=15, most=200)
    ratios = [mine / other for mine, other in zip(*samples.values(), strict=True)]
    return _timing(samples["ours"]), _timing(samples["theirs"]), _digits(statistics.median(ratios))


def _sampled(
    steps: dict[str, Callable[[], Any]], budget_s: float, fewest: int, most: int
) -> dict[str, list[float]]:
    once = {name: min(_seconds(step, 1) for _ in range(2)) for name, step in steps.items()}
    repeats = {name: max(1, math.ceil(SAMPLE_S / max(took, 1e-7))) for name, took in once.items()}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    # Shuffled, not rotated: in a rotation everyone keeps its place behind the same one.
    order, shuffled = list(steps), random.Random(0)
    start, rounds = time.perf_counter(), 0
    while rounds < fewest or (rounds < most and time.perf_counter() - start < budget_s):
        shuffled.shuffle(order)
        for name in order:
            _settle(steps[name])
            samples[name].append(1e3 * _seconds(steps[name], repeats[name]))
        rounds += 1
    return samples


def _timing(samples: list[float]) -> Timing:
    return Timing(*map(_digits, _median_and_spread(samples)), len(samples))


def _settle(step: Callable[[], Any]) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < SETTLED_S:
        jax.block_until_ready(step())


def _seconds(step: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(step())
    return (time.perf_counter() - start) / repeats


def _median_and_spread(samples: list[float]) -> tuple[float, float]:
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return middle, high - low


def _digits(number: float) -> float:
    return float(f"{number:.4g}")


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
        "cpu": cpu(),
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


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def threads() -> dict[str, Any]:
    """What decides how many threads there are: usable cores (one of XLA's each), torch's count, the environment."""
    found: dict[str, Any] = {}
    if hasattr(os, "sched_getaffinity"):
        found["usable_cores"] = len(os.sched_getaffinity(0))
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found | {name: os.environ[name] for name in ("OMP_NUM_THREADS", "XLA_FLAGS") if name in os.environ}
