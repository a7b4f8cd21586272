"""What a method finds: the states after every step, the state at the end, and how sure it is of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.cells.base import accumulator
from gru_jax.scans.masking import Context
from gru_jax.types import Array, DType, State, exportable


@exportable("Stats")
class Stats(NamedTuple):
    """How a parallel method did, one value for each sequence, `[*batch]`.

    Attributes:
      iterations: rounds until the residual was small enough; the most of any window.
      residual: largest `|h_t - F_t(h_{t-1})|` of what was found, before any fallback, relative to max(1, |h|).
      error: how far off what was found may be, estimated, relative to max(1, |h|), the rounding to half precision
        included; infinite where nothing was found or no estimate settled.
      converged: whether the residual and the estimated error were within their bounds.
      fell_back: whether the states come from the sequential scan instead.
    """

    iterations: Array
    residual: Array
    error: Array
    converged: Array
    fell_back: Array


class Trajectory(NamedTuple):
    """A sequence's states.

    Attributes:
      states: after every step, `[T, *batch, H]`, in original time order.
      final: after the last step, `[*batch, H]`.
      stats: how they were found.
    """

    states: State
    final: State
    stats: Stats


def exact(context: Context, states: State, reverse: bool) -> Trajectory:
    """The trajectory of a method that leaves no residual."""
    like = jax.tree.leaves(context.h0)[0]
    return Trajectory(states, context.time.end(states, reverse), certain(like.shape[:-1], like.dtype))


def certain(batch: tuple[int, ...], dtype: DType) -> Stats:
    """The stats of a method that takes one step after another."""
    never = jnp.zeros(batch, bool)
    nothing = jnp.zeros(batch, accumulator(dtype))
    return Stats(jnp.zeros(batch, jnp.int32), nothing, nothing, ~never, never)
