"""Cells whose step machine code takes, and their parameters as it takes them."""

from typing import Any

import jax
import numpy as np

from gru_jax.cells.base import gifts
from gru_jax.cells.minimal import MinGRU, MinLSTM
from gru_jax.scans.engines.llvm import cells
from gru_jax.scans.engines.llvm.step.minimal import LinearCell
from gru_jax.scans.engines.llvm.step.net import Cell
from gru_jax.types import Params

LARGEST_OF_HEADS = 2**21
"""Bytes of a recurrent matrix that is filled up with zeros, at most."""


def of(cell: Any, params: Params, features: int | None) -> tuple[Cell, tuple[np.ndarray, ...]] | str:
    """A cell as a part of a network, and its parameters: w_x `[I, G H]`, w_h `[H, G H]`, b_u `[G H]` and b_q `[H]`.

    Args:
      cell: anything.
      params: its parameters, NumPy arrays.
      features: I, where something else than the parameters says it.

    Returns:
      Both, or what it is that no step is known of, as the end of a sentence.

    Raises:
      TypeError, ValueError: for parameters that are not the cell's.
    """
    if type(cell) in (MinGRU, MinLSTM):
        cell.check_params(params, len(getattr(params, "w_x", ())) if features is None else features)
        b_u, b_q = _biases(params.b_x, None, params.w_x.shape[1], cell.hidden_size)
        part = Cell(0, LinearCell(cell.parts, cell.form == "log"), len(params.w_x), cell.hidden_size)
        return part, (params.w_x, np.zeros((cell.hidden_size, 0), np.float32), b_u, b_q)
    if not gifts(cell).equations:
        return f"{type(cell).__name__} (whose equations it does not know)"
    if (unknown := cells.refusal(cell.equations)) is not None:
        return unknown
    heads = cell.hidden_size // (gifts(cell).block_size or cell.hidden_size)
    # Zeros that stay in a core's cache are read faster than anything else could take the step.
    if heads > 1 and 4 * cell.hidden_size * 3 * cell.hidden_size > LARGEST_OF_HEADS:
        return f"heads={heads} of {cell.hidden_size} units (whose matrix would be mostly zeros)"
    try:
        dense: Any = jax.tree.map(np.asarray, cell.dense(params))
    except (AttributeError, LookupError, TypeError, ValueError):
        # Its check says in plain words what is wrong.
        cell.check_params(params, len(getattr(params, "w_x", (0,))))
        raise
    cell.check_params(params, dense.w_x.shape[0] if features is None else features)
    known, w_h = cells.described(cell.equations), dense.w_h
    biases = _biases(dense.b_x, dense.b_h, known.gates * len(w_h), len(w_h))
    return Cell(0, known, dense.w_x.shape[0], len(w_h)), (dense.w_x, w_h, *biases)


def _biases(
    b_x: np.ndarray | None, b_h: np.ndarray | None, width: int, units: int
) -> tuple[np.ndarray, np.ndarray]:
    """What is added to the projected input, and to the candidate's product."""
    b_u = np.zeros(width, np.float32) if b_x is None else b_x.copy()
    if b_h is None:
        return b_u, np.zeros(units, np.float32)
    others = len(b_h) - units
    b_u[:others] += b_h[:others]
    return b_u, b_h[others:]
