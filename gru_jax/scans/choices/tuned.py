"""What was measured on one device: which form of a scan was the fastest, by cell, dtype and shape."""

import contextvars
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gru_jax import files
from gru_jax.scans.engines import registry
from gru_jax.types import Plain

PLAIN = "gru"
"""The cell whose rows stand for one of which there are none."""
FULL = "float32"
"""The dtype whose rows do."""


class Sizes(NamedTuple):
    """Of one call: T steps, B sequences, H units; a size may be symbolic under `jax.export`."""

    T: Any
    B: Any
    H: Any

    @property
    def known(self) -> bool:
        """Whether all are numbers."""
        return all(isinstance(size, int) for size in self)

    def apart(self, other: "Sizes") -> float:
        """How far two are apart, a factor of 2 in one size being 1."""
        return sum(math.log2(max(a, 1) / max(b, 1)) ** 2 for a, b in zip(self, other, strict=True))


class Choice(NamedTuple):
    """Options of `Sequential`."""

    kernel: str
    keep: str
    chunk: int
    cores: int = 1

    def __str__(self) -> str:
        cores = f" {self.cores} cores" if self.cores > 1 else ""
        return f"{self.kernel} {self.keep} {self.chunk}{cores}"


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


class Row(NamedTuple):
    """What was measured of one cell at one shape.

    Attributes:
      sizes: the shape.
      fastest: what came out.
      cell: the name of its equations.
      dtype: of all numbers.
      ms: milliseconds of a training step by each form, in the words of `Choice`.
      forward_ms: of a forward pass.
    """

    sizes: Sizes
    fastest: Fastest
    cell: str = PLAIN
    dtype: str = FULL
    ms: dict[str, float] | None = None
    forward_ms: dict[str, float] | None = None

    @property
    def key(self) -> tuple[str, str, Sizes]:
        """What a second measurement of the same replaces it by."""
        return self.cell, self.dtype, self.sizes

    def as_json(self) -> dict[str, Plain]:
        """As it stands in a file."""
        found: dict[str, Plain] = {**self.sizes._asdict(), "cell": self.cell, "dtype": self.dtype}
        found |= self.fastest.training._asdict()
        others = {name: getattr(self.fastest, name) for name in Fastest._fields[1:]}
        found |= {name: choice._asdict() for name, choice in others.items() if choice is not None}
        return found | {name: times for name in ("ms", "forward_ms") if (times := getattr(self, name)) is not None}

    @classmethod
    def of_json(cls, row: dict[str, Plain]) -> "Row":
        """The inverse."""
        training = Choice(**{name: row[name] for name in Choice._fields if name in row})
        others = (Choice(**row[name]) if name in row else None for name in Fastest._fields[1:])
        sizes = Sizes(*(int(row[name]) for name in Sizes._fields))
        cell, dtype = row.get("cell", PLAIN), row.get("dtype", FULL)
        return cls(sizes, Fastest(training, *others), cell, dtype, row.get("ms"), row.get("forward_ms"))


_ACTIVE: contextvars.ContextVar[tuple["Tuned", ...]] = contextvars.ContextVar("tuned", default=())


def active() -> Iterator["Tuned"]:
    """Those in whose `with` block this is, the innermost first."""
    return reversed(_ACTIVE.get())


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What `tune` measured on one device, which "auto" of a scan's method goes by.

    In a `with` block it stands above what was measured of this device before. It is read where a scan is traced: a
    function that `jit` has compiled already stays as it is.

    Args:
      device: the name of the processor or accelerator.
      backend: "cpu", "gpu" or "tpu".
      rows: what was the fastest, for each cell, dtype and shape.
      about: when, by which versions, on how many cores.
      newton: for which shapes Newton's method was how many times faster than the steps.

    Example:
      >>> import tempfile, pathlib
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> tuned = gj.Tuned("a processor", "cpu")  # without a row; gj.tune makes them
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     tuned.save(pathlib.Path(folder) / "mine.json")
      ...     again = gj.Tuned.load(pathlib.Path(folder) / "mine.json")
      >>> again == tuned
      True
      >>> cell = gj.GRU(4)
      >>> with tuned:
      ...     y, h = gj.scan(cell, cell.init(jax.random.key(0), 3), jnp.ones((2, 8, 3)))
    """

    device: str
    backend: str
    rows: tuple[Row, ...] = ()
    about: dict[str, Plain] = dataclasses.field(default_factory=dict)
    newton: tuple[dict[str, Plain], ...] = ()

    def __hash__(self) -> int:
        return hash((self.device, self.backend, tuple(row.key for row in self.rows)))

    def __enter__(self) -> "Tuned":
        _ACTIVE.set((*_ACTIVE.get(), self))
        return self

    def __exit__(self, *error: object) -> None:
        _ACTIVE.set(_ACTIVE.get()[:-1])

    def nearest(self, sizes: Sizes, cell: str, dtype: str) -> tuple[float, Fastest] | None:
        """What was the fastest at the shape that is least apart, and how far; a plain GRU stands for unknown cells."""
        rows: Iterable[Row] = self.rows
        for name, wanted, instead in (("cell", cell, PLAIN), ("dtype", dtype, FULL)):
            rows = [row for row in rows if getattr(row, name) == wanted] or [
                row for row in rows if getattr(row, name) == instead
            ]
        found = min(rows, key=lambda row: sizes.apart(row.sizes), default=None)
        return None if found is None else (sizes.apart(found.sizes), found.fastest)

    def updated(self, other: "Tuned") -> "Tuned":
        """With what another has measured later of the same device."""
        rows = {row.key: row for row in (*self.rows, *other.rows)}
        return dataclasses.replace(other, rows=tuple(rows.values()), newton=other.newton or self.newton)

    def save(self, path: str | Path) -> None:
        """Writes a file, a line a row, which `load` reads."""
        record: dict[str, Plain] = {"device": self.device, "backend": self.backend, "about": self.about}
        record |= {"rows": [row.as_json() for row in self.rows], "newton": list(self.newton)}
        # Rows are compared by eyes.
        text = re.sub(r"\n {3,}", " ", json.dumps(record, indent=1)).replace("\n  }", " }")
        files.replace(Path(path), (text + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> "Tuned":
        """Reads what `save` wrote.

        Raises:
          OSError: where there is no such file.
          ValueError: where it is not what `save` writes, with its name.
        """
        try:
            record = json.loads(Path(path).read_text())
            rows = tuple(Row.of_json(row) for row in record["rows"])
            about, newton = dict(record["about"]), tuple(record["newton"])
            found = cls(str(record["device"]), str(record["backend"]), rows, about, newton)
            _check(found)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"Tuned.load: {path} is not what Tuned.save writes ({type(error).__name__}: {error}); measure again:"
                f" gru-jax tune"
            ) from error
        return found


def _check(tuned: Tuned) -> None:
    """Raises where a choice is none of `Sequential`'s."""
    choices = [choice for row in tuned.rows for choice in row.fastest if choice is not None]
    for kernel, keep, *numbers in choices:
        whole = all(isinstance(number, int) and number >= 1 for number in numbers)
        if kernel not in registry.STEPPING or keep not in ("states", "gates") or not whole:
            raise ValueError(f"no form of Sequential: {kernel} {keep} {numbers}")
