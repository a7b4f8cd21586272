"""gru_jax: gated recurrent networks in JAX and Flax.

A cell says what one step computes, a method says how the steps run over time, a layer holds the parameters, and every
combination of the three gives the same numbers.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from gru_jax.cells import GRU as GRU
from gru_jax.cells import GRUD as GRUD
from gru_jax.cells import MGU as MGU
from gru_jax.cells import Cell as Cell
from gru_jax.cells import DreamerGRU as DreamerGRU
from gru_jax.cells import DreamerGRUParams as DreamerGRUParams
from gru_jax.cells import DreamerLinear as DreamerLinear
from gru_jax.cells import Gates as Gates
from gru_jax.cells import GRUDParams as GRUDParams
from gru_jax.cells import GRUParams as GRUParams
from gru_jax.cells import Initializers as Initializers
from gru_jax.cells import MGUParams as MGUParams
from gru_jax.cells import MinGRU as MinGRU
from gru_jax.cells import MinLSTM as MinLSTM
from gru_jax.cells import MinParams as MinParams
from gru_jax.cells import per_gate as per_gate
from gru_jax.combinators import Layer as Layer
from gru_jax.combinators import StackParams as StackParams
from gru_jax.combinators import bidirectional as bidirectional
from gru_jax.combinators import recurrent as recurrent
from gru_jax.combinators import stack as stack
from gru_jax.irregular import Observed as Observed
from gru_jax.irregular import observed as observed
from gru_jax.scans import Associative as Associative
from gru_jax.scans import Diagnosis as Diagnosis
from gru_jax.scans import Method as Method
from gru_jax.scans import Newton as Newton
from gru_jax.scans import Sequential as Sequential
from gru_jax.scans import Stats as Stats
from gru_jax.scans import TimeSharded as TimeSharded
from gru_jax.scans import diagnose as diagnose
from gru_jax.scans import linear_scan as linear_scan
from gru_jax.scans import scan as scan
from gru_jax.scans import time_sharded as time_sharded
from gru_jax.scans.choices import Tuned as Tuned
from gru_jax.streams.stream import Stream as Stream
from gru_jax.tuning import tune as tune

if TYPE_CHECKING:
    from gru_jax import inside as inside
    from gru_jax import interop as interop
    from gru_jax import models as models
    from gru_jax.layers import linen as linen
    from gru_jax.layers import nnx as nnx
    from gru_jax.models import LSTM as LSTM
    from gru_jax.models import TanhRNN as TanhRNN

__all__ = [
    "GRU",
    "GRUD",
    "LSTM",
    "MGU",
    "Associative",
    "Cell",
    "Diagnosis",
    "DreamerGRU",
    "DreamerGRUParams",
    "DreamerLinear",
    "GRUDParams",
    "GRUParams",
    "Gates",
    "Initializers",
    "Layer",
    "MGUParams",
    "Method",
    "MinGRU",
    "MinLSTM",
    "MinParams",
    "Newton",
    "Observed",
    "Sequential",
    "StackParams",
    "Stats",
    "Stream",
    "TanhRNN",
    "TimeSharded",
    "Tuned",
    "bidirectional",
    "diagnose",
    "inside",
    "interop",
    "linear_scan",
    "linen",
    "models",
    "nnx",
    "observed",
    "per_gate",
    "recurrent",
    "scan",
    "stack",
    "time_sharded",
    "tune",
]

__version__ = importlib.metadata.version("gru-jax")

# Imported at first use: flax.nnx takes longer to import than all of the rest, and functional code does without it.
_LAZY = {
    "inside": "gru_jax.inside",
    "interop": "gru_jax.interop",
    "linen": "gru_jax.layers.linen",
    "models": "gru_jax.models",
    "nnx": "gru_jax.layers.nnx",
}


# Of flax.linen, which takes long too.
_OF_MODELS = ("LSTM", "TanhRNN")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(_LAZY[name])
    if name in _OF_MODELS:
        return getattr(importlib.import_module("gru_jax.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
