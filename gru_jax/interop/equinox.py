"""`gru_jax.interop.equinox`: weights of `eqx.nn.GRUCell`, both ways. Equinox is imported when a function is called.

Equinox's arrays are torch's transposes, gates r, z, n, with the four biases of `bias="minimal"`, or none.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gru_jax import checks
from gru_jax.cells import GRU, GRUParams
from gru_jax.interop import arrays, neutral
from gru_jax.interop.arrays import Weight
from gru_jax.layers import nnx

if TYPE_CHECKING:
    from equinox.nn import GRUCell

__all__ = ["export", "load"]


def load(cells: "GRUCell | Sequence[GRUCell | tuple[GRUCell, GRUCell]]", **options: Any) -> nnx.GRU:
    """A `gj.nnx.GRU` that computes over time what `eqx.nn.GRUCell` does in each step.

    `w_x = weight_ih^T`, `w_h = weight_hh^T`, `b_x = bias`, and `b_h = bias_n`, the candidate's.

    Args:
      cells: one `eqx.nn.GRUCell`; a pair (forward, backward) of them; or a list of layers, each one cell or a pair.
      **options: of `gj.nnx.GRU` that say how it runs, such as method or time_major, see `GRUSpec`.

    Returns:
      The layer, with `bias="minimal"`, or "none" for cells with `use_bias=False`.

    Raises:
      TypeError: for what is no GRU cell of Equinox.
      ValueError: for wrong shapes, and for cells that do not fit each other.
      ImportError: without Equinox.

    Example:
      >>> import equinox as eqx, jax  # doctest: +SKIP
      >>> layer = load(eqx.nn.GRUCell(3, 4, key=jax.random.key(0)))  # doctest: +SKIP
      >>> y, h_n = layer(jax.numpy.ones((2, 7, 3)))  # doctest: +SKIP
      >>> y.shape  # doctest: +SKIP
      (2, 7, 4)

    Source: Equinox's `eqx.nn.GRUCell` (equinox 0.13.8).
    """
    who = "equinox.load"
    eqx = arrays.imported(who, "equinox")
    for one in _leaves(cells):
        if not isinstance(one, eqx.nn.GRUCell):
            got = f"the class {one.__name__}" if isinstance(one, type) else checks.described(one)
            raise TypeError(f"{who}: cells must be eqx.nn.GRUCell, a pair of them or a list of layers; got {got}")
    layers = neutral.nested(who, cells, _read, lambda one: isinstance(one, eqx.nn.GRUCell))
    first = layers[0] if isinstance(layers[0], GRUParams) else layers[0][0]
    cell = GRU(first.w_h.shape[0], bias="none" if first.b_x is None else "minimal")
    return neutral.module(who, neutral.Weights(cell, layers), options)


def export(layer: neutral.Layer) -> Any:
    """The `eqx.nn.GRUCell` that computes in each step what a layer of this library does.

    Args:
      layer: a `gj.nnx.GRU`; a pair (`gj.linen.GRU`, variables); a pair (`gj.GRU`, `GRUParams`); or a layer of
        `gj.interop`. It needs `reset="after"`, tanh and sigmoid.

    Returns:
      For one layer its cell, or with two directions the pair (forward, backward); for several layers the list of
      these. `load` reads all of them. The recurrent biases of r and z, which only ever occur in a sum with the
      input's, are added to these.

    Raises:
      TypeError: for what is no layer.
      ValueError: for a layer that `eqx.nn.GRUCell` cannot be; the message says what would be lost.
      ImportError: without Equinox.

    Example:
      >>> import jax, gru_jax as gj  # doctest: +SKIP
      >>> from flax import nnx  # doctest: +SKIP
      >>> cell = export(gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0)))  # doctest: +SKIP
      >>> cell(jax.numpy.ones(3), jax.numpy.zeros(4)).shape  # doctest: +SKIP
      (4,)

    Source: Equinox's `eqx.nn.GRUCell` (equinox 0.13.8).
    """
    who = "equinox.export"
    weights = neutral.read(who, layer)
    neutral.require(who, weights, "eqx.nn.GRUCell", reset="after")
    eqx = arrays.imported(who, "equinox")
    size = weights.cell.hidden_size

    def gru(params: GRUParams) -> "GRUCell":
        # The empty cell is made without drawing numbers that would be thrown away.
        empty = eqx.filter_eval_shape(
            eqx.nn.GRUCell, params.w_x.shape[0], size, params.b_x is not None, params.w_x.dtype, key=jax.random.key(0)
        )
        given: list[Weight] = [params.w_x.T, params.w_h.T]
        if params.b_x is not None:
            given += neutral.merged_biases(params, size)
        given = [arrays.to_jax(who, "a weight", np.ascontiguousarray(a)) for a in given]
        return eqx.tree_at(_arrays, empty, given)

    return neutral.each(weights, gru)


def _arrays(cell: "GRUCell") -> list[Weight]:
    return [a for a in (cell.weight_ih, cell.weight_hh, cell.bias, cell.bias_n) if a is not None]


def _read(name: str, cell: "GRUCell") -> GRUParams:
    who = "equinox.load"
    w_ih = arrays.of_rank(who, f"{name} weight_ih", cell.weight_ih, 2)
    w_hh = arrays.of_rank(who, f"{name} weight_hh", cell.weight_hh, 2)
    size = w_hh.shape[1]
    arrays.shape(who, f"{name} weight_hh", w_hh, (3 * size, size), "Equinox's weight_hh is [3H, H]")
    arrays.shape(who, f"{name} weight_ih", w_ih, (3 * size, w_ih.shape[1]), f"weight_hh is that of {size} units")
    if not cell.use_bias:
        return neutral.gru_params(w_ih.T, w_hh.T, None, None)
    bias, bias_n = (arrays.of_rank(who, f"{name} {leaf}", getattr(cell, leaf), 1) for leaf in ("bias", "bias_n"))
    arrays.shape(who, f"{name} bias", bias, (3 * size,), f"weight_hh is that of {size} units")
    arrays.shape(who, f"{name} bias_n", bias_n, (size,), f"weight_hh is that of {size} units")
    return neutral.gru_params(w_ih.T, w_hh.T, bias, bias_n)


def _leaves(cells: object) -> list[object]:
    if isinstance(cells, list | tuple):
        return [leaf for one in cells for leaf in _leaves(one)]
    return [cells]
