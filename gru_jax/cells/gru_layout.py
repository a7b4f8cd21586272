"""GRU parameters together with the arrays they were made of, as another framework lays them out.

What reads weights where they lie, as the kernels for a CPU do, then needs no copy in the neutral layout; everything
else takes that.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax

from gru_jax.cells.gru_params import GRUParams
from gru_jax.types import Params


class Layout(NamedTuple):
    """How the arrays of a GRU lie.

    Attributes:
      gates: r, z and n in the order in which they stand side by side.
      transposed: whether matrices are `[3H, I]` and `[3H, H]`, each unit of a gate in a row.
    """

    gates: str = "rzn"
    transposed: bool = False

    def place(self, gate: int) -> int:
        """How many gates stand before r, z or n, which are 0, 1 and 2."""
        return self.gates.index("rzn"[gate])


NEUTRAL = Layout()
"""The layout of `GRUParams`."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["layout"])
@dataclasses.dataclass(frozen=True)
class Original:
    """A GRU's parameters in some layout: the fields of `arrays` are named after what becomes of them."""

    arrays: GRUParams
    layout: Layout


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params", "original"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class LaidOut:
    """The same numbers twice: in the neutral layout, which derivatives go through, and as they were given."""

    params: GRUParams
    original: Original


def apart(params: Params) -> tuple[Params, Original | None]:
    """Parameters in the neutral layout, and the original where it is known; derivatives do not see that."""
    if not isinstance(params, LaidOut):
        return params, None
    return params.params, jax.lax.stop_gradient(params.original)
