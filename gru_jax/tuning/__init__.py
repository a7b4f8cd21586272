"""Which form of a scan is the fastest on the machine at hand: measured in a minute or two, and kept for "auto"."""

import datetime
import time
from collections.abc import Callable, Iterable, Sequence

import jax
import jaxlib

from gru_jax import checks, files
from gru_jax.cells import GRU
from gru_jax.cells.base import Cell, gifts
from gru_jax.scans import choices
from gru_jax.scans.choices import Row, Tuned
from gru_jax.scans.engines import registry
from gru_jax.tuning.measure import AGREES, Shape, measured

USUAL = (
    Shape(100, 32, 64, 64), Shape(100, 1, 64, 64), Shape(1000, 1, 64, 128), Shape(1000, 8, 32, 64),
    Shape(200, 32, 128, 128), Shape(200, 8, 256, 256), Shape(20, 1, 128, 128), Shape(20, 32, 64, 64),
    Shape(1000, 32, 64, 64), Shape(50, 32, 512, 512), Shape(1000, 1, 32, 32), Shape(200, 1, 512, 512),
)  # fmt: skip
"""Shapes that stand for most others, the most usual first: what comes last is what may be left for want of time."""
SECONDS = 90.0


def tune(
    cell: Callable[[int], Cell] = GRU,
    shapes: Iterable[Sequence[int]] = USUAL,
    *,
    dtype: str = "float32",
    seconds: float = SECONDS,
    keep: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Tuned:
    """Measures which form of one step after another is the fastest on this machine, for method "auto" to take.

    A form is an engine with what it keeps for the backward pass, and on how many cores. Each is compared with the plain
    loop first, outputs and gradients; what does not run here, or does not agree, is left out. Then all take turns, in
    a training step and in a forward pass. "auto" takes the result from then on, in this process and in later ones,
    where a shape is near one of these; functions that `jit` has compiled already stay as they are. What the machine
    does at the same time is measured with it: tune it as busy as it will be.

    Args:
      cell: makes a cell of H units, such as `gj.GRU` or `lambda H: gj.GRU(H, reset="before")`. A plain GRU's choices
        stand for cells that were not measured.
      shapes: T, B, I, H of each.
      dtype: of all numbers.
      seconds: after which no new shape is begun; compiling takes its part of it.
      keep: whether the result goes into the user's cache, `GRU_JAX_CACHE`, beside what was kept before.
      tell: what is called with a line for each shape; nothing is said when None.

    Returns:
      What was measured: a value that can be saved, and made to count in a `with` block.

    Raises:
      TypeError, ValueError: for arguments of the wrong type or value, and where the plain loop does not run.
      OSError: where the cache cannot be written.

    Example:
      >>> import gru_jax as gj
      >>> tuned = gj.tune(gj.MGU, shapes=[(8, 2, 3, 4)], seconds=0.1, keep=False)
      >>> [row.cell for row in tuned.rows]
      ['mgu']
    """
    wanted = [_shape(each) for each in shapes]
    checks.choice("tune", "dtype", dtype, tuple(AGREES))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ValueError(f"tune: seconds must be a number above 0; got {checks.described(seconds)}")
    if not wanted:
        raise ValueError("tune: shapes must hold at least one (T, B, I, H); got none")
    rows: list[Row] = []
    begin = time.monotonic()
    for number, shape in enumerate(wanted):
        if rows and time.monotonic() - begin > seconds:
            left = ", ".join(map(str, wanted[number:]))
            _say(tell, f"not measured for want of time, {len(wanted) - number} of {len(wanted)} shapes: {left}")
            break
        made = cell(shape.H)
        if gifts(made).affine:
            name = type(made).__name__
            raise ValueError(
                f"tune: {name} is linear in its state and runs over all of time at once: there is no form of one step"
                f" after another to choose; got cell={name}; leave it out"
            )
        row, left_out = measured(made, shape, dtype, seconds / len(wanted) / 3)
        rows.append(row)
        times = "  ".join(f"{name} {ms:.4g}" for name, ms in (row.ms or {}).items())
        _say(tell, f"{shape!s:>16}  {row.fastest.training!s:<22}{times} ms")
        for each in left_out:
            _say(tell, f"{shape!s:>16}  left out: {each}")
    backend = jax.default_backend()
    versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__}
    about = {"date": datetime.date.today().isoformat(), "cores": registry.usable_cores(), "versions": versions}
    found = Tuned(choices.device(backend), backend, tuple(rows), about)
    if keep:
        _say(tell, _kept(found))
    return found


def _shape(given: object) -> Shape:
    sizes = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if len(sizes) != 4 or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise ValueError(
            f"tune: each of shapes must be four whole numbers T, B, I, H from 1, such as (100, 32, 64, 64); got"
            f" {given!r}"
        )
    return Shape(*sizes)


def _say(tell: Callable[[str], None] | None, line: str) -> None:
    if tell is not None:
        tell(line)


def _kept(found: Tuned) -> str:
    """Writes it beside what was kept before; says where."""
    path = choices.of_user()
    if path is None:
        return "not kept: GRU_JAX_CACHE=off"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Two processes that tune at a time both add to the file.
    with open(path.with_suffix(".lock"), "wb") as lock:
        files.lock(lock, wait=True)
        choices.kept.cache_clear()
        before = choices.kept(path)
        (found if before is None else before.updated(found)).save(path)
    choices.kept.cache_clear()
    return f"kept in {path}"
