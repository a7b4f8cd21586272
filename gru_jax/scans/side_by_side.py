"""Parts of a computation that XLA's CPU runtime executes at the same time, each on a core of its own.

XLA's CPU backend runs a program's operations one after the other, whatever does not depend on what, until more than
eight of them are ready at once: then it hands half of them to another thread. And two operations depend on each other
for it wherever one writes memory that the other uses, which the compiler arranges as it likes. So here

- each part is one call, and what it computes on its way is kept until all parts are done: the memory of two parts is
  then never the same;
- between two parts stand fillers, operations on one number each, so that enough of them are ready, and so that the
  half that goes to another thread holds the other part.

None of this changes what is computed: where a runtime does otherwise, the parts run one after the other. Measured in
docs/performance.md.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.scans.apart import apart
from gru_jax.types import Array

FILLERS = 12
"""Between two parts: XLA hands on half of what is ready when that is more than eight."""


def run(parts: Sequence[Callable[..., Any]], where: Any, args: Sequence[Any], idle: Array) -> tuple[list[Any], Array]:
    """The results of all parts.

    Args:
      parts: functions `(where, *args) -> (results, on_the_way)`, the latter everything else that takes up memory in
        them, and arguments that are not used again but must not be written over before all are done.
      where: unsigned numbers, the same for all parts.
      args: what else each is called with.
      idle: 0, from `zero` or from a call before.

    Returns:
      The results of each, and idle for the next time.
    """

    def fork(where: Any, args: Sequence[Any], idle: Array) -> tuple[list[Any], Array]:
        made: list[Any] = []
        fillers: list[Array] = []
        for number, part in enumerate(parts):
            # The order in which the runtime comes to them is that in which they could depend on each other here.
            made.append(apart(_after(part))(fillers[-FILLERS:], where, *args[number]))
            for k in range(FILLERS if number + 1 < len(parts) else 0):
                before = (made[-1][1], fillers[-1:])
                fillers.append(apart(_fill)(before, idle, jnp.int32(1 + number * FILLERS + k)))
        kept = (where, [on_the_way for _, on_the_way in made])
        return [results for results, _ in made], apart(_join)(kept, idle, fillers)

    return apart(fork)(where, args, idle)


def zero(like: Array) -> Array:
    """0 for `run`, which the compiler does not know to be 0: what is computed of it must not be known at once."""
    bits = lax.bitcast_convert_type(like.reshape(-1)[0].astype(jnp.float32), jnp.uint32)
    # Of 32 bits there are no more than 32.
    return (lax.population_count(bits) >> 6).astype(jnp.int32)


def _after(part: Callable[..., Any]) -> Callable[..., Any]:
    def call(before: Any, where: Any, *args: Any) -> Any:
        nothing = _nothing(before)
        return part(jax.tree.map(lambda number: number + nothing.astype(number.dtype), where), *args)

    return call


def _fill(before: Any, idle: Array, number: Array) -> Array:
    return (idle & number) | _nothing(before)


def _join(kept: Any, idle: Array, fillers: list[Array]) -> Array:
    for each in fillers:
        idle = idle | each
    return idle | _nothing(kept)


def _nothing(tree: Any) -> Array:
    """0, which depends on all of a tree for JAX, and for XLA only as far as the order of calls goes."""
    zero = jnp.int32(0)
    for leaf in jax.tree.leaves(tree):
        zero = zero | (leaf.reshape(-1)[0].astype(jnp.int32) & jnp.int32(0))
    return zero
