"""Linear recurrences `h_t = a_t h_{t-1} + b_t` whose (a, b) are elementwise in what is read: what GPU and TPU share.

One kernel serves them all: the plain recurrence, where a and b are read as they are; minGRU and minLSTM, whose gates
are computed from the projected input where it is read; an iteration of Newton's method on a diagonal, which reads the
iterate before, too. It is given the function `coefficients` and the arrays that the function is to see, and nothing
but these and the states goes through memory.

`coefficients(*values) -> (a, b, *extras)` is traced into the kernel. A value is a tile of one and the same shape for
all, in the dtype that sums have (`accumulator` of h0's dtype), a flag is a tile of booleans; they come in the order of
`Operands`, each part of a stream by itself. It may use what is elementwise, and no array from outside.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from gru_jax.scans.engines.pallas.target import Target
from gru_jax.types import Array, BoolArray

Coefficients = Callable[..., tuple[Array, ...]]


class Operands(NamedTuple):
    """What `coefficients` sees; with `batch_leads` B stands before T.

    Attributes:
      streams: of each step, `[T, B, H]`, or `[T, B, P, H]` of P parts.
      lagged: pairs of an array `[T, B, H]`, of which each step sees what belongs to the step before it in order of the
        recurrence, and what the first step sees, `[B, H]`.
      flags: of each step, `[T, B]`.
      rows: the same at all steps, `[B, H]`.
      columns: the same at all steps for all sequences, `[H]`.
    """

    streams: tuple[Array, ...] = ()
    lagged: tuple[tuple[Array, Array], ...] = ()
    flags: tuple[BoolArray, ...] = ()
    rows: tuple[Array, ...] = ()
    columns: tuple[Array, ...] = ()


def states(
    target: Target,
    coefficients: Coefficients,
    operands: Operands,
    h0: Array,
    *,
    reverse: bool = False,
    batch_leads: bool = False,
    extras: int = 0,
) -> tuple[Array, ...]:
    """The states of the recurrence.

    Args:
      target: what the kernel is for.
      coefficients: see above.
      operands: what it sees; T, B and H are 1 at least.
      h0: the state before the first step, `[B, H]`.
      reverse: from the last step to the first.
      batch_leads: whether what has both is `[B, T, ...]`, not `[T, B, ...]`.
      extras: how many more values than a and b `coefficients` gives, each to be written as the states are.

    Returns:
      h and the extras, each `[T, B, H]` (`[B, T, H]`) in the dtype of h0.
    """
    how = {"reverse": reverse, "batch_leads": batch_leads, "interpret": target.interpret}
    return _made_for(target).states(coefficients, operands, h0, extras=extras, **how)


def gradients(
    target: Target,
    coefficients: Coefficients,
    operands: Operands,
    h0: Array,
    h: Array,
    cotangent: Array,
    *,
    reverse: bool = False,
    batch_leads: bool = False,
) -> tuple[Operands, Array]:
    """The gradients that belong to a cotangent of the states, in one pass against the order of the recurrence.

    With `l_t = c_t + a_{t+1} l_{t+1}`, those of a_t and b_t are `l_t h_{t-1}` and `l_t`; they are pulled back through
    `coefficients` where they are made.

    Args:
      target, coefficients, operands, h0, reverse, batch_leads: as for `states`.
      h: the states, as `states` gave them.
      cotangent: of h, of its shape.

    Returns:
      `Operands` with the gradients of streams, rows and columns, none for lagged and flags; and that of h0.
    """
    how = {"reverse": reverse, "batch_leads": batch_leads, "interpret": target.interpret}
    return _made_for(target).gradients(coefficients, operands, h0, h, cotangent, **how)


def _made_for(target: Target) -> ModuleType:
    # Pallas is imported where a kernel is run, and not before.
    return importlib.import_module(f"gru_jax.scans.engines.pallas.recurrence_{target.platform}")
