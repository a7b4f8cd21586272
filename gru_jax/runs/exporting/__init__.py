"""`gru_jax.runs.exporting`: a trained model in the format of another framework, compared before it is written."""

import importlib
from typing import TYPE_CHECKING, Any

from gru_jax.runs.exporting.checked import Trial as Trial
from gru_jax.runs.exporting.network import ExportError as ExportError
from gru_jax.runs.exporting.parameter_file import read_safetensors as read_safetensors
from gru_jax.runs.exporting.writing import Exported as Exported
from gru_jax.runs.exporting.writing import export as export

if TYPE_CHECKING:
    from gru_jax.runs.exporting.of_run import export_run as export_run

__all__ = ["ExportError", "Exported", "Trial", "export", "export_run", "read_safetensors"]


def __getattr__(name: str) -> Any:
    if name == "export_run":  # imported at first use: a model in memory is written without what reads checkpoints
        return importlib.import_module("gru_jax.runs.exporting.of_run").export_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
