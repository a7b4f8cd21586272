"""One measurement of `benchmarks.parallel`, in a process of its own: what an earlier one left behind is in no number.

    python -m benchmarks.alone '{"measure": "run", "cell": "GRU", "T": 1024, "B": 1, "H": 8, "method": "newton dense"}'

prints the same object with the numbers added.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import gru_jax as gj
from benchmarks import timing
from gru_jax.scans.diagnosis import lyapunov

FEATURES = 8
MIB = 2**20
PATIENCE = 4.0
"""About how many seconds may go into timing one function; a slower one is timed once."""


def method(name: str) -> Any:
    """`newton diagonal`, `associative chunked`, ... as an object."""
    kind, _, option = name.partition(" ")
    return {"sequential": gj.Sequential, "newton": gj.Newton, "associative": gj.Associative}[kind](
        *([option] if option else [])
    )


def inputs(cell: str, T: int, B: int, H: int) -> tuple[Any, Any, Any]:
    """The cell, its parameters and x `[B, T, 8]`."""
    made = gj.MinGRU(H) if cell == "MinGRU" else gj.GRU(H, init="torch")
    x = jax.random.normal(jax.random.key(1), (B, T, FEATURES))
    return made, made.init(jax.random.key(0), FEATURES), x


def outputs(cell: Any, method: Any) -> Callable[..., Any]:
    """A run of the cell by a method, `(params, x) -> (y, stats)`."""

    def run(params: Any, x: Any) -> Any:
        y, _, stats = gj.scan(cell, params, x, method=method, stats=True)
        return y, stats

    return run


def training_step(cell: Any, method: Any) -> Callable[..., Any]:
    """Value and gradient of a loss, `(params, x) -> ...`."""

    def loss(params: Any, x: Any) -> Any:
        return (outputs(cell, method)(params, x)[0] ** 2).sum()

    return jax.value_and_grad(loss, (0, 1))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds to compile, milliseconds, rounds and memory of one method at one shape."""
    name, rounds = job["method"], job["rounds"]
    cell, params, x = inputs(job["cell"], job["T"], job["B"], job["H"])
    row: dict[str, Any] = {}
    compiled = {}
    for kind, function in {
        "forward": outputs(cell, method(name)),
        "training": training_step(cell, method(name)),
    }.items():
        start = time.perf_counter()
        compiled[kind] = jax.jit(function).lower(params, x).compile()
        row[f"{kind}_compile_s"] = round(time.perf_counter() - start, 2)
    analysis = compiled["training"].memory_analysis()
    row["temporary_MiB"] = None if analysis is None else round(analysis.temp_size_in_bytes / MIB, 2)

    # The training step goes first: a peak can only be read off as long as nothing has been higher.
    jax.block_until_ready((params, x))
    peak = start_of_peak()
    first = {"training": seconds(lambda: compiled["training"](params, x))}
    row["peak_MiB"] = peak()
    first["forward"] = seconds(lambda: compiled["forward"](params, x))
    peers = {"forward": jax.jit(outputs(cell, "sequential")), "training": jax.jit(training_step(cell, "sequential"))}
    for kind, took in first.items():
        steps = {"ours": lambda kind=kind: compiled[kind](params, x)}
        if name != "sequential":
            # Machines are noisy: a ratio is of runs that took turns.
            steps["sequential"] = lambda kind=kind: peers[kind](params, x)
            jax.block_until_ready(steps["sequential"]())
        times = max(1, min(rounds, int(PATIENCE / max(took, 1e-6))))
        ms = timing.medians(steps, times, warmups=2 if times > 1 else 0)
        row[f"{kind}_ms"] = ms["ours"]
        row[f"{kind}_of_sequential"] = round(ms["ours"] / ms.get("sequential", ms["ours"]), 2)

    y, stats = compiled["forward"](params, x)
    row |= {
        "rounds_taken": int(stats.iterations.max()),
        "converged": bool(stats.converged.all()),
        "fell_back": bool(stats.fell_back.any()),
    }
    if name != "sequential":
        expected, _ = peers["forward"](params, x)
        row["largest_difference"] = float(jnp.abs(y - expected).max())
        assert row["largest_difference"] < 1e-4, f"{name}: off by {row['largest_difference']}"
    return job | row


def compiled_memory(job: dict[str, Any]) -> dict[str, Any]:
    """What the compiled training step would allocate, without running it; `method`, `T`, `B` and `H` are given."""
    shapes = jax.eval_shape(lambda: inputs("GRU", job["T"], job["B"], job["H"])[1:])
    step = training_step(gj.GRU(job["H"], init="torch"), method(job["method"]))
    analysis = jax.jit(step).lower(*shapes).compile().memory_analysis()
    return job | {"temporary_MiB": None if analysis is None else round(analysis.temp_size_in_bytes / MIB, 2)}


def scales(job: dict[str, Any]) -> dict[str, Any]:
    """Rounds, whether they were enough, and the Lyapunov exponent, with all parameters times `scales`."""
    cell, params, x = inputs("GRU", job["T"], job["B"], job["H"])
    start = cell.initial_state((job["B"],), x.dtype)
    kinds = {kind: jax.jit(outputs(cell, gj.Newton(kind))) for kind in ("dense", "diagonal")}
    rows = []
    for scale in job["scales"]:
        scaled = jax.tree.map(lambda p, s=scale: p * s, params)
        exponents = lyapunov(cell, scaled, jnp.moveaxis(x, 1, 0), start)
        row = {"scale": scale, "lyapunov": round(float(exponents.mean()), 4)}
        for kind, solve in kinds.items():
            _, stats = solve(scaled, x)
            row[kind] = {
                "rounds": int(stats.iterations.max()),
                "converged": int(stats.converged.sum()),
                "fell_back": int(stats.fell_back.sum()),
            }
        rows.append(row)
    return job | {"rows": rows}


def seconds(function: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def start_of_peak() -> Callable[[], float | None]:
    """A function that says how many MiB more than now have been in use since; None where the system does not tell.

    On an accelerator the device's own count, elsewhere the process's resident memory, as Linux counts it.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        known = device.memory_stats() or {}
        now = known.get("bytes_in_use")
        return lambda: None if now is None else round(((device.memory_stats())["peak_bytes_in_use"] - now) / MIB, 1)
    try:
        # What the compiler has freed would be used again, and not be seen.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before = resident("VmRSS")
    except (OSError, AttributeError, LookupError):
        return lambda: None
    return lambda: round(resident("VmHWM") - before, 1)


def resident(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


MEASURES = {"run": run, "compiled_memory": compiled_memory, "scales": scales}


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    print(json.dumps(MEASURES[job["measure"]](job) | {"backend": jax.default_backend()}))
