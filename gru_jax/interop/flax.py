"""`gru_jax.interop.flax`: weights of Flax's own GRU cells, of `flax.linen` and of `flax.nnx`, both ways.

Both put the reset gate after the recurrent product. `linen.GRUCell` has the four biases of `bias="minimal"`;
`nnx.GRUCell` lacks the candidate's recurrent one, b_hn, whatever its documentation shows (flax 0.12.8).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx as flax_nnx

from gru_jax.cells import GRUParams, activations
from gru_jax.interop import arrays, flax_cells, neutral
from gru_jax.interop.arrays import Weight
from gru_jax.layers import nnx
from gru_jax.types import Activation, Array, Options, Params, Tree

__all__ = ["export_linen", "export_nnx", "load_linen", "load_nnx"]


def load_linen(
    params: Tree, *, activation: Activation = "tanh", gate_activation: Activation = "sigmoid", **options: Any
) -> nnx.GRU:
    """A `gj.nnx.GRU` that computes over time what `linen.GRUCell` does in each step.

    `w_x = [ir | iz | in]` and `w_h = [hr | hz | hn]` of the kernels; `b_x = [ir | iz | in]`, `b_h = hn` of the biases.

    Args:
      params: the parameters of `linen.GRUCell`, `{"ir": {"kernel": [I, H], "bias": [H]}, ...}`; of `linen.RNN`,
        `{"cell": ...}`; of `linen.Bidirectional`, `{"forward_rnn": ..., "backward_rnn": ...}`; a pair (forward,
        backward) of the former; or a list of layers, each one of these. Each may stand in `{"params": ...}`. Of a
        bigger model it is the sub-tree: in an `@nn.compact` method Flax calls the cells `GRUCell_0`, `GRUCell_1`, ...
      activation: of the candidate state, the cell's `activation_fn`, which is not among the parameters.
      gate_activation: of the gates, the cell's `gate_fn`.
      **options: of `gj.nnx.GRU` that say how it runs, such as method or time_major, see `GRUSpec`.

    Returns:
      The layer, with `bias="minimal"`.

    Raises:
      TypeError: for what holds no parameters of a GRU.
      ValueError: for wrong shapes, and for a bigger tree; the message lists the GRU cells in it.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen
      >>> rnn, x = linen.RNN(linen.GRUCell(4)), jnp.ones((2, 7, 3))
      >>> variables = rnn.init(jax.random.key(0), x)
      >>> y, h_n = load_linen(variables)(x)
      >>> bool(jnp.allclose(y, rnn.apply(variables, x), atol=1e-6))
      True

    Source: `flax.linen.GRUCell`, `RNN` and `Bidirectional` (flax 0.12.8).
    """
    who = "load_linen"
    given = flax_cells.linen_cells(params)
    layers = neutral.nested(who, given, flax_cells.read_linen, lambda one: isinstance(one, Mapping))
    cell = flax_cells.cell_of(layers, activation, gate_activation)
    return neutral.module(who, neutral.Weights(cell, layers), options)


def export_linen(
    layer: neutral.Layer, *, activation: Activation = "tanh", gate_activation: Activation = "sigmoid"
) -> Tree:
    """The parameters with which Flax's linen modules compute what a layer of this library does.

    Args:
      layer: a `gj.nnx.GRU`; a pair (`gj.linen.GRU`, variables); a pair (`gj.GRU`, `GRUParams`); or a layer of
        `gj.interop`. It needs `reset="after"`.
      activation: the `activation_fn` of the `linen.GRUCell` that the parameters are for, which must be the layer's.
      gate_activation: its `gate_fn`, likewise.

    Returns:
      For one layer the parameters of `linen.RNN(linen.GRUCell(H))`, `{"cell": {"ir": {"kernel": [I, H], ...}, ...}}`,
      or with two directions those of `linen.Bidirectional`, `{"forward_rnn": {"cell": ...}, "backward_rnn": ...}`;
      for several layers the list of these. `load_linen` reads all of them. The recurrent biases of r and z, which only
      ever occur in a sum with the input's, are added to these.

    Raises:
      TypeError: for what is no layer.
      ValueError: for a layer that `linen.GRUCell` cannot be; the message says what would be lost.

    Example:
      >>> import jax.numpy as jnp, gru_jax as gj
      >>> from flax import linen, nnx
      >>> layer, x = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0)), jnp.ones((2, 7, 3))
      >>> y = linen.RNN(linen.GRUCell(4)).apply({"params": export_linen(layer)}, x)
      >>> bool(jnp.allclose(y, layer(x)[0], atol=1e-6))
      True

    Source: `flax.linen.GRUCell`, `RNN` and `Bidirectional` (flax 0.12.8).
    """
    who = "export_linen"
    weights = neutral.read(who, layer)
    neutral.require(who, weights, "linen.GRUCell", reset="after", any_activation=True)
    has = weights.cell.activation, weights.cell.gate_activation
    if has != (activations.named(activation), activations.named(gate_activation)):
        raise ValueError(
            f"{who}: the layer has activation={has[0]!r} and gate_activation={has[1]!r}, which are no parameters and"
            f" would be lost; make linen.GRUCell with these as activation_fn and gate_fn, and pass them here too"
        )

    def gru(params: GRUParams) -> Params:
        kernels = _split(who, params.w_x) + _split(who, params.w_h)
        b_x, b_n = neutral.merged_biases(params, weights.cell.hidden_size)
        cell = {name: {"kernel": kernel} for name, kernel in zip(flax_cells.LINEN, kernels, strict=True)}
        for name, bias in zip(("ir", "iz", "in"), _split(who, b_x), strict=True):
            cell[name]["bias"] = bias
        cell["hn"]["bias"] = arrays.to_jax(who, "a weight", b_n)
        return {"cell": cell}

    def rnn(given: Params) -> Params:
        return given if isinstance(given, dict) else {"forward_rnn": given[0], "backward_rnn": given[1]}

    layers = neutral.each(weights, gru)
    return [rnn(given) for given in layers] if isinstance(layers, list) else rnn(layers)


def load_nnx(
    modules: flax_nnx.Module | Sequence[flax_nnx.Module | tuple[flax_nnx.GRUCell, flax_nnx.GRUCell]], **options: Any
) -> nnx.GRU:
    """A `gj.nnx.GRU` that computes what Flax's own NNX modules do.

    `w_x` and `b_x` are the kernel and the bias of `dense_i`, `w_h` the kernel of `dense_h`, and `b_h = 0`.

    Args:
      modules: a `flax.nnx.GRUCell`; a `flax.nnx.RNN` or `flax.nnx.Bidirectional` of it; a pair (forward, backward) of
        cells; or a list of layers, each one of these.
      **options: of `gj.nnx.GRU` that say how it runs, such as method or padding, see `GRUSpec`. What the modules say
        of it is taken from them, where it is not given: the cell's `dtype`, and the RNN's `time_major` and `reverse`.
        `merge` is needed for a `Bidirectional` with a `merge_fn` of its own.

    Returns:
      The layer, with `bias="minimal"`, activations those of the cell. It always returns the outputs and the states, as
      `RNN` with `return_carry=True`, in the other order.

    Raises:
      TypeError: for modules that are no GRU.
      ValueError: for what would be lost, and for a bigger model; the message lists the GRU cells in it.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> rnn, x = nnx.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))), jnp.ones((2, 7, 3))
      >>> y, h_n = load_nnx(rnn)(x)
      >>> bool(jnp.allclose(y, rnn(x), atol=1e-6))
      True

    Source: `flax.nnx.GRUCell`, `RNN` and `Bidirectional` (flax 0.12.8).
    """
    who = "load_nnx"
    found: Options = {}

    def say(name: str, value: object) -> None:
        if name not in options and found.setdefault(name, value) != value:
            raise ValueError(
                f"{who}: the modules differ in {name}, {found[name]!r} and {value!r}; pass {name}= the one to use"
            )

    given = flax_cells.nnx_cells(modules, say)
    cells = flax_cells.leaves(given)
    layers = neutral.nested(who, given, flax_cells.read_nnx, lambda one: isinstance(one, flax_nnx.GRUCell))
    for cell in cells:
        say("dtype", None if cell.dtype is None else jnp.dtype(cell.dtype))
    functions = {(activations.named(cell.activation_fn), activations.named(cell.gate_fn)) for cell in cells}
    if len(functions) > 1:
        raise ValueError(f"{who}: the cells differ in activation_fn or gate_fn; load them one by one")
    if callable(found.get("merge")):
        raise ValueError(
            f"{who}: Bidirectional has a merge_fn of its own, which would be lost; pass merge= what it computes, one of"
            f" 'concat', 'sum', 'mul', 'mean'"
        )
    return neutral.module(who, neutral.Weights(flax_cells.cell_of(layers, *functions.pop()), layers), found | options)


def export_nnx(layer: neutral.Layer) -> Any:
    """The `flax.nnx.GRUCell` that computes in each step what a layer of this library does.

    Args:
      layer: a `gj.nnx.GRU`; a pair (`gj.linen.GRU`, variables); a pair (`gj.GRU`, `GRUParams`); or a layer of
        `gj.interop`. It needs `reset="after"` and a recurrent bias of the candidate that is absent or 0:
        `flax.nnx.GRUCell` has none. (`gj.nnx.GRUCell`, which takes its place in `flax.nnx.RNN`, has one.)

    Returns:
      For one layer its cell, for `flax.nnx.RNN(cell)`, or with two directions the pair (forward, backward); for several
      layers the list of these. `load_nnx` reads all of them. The recurrent biases of r and z, which only ever occur in
      a sum with the input's, are added to these.

    Raises:
      TypeError: for what is no layer.
      ValueError: for a layer that `flax.nnx.GRUCell` cannot be; the message says what would be lost.

    Example:
      >>> import jax.numpy as jnp, gru_jax as gj
      >>> from flax import nnx
      >>> layer, x = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0)), jnp.ones((2, 7, 3))
      >>> rnn = nnx.RNN(export_nnx(layer))
      >>> bool(jnp.allclose(rnn(x), layer(x)[0], atol=1e-6))
      True

    Source: `flax.nnx.GRUCell` (flax 0.12.8).
    """
    who = "export_nnx"
    weights = neutral.read(who, layer)
    neutral.require(who, weights, "flax.nnx.GRUCell", reset="after", any_activation=True)
    size = weights.cell.hidden_size

    def gru(params: GRUParams) -> flax_nnx.GRUCell:
        b_x, b_n = neutral.merged_biases(params, size)
        if b_n.any():
            raise ValueError(
                f"{who}: flax.nnx.GRUCell has no recurrent bias of the candidate, and this layer's, up to"
                f" {np.abs(b_n).max():.2g}, would be lost; use gj.nnx.GRUCell, which has it, in flax.nnx.RNN,"
                f" or export_linen"
            )

        def make() -> flax_nnx.GRUCell:
            return flax_nnx.GRUCell(
                params.w_x.shape[0],
                size,
                gate_fn=activations.get(weights.cell.gate_activation),
                activation_fn=activations.get(weights.cell.activation),
                param_dtype=params.w_x.dtype,
                rngs=flax_nnx.Rngs(0),
            )

        # The empty cell is made without drawing numbers that would be thrown away.
        cell = flax_nnx.eval_shape(make)
        given: Any = ((cell.dense_i.kernel, params.w_x), (cell.dense_h.kernel, params.w_h), (cell.dense_i.bias, b_x))
        for variable, array in given:
            variable.set_value(arrays.to_jax(who, "a weight", array))
        return cell

    return neutral.each(weights, gru)


def _split(who: str, array: Weight) -> list[Array]:
    """The blocks of the gates r, z, n."""
    return [arrays.to_jax(who, "a weight", np.ascontiguousarray(part)) for part in np.split(array, 3, axis=-1)]
