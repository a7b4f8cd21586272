"""The neutral layout that every conversion goes through, and the refusal of what would be lost on the way."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx as flax_nnx

from gru_jax import checks
from gru_jax.cells import GRU, GRUParams
from gru_jax.combinators import StackParams
from gru_jax.interop import arrays
from gru_jax.interop.arrays import Weight
from gru_jax.layers import linen, nnx
from gru_jax.layers.spec import GRUSpec
from gru_jax.types import Options, Params, Tree

Pair: TypeAlias = tuple[GRUParams, GRUParams]
One = TypeVar("One")


class Weights(NamedTuple):
    """GRU layers on top of each other in the neutral layout, as NumPy arrays.

    Attributes:
      cell: the options that all layers share.
      layers: for each layer its `GRUParams`, or with two directions the pair (forward, backward).
      merge: how two directions are joined, see `gru_jax.bidirectional`.
    """

    cell: GRU
    layers: tuple[GRUParams | Pair, ...]
    merge: str | None = "concat"

    @property
    def bidirectional(self) -> bool:
        """Whether each layer has two directions."""
        return not isinstance(self.layers[0], GRUParams)

    def directions(self) -> list[tuple[GRUParams, ...]]:
        """For each layer the tuple of its directions' parameters."""
        return [(p,) if isinstance(p, GRUParams) else p for p in self.layers]


class Front(Protocol):
    """A layer of this package that is called as another library's."""

    def to_layer(self) -> nnx.GRU:
        """The same as a layer of this library."""


Linen: TypeAlias = tuple[linen.GRU | linen.GRUCell, Mapping[str, Tree]]
"""A module and its variables."""

Layer: TypeAlias = nnx.GRU | nnx.GRUCell | Linen | tuple[GRU, GRUParams] | Front | Weights
"""What has weights to convert, see `read`."""


def swapped(array: Weight) -> Weight:
    """The first two of three equal blocks of the last axis exchanged: r, z, n to z, r, n and back."""
    size = array.shape[-1] // 3
    xp = np if isinstance(array, np.ndarray) else jnp
    return xp.concatenate([array[..., size : 2 * size], array[..., :size], array[..., 2 * size :]], axis=-1)


def read(who: str, layer: Layer) -> Weights:
    """The weights of a layer of this library.

    Args:
      who: whose error message it is.
      layer: a `gj.nnx.GRU` or `GRUCell`; a pair of `gj.linen.GRU` or `GRUCell` and its variables; a pair of `gj.GRU`
        and its `GRUParams`; or a front of this package, such as `gj.interop.torch.GRU`.

    Raises:
      TypeError: for anything else.
      ValueError: for a layer with a norm or a residual sum, which are no weights of a GRU.
    """
    one = unfronted(who, layer)
    match one:
        case Weights():
            return one
        case nnx.GRU():
            return _of_spec(who, one.spec, one.functional()[1])
        case nnx.GRUCell():
            found = {name: getattr(one, name)[...] for name in GRUParams._fields if hasattr(one, name)}
            return _of_spec(who, one.spec, one.spec.from_names({"layer_0": found}))
        case (linen.GRUCell() as module, Mapping() as variables):
            found = variables.get("params", variables)
            return _of_spec(who, module.spec, module.spec.from_names({"layer_0": found}))
        case (linen.GRU() as module, Mapping() as variables):
            return _of_spec(who, module.spec, module.spec.from_names(variables.get("params", variables)))
        case (GRU() as cell, GRUParams() as params):
            return Weights(cell, (as_numpy(who, cell, params),))
    raise TypeError(
        f"{who}: layer must be a gj.nnx.GRU, a pair (gj.linen.GRU, variables), a pair (gj.GRU, GRUParams) or a layer"
        f" of gj.interop; got {checks.described(one)}"
    )


def unfronted(who: str, layer: object) -> Any:
    """The layer behind a front, others as they are; raises TypeError for a module of shapes without numbers."""
    if hasattr(layer, "to_layer") and not isinstance(layer, type):
        layer = layer.to_layer()
    if isinstance(layer, nnx.GRU | nnx.GRUCell):
        leaves = jax.tree.leaves(flax_nnx.state(layer, flax_nnx.Param))
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
            raise TypeError(
                f"{who}: the layer has shapes without numbers, as nnx.eval_shape makes it; give it its parameters with"
                f" nnx.update first"
            )
    return layer


