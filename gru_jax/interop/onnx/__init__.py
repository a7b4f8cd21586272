"""`gru_jax.interop.onnx`: a layer as an ONNX file that onnxruntime runs, and the GRU nodes of a file as a layer."""

from gru_jax.interop.onnx.activations import Activation as Activation
from gru_jax.interop.onnx.exporting import export as export
from gru_jax.interop.onnx.loading import load as load

__all__ = ["Activation", "export", "load"]
