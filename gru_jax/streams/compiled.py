"""A network's step as a function that XLA compiled, for what machine code does not know."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.between import Output
from gru_jax.combinators import Layer
from gru_jax.streams.network import Network
from gru_jax.types import Array, Params, State, Tree


class Compiled:
    """A network's step for some sequences; attributes as those of `machine_code.MachineCode`."""

    def __init__(self, layer: Layer, params: Params, x: np.ndarray) -> None:
        self._step = _step(layer)
        self._params = params
        made = jax.eval_shape(functools.partial(_applied, layer), params, x)
        if not isinstance(made, tuple):
            raise TypeError(
                f"Stream: needs a network whose apply gives (y, states); got {type(layer).__name__}; stream the network"
                f" inside, with its part of the parameters"
            )
        # A sequence of length 0 ends where it began.
        ended = jax.jit(lambda params, x, lengths: _applied(layer, params, x, lengths=lengths)[1])
        start = ended(params, x, np.zeros(x.shape[:-1], np.int32))
        self.initial: State = jax.tree.map(np.array, start)
        self.state: State = jax.tree.map(np.array, start)
        self.x, self.y = np.zeros(x.shape, x.dtype), np.zeros((*x.shape[:-1], made[0].shape[-1]), made[0].dtype)
        self.job: None = None
        self.run: Callable[[None], None] = self._run

    def take(self, params: Params, network: Network | None) -> None:
        """Takes parameters of the same shapes."""
        self._params = params

    def _run(self, job: None) -> None:
        y, state = self._step(self._params, self.x, self.state)
        self.y[...] = y
        for mine, now in zip(jax.tree.leaves(self.state), jax.tree.leaves(state), strict=True):
            mine[...] = now


def _step(layer: Layer) -> Callable[[Params, np.ndarray, State], tuple[Array, State]]:
    @jax.jit
    def step(params: Params, x: Array, state: State) -> tuple[Array, State]:
        y, after = _applied(layer, params, x, state)[:2]
        return y.reshape(*x.shape[:-1], y.shape[-1]), after

    return step


def _applied(layer: Layer, params: Params, x: Array | np.ndarray, *state: State, **options: Any) -> Tree:
    """What a layer makes of a sequence of one step, and its states."""
    if isinstance(getattr(layer, "made_of", None), Output):
        options["return_state"] = True
    return layer.apply(params, jnp.expand_dims(x, -2), *state, deterministic=True, **options)
