"""The command in a subprocess, and small configs for it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).parents[2]
# Most runs of these tests compile the same small programs; only the first of them has to.
COMPILED = tempfile.TemporaryDirectory(prefix="gru-jax-compiled-")

TINY = """\
schema: 1
name: tiny
seed: 3
task: {kind: digits, view: rows, batch: 128}
model: {kind: gru, hidden: 8}
optim: {kind: adam, lr: 1e-2, clip_norm: 1.0}
train: {epochs: 4, eval_every: 7 steps}
checkpoint: {every: 5 steps, keep: 3}
log: {every: 3}
"""
STEPS = 4 * (1266 // 128)


def environment(devices: int = 1, **extra: str) -> dict[str, str]:
    """The environment of a subprocess: CPU, so many virtual devices, Python warnings shown."""
    own = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(PACKAGE_ROOT),
        "COLUMNS": "120",
        "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {**os.environ, **own, **extra}


def command(*arguments: str | Path) -> list[str]:
    """`gru-jax ARGUMENTS` as a list for subprocess."""
    return [sys.executable, "-m", "gru_jax", *map(str, arguments)]


def gru_jax(*arguments: str | Path, cwd: Path, devices: int = 1, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `gru-jax ARGUMENTS` to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=240,
        **options,
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, times left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time_s"} for line in lines]


def result(run: Path) -> dict[str, Any]:
    """The content of result.json."""
    return json.loads((run / "result.json").read_text())


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
