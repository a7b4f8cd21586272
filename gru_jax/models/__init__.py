"""`gru_jax.models`: networks with an output layer, as functions and as a Flax module, and cells to compare with."""

import importlib
from typing import TYPE_CHECKING, Any

from gru_jax.models.blocks import BlockParams as BlockParams
from gru_jax.models.blocks import BlockState as BlockState
from gru_jax.models.blocks import min_block as min_block
from gru_jax.models.output_layer import Readout as Readout
from gru_jax.models.output_layer import ReadoutParams as ReadoutParams
from gru_jax.models.output_layer import readout as readout
from gru_jax.models.protocol import Model as Model
from gru_jax.models.sequence import SequenceModel as SequenceModel
from gru_jax.models.sequence import SequenceParams as SequenceParams
from gru_jax.models.sequence import sequence_model as sequence_model

if TYPE_CHECKING:
    from gru_jax.models.flax_cells import LSTM as LSTM
    from gru_jax.models.flax_cells import LSTMState as LSTMState
    from gru_jax.models.flax_cells import TanhRNN as TanhRNN
    from gru_jax.models.nnx import GRUReadout as GRUReadout

__all__ = [
    "LSTM",
    "BlockParams",
    "BlockState",
    "GRUReadout",
    "LSTMState",
    "Model",
    "Readout",
    "ReadoutParams",
    "SequenceModel",
    "SequenceParams",
    "TanhRNN",
    "min_block",
    "readout",
    "sequence_model",
]

# flax.nnx and flax.linen take long to import, and functional code does without them.
_WITH_FLAX = {"GRUReadout": "nnx", "LSTM": "flax_cells", "LSTMState": "flax_cells", "TanhRNN": "flax_cells"}


def __getattr__(name: str) -> Any:
    if name in _WITH_FLAX:
        return getattr(importlib.import_module(f"gru_jax.models.{_WITH_FLAX[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
