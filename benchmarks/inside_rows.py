"""A row of the benchmarks of other frameworks' models with our computation inside."""

from typing import Any

from benchmarks.layer_shapes import Shape
from benchmarks.timing import Timing


def row(
    part: str, kind: str, case: str, shape: Shape, apart: float, times: tuple[Timing, Timing, float]
) -> dict[str, Any]:
    """What is written of two sides: `times` as `timing.side_by_side` gives them, `apart` how far their numbers are."""
    ours, theirs, ratio = times
    return {
        "part": part,
        "kind": kind,
        "case": case,
        "shape": shape._asdict(),
        "dtype": "float32",
        "apart": apart,
        "ours_ms": ours.ms,
        "ours_spread_ms": ours.spread_ms,
        "theirs_ms": theirs.ms,
        "theirs_spread_ms": theirs.spread_ms,
        "theirs_over_ours": round(1 / ratio, 4),
        "iterations": ours.rounds,
    }
