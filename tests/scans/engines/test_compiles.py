"""The kernels compile to machine code for their devices, where JAX's plugin for the device is installed."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PLUGINS = {"cuda": ("jax_cuda13_plugin", "jax_cuda12_plugin"), "tpu": ("libtpu",)}
NAMES = (
    "gru", "wide gru", "heads", "diagonal", "minGRU", "long minGRU", "Newton",
    "split gru", "split wide gru", "split minGRU",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLUGINS)
def test_training_steps_compile(platform):
    if not any(find_spec(plugin) for plugin in PLUGINS[platform]):
        pytest.skip(f"none of {', '.join(PLUGINS[platform])} is installed")
    command = [sys.executable, Path(__file__).with_name("deviceless.py"), platform, *NAMES]
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    kernels = dict(re.findall(r"^(.+): (\d+) kernels$", done.stdout, re.M))
    # One forwards and one backwards at least; XLA's autotuner does not touch them.
    assert set(kernels) == set(NAMES) and all(int(n) >= 2 for n in kernels.values()), done.stdout
