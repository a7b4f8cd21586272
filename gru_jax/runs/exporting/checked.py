"""Whether what was written computes what the model does: both run on the same sequences."""

from typing import NamedTuple

import numpy as np

from gru_jax.models import Model
from gru_jax.runs.exporting.network import takes

TOLERANCE = 1e-5
"""The largest difference that rounding explains, as a share of the largest output (of 1, where all are smaller)."""


class Trial(NamedTuple):
    """Sequences to compare outputs on.

    Attributes:
        x: `[N, T, I]` float32, or `[N, T]` int32 tokens.
        lengths: `[N]` int32; None when all have T.
        what: they are, in a word or two.
    """

    x: np.ndarray
    lengths: np.ndarray | None
    what: str


def made_up(model: Model, *, lengths: bool) -> Trial:
    """Random sequences of a model's kind, of several lengths if it is told them."""
    size, tokens = takes(model)
    draw = np.random.default_rng(0)
    count, steps = 8, 12
    x = draw.integers(0, size, (count, steps)).astype(np.int32)
    if not tokens:
        x = draw.normal(size=(count, steps, size)).astype(np.float32)
    return Trial(x, several(count, steps) if lengths else None, "random")


def several(count: int, steps: int) -> np.ndarray:
    """`[count]` int32 lengths, all steps and a single one among them."""
    return np.linspace(steps, 1, count).round().astype(np.int32)


def difference(wanted: np.ndarray, got: np.ndarray, trial: Trial) -> float:
    """The largest difference of two outputs at steps that count, as a share of the largest output; NaN for NaNs.

    Args:
        wanted: of the model, `[N, O]` or `[N, T, O]`.
        got: of what was written.
        trial: what both were given.

    Returns:
        A number; infinity for outputs of another shape.

    Example:
        >>> trial = Trial(np.zeros((1, 3, 2)), np.array([2]), "made")
        >>> wanted = np.array([[[4.0], [2.0], [0.0]]])
        >>> difference(wanted, wanted + np.array([[[1.0], [0.0], [9.0]]]), trial)
        0.25
    """
    if wanted.shape != got.shape:
        return float("inf")
    if wanted.ndim == 3 and trial.lengths is not None:
        counts = np.arange(wanted.shape[1]) < trial.lengths[:, None]
        wanted, got = wanted[counts], got[counts]
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    return float(np.abs(wanted.astype(np.float64) - got).max(initial=0.0)) / scale
