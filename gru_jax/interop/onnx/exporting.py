"""`export`: a layer as an ONNX file."""

import importlib.metadata
import os
from pathlib import Path

import numpy as np

from gru_jax import checks, files
from gru_jax.interop import neutral
from gru_jax.interop.onnx import activations, building
from gru_jax.interop.onnx.package import onnx
from gru_jax.interop.onnx.plan import Plan, read
from gru_jax.types import DType

WHO = "onnx.export"
OLDEST_OPSET = 14
LARGEST = 2**31 - 2**20
"""Bytes of weights that fit in a file: a message of protobuf is shorter than 2 GiB."""


def export(
    layer: neutral.Layer,
    path: str | os.PathLike[str],
    *,
    h0: bool = False,
    lengths: bool = False,
    sequence_lens: bool = False,
    opset: int = 17,
    dtype: DType = None,
) -> Path:
    """Writes what a layer computes as an ONNX model, with any batch and any number of steps.

    The model's tensors, float32 but for the lengths:

        inputs    x        [B, T, I]     [T, B, I] for a layer with time_major=True
                  h0       [L D, B, H]   with h0=True: row l D + d is layer l, direction d
                  lengths  [B]           with lengths=True, int32, each in [0, T]
        outputs   y        [B, T, D H]   [B, T, H] with merge="sum", "mul" or "mean"
                  h_n      [L D, B, H]

    It computes what the layer does with dropout off: both forms of the reset, either direction or both, every bias,
    merge, norm, residual sum and padding. A sequence of length 0 ends in its h0, as here, although ONNX's own GRU ends
    it in zeros; a length below 0 acts as 0, one above T as T. The same layer gives the same bytes, and an older file at
    `path` stays until the new one is complete.

    Args:
      layer: a `gj.nnx.GRU`; a pair of `gj.linen.GRU` and its variables; a pair of `gj.GRU` and its `GRUParams`; or a
        front of `gj.interop`.
      path: the file to write, in a folder that exists.
      h0: whether the model takes the states before the first step; they are zeros without.
      lengths: whether the model takes the sequences' lengths.
      sequence_lens: hand the lengths to ONNX's GRU, as its input of that name: one node a layer instead of many, for
        runtimes that heed it, such as onnxruntime. OpenVINO, ncnn and others ignore it without a word.
      opset: version of ONNX's operators, 14 or newer; a runtime must know it.
      dtype: "float32" converts weights of another dtype; when None, they are refused.

    Returns:
      The path.

    Raises:
      ImportError: without the package onnx.
      TypeError: for something that is no layer.
      ValueError: for a layer that ONNX's GRU cannot compute; the message says what stands in the way.
      OSError: when the file cannot be written.

    Example:
      >>> import gru_jax as gj
      >>> from flax import nnx
      >>> layer = gj.nnx.GRU(3, 4, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
      >>> gj.interop.onnx.export(layer, "gru.onnx", lengths=True)  # doctest: +SKIP
      PosixPath('gru.onnx')

    Source: the operator GRU in ONNX's Operators.md; linear_before_reset=1 is reset="after".
    """
    package = onnx(WHO)
    checks.flag(WHO, "h0", h0)
    checks.flag(WHO, "lengths", lengths)
    checks.flag(WHO, "sequence_lens", sequence_lens)
    if sequence_lens and not lengths:
        raise ValueError(
            f"{WHO}: sequence_lens=True says how lengths are written; got lengths=False; pass lengths=True"
        )
    _check_opset(opset, package.defs.onnx_opset_version())
    if dtype is not None and not _is_float32(dtype):
        raise ValueError(f"{WHO}: dtype must be 'float32' or None; got {dtype!r}")
    target = _checked_path(path)
    plan = read(WHO, layer, h0=h0, convert=dtype is not None)
    _check_activations(plan)
    _check_size(plan)
    producer = ("gru_jax", importlib.metadata.version("gru-jax"))
    takes = {"h0": h0, "lengths": lengths, "sequence_lens": sequence_lens}
    model = building.model(WHO, plan, **takes, opset=opset, producer=producer)
    package.checker.check_model(model, full_check=True)
    files.replace(target, model.SerializeToString(deterministic=True))
    return target


def _check_opset(opset: object, newest: int) -> None:
    checks.positive(WHO, "opset", opset)
    if not OLDEST_OPSET <= opset <= newest:  # type: ignore[operator]
        raise ValueError(f"{WHO}: opset must lie in [{OLDEST_OPSET}, {newest}] with this version of onnx; got {opset}")


def _check_activations(plan: Plan) -> None:
    gate, candidate = (
        activations.of(WHO, name, getattr(plan.cell, name)) for name in ("gate_activation", "activation")
    )
    if gate.clip != candidate.clip:
        raise ValueError(
            f"{WHO}: a GRU of ONNX has one clip for all activations; got clip={gate.clip} in gate_activation and"
            f" clip={candidate.clip} in activation"
        )


def _check_size(plan: Plan) -> None:
    size = sum(a.nbytes for layer in plan.layers for p in layer for a in p if a is not None)
    if size > LARGEST:
        raise ValueError(
            f"{WHO}: the weights take {size / 2**30:.1f} GiB and an ONNX file holds less than 2 GiB; export the layers"
            f" one by one"
        )


def _is_float32(dtype: DType) -> bool:
    try:
        return np.dtype(dtype) == np.float32
    except TypeError:
        return False


def _checked_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{WHO}: path must be a path of a file; got {checks.described(path)}")
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{WHO}: {target} is a folder; pass the path of a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{WHO}: there is no folder {target.parent}; make it first")
    return target
