"""Weights of torch.nn.GRU as a `gj.nnx.GRU`, and back: `load`, `export`, `save`."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from gru_jax.cells import GRU, GRUParams
from gru_jax.interop import neutral
from gru_jax.interop.torch import files, names
from gru_jax.layers import nnx
from gru_jax.types import Params


class HasStateDict(Protocol):
    """A module of torch, or what gives its weights as one does."""

    def state_dict(self) -> Mapping[str, object]:
        """Arrays by their names."""


def load(
    source: str | os.PathLike[str] | Mapping[str, object] | HasStateDict, *, prefix: str = "", **options: Any
) -> nnx.GRU:
    """A `gj.nnx.GRU` with the weights of a torch.nn.GRU or torch.nn.GRUCell.

    Sizes, layers, directions and biases follow from the weights. The layer reads `[*batch, T, I]`, unlike torch's
    default; pass `time_major=True` for `[T, B, I]`.

    Args:
      source: a state dict of torch, NumPy or JAX arrays; a module with a method `state_dict`; or the path of a
        .safetensors or .pt file, see `read`.
      prefix: take only entries whose names begin so, such as "encoder.rnn.".
      **options: of `gj.nnx.GRU` that say how it runs: method, time_major, padding, dropout, rngs, ...

    Returns:
      The layer, whose call is `(x, h0=None, *, lengths, mask, ...) -> (y, h_n)`.

    Raises:
      ValueError: naming everything that is missing, unexpected or of another shape, or what the weights are instead.
      TypeError: for an option that the weights decide.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import torch as nn
      >>> layer = nn.load(nn.GRU(3, 4, 2, bidirectional=True).state_dict(prefix="rnn."), prefix="rnn.")
      >>> y, h_n = layer(jnp.ones((5, 7, 3)), lengths=jnp.array([7, 6, 5, 1, 0]))
      >>> y.shape
      (5, 7, 8)

    Source: torch.nn.GRU of torch 2.13; `w_x = weight_ih.T`, `w_h = weight_hh.T`, biases as they are.
    """
    who = "torch.load"
    if isinstance(source, str | os.PathLike):
        who, source = f"{who}: {os.fspath(source)}", files.read(source)
    elif not isinstance(source, Mapping | type) and callable(getattr(source, "state_dict", None)):
        source = source.state_dict()
    given = names.mapping(who, source, prefix)
    layout = names.infer(who, given, prefix)
    found = names.compare(who, names.under(given, prefix), layout.shapes())
    text = names.problems(who, found, given, layout, prefix, layout.described())
    if text:
        raise ValueError(text)
    dtypes = sorted({str(array.dtype) for array in found.arrays.values()})
    if len(dtypes) > 1:
        got = " and ".join(dtypes)
        raise ValueError(f"{who}: all weights must have one dtype; got {got}; convert them to one")

    def params(end: str) -> GRUParams:
        w_x, w_h, *biases = (found.arrays[kind + end] for kind in layout.kinds())
        return neutral.gru_params(w_x.T, w_h.T, *(biases or (None, None)))

    cell = GRU(layout.hidden_size, bias="full" if layout.bias else "none")
    pairs = layout.bidirectional
    each: list[Params] = [tuple(map(params, ends)) if pairs else params(ends[0]) for ends in layout.suffixes()]
    return neutral.module("torch.load", neutral.Weights(cell, tuple(each)), options)


def export(layer: neutral.Layer) -> OrderedDict[str, np.ndarray]:
    """The weights of a layer as a state dict of torch.nn.GRU.

    What `load` took comes back bit by bit. Of a layer with bias="minimal" torch's redundant recurrent biases of r and
    z are 0.

    Args:
      layer: a `gj.nnx.GRU`; a pair of `gj.linen.GRU` and its variables; a pair of `gj.GRU` and its `GRUParams`; or a
        layer of `gj.interop`.

    Returns:
      NumPy arrays under torch's names: `{name: torch.tensor(a) for name, a in export(layer).items()}` is what
      torch.nn.GRU.load_state_dict takes.

    Raises:
      TypeError: for anything else.
      ValueError: for a layer that torch.nn.GRU cannot compute, saying what would be lost: the reset gate before the
        product, several heads, other activations, a norm, a residual sum, reading backwards.

    Example:
      >>> import gru_jax as gj
      >>> from flax import nnx
      >>> weights = gj.interop.torch.export(gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0)))
      >>> {name: array.shape for name, array in weights.items()}
      {'weight_ih_l0': (12, 3), 'weight_hh_l0': (12, 4), 'bias_ih_l0': (12,), 'bias_hh_l0': (12,)}

    Source: torch.nn.GRU of torch 2.13.
    """
    weights = neutral.read("torch.export", layer)
    if neutral.reads_backwards(layer):
        raise ValueError(
            "torch.export: the layer reads backwards (reverse=True), which torch.nn.GRU does in its second direction"
            " alone and which would be lost; export a layer without reverse, and flip its input and output in torch"
        )
    neutral.require("torch.export", weights, "torch.nn.GRU", reset="after")
    directions, hidden = weights.directions(), weights.cell.hidden_size
    found = OrderedDict()
    for index, layer_params in enumerate(directions):
        for params, end in zip(layer_params, ("", "_reverse"), strict=False):
            biases = neutral.full_biases(params, hidden)
            tensors = [params.w_x.T, params.w_h.T, *(bias for bias in biases if bias is not None)]
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            for kind, array in zip(kinds, tensors, strict=False):
                found[f"{kind}_l{index}{end}"] = np.array(array, order="C")
    return found


def save(layer: neutral.Layer, path: str | os.PathLike[str]) -> None:
    """Writes a layer's weights, under torch's names, to a .safetensors file, whole or not at all.

    torch reads it with `module.load_state_dict(safetensors.torch.load_file(path))`, this library with `load(path)`.

    Args:
      layer: what `export` takes.
      path: of the file, which ends in .safetensors.

    Returns:
      Nothing.

    Raises:
      ValueError: as `export`, and for another ending.
      ImportError: when safetensors is not installed.

    Example:
      >>> from gru_jax.interop import torch as nn
      >>> try:
      ...     nn.save(nn.GRU(3, 4), "weights.pt")
      ... except ValueError as error:
      ...     print(str(error).partition(";")[0])
      save: the file's name must end in .safetensors

    Source: safetensors 0.8.
    """
    files.write(path, export(layer))
