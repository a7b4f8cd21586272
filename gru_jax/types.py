"""Shape letters and array aliases, said once.

| letter | meaning |
|---|---|
| B | batch; `*batch` is any number of leading batch dimensions, none included |
| T | time steps |
| I | input features |
| H | hidden features |
| L | layers |
| D | directions, 1 or 2 |

An annotation names the kind of array; its shape stands in the docstring in backticks, `[*batch, T, I]`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
from jax import export

Kind = TypeVar("Kind", bound=type)

Array: TypeAlias = jax.Array
"""An array of floating-point numbers."""

BoolArray: TypeAlias = jax.Array
"""An array of True (use this step, reset at this step) and False."""

IntArray: TypeAlias = jax.Array
"""An array of whole numbers, such as lengths."""

Key: TypeAlias = jax.Array
"""A random key, from `jax.random.key(0)`."""

Params: TypeAlias = Any
"""A pytree of arrays, such as `GRUParams`."""

State: TypeAlias = Any
"""What a cell carries from step to step: an array `[*batch, H]`, or a pytree of such arrays."""

Projected: TypeAlias = Any
"""What a cell's `project` makes of its input and `step` takes: an array `[*batch, size]`, or a pytree of such."""

Tree: TypeAlias = Any
"""A pytree of arrays of any kind, and whatever JAX takes for one."""

DType: TypeAlias = Any
"""A floating-point dtype, such as `jnp.float32`."""

Options: TypeAlias = dict[str, Any]
"""Options by their names, which whoever takes them checks."""

Plain: TypeAlias = Any
"""A value as YAML and JSON hold it: None, a bool, a number, a string, or a list or a dict of such values."""

Function: TypeAlias = Callable[..., Any]
"""A function whose arguments are known to those who made it and those who call it."""

Activation: TypeAlias = str | Callable[[jax.Array], jax.Array]
"""A name from `gru_jax.cells.activations`, or an elementwise function."""


def exportable(name: str) -> Callable[[Kind], Kind]:
    """A decorator: functions that take or return such a named tuple can be written by `jax.export`.

    The name stands in what is written, and has to stay what it is when a class moves or is renamed.
    """

    def register(kind: Kind) -> Kind:
        export.register_namedtuple_serialization(kind, serialized_name=f"gru_jax.{name}")
        return kind

    return register
