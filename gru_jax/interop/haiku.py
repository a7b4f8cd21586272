"""`gru_jax.interop.haiku`: weights of `hk.GRU`, both ways. Haiku itself is not needed: they are dicts of arrays.

Haiku's gates are z, r, a; the reset gate comes before the recurrent product, there is one bias, and z takes the new
state where ours keeps the old one: `1 - sigmoid(v) = sigmoid(-v)`, so z's weights change their sign.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from gru_jax import checks
from gru_jax.cells import GRU, GRUParams
from gru_jax.interop import arrays, neutral
from gru_jax.interop.arrays import Weight
from gru_jax.layers import nnx
from gru_jax.types import Array, Tree

__all__ = ["export", "load"]

LEAVES = {"w_i", "w_h", "b"}
Name: TypeAlias = str | tuple[str, str]


def load(params: Tree, *, names: Name | list[Name] | None = None, **options: Any) -> nnx.GRU:
    """A `gj.nnx.GRU` that computes what `hk.GRU` does with these parameters.

    With `[z | r | a]` the gates of haiku's arrays, the neutral ones are `[r | -z | a]` of `w_i`, `w_h` and `b`, and
    `reset="before"`.

    Args:
      params: of one GRU, `{"w_i": [I, 3H], "w_h": [H, 3H], "b": [3H]}`; a pair (forward, backward) of these; a list of
        layers, each one of these or a pair; or the whole mapping that a transformed function's `init` returns.
      names: which modules of the whole mapping are loaded: a name, a pair of names (forward, backward), or a list of
        layers, each a name or a pair. Needed when there are several GRUs.
      **options: of `gj.nnx.GRU` that say how it runs, such as method or time_major, see `GRUSpec`.

    Returns:
      The layer. Its recurrent bias, which haiku does not have, is 0 (`bias="minimal"`).

    Raises:
      TypeError: for what holds no parameters of a GRU.
      ValueError: for wrong shapes, and when the names do not say which GRU is meant.

    Example:
      >>> import numpy as np, jax.numpy as jnp
      >>> gru = {"w_i": np.ones((3, 12), "f"), "w_h": np.eye(4, 12, dtype="f"), "b": np.zeros(12, "f")}
      >>> layer = load({"encoder/gru": gru, "linear": {"w": np.ones((4, 1), "f")}})
      >>> y, h_n = layer(jnp.ones((2, 7, 3)))
      >>> y.shape, layer.spec.reset
      ((2, 7, 4), 'before')

    Source: haiku's `hk.GRU` (dm-haiku 0.0.17).
    """
    who = "haiku.load"
    layers = neutral.nested(who, _picked(params, names), _read, lambda one: isinstance(one, Mapping))
    first = layers[0] if isinstance(layers[0], GRUParams) else layers[0][0]
    cell = GRU(first.w_h.shape[0], reset="before", bias="minimal")
    return neutral.module(who, neutral.Weights(cell, layers), options)


def export(layer: neutral.Layer) -> Tree:
    """The parameters with which `hk.GRU` computes what a layer of this library does.

    Args:
      layer: a `gj.nnx.GRU`; a pair (`gj.linen.GRU`, variables); a pair (`gj.GRU`, `GRUParams`); or a layer of
        `gj.interop`. It needs `reset="before"`, tanh and sigmoid.

    Returns:
      For one layer `{"w_i": [I, 3H], "w_h": [H, 3H], "b": [3H]}`, or with two directions the pair (forward,
      backward); for several layers the list of these. `load` reads all of them. The two biases, which only
      ever occur in a sum, are added to each other.

    Raises:
      TypeError: for what is no layer.
      ValueError: for a layer that `hk.GRU` cannot be; the message says what would be lost.

    Example:
      >>> import gru_jax as gj
      >>> from flax import nnx
      >>> params = export(gj.nnx.GRU(3, 4, reset="before", rngs=nnx.Rngs(0)))
      >>> params["w_i"].shape, params["b"].shape
      ((3, 12), (12,))

    Source: haiku's `hk.GRU` (dm-haiku 0.0.17).
    """
    who = "haiku.export"
    weights = neutral.read(who, layer)
    neutral.require(who, weights, "hk.GRU", reset="before")

    def gru(params: GRUParams) -> dict[str, Array]:
        b = neutral.single_bias(params, weights.cell.hidden_size)
        return {"w_i": _exported(params.w_x), "w_h": _exported(params.w_h), "b": _exported(b)}

    return neutral.each(weights, gru)


def _read(name: str, one: Mapping[str, Weight]) -> GRUParams:
    who = "haiku.load"
    w_i, w_h, b = (
        arrays.of_rank(who, f"{name} {leaf}", one[leaf], rank) for leaf, rank in (("w_i", 2), ("w_h", 2), ("b", 1))
    )
    size = w_h.shape[0]
    arrays.shape(who, f"{name} w_h", w_h, (size, 3 * size), "haiku's w_h is [H, 3H]")
    arrays.shape(who, f"{name} w_i", w_i, (w_i.shape[0], 3 * size), f"w_h is that of {size} units")
    arrays.shape(who, f"{name} b", b, (3 * size,), f"w_h is that of {size} units")
    return neutral.gru_params(_loaded(w_i), _loaded(w_h), _loaded(b), np.zeros(size, b.dtype))


def _loaded(array: np.ndarray) -> np.ndarray:
    z, r, a = np.split(array, 3, axis=-1)
    return np.concatenate([r, -z, a], axis=-1)


def _exported(array: Weight) -> Array:
    r, z, n = np.split(array, 3, axis=-1)
    return arrays.to_jax("haiku.export", "a weight", np.concatenate([-z, r, n], axis=-1))


def _picked(params: Tree, names: Name | list[Name] | None) -> Tree:
    """The parameters of one GRU, a pair or a list of layers, each checked to be a GRU's."""
    who = "haiku.load"
    several = isinstance(params, list | tuple) and not hasattr(params, "_fields")
    if names is not None and (several or (isinstance(params, Mapping) and set(params) == LEAVES)):
        raise TypeError(f"{who}: names pick GRUs out of the mapping that init returns; leave them out for GRUs alone")
    if several:
        return type(params)(_picked(one, None) for one in params)
    if not isinstance(params, Mapping):
        got = type(params).__name__ if hasattr(params, "_fields") else checks.described(params)
        raise TypeError(
            f"{who}: params must be those of hk.GRU, a dict of w_i, w_h and b, or the mapping that init returns;"
            f" got {got}"
        )
    if set(params) == LEAVES:
        return params
    found = sorted(name for name, leaves in params.items() if isinstance(leaves, Mapping) and set(leaves) == LEAVES)
    if not found:
        raise TypeError(
            f"{who}: params hold no GRU, that is no dict of w_i, w_h and b;"
            f" got {checks.listed(params, repr) or 'nothing'}"
        )
    if names is None and len(found) > 1:
        raise ValueError(
            f"{who}: params hold {len(found)} GRUs, {checks.listed(found, repr)}; say which with"
            f" names=[{found[0]!r}, ...], one name a layer, or a pair of names for two directions"
        )
    return _named(params, found[0] if names is None else names, found)


def _named(params: Mapping[str, Tree], names: object, found: list[str]) -> Tree:
    if isinstance(names, list | tuple):
        return type(names)(_named(params, name, found) for name in names)
    if not isinstance(names, str):
        raise TypeError(f"haiku.load: names must be text, pairs and lists of it; got {checks.described(names)}")
    if names not in found:
        what = "is no GRU" if names in params else "is not there"
        raise ValueError(f"haiku.load: {names!r} {what}; the GRUs are {checks.listed(found, repr)}")
    return params[names]
