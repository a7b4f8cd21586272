"""The command, in this process and in one of its own, and small configs for it."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from gru_jax.cli import main

PACKAGE_ROOT = Path(__file__).parents[2]

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
DEVICES = 8
"""As in the tests' own process: by how many there are, other kernels are chosen, with other last digits."""
# For what is going to be killed: only what takes 11 days to compile is written, so that no half is left in the cache.
ONLY_READS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e6"}


def environment(devices: int = DEVICES, **extra: str) -> dict[str, str]:
    """The environment of a subprocess: CPU, so many virtual devices, Python warnings shown."""
    own = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(PACKAGE_ROOT),
        "COLUMNS": "120",
    }
    return {**os.environ, **own, **extra}


def command(*arguments: str | Path) -> list[str]:
    """`gru-jax ARGUMENTS` as a list for subprocess."""
    return [sys.executable, "-m", "gru_jax", *map(str, arguments)]


def gru_jax(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs `gru-jax ARGUMENTS` to its end in this process, which has eight devices: enough for messages and most runs.

    A process of its own (`process`) costs 1 to 6 seconds more: it is for signals, for the environment, for other
    numbers of devices, and for what must not be imported yet.
    """
    words, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, COLUMNS="120"),
        mock.patch.object(sys, "argv", ["gru-jax", *words]),
    ):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def process(
    *arguments: str | Path, cwd: Path, devices: int = DEVICES, before: str = "", text: bool = True, **extra: str
) -> subprocess.CompletedProcess[Any]:
    """The same in a process of its own, after the Python code `before`, with variables of the environment."""
    script = f"import sys\n{before}\nfrom gru_jax.cli import main\nsys.exit(main(sys.argv[1:]))"
    start = [sys.executable, "-c", script, *map(str, arguments)] if before else command(*arguments)
    environ = environment(devices, **extra)
    return subprocess.run(start, cwd=cwd, env=environ, capture_output=True, text=text, timeout=240)


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
