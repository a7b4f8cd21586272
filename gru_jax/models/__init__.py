"""`gru_jax.models`: networks with an output layer, as functions (`readout`) and as a Flax module (`GRUReadout`)."""

from typing import TYPE_CHECKING, Any

from gru_jax.models.output_layer import Readout as Readout
from gru_jax.models.output_layer import ReadoutParams as ReadoutParams
from gru_jax.models.output_layer import readout as readout
from gru_jax.models.protocol import Model as Model

if TYPE_CHECKING:
    from gru_jax.models.nnx import GRUReadout as GRUReadout

__all__ = ["GRUReadout", "Model", "Readout", "ReadoutParams", "readout"]


def __getattr__(name: str) -> Any:
    # flax.nnx takes long to import, and functional code does without it.
    if name == "GRUReadout":
        from gru_jax.models.nnx import GRUReadout

        return GRUReadout
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
