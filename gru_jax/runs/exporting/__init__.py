"""`gru_jax.runs.exporting`: a trained model in the format of another framework, compared before it is written."""

from gru_jax.runs.exporting.network import ExportError as ExportError
from gru_jax.runs.exporting.parameter_file import read_safetensors as read_safetensors
from gru_jax.runs.exporting.writing import Exported as Exported
from gru_jax.runs.exporting.writing import export as export

__all__ = ["ExportError", "Exported", "export", "read_safetensors"]