def as_numpy(who: str, cell: GRU, params: Params) -> Params:
    """One layer's `GRUParams`, or a pair of them, as NumPy arrays, checked to be those of the cell."""
    if not isinstance(params, GRUParams):
        return tuple(as_numpy(who, cell, one) for one in params)
    # Before anything is computed: modules that nnx.vmap made hold several layers' parameters, one more axis.
    w_x = arrays.of_rank(who, "w_x", params.w_x, 2)
    cell.check_params(params, w_x.shape[0])
    return jax.tree.map(lambda a: arrays.to_numpy(who, "a weight", a), params)


def module(who: str, weights: Weights, options: Options) -> nnx.GRU:
    """A `gj.nnx.GRU` with the given weights.

    Args:
      who: whose error message it is.
      weights: what a converter read.
      options: of `gj.nnx.GRU` that say how it runs: method, time_major, padding, reverse, dropout, rngs, ...

    Raises:
      TypeError: for an option that the weights decide.
      ValueError: for layers that do not fit each other.
    """
    decided = ("in_features", "hidden_features", "num_layers", "bidirectional", "reset", "activation")
    for name in (*decided, "gate_activation", "bias", "heads", "params", "norm", "residual"):
        if name in options:
            raise TypeError(f"{who}: {name} follows from what is loaded; leave it out")
    cell = weights.cell
    _check_layers(who, weights, options)
    params = jax.tree.map(lambda a: arrays.to_jax(who, "a weight", a), weights.layers)
    first = weights.directions()[0][0]
    return nnx.GRU(
        first.w_x.shape[0],
        cell.hidden_size,
        num_layers=len(weights.layers),
        bidirectional=weights.bidirectional,
        reset=cell.reset,
        activation=cell.activation,
        gate_activation=cell.gate_activation,
        bias=cell.bias,
        heads=cell.heads,
        params=params[0] if len(params) == 1 else StackParams(params, ()),
        **{"param_dtype": first.w_x.dtype, "merge": weights.merge, **options},
    )


def _check_layers(who: str, weights: Weights, options: Options) -> None:
    """Raises ValueError unless one `gj.nnx.GRU` can hold all layers."""
    size, first = weights.cell.hidden_size, weights.directions()[0][0]
    one_by_one = "load them one by one"
    merged = options.get("merge", weights.merge) in ("sum", "mul", "mean")
    for index, directions in enumerate(weights.directions()):
        for params in directions:
            units, width = params.w_h.shape[-1] * weights.cell.heads // 3, params.w_x.shape[0]
            takes = first.w_x.shape[0] if index == 0 else size * (1 if merged else len(directions))
            if units != size:
                raise ValueError(f"{who}: layer 0 has {size} units but layer {index} has {units}; {one_by_one}")
            if width != takes:
                before = "the input" if index == 0 else f"layer {index - 1}"
                raise ValueError(
                    f"{who}: layer {index} takes {width} features but {before} has {takes};"
                    f" give the layers in the order in which they run, each with both of its directions or none"
                )
            if (params.b_x is None) != (first.b_x is None):
                raise ValueError(f"{who}: layer 0 and layer {index} must both have biases, or none; {one_by_one}")
            for array in jax.tree.leaves(params):
                if array.dtype != first.w_x.dtype:
                    raise ValueError(
                        f"{who}: all weights must have one dtype; got {first.w_x.dtype} and {array.dtype}; convert them"
                    )


def gru_params(w_x: Weight, w_h: Weight, b_x: Weight, b_h: Weight) -> GRUParams:
    """`GRUParams` of NumPy arrays, which its annotations leave out: they are for what the user computes with."""
    return GRUParams(w_x, w_h, b_x, b_h)


def nested(
    who: str, given: object, convert: Callable[[str, Any], GRUParams], is_one: Callable[[object], bool]
) -> tuple[GRUParams | Pair, ...]:
    """One GRU's weights, a pair (forward, backward), or a list of layers each of which is one or a pair, converted."""

    def layer(name: str, one: object) -> GRUParams | Pair:
        if is_one(one):
            return convert(name, one)
        if isinstance(one, tuple | list) and len(one) == 2 and all(map(is_one, one)):
            return convert(f"{name} forward", one[0]), convert(f"{name} backward", one[1])
        raise TypeError(f"{who}: {name} must be one GRU, or a pair (forward, backward); got {checks.described(one)}")

    if is_one(given) or isinstance(given, tuple):
        return (layer("layer 0", given),)
    if not isinstance(given, list) or not given:
        raise TypeError(
            f"{who}: needs one GRU, a pair (forward, backward) or a list of layers, each one GRU or a pair;"
            f" got {checks.described(given)}"
        )
    layers = tuple(layer(f"layer {index}", one) for index, one in enumerate(given))
    if len({isinstance(p, GRUParams) for p in layers}) > 1:
        raise ValueError(f"{who}: all layers must have one direction, or all two; load them one by one")
    return layers


