"""What files with holes become: series without any, by one of four words."""

from typing import Literal

import numpy as np

from gru_jax.irregular import observed

Missing = Literal["refuse", "gaps", "last", "zeros"]
"""What becomes of a missing value: an error, a mask and the time since, the last value, or 0, the mean."""


def features(channels: int, missing: Missing) -> int:
    """Numbers at each step of `filled`."""
    return channels * (3 if missing == "gaps" else 1)


def filled(x: np.ndarray, missing: Missing) -> np.ndarray:
    """Series `[*batch, T, D]` less their means without holes; what was not seen yet is 0, and steps are 1 apart.

    Example:
        >>> x = np.array([[np.nan], [2.0], [np.nan]])
        >>> filled(x, "gaps").tolist()
        [[0.0, 0.0, 0.0], [2.0, 1.0, 1.0], [2.0, 0.0, 1.0]]
    """
    if missing == "refuse":
        return x
    if missing == "zeros":
        return np.nan_to_num(x)
    made = observed(x)
    return np.asarray(made.x if missing == "gaps" else made.value)


def deviation(rows: np.ndarray) -> np.ndarray:
    """The standard deviation of columns, `[N, D]` to `[D]` float64; 1 for one that is constant.

    What never changes in training says nothing, whatever it is elsewhere: it must not become huge.

    Args:
        rows: numbers, NaN where one is missing.

    Example:
        >>> deviation(np.array([[1.0, 0.1], [3.0, 0.1], [np.nan, 0.1]])).tolist()
        [1.0, 1.0]
    """
    found = np.nanstd(rows, 0, dtype=np.float64)
    return np.where(found <= 1e-9 * np.nanmax(np.abs(rows), 0), 1.0, found)
