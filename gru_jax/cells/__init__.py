"""Cells: what one step computes. Pure functions of (params, projected input, state); no time, no batching."""

from gru_jax.cells.base import Cell as Cell
from gru_jax.cells.base import Gates as Gates
from gru_jax.cells.dreamer import DreamerGRU as DreamerGRU
from gru_jax.cells.dreamer_params import DreamerGRUParams as DreamerGRUParams
from gru_jax.cells.dreamer_params import DreamerLinear as DreamerLinear
from gru_jax.cells.gru import GRU as GRU
from gru_jax.cells.gru_params import GRUParams as GRUParams
from gru_jax.cells.grud import GRUD as GRUD
from gru_jax.cells.grud import GRUDParams as GRUDParams
from gru_jax.cells.initializers import Initializers as Initializers
from gru_jax.cells.initializers import per_gate as per_gate
from gru_jax.cells.mgu import MGU as MGU
from gru_jax.cells.mgu import MGUParams as MGUParams
from gru_jax.cells.minimal import MinGRU as MinGRU
from gru_jax.cells.minimal import MinLSTM as MinLSTM
from gru_jax.cells.minimal import MinParams as MinParams

__all__ = [
    "GRU",
    "GRUD",
    "MGU",
    "Cell",
    "DreamerGRU",
    "DreamerGRUParams",
    "DreamerLinear",
    "GRUDParams",
    "GRUParams",
    "Gates",
    "Initializers",
    "MGUParams",
    "MinGRU",
    "MinLSTM",
    "MinParams",
    "per_gate",
]
