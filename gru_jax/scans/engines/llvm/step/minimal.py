"""minGRU and minLSTM as cells of a step: no products of the state."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from gru_jax.scans.engines.llvm.cells import Value

if TYPE_CHECKING:
    from gru_jax.scans.engines.llvm.vectors import Vectors


@dataclasses.dataclass(frozen=True)
class LinearCell:
    """Such a cell's equations, by the names that `cells.Gated` has.

    Args:
      parts: 2 for minGRU, of a projected input z and n; 3 for minLSTM, f, i and n.
      positive: whether n is made positive first, with form="log".
    """

    parts: int
    positive: bool

    phases: ClassVar[tuple[tuple[int, ...], ...]] = ((),)
    states: ClassVar[tuple[str, ...]] = ("h",)
    second: ClassVar[bool] = False
    kept_first: ClassVar[int] = 0

    @property
    def gates(self) -> int:
        """Parts of the projected input."""
        return self.parts

    def forward(
        self, to: "Vectors", u: list[Value], q: list[Value], old: list[Value], first: list[Value]
    ) -> tuple[list[Value], list[Value]]:
        """The state after a step, `a h + (1 - a) n`."""
        from gru_jax.scans.engines.llvm import minimal_passes  # which imports llvmlite

        a, share, *_ = minimal_passes.coefficients(to.code, self, u)
        n, _ = minimal_passes.candidate_of(to.code, self, u[-1])
        return [to.fma(a, old[0], to.mul(share, n))], []
