"""A network as the parts that machine code runs one after the other, taken from what the combinators made."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.between import EPSILON, Output, Recurrent, Stack
from gru_jax.combinators import Layer
from gru_jax.scans.engines.llvm.step import cells
from gru_jax.scans.engines.llvm.step.net import Cell, Dense, Norm, Part, Sum
from gru_jax.types import Params, State, Tree


class NoMachineCodeError(Exception):
    """There is no machine code for a network's step, and why, as the end of a sentence."""


class Place(NamedTuple):
    """Where a leaf of a network's state is: of which cell it is which vector."""

    cell: int
    vector: int


class Network(NamedTuple):
    """A network taken apart.

    Attributes:
      parts: see `scans.engines.llvm.net`.
      arrays: the parameters of each part.
      state: the structure of a state, with a `Place` at each leaf.
      initial: the cells' states before the first step, in that structure, `[H]` each.
      units: H of each cell.
      features: I.
      width: features that it puts out.
    """

    parts: tuple[Part, ...]
    arrays: tuple[tuple[np.ndarray, ...], ...]
    state: Tree
    initial: State
    units: tuple[int, ...]
    features: int
    width: int


def taken_apart(layer: Layer, params: Params) -> Network:
    """The parts of a layer.

    Raises:
      NoMachineCodeError: for a layer, a cell or a dtype that machine code does not know.
    """
    dtypes = sorted({np.dtype(leaf.dtype).name for leaf in jax.tree.leaves(params)})
    if dtypes != ["float32"]:
        raise NoMachineCodeError(f"parameters in {' and '.join(dtypes)} (only float32)")
    found = _Taken()
    value, state, initial = found.add(layer, jax.tree.map(np.asarray, params), 0)
    cells = [part for part in found.parts if isinstance(part, Cell)]
    units, width = tuple(cell.width for cell in cells), found.parts[value - 1].width
    return Network(tuple(found.parts), tuple(found.arrays), state, initial, units, cells[0].features, width)


class _Taken:
    """Parts that are collected; values are numbered from 1, 0 is x."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.arrays: list[tuple[np.ndarray, ...]] = []
        self.cells = 0

    def add(self, layer: Layer, params: Params, source: int) -> tuple[int, Tree, State]:
        """Appends a layer's parts; the value that it makes, its state's places, and its initial state."""
        made_of = getattr(layer, "made_of", None)
        if isinstance(made_of, Recurrent):
            return self._cell(made_of, params, source)
        if isinstance(made_of, Stack):
            return self._stack(made_of, params, source)
        if isinstance(made_of, Output):
            return self._output(made_of, params, source)
        raise NoMachineCodeError("a layer that neither gj.recurrent nor gj.stack made")

    def _cell(self, made_of: Recurrent, params: Params, source: int) -> tuple[int, Tree, State]:
        cell = made_of.cell
        if made_of.state_dtype is not None and jnp.dtype(made_of.state_dtype) != jnp.float32:
            raise NoMachineCodeError(f"states in {jnp.dtype(made_of.state_dtype).name} (only float32)")
        known = cells.of(cell, params, self._width(source) if self.parts else None)
        if isinstance(known, str):
            raise NoMachineCodeError(known)
        part, arrays = known
        initial: State = jax.tree.map(np.asarray, cell.initial_state((), jnp.float32))
        if hasattr(initial, "_fields"):
            places: Tree = type(initial)(*(Place(self.cells, part.cell.states.index(name)) for name in initial._fields))
        else:
            places = Place(self.cells, 0)
        self.cells += 1
        return self._append(part._replace(source=source), arrays), places, initial

    def _stack(self, made_of: Stack, params: Params, source: int) -> tuple[int, Tree, State]:
        value, states, starts = source, [], []
        weights: Params
        weights, norms = getattr(params, "layers", params), getattr(params, "norms", None) or ()
        layers = len(made_of.layers)
        each_norm = 0 if made_of.norm is None else layers
        for name, given, count in (("layers", weights, layers), ("norms", norms, each_norm)):
            if not isinstance(given, tuple | list) or len(given) != count:
                raise ValueError(
                    f"Stream: params.{name} must be a tuple of {count}; got {checks.described(given)};"
                    f" make params with this stack's init"
                )
        for index, (layer, each) in enumerate(zip(made_of.layers, weights, strict=True)):
            before = value
            value, state, initial = self.add(layer, each, before)
            states.append(state)
            starts.append(initial)
            width = self.parts[value - 1].width
            if made_of.norm is not None:
                norm = tuple(array for array in norms[index] if array is not None)
                if [array.shape for array in norm] != [(width,)] * (2 if made_of.norm == "layer" else 1):
                    raise ValueError(
                        f"Stream: params.norms[{index}] must have scale [{width}], and bias [{width}] for norm='layer';"
                        f" got {' and '.join(map(checks.described, norm)) or 'none'} with norm={made_of.norm!r}; make"
                        f" params with this stack's init"
                    )
                value = self._append(Norm(value, made_of.norm, width, EPSILON), norm)
            if made_of.residual and width == self._width(before):
                value = self._append(Sum(value, before, width), ())
        return value, tuple(states), tuple(starts)

    def _output(self, made_of: Output, params: Params, source: int) -> tuple[int, Tree, State]:
        if not hasattr(params, "net"):
            raise TypeError(f"Stream: params must be ReadoutParams, from init; got {checks.described(params)}")
        value, state, initial = self.add(made_of.net, params.net, source)
        (features, width), fix = params.w.shape, "make params with this network's init"
        checks.shape("Stream", "params.w", params.w.shape, (self._width(value), width), fix)
        checks.shape("Stream", "params.b", params.b.shape, (width,), fix)
        dense = Dense(value, features, width, made_of.activation)
        return self._append(dense, (params.w, params.b)), state, initial

    def _width(self, value: int) -> int:
        return self.parts[value - 1].width if value else self.parts[0].features  # type: ignore[union-attr]

    def _append(self, part: Part, arrays: tuple[np.ndarray, ...]) -> int:
        self.parts.append(part)
        self.arrays.append(arrays)
        return len(self.parts)
