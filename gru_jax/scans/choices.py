"""What was measured to be the fastest way to take one step after another, by backend and shape.

`python -m benchmarks.choices --write` measures the candidates on this machine and writes `choices.json`.
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


FILE = Path(__file__).with_name("choices.json")


@functools.cache
def table(backend: str, dtype: str) -> dict[Sizes, Choice]:
    """The fastest of what was measured, for each shape; in float32 where nothing was in this dtype, else empty."""
    rows = json.loads(FILE.read_text())["backends"].get(backend, [])
    of_dtype = [row for row in rows if row.get("dtype", "float32") == dtype]
    of_dtype = of_dtype or [row for row in rows if row.get("dtype", "float32") == "float32"]
    return {Sizes(row["T"], row["B"], row["H"]): Choice(row["kernel"], row["keep"], row["chunk"]) for row in of_dtype}


def nearest(backend: str, sizes: Sizes, dtype: DType) -> Choice | None:
    """The choice at the measured shape that differs by the smallest factors; None where nothing was measured."""
    known = table(backend, np.dtype(dtype).name)
    if not known or not all(isinstance(size, int) for size in sizes):
        return None

    def distance(other: Sizes) -> float:
        return sum(math.log2(max(a, 1) / b) ** 2 for a, b in zip(sizes, other, strict=True))

    return known[min(known, key=distance)]
