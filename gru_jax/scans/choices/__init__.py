"""What "auto" in `select` goes by: which form was measured to be the fastest, on this device or one like it.

In this order: a `Tuned` in whose `with` block this is; what `gru-jax tune` kept for this device in the user's cache;
what ships for it, in `measured/`; and for a processor that nobody measured an estimate (`costs`). A shape is looked up
by the nearest one, and what a user measured counts only near it.
"""

import functools
import importlib.metadata
import platform
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from gru_jax.scans.choices.costs import estimated
from gru_jax.scans.choices.tuned import PLAIN as PLAIN
from gru_jax.scans.choices.tuned import Choice as Choice
from gru_jax.scans.choices.tuned import Fastest as Fastest
from gru_jax.scans.choices.tuned import Row as Row
from gru_jax.scans.choices.tuned import Sizes as Sizes
from gru_jax.scans.choices.tuned import Tuned as Tuned
from gru_jax.scans.choices.tuned import active
from gru_jax.scans.engines import cache, registry
from gru_jax.types import DType

WORTH_NEWTON = 2.0
"""How many times faster than the steps Newton's method has to have been, with fresh and with trained weights: how many
rounds it takes is known only when it runs."""

NEAR = 4.0
"""How far a shape may be from a measured one, a factor of 2 in one size being 1, for Newton's method to be taken, whose
gain grows from nothing to hundreds between short and long sequences, and for a user's few shapes to stand for it."""

MEASURED = Path(__file__).with_name("measured")
"""What ships, a file for each device."""


class Overtaking(NamedTuple):
    """Options of `Newton` where it was faster than one step after another."""

    jacobian: str
    kernel: str


def nearest(backend: str, sizes: Sizes, dtype: DType, cell: str = PLAIN) -> Fastest | None:
    """What was the fastest at the measured shape that differs by the smallest factors; None where nothing is known.

    Args:
      backend: that JAX will use.
      sizes: of the call.
      dtype: of its numbers.
      cell: the name of its equations.
    """
    if not sizes.known:
        return None
    name = np.dtype(dtype).name
    for tuned in _of_users(backend):
        found = tuned.nearest(sizes, cell, name)
        if found is not None and found[0] <= NEAR:
            return found[1]
    ships = shipped(device(backend), backend)
    found = None if ships is None else ships.nearest(sizes, cell, name)
    if found is not None:
        return found[1]
    # The kernels of a GPU or a TPU are taken where they were measured, and nowhere else.
    return estimated(sizes, registry.usable_cores()) if backend == "cpu" else None


def overtaking(backend: str, sizes: Sizes) -> Overtaking | None:
    """What overtakes the steps at the nearest measured shape; None where nothing does or nothing near was measured."""
    if not sizes.known:
        return None
    ships = shipped(device(backend), backend)
    for tuned in (*_of_users(backend), *([] if ships is None else [ships])):
        rows = {Sizes(row["T"], row["B"], row["H"]): row for row in tuned.newton}
        near = min(rows, key=sizes.apart, default=None)
        if near is not None and sizes.apart(near) <= NEAR:
            row = rows[near]
            faster = row["method"] == "newton" and row["gain"] >= WORTH_NEWTON
            return Overtaking(row["jacobian"], row["kernel"]) if faster else None
    return None


@functools.cache
def device(backend: str) -> str:
    """The name of the device that JAX computes on: of a CPU the processor's, as far as the system says."""
    if backend != "cpu":
        try:
            return str(jax.devices(backend)[0].device_kind)
        except RuntimeError:  # there is none here
            return backend
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def shipped(device: str, backend: str) -> Tuned | None:
    """What comes with this library for a device; None where it was not measured."""
    path = MEASURED / file_name(device, backend)
    return Tuned.load(path) if path.exists() else None


def of_user() -> Path | None:
    """Where what a user measures here is kept; None where nothing is to be.

    Versions are in the name: which form is the fastest is another thing in another version.
    """
    folder, backend = cache.folder(), jax.default_backend()
    name = file_name(f"{device(backend)} {registry.usable_cores()} cores {_version()} jax {jax.__version__}", backend)
    return None if folder is None else folder / "choices" / name


@functools.cache
def _version() -> str:
    return importlib.metadata.version("gru-jax")


def file_name(device: str, backend: str) -> str:
    """A device's name as a file's."""
    return f"{backend}-{re.sub('[^a-z0-9.]+', '-', device.lower()).strip('-')}.json"


@functools.cache
def kept(path: Path) -> Tuned | None:
    """What a user measured; None where there is nothing, with a warning where it is damaged."""
    try:
        return Tuned.load(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warnings.warn(f"gru_jax: the choices of this machine cannot be read, others are taken: {error}", stacklevel=2)
        return None


def _of_users(backend: str) -> Iterator[Tuned]:
    """What users measured of this device, what counts most first."""
    yield from (tuned for tuned in active() if tuned.backend == backend)
    try:
        path = of_user() if backend == jax.default_backend() else None
    except RuntimeError:  # nothing says what the user's home is
        path = None
    if path is not None and (found := kept(path)) is not None:
        yield found
