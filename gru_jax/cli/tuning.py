"""What `gru-jax tune` does."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gru_jax.cells import GRU, MGU, Cell
from gru_jax.cli.arguments import CELLS
from gru_jax.models import LSTM, TanhRNN
from gru_jax.scans.choices import Tuned
from gru_jax.tuning import USUAL, tune

_MAKERS: tuple[Callable[[int], Cell], ...] = (GRU, functools.partial(GRU, reset="before"), MGU, LSTM, TanhRNN)
_CELLS = dict(zip(CELLS, _MAKERS, strict=True))


def tuned(
    cells: Iterable[str], shapes: Iterable[Sequence[int]] | None, dtype: str, seconds: float, out: Path | None
) -> None:
    """Measures, prints a line a shape, and keeps the result.

    Args:
      cells: their names.
      shapes: T, B, I, H of each; the usual ones when None.
      dtype: of all numbers.
      seconds: for all cells together.
      out: a file, in place of the user's cache.
    """
    names = list(dict.fromkeys(cells))
    found: Tuned | None = None
    for name in names:
        print(f"{name}, {dtype}: T,B,I,H, the fastest training step, and the time of each form", flush=True)
        share = seconds / len(names)
        say = functools.partial(print, flush=True)
        one = tune(_CELLS[name], shapes or USUAL, dtype=dtype, seconds=share, keep=out is None, tell=say)
        found = one if found is None else found.updated(one)
    if out is not None and found is not None:
        found.save(out)
        print(f"written to {out}")
