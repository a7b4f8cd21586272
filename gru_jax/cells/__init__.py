"""Cells: what one step computes. Pure functions of (params, projected input, state); no time, no batching."""

from gru_jax.cells.base import Cell as Cell
from gru_jax.cells.base import Gates as Gates
from gru_jax.cells.gru import GRU as GRU
from gru_jax.cells.gru_params import GRUParams as GRUParams
from gru_jax.cells.initializers import Initializers as Initializers
from gru_jax.cells.initializers import per_gate as per_gate

__all__ = ["GRU", "Cell", "GRUParams", "Gates", "Initializers", "per_gate"]