def each(
    weights: Weights, convert: Callable[[GRUParams], One]
) -> One | tuple[One, ...] | list[One] | list[tuple[One, ...]]:
    """The inverse of `nested`: one layer's GRU or pair (forward, backward), or of several layers the list of these."""
    if weights.bidirectional:
        pairs = [tuple(map(convert, p)) for p in weights.directions()]
        return pairs[0] if len(pairs) == 1 else pairs
    layers = [convert(p[0]) for p in weights.directions()]
    return layers[0] if len(layers) == 1 else layers


def require(
    who: str,
    weights: Weights,
    target: str,
    *,
    reset: str | None = None,
    any_activation: bool = False,
    any_merge: bool = False,
) -> None:
    """Raises ValueError, saying what would be lost, unless the target's GRU can compute what this cell does.

    Args:
      who: whose error message it is.
      weights: what would be converted.
      target: the target's name, such as "torch.nn.GRU".
      reset: the only form that the target has; None when it has both.
      any_activation: whether the target takes other activations than sigmoid and tanh.
      any_merge: whether the target says how two directions are joined.
    """
    cell = weights.cell
    if reset is not None and cell.reset != reset:
        raise ValueError(
            f"{who}: {target} applies the reset gate {reset} the recurrent product, this layer {cell.reset} it; they"
            f" are different functions, which no weights make equal; train a layer with reset={reset!r}"
        )
    if cell.heads > 1:
        raise ValueError(
            f"{who}: {target} has one dense recurrent matrix, this layer {cell.heads} blocks (heads={cell.heads}),"
            f" whose zeros would be lost in training; use a layer with heads=1"
        )
    if not any_activation and (cell.activation, cell.gate_activation) != ("tanh", "sigmoid"):
        raise ValueError(
            f"{who}: {target} computes with tanh and sigmoid alone; this layer has activation={cell.activation!r} and"
            f" gate_activation={cell.gate_activation!r}, which would be lost"
        )
    if weights.merge != "concat" and not any_merge:
        raise ValueError(
            f"{who}: {target} concatenates two directions; this layer has merge={weights.merge!r}, which would be lost"
        )


def reads_backwards(layer: object) -> bool:
    """Whether a layer of this library, or the module of a pair (module, variables), has reverse=True."""
    holder = layer[0] if isinstance(layer, tuple) and layer else layer
    return bool(getattr(getattr(holder, "spec", None), "reverse", False))


def full_biases(params: GRUParams, hidden_size: int) -> tuple[Weight, Weight]:
    """Both bias vectors `[3H]`, zeros where the layer has fewer; (None, None) without biases."""
    b_x: Weight = params.b_x
    b_h: Weight = params.b_h
    if b_x is None or b_h is None:
        return None, None
    if b_h.shape == (hidden_size,):
        b_h = np.concatenate([np.zeros(2 * hidden_size, b_h.dtype), b_h])
    return b_x, b_h


def merged_biases(params: GRUParams, hidden_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(`[3H]`, the candidate's `[H]`): the recurrent biases of r and z, which only ever occur in a sum, added to b_x.

    The function stays the same to the last bit but one; where they are zero, to the last.
    """
    b_x, b_h = full_biases(params, hidden_size)
    if b_x is None:
        dtype = params.w_x.dtype
        return np.zeros(3 * hidden_size, dtype), np.zeros(hidden_size, dtype)
    rest, b_n = b_h[: 2 * hidden_size], b_h[2 * hidden_size :]
    if rest.any():  # adding a zero would turn -0.0 into 0.0
        b_x = np.concatenate([b_x[: 2 * hidden_size] + rest, b_x[2 * hidden_size :]])
    return b_x, b_n


def single_bias(params: GRUParams, hidden_size: int) -> np.ndarray:
    """`[3H]`: with reset="before" all recurrent biases only ever occur in a sum with b_x."""
    b_x, b_n = merged_biases(params, hidden_size)
    if not b_n.any():
        return b_x
    return np.concatenate([b_x[: 2 * hidden_size], b_x[2 * hidden_size :] + b_n])


def _of_spec(who: str, spec: GRUSpec, params: Params) -> Weights:
    for name, plain in (("norm", None), ("residual", False)):
        if getattr(spec, name) != plain:
            raise ValueError(
                f"{who}: the layer has {name}={getattr(spec, name)!r}, which would be lost; convert a layer without"
            )
    layers = params.layers if isinstance(params, StackParams) else (params,)
    merge = spec.merge if spec.bidirectional else "concat"
    return Weights(spec.cell, tuple(as_numpy(who, spec.cell, p) for p in layers), merge)
