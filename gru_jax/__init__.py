"""gru_jax: gated recurrent networks in JAX and Flax.

A cell says what one step computes, a method says how the steps run over time, a layer holds the parameters, and every
combination of the three gives the same numbers.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from gru_jax.cells import GRU as GRU
from gru_jax.cells import Cell as Cell
from gru_jax.cells import Gates as Gates
from gru_jax.cells import GRUParams as GRUParams
from gru_jax.cells import Initializers as Initializers
from gru_jax.cells import per_gate as per_gate
from gru_jax.scans import Method as Method
from gru_jax.scans import Sequential as Sequential
from gru_jax.scans import scan as scan

__all__ = [
    "GRU",
    "Cell",
    "GRUParams",
    "Gates",
    "Initializers",
    "Method",
    "Sequential",
    "per_gate",
    "scan",
]
