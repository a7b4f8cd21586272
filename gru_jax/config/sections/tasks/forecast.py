"""The section `task: {kind: forecast}`."""

from typing import Literal

from pydantic import model_validator

from gru_jax.config.sections.base import Count, Section, broken_rule
from gru_jax.data import csv_column
from gru_jax.data.csv_column import CO2_VALUES, Window
from gru_jax.data.dataset import Dataset, TaskShape

# A training split of more numbers is no array to hold side by side.
_MOST_NUMBERS = 2**28


class ForecastTask(Section):
    """The next `horizon` values of a series, a CSV file's `column` or weekly CO2, from a `window` of those before.

    `values`: how many the column has. `stride`: steps from one training example to the next.
    """

    kind: Literal["forecast"]
    file: str | None = None
    column: str = "co2"
    values: Count | None = None
    window: Count = 104
    horizon: Count = 1
    stride: Count = 1
    batch: Count = 32

    @model_validator(mode="after")
    def _window_fits(self) -> "ForecastTask":
        if self.file is not None and self.values is None:
            raise broken_rule("values", "is missing; the number of values in the column")
        shape = self.shape()
        if min(shape.train, shape.valid, shape.test) < 1:
            fact = f"{self.window} and horizon {self.horizon} do not fit into the parts of {self._values} values"
            raise broken_rule("window", fact)
        if shape.train * (self.window + self.horizon) > _MOST_NUMBERS:
            raise broken_rule("stride", f"{shape.train} windows of {self.window} are too many; take a larger stride")
        return self

    @property
    def _values(self) -> int:
        return CO2_VALUES if self.values is None else self.values

    @property
    def _window(self) -> Window:
        return Window(self.window, self.horizon, self.stride)

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; loads nothing."""
        return csv_column.shape(self._values, self._window)

    def load(self, data_root: str | None) -> Dataset:
        """The data, from the file under `data_root`, or from statsmodels."""
        return csv_column.load(self.file, self.column, self._values, self._window, data_root)
