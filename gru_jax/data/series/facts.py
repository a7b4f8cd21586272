"""What a task of series keeps beside its windows: what results in the data's own units are made from."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class SeriesFacts(NamedTuple):
    """Of D columns that are told H steps ahead.

    Attributes:
        names: of the columns.
        values: `[N, D]` float64, in the data's units, NaN where one is missing; rows are evenly spaced.
        times: `[N]` datetime64, as the file's clock shows them; None where it has no times.
        scale: of every column, those told first, mean and deviation in the training part; with `relative` the deviation
            of what is told is that from the last value known. A model has to do with (value - level) / deviation.
        period: steps of a season.
        horizon: H.
        quantiles: Q of them, that are told of every value; () where one number is.
        starts: the row of the first value told, of every window of the training, validation and test split.
        trained: rows of the training part.
        relative: whether the level of a window is the last value known before it tells, not the mean.
        step: from one row to the next, in words; None where there are no times.
    """

    names: tuple[str, ...]
    values: np.ndarray
    times: np.ndarray | None
    scale: Mapping[str, tuple[float, float]]
    period: int
    horizon: int
    quantiles: tuple[float, ...]
    starts: tuple[np.ndarray, np.ndarray, np.ndarray]
    trained: int
    relative: bool = False
    step: str | None = None

    @property
    def mean(self) -> np.ndarray:
        """`[D]`, of the columns that are told."""
        return np.array([self.scale[name][0] for name in self.names])

    @property
    def deviation(self) -> np.ndarray:
        """`[D]`, of the columns that are told."""
        return np.array([self.scale[name][1] for name in self.names])

    def last(self, starts: np.ndarray) -> np.ndarray:
        """The last values known before each of the rows `[M]`: `[M, D]`, the mean where there is none."""
        known = np.where(np.isnan(self.values), -1, np.arange(len(self.values))[:, None])
        at = np.maximum.accumulate(known, 0)[starts - 1]
        return np.where(at < 0, self.mean, np.take_along_axis(self.values, np.maximum(at, 0), 0))

    def level(self, starts: np.ndarray) -> np.ndarray:
        """What windows that begin to tell at rows `[M]` are shown and told from: `[M, D]`."""
        return self.last(starts) if self.relative else np.tile(self.mean, (len(starts), 1))

    def told(self, starts: np.ndarray) -> np.ndarray:
        """The values told of windows that begin to tell at rows `[M]`: `[M, H, D]`, NaN where one is missing."""
        return self.values[starts[:, None] + np.arange(self.horizon)]
