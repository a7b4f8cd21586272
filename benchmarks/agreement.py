"""Whether two candidates compute the same: only then do their times say anything."""

import numpy as np

Arrays = dict[str, np.ndarray]

TOLERANCES = {
    "float32": {"outputs": 2e-4, "gradient of x": 2e-4, "gradient of w_h": 2e-4},
    # Some libraries add up the gradients of weights over all steps in bfloat16.
    "bfloat16": {"outputs": 5e-2, "gradient of x": 1e-1, "gradient of w_h": 3e-1},
}
"""How far a candidate may be from the one it is compared with, in parts of that one's largest number."""


STANDSTILL = 512
"""A sum of more terms of one size than that stands still in bfloat16, whose numbers have 8 binary digits."""


class Disagreement(Exception):
    """A candidate computes something else."""


def distance(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference over the largest number; infinite for other shapes and for NaN."""
    if expected.shape != found.shape:
        return float("inf")
    off = float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-30))
    return off if np.isfinite(off) else float("inf")


def check(expected: Arrays, found: Arrays, dtype: str, who: str, steps: int = 1) -> None:
    """Raises Disagreement, with who it is and how far off, unless all arrays are close to the expected ones.

    Args:
      expected: ours, or what ours is compared with.
      found: the same arrays, of another candidate.
      dtype: which says how close.
      who: whose arrays they are, and at which shape.
      steps: T; a gradient that was added up over too many of them in bfloat16 is not compared.
    """
    for name, array in expected.items():
        if name == "gradient of w_h" and dtype == "bfloat16" and steps > STANDSTILL:
            continue
        off, bound = distance(array, found[name]), TOLERANCES[dtype][name]
        if off > bound:
            raise Disagreement(
                f"{who}: its {name} are off by {off:.2g} of the largest number, more than the {bound:g} that rounding"
                f" explains in {dtype}; its times would say nothing"
            )
