"""What a run ran on: versions, devices, git commit, command line."""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax

_PACKAGES = (
    "gru-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scikit-learn",
)


def environment(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """JSON values for `env.json`.

    Args:
        devices: those that the run uses.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device_kind": devices[0].device_kind,
        "device_platform": devices[0].platform,
        "devices": len(devices),
        "processes": jax.process_count(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "argv": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says about the current directory; None without git or a repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
