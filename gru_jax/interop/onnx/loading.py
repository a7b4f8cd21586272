"""`load`: the GRU nodes of an ONNX file as a layer."""

import itertools
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_jax import checks
from gru_jax.cells import GRU, GRUParams
from gru_jax.interop import neutral
from gru_jax.interop.arrays import Weight
from gru_jax.interop.onnx import files, links, reversals
from gru_jax.interop.onnx.constants import NotConstantError, Reader
from gru_jax.interop.onnx.nodes import Layer, Node
from gru_jax.layers import nnx
from gru_jax.types import Options

WHO = "onnx.load"


def load(
    path: str | os.PathLike[str],
    *,
    node: str | int | Sequence[str | int] | None = None,
    ignore_initial_h: bool = False,
    ignore_sequence_lens: bool = False,
    **options: Any,
) -> nnx.GRU:
    """The GRU nodes of an ONNX file as a layer, such as those that torch and Keras export.

    Nodes that feed each other, with nothing between them but moved axes, become one stack. Weights may be stored in any
    form that constants can be brought into GRU's form from: initializers, Constant nodes, slices and joints of them,
    and files beside the model. Everything around the GRU nodes is left aside.

    Args:
      path: the file.
      node: which GRU node: its name, or its place among the GRU nodes; a list of them for a stack. All of them when
        None.
      ignore_initial_h: take a node whose states before the first step are stored in the model and not zero; a layer
        stores none, so give them to each call. States that the model takes or computes are h0 of the call anyway.
      ignore_sequence_lens: take a node whose sequences' lengths are stored in the model; give them to each call.
      **options: run options of `gj.nnx.GRU`: method, time_major, padding, merge, dropout, rngs, ...; x is `[B, T, I]`
        unless time_major=True, whatever the file has. `reverse` is taken where the model turns x around before the
        node, and needed there: the error says what it then means.

    Returns:
      A `gj.nnx.GRU`, in the dtype of the weights.

    Raises:
      ImportError: without the package onnx.
      OSError: when a file is missing or cannot be read.
      TypeError: for an option that the file decides.
      ValueError: when the file is damaged, or its GRU nodes are not one layer of this library; the message lists them.

    Example:
      >>> import gru_jax as gj
      >>> layer = gj.interop.onnx.load("model.onnx", node="/encoder/GRU")  # doctest: +SKIP

    Source: the operator GRU in ONNX's Operators.md; linear_before_reset=1 is reset="after".
    """
    checks.flag(WHO, "ignore_initial_h", ignore_initial_h)
    checks.flag(WHO, "ignore_sequence_lens", ignore_sequence_lens)
    reader = Reader(files.read(WHO, path))
    nodes = _gru_nodes(reader)
    chosen = links.stack(reader, nodes) if node is None else links.named(reader, nodes, node)
    _require_equal(reader, chosen, nodes)
    for one in itertools.chain(*chosen):
        _check_initial_h(one, ignore_initial_h)
        _check_sequence_lens(one, ignore_sequence_lens)
    weights = _weights(chosen)
    reverse = _reverse(chosen[0], options)
    _warn_of_torch(chosen)
    return neutral.module(reader.file.who, weights, {**options, "reverse": reverse})


def _reverse(layer: Layer, options: Options) -> bool:
    """Which way the layer reads; raises ValueError when the model turns x around first and nobody says what to do."""
    turned = next(((one, found) for one in layer if (found := reversals.before(one)) is not None), None)
    both = len(layer) > 1 or layer[0].direction == "bidirectional"
    own = not both and layer[0].direction == "reverse"
    if "reverse" in options:
        if turned is None or (both and options["reverse"]):
            raise TypeError(f"{WHO}: reverse follows from what is loaded; leave it out")
        checks.flag(WHO, "reverse", options["reverse"])
        return bool(options["reverse"])
    if turned is None:
        return own
    node, (maker, axis) = turned
    fix = f"pass reverse={own}, and turn x around yourself before each call"
    if axis == "time" and not both:
        fix += f"; or reverse={not own} for a layer that reads x so itself, and gives y in the order of x"
    raise ValueError(
        f"{node.who} reads x turned around along {axis}, by the {maker.op_type} {maker.name or maker.output[0]!r}"
        f" before it, and a layer made of the GRU alone would not; {fix}"
    )


