"""Every choice that "auto" stands for, made in one place from what was measured."""

import dataclasses
from typing import Protocol

import jax

from gru_jax import checks
from gru_jax.cells.base import Cell
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.sequential import Sequential
from gru_jax.types import State


class Method(Protocol):
    """A way to find the trajectory of a cell: a frozen dataclass of options."""

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> State:
        """The states after every step, `[T, *batch, H]`, in original time order, with the shared derivative."""

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""


METHODS = ("auto", "sequential", "naive")
"""The names that `method` may be; each is short for its class with default options."""


def resolve(method: str | Method) -> Method:
    """The method behind a name, with every "auto" in it decided for the backend that JAX will use.

    Raises:
      ValueError: for an unknown name.
      TypeError: for what is neither a name nor a method.
    """
    if isinstance(method, str):
        checks.choice("scan", "method", method, METHODS)
        method = Sequential()
    if not hasattr(method, "trajectory") or isinstance(method, type):
        got = f"the class {method.__name__}; call it" if isinstance(method, type) else repr(method)
        names = ", ".join(map(repr, METHODS))
        raise TypeError(f"scan: method must be one of {names} or a method such as gj.Sequential(); got {got}")
    if isinstance(method, Sequential):
        hoist = jax.default_backend() != "cpu" if method.hoist == "auto" else method.hoist
        keep = "states" if method.keep == "auto" else method.keep
        return dataclasses.replace(method, hoist=hoist, keep=keep)
    return method
