"""What a layer computes, as the writer of its graph needs it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from gru_jax import checks
from gru_jax.between import Norm
from gru_jax.cells import GRU, GRUParams
from gru_jax.combinators import StackParams
from gru_jax.interop import arrays, neutral
from gru_jax.layers import linen, nnx
from gru_jax.layers.spec import GRUSpec
from gru_jax.types import Params


class Plan(NamedTuple):
    """A stack of GRU layers and what stands around them, weights as NumPy arrays of float32.

    Attributes:
      cell: the options that all layers share.
      layers: for each layer the parameters of its one or two directions.
      norms: the `Norm` after each layer; empty without.
      norm, residual, merge, reverse, time_major, padding: see `gru_jax.layers.spec.GRUSpec`.
    """

    cell: GRU
    layers: tuple[tuple[GRUParams, ...], ...]
    norms: tuple[Norm, ...] = ()
    norm: str | None = None
    residual: bool = False
    merge: str = "concat"
    reverse: bool = False
    time_major: bool = False
    padding: str = "zero"

    @property
    def directions(self) -> int:
        """D, 1 or 2."""
        return len(self.layers[0])

    @property
    def swapped(self) -> bool:
        """Whether the first of two directions is the one that runs from the end, which in ONNX is the second."""
        return self.reverse and self.directions == 2

    @property
    def input_size(self) -> int:
        """I, the features of x."""
        return int(self.layers[0][0].w_x.shape[0])

    @property
    def output_size(self) -> int:
        """The features of y."""
        return self.cell.hidden_size * (self.directions if self.merge == "concat" else 1)


def read(who: str, layer: neutral.Layer, *, h0: bool, convert: bool) -> Plan:
    """The plan of whatever `neutral.read` takes.

    Args:
      who: whose error message it is.
      layer: see `gru_jax.interop.neutral.read`; norms, residual sums and merges come along.
      h0: whether the caller gives the states before the first step.
      convert: whether weights of another dtype become float32.

    Raises:
      TypeError: for something else than a layer.
      ValueError: for a layer that a graph of ONNX cannot stand for.
    """
    one = neutral.unfronted(who, layer)
    match one:
        case nnx.GRU():
            plan = _of_spec(who, one.spec, one.functional()[1], h0=h0, convert=convert)
        case (linen.GRU() as module, Mapping() as variables):
            params = module.spec.from_names(variables.get("params", variables))
            plan = _of_spec(who, module.spec, params, h0=h0, convert=convert)
        case _:
            weights = neutral.read(who, one)
            plan = Plan(weights.cell, tuple(weights.directions()))
    neutral.require(who, neutral.Weights(plan.cell, ()), "ONNX", any_activation=True)
    return plan._replace(
        layers=jax.tree.map(lambda a: _float32(who, a, convert), plan.layers),
        norms=jax.tree.map(lambda a: _float32(who, a, convert), plan.norms),
    )


def _of_spec(who: str, spec: GRUSpec, params: Params, *, h0: bool, convert: bool) -> Plan:
    if spec.bidirectional and spec.merge is None:
        raise ValueError(f"{who}: the layer has merge=None, a pair of outputs; export one with merge='concat'")
    if spec.stateful and not h0:
        raise ValueError(
            f"{who}: the layer is stateful, but a file keeps no state from run to run; pass h0=True, and feed h_n of"
            f" one run to the next"
        )
    if spec.dtype is not None and np.dtype(spec.dtype) != np.float32 and not convert:
        raise ValueError(f"{who}: the layer computes in {np.dtype(spec.dtype).name}; {FIX}")
    layers, norms = (params.layers, params.norms) if isinstance(params, StackParams) else ((params,), ())
    layers = tuple(neutral.as_numpy(who, spec.cell, p) for p in layers)
    norms = jax.tree.map(lambda a: arrays.to_numpy(who, "a weight", a), norms)
    return Plan(
        spec.cell,
        tuple((p,) if isinstance(p, GRUParams) else tuple(p) for p in layers),
        norms,
        spec.norm,
        spec.residual,
        spec.merge or "concat",
        spec.reverse,
        spec.time_major,
        spec.padding,
    )


FIX = "files are written in float32 alone; pass dtype='float32' to convert it"


def _float32(who: str, array: np.ndarray, convert: bool) -> np.ndarray:
    if array.dtype == np.float32:
        return array
    if not convert:
        raise ValueError(f"{who}: the weights are {array.dtype.name}; {FIX}")
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all() and np.isfinite(array).all():
        raise ValueError(f"{who}: a weight is too large for float32; got {checks.described(array)} of {array.dtype}")
    return converted
