"""Calls that XLA compiles for themselves."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from gru_jax.types import Tree

Found = TypeVar("Found")


def apart(function: Callable[..., Found]) -> Callable[..., Found]:
    """`function`, compiled for itself: XLA fuses nothing in it with what is around it."""
    compiled = jax.jit(function)

    def call(*args: Tree) -> Found:
        # XLA's inliner leaves such a call as it is. Where it did not know the attribute, only time would be lost.
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call
