"""Every choice that "auto" stands for, made in one place from what was measured."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells.base import Cell, accumulator
from gru_jax.scans.associative import Associative
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.newton import Newton
from gru_jax.scans.sequential import Sequential
from gru_jax.scans.time_sharding import TimeSharded
from gru_jax.scans.trajectory import Trajectory
from gru_jax.types import DType


class Method(Protocol):
    """A way to find the trajectory of a cell: a frozen dataclass of options."""

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps, with the shared derivative."""

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""


METHODS = ("auto", "sequential", "associative", "newton", "naive")
"""The names that `method` may be; each is short for its class with default options."""


GATES_BUDGET = 2**30
"""How many bytes of gates "auto" is willing to keep for a backward pass."""


def check(method: str | Method, cell: Cell) -> None:
    """Raises unless `method` is a name or a method, and one that runs this cell."""
    if isinstance(method, str):
        checks.choice("scan", "method", method, METHODS)
    elif not hasattr(method, "trajectory") or isinstance(method, type):
        got = f"the class {method.__name__}; call it" if isinstance(method, type) else repr(method)
        names = ", ".join(map(repr, METHODS))
        raise TypeError(f"scan: method must be one of {names} or a method such as gj.Sequential(); got {got}")
    if isinstance(method, TimeSharded):
        check(method.method, cell)
    if (method == "associative" or isinstance(method, Associative)) and not hasattr(cell, "affine"):
        raise ValueError(
            f"scan: method {method!r} needs a cell that is linear in its state, with a method affine(params, u) ->"
            f" (a, b), such as gj.MinGRU; {type(cell).__name__} is not; use method='sequential'"
        )


def resolve(method: str | Method, cell: Cell, states: int, dtype: DType) -> Method:
    """The method behind a name, with every "auto" in it decided for the backend that JAX will use.

    Args:
      method: a name or a method that `check` has let pass.
      cell: what is to be run.
      states: how many numbers the trajectory holds, T x B x H.
      dtype: of the states.

    Returns:
      A method without any "auto" in it.
    """
    if isinstance(method, TimeSharded):
        inner = method.method
        # Steps in turn would leave all devices but one waiting.
        if inner == "auto" and not hasattr(cell, "affine"):
            inner = Newton()
        inner = resolve(inner, cell, states, dtype)
        if isinstance(inner, Sequential):
            inner = dataclasses.replace(inner, keep="states")
        return dataclasses.replace(method, method=inner)
    if isinstance(method, str):
        # For a cell that is linear in its state the recurrence over all of time is never slower: on CPU it is the same
        # loop with nothing but a product and a sum in it.
        linear = method == "associative" or (method == "auto" and hasattr(cell, "affine"))
        method = Newton() if method == "newton" else Associative() if linear else Sequential()
    if isinstance(method, Sequential):
        cpu = jax.default_backend() == "cpu"
        # XLA's CPU code for a loop that slices a projected input does not vectorise.
        hoist = not cpu if method.hoist == "auto" else method.hoist
        keep = method.keep
        if keep == "auto":
            # On CPU computing the gates again makes a training step of a batch 1.1 to 1.2 times as long (see
            # benchmarks/training_step.py) and memory is rarely short. In half precision plain differentiation of the
            # loop would add up the gradients of the parameters in half precision, step after step.
            # A symbolic number of states, under jax.export, cannot be compared.
            small = isinstance(states, int) and 10 * states * jnp.dtype(dtype).itemsize <= GATES_BUDGET
            keep = "gates" if cpu and small and accumulator(dtype) == dtype else "states"
        return dataclasses.replace(method, hoist=hoist, keep=keep)
    return method