def _warn_of_torch(chosen: list[Layer]) -> None:
    model = chosen[0][0].reader.file.model
    before = [one for layer in chosen for one in layer if one.reset == "before"]
    if model.producer_name == "pytorch" and before:
        warnings.warn(
            f"{before[0].who} has linear_before_reset=0, loaded as reset='before', in a file that torch wrote;"
            f" torch.nn.GRU computes reset='after', and onnxscript up to 0.6.2 wrote its node wrongly: export it anew"
            f" with a newer one, or put the weights into a layer with reset='after' by its params=",
            stacklevel=3,
        )


def _gru_nodes(reader: Reader) -> list[Node]:
    found = [one for one in reader.graph.node if one.op_type == "GRU" and one.domain in ("", "ai.onnx")]
    if not found:
        kinds = sorted({one.op_type for one in reader.graph.node})
        listed = ", ".join(kinds[:12]) + (", ..." if len(kinds) > 12 else "")
        raise ValueError(
            f"{reader.file.who} has no GRU node at the top of its graph, but {listed or 'no nodes'}; a GRU that was"
            f" exported as a loop, or inside one, cannot be read"
        )
    return [Node(reader, one, place) for place, one in enumerate(found)]


def _require_equal(reader: Reader, chosen: list[Layer], nodes: list[Node]) -> None:
    """Raises ValueError unless the layers can be those of one stack."""
    names = ("direction", "reset", "activations", "hidden size")
    first = chosen[0]
    for layer in chosen[1:]:
        a, b = ((len(one) > 1 or one[0].direction, *one[0].options()[1:]) for one in (first, layer))
        differing = [name for name, one, other in zip(names, a, b, strict=True) if one != other]
        if differing:
            raise ValueError(
                f"{reader.file.who} has the GRU nodes {links.listed(nodes)}; {first[0].label} and {layer[0].label}"
                f" differ in {' and '.join(differing)}, which layers of one stack share; load them one by one with"
                f" node=..."
            )
    sources = {reader.origin(one.input(4)) for layer in chosen for one in layer}
    if len(sources) > 1:
        raise ValueError(
            f"{reader.file.who} gives its GRU nodes different sequence_lens, which layers of one stack share; load"
            f" them one by one with node=...: {links.listed(nodes)}"
        )


def _check_initial_h(node: Node, ignore: bool) -> None:
    if node.input(5) and not ignore:
        try:
            zero = node.reader.zero(node.input(5))
        except NotConstantError:
            zero = None
        if zero is False:
            raise ValueError(
                f"{node.who} has a stored initial_h that is not zero, and a layer stores none; pass"
                f" ignore_initial_h=True, and the states as h0 to each call"
            )


def _check_sequence_lens(node: Node, ignore: bool) -> None:
    if not node.input(4) or ignore:
        return
    try:
        lengths = node.reader.constant(node.input(4))
    except NotConstantError:
        return  # an input of the model, or all steps of x: lengths of the call
    if not lengths.size or (lengths == lengths.flat[0]).all() and int(lengths.flat[0]) in links.static_steps(node):
        return
    raise ValueError(
        f"{node.who} has stored sequence_lens, {np.unique(lengths)[:4].tolist()}, and a layer stores none; pass"
        f" ignore_sequence_lens=True, and the lengths to each call"
    )


def _weights(chosen: list[Layer]) -> neutral.Weights:
    layers = [tuple(params for one in layer for params in one.params()) for layer in chosen]
    if len({p.b_x is None for params in layers for p in params}) > 1:
        # A missing B is zeros: layers of one stack have all of them or none.
        layers = [tuple(_with_biases(p) for p in params) for params in layers]
    first = chosen[0][0]
    gate_activation, activation = first.activations
    cell = GRU(
        layers[0][0].w_h.shape[0],
        reset=first.reset,
        activation=activation,
        gate_activation=gate_activation,
        bias="none" if layers[0][0].b_x is None else "full",
    )
    return neutral.Weights(cell, tuple(params[0] if len(params) == 1 else params for params in layers))  # type: ignore


def _with_biases(params: GRUParams) -> GRUParams:
    if params.b_x is not None:
        return params
    zeros: Weight = np.zeros(params.w_x.shape[1], params.w_x.dtype)
    return params._replace(b_x=zeros, b_h=zeros)
