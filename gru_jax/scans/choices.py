"""What was measured to be the fastest, by backend and shape: ways to take one step after another, and Newton's method.

`python -m benchmarks.choices --write` measures the former on this machine and `python -m benchmarks.crossover --write`
the latter; both write `choices.json`.
"""

import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gru_jax.types import DType


class Sizes(NamedTuple):
    """Of one call: T steps, B sequences, H units; a size may be symbolic under `jax.export`."""

    T: Any
    B: Any
    H: Any


class Choice(NamedTuple):
    """Options of `Sequential`."""

    kernel: str
    keep: str
    chunk: int
    cores: int = 1


class Fastest(NamedTuple):
    """What was the fastest at one shape.

    Attributes:
      training: of a training step.
      forward: of a forward pass alone, where that was looked at.
      xla: as `training`, of what XLA compiles by itself, for what the fastest kernel does not serve; None for the same.
      xla_forward: as `forward`, likewise.
    """

    training: Choice
    forward: Choice | None
    xla: Choice | None = None
    xla_forward: Choice | None = None


class Overtaking(NamedTuple):
    """Options of `Newton` where it was faster than one step after another."""

    jacobian: str
    kernel: str


WORTH_NEWTON = 2.0
"""How many times faster than the steps Newton's method has to have been, with fresh and with trained weights: how many
rounds it takes is known only when it runs."""

NEAR = 4.0
"""How far a shape may be from a measured one for Newton's method to be taken, a factor of 2 in one size being 1: its
gain grows from nothing to hundreds between short and long sequences."""

FILE = Path(__file__).with_name("choices.json")


@functools.cache
def table(backend: str, dtype: str) -> dict[Sizes, Fastest]:
    """The fastest of what was measured, for each shape; in float32 where nothing was in this dtype, else empty."""
    rows = json.loads(FILE.read_text())["backends"].get(backend, [])
    of_dtype = [row for row in rows if row.get("dtype", "float32") == dtype]
    of_dtype = of_dtype or [row for row in rows if row.get("dtype", "float32") == "float32"]
    return {Sizes(row["T"], row["B"], row["H"]): _read(row) for row in of_dtype}


def _read(row: dict[str, Any]) -> Fastest:
    options = {name: row[name] for name in Choice._fields if name in row}
    others = (Choice(**row[name]) if name in row else None for name in ("forward", "xla", "xla_forward"))
    return Fastest(Choice(**options), *others)


def nearest(backend: str, sizes: Sizes, dtype: DType) -> Fastest | None:
    """What was the fastest at the measured shape that differs by the smallest factors; None where nothing was."""
    known = table(backend, np.dtype(dtype).name)
    return known[min(known, key=lambda other: _distance(sizes, other))] if known and _are_known(sizes) else None


@functools.cache
def newton(backend: str) -> dict[Sizes, Overtaking | None]:
    """What overtook the steps, for each shape at which both were measured; None where nothing did by enough."""
    rows = json.loads(FILE.read_text()).get("newton", {}).get(backend, [])
    return {
        Sizes(row["T"], row["B"], row["H"]): Overtaking(row["jacobian"], row["kernel"])
        if row["method"] == "newton" and row["gain"] >= WORTH_NEWTON
        else None
        for row in rows
    }


def overtaking(backend: str, sizes: Sizes) -> Overtaking | None:
    """What overtakes the steps at the nearest measured shape; None where nothing does or nothing near was measured."""
    known = newton(backend)
    if not known or not _are_known(sizes):
        return None
    nearest = min(known, key=lambda other: _distance(sizes, other))
    return known[nearest] if _distance(sizes, nearest) <= NEAR else None


def _are_known(sizes: Sizes) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _distance(sizes: Sizes, other: Sizes) -> float:
    return sum(math.log2(max(a, 1) / b) ** 2 for a, b in zip(sizes, other, strict=True))
