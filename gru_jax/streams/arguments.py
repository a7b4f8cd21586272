"""What a stream is given: a layer of any kind with its parameters, and states; and what is wrong with them."""

import inspect
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.between import Output, Recurrent, Stack
from gru_jax.cells.base import Cell
from gru_jax.combinators import Layer, recurrent
from gru_jax.scans.engines import llvm
from gru_jax.streams.network import Network, NoMachineCodeError, taken_apart
from gru_jax.types import Params, State


def network(layer: Layer, params: Params) -> tuple[Network | None, str | None]:
    """The network for machine code, or why there is none."""
    reason = llvm.missing()
    if reason is None:
        from gru_jax.scans.engines.llvm import host

        problem = host.problem()
        reason = problem and f"this machine: {problem}"
    try:
        return (None, reason) if reason is not None else (taken_apart(layer, params), None)
    except NoMachineCodeError as error:
        return None, str(error)


def dtype(params: Params) -> np.dtype:
    """That of all parameters."""
    leaves = jax.tree.leaves(params)
    kinds = {str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves}
    if len(kinds) != 1 or not hasattr(leaves[0], "dtype"):
        names = " and ".join(sorted(kinds)) or "none"
        raise TypeError(f"Stream: params must be arrays of one dtype; got {names}; convert them with jax.tree.map")
    return np.dtype(leaves[0].dtype)


def input_size(layer: object, params: Params) -> int | None:
    """I, of a network whose first cell says it or has an input matrix by the name that it has in this library."""
    made_of = getattr(layer, "made_of", None)
    if isinstance(made_of, Output):
        return input_size(made_of.net, params.net)
    if isinstance(made_of, Stack):
        return input_size(made_of.layers[0], params.layers[0])
    if not isinstance(made_of, Recurrent):
        return None
    if hasattr(made_of.cell, "input_size"):
        return made_of.cell.input_size(params)
    return params.w_x.shape[0] if hasattr(params, "w_x") else None


def functional(layer: Any, params: Params) -> tuple[Layer, Params]:
    """A layer as functions, and its parameters in the dtype in which it computes."""
    spec = None
    if hasattr(layer, "functional"):
        spec = layer.spec
        if inspect.signature(layer.functional).parameters:  # Linen's, whose parameters are not in it
            layer, params = layer.functional(_given(params))
        else:
            layer, own = layer.functional()
            params = own if params is None else params
    if isinstance(layer, Cell) and not isinstance(layer, type):
        layer = recurrent(layer)
    if not (callable(getattr(layer, "init", None)) and callable(getattr(layer, "apply", None))):
        raise TypeError(
            f"Stream: needs a gj.nnx.GRU, a cell, or what gj.recurrent or gj.stack made; got {checks.described(layer)}"
        )
    params = _given(params)
    made_of = getattr(layer, "made_of", None)
    net = made_of.net if isinstance(made_of, Output) else layer
    if isinstance(made_of, Output) and made_of.steps == "mean":
        raise ValueError(
            "Stream: a stream answers at each step; got one answer, the mean over time (steps='mean',"
            " in a config model.pool: mean); make and train it with steps='last' (model.pool: last) or 'all'"
        )
    if getattr(net, "from_end", False) or getattr(spec, "reverse", False):
        raise ValueError(
            "Stream: a layer that reads from the sequence's end cannot be stepped; got one; call it on the whole x"
        )
    dtype = getattr(spec, "dtype", None)
    return layer, params if dtype is None else jax.tree.map(lambda a: a.astype(dtype), params)


def _given(params: Params) -> Params:
    if params is None:
        raise TypeError("Stream: needs the parameters of a network or cell; got params=None; pass params=net.init(...)")
    return params


def plain(state: State) -> State:
    """States that may be Flax's variables as arrays."""
    variable = lambda a: hasattr(a, "get_value")  # noqa: E731
    return jax.tree.map(lambda a: a.get_value() if variable(a) else a, state, is_leaf=variable)


def fitted(name: str, given: State, like: State) -> State:
    """Given states as arrays of the shapes that there are."""
    got, expected = (str(jax.tree.structure(state)) for state in (given, like))
    if got != expected:
        raise ValueError(
            f"Stream: {name} must have the structure of the layer's states, {expected}; got {got}; take it from what"
            f" the layer returns"
        )

    def fitted(a: ArrayLike, there: np.ndarray) -> np.ndarray:
        a = np.asarray(a)
        if a.shape not in (there.shape, there.shape[-1:]):
            raise ValueError(
                f"Stream: {name} must have shape {list(there.shape)}, or {list(there.shape[-1:])} for all sequences"
                f" alike; got {list(a.shape)}; there is one state for each sequence"
            )
        return np.array(np.broadcast_to(a, there.shape), there.dtype)

    return jax.tree.map(fitted, given, like)
