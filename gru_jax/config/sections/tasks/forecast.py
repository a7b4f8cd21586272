"""The section `task: {kind: forecast}`."""

from typing import Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from gru_jax.config.sections.base import Count, broken_rule
from gru_jax.config.sections.by_name import section_of
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import csv_column
from gru_jax.data.csv_column import CO2_VALUES, Window
from gru_jax.data.missing import Missing
from gru_jax.types import Options, Plain

# A training split of more numbers is no array to hold side by side.
MOST_NUMBERS = 2**28


class WindowSizes(section_of(csv_column.Windows)):  # type: ignore[misc]
    __doc__ = csv_column.Windows.__doc__


class ForecastTask(Task, data=csv_column):
    """The next `horizon` values of a series, a CSV file's `column` or weekly CO2, from a `window` of those before.

    `values`: how many the column has. `stride`: steps from one training example to the next. `missing`, for a value
    that is: refuse the file; `gaps`, the last value with a mask and the time since; the `last` value; `zeros`, the
    mean. `sizes`, with holes: the windows that tell no missing value.
    """

    kind: Literal["forecast"]
    file: str | None = None
    column: str = "co2"
    values: Count | None = None
    window: Count = 104
    horizon: Count = 1
    stride: Count = 1
    missing: Missing = "refuse"
    sizes: WindowSizes | None = None
    batch: Count = 32

    @model_validator(mode="after")
    def _window_fits(self) -> "ForecastTask":
        if self.file is not None and self.values is None:
            raise broken_rule("values", "is missing; the number of values in the column")
        if (self.missing == "refuse") != (self.sizes is None):
            fact = "are of a series with holes; leave them out, or say what becomes of a missing value"
            raise broken_rule("sizes", fact if self.sizes else "are missing; of windows that tell no missing value")
        shape = csv_column.shape(self._values, self.arguments()["window"])
        if min(shape.train, shape.valid, shape.test) < 1:
            fact = f"{self.window} and horizon {self.horizon} do not fit into the parts of {self._values} values"
            raise broken_rule("window", fact)
        if shape.train * (self.window * self.shape().features + self.horizon) > MOST_NUMBERS:
            raise broken_rule("stride", f"{shape.train} windows of {self.window} are too many; take a larger stride")
        return self

    @property
    def _values(self) -> int:
        return CO2_VALUES if self.values is None else self.values

    def arguments(self) -> Options:
        return {"values": self._values, "window": Window(self.window, self.horizon, self.stride)}

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Plain]:
        # Without holes both keys are left out, so that runs from before there were any keep their hash.
        written = write(self)
        if self.missing == "refuse":
            del written["missing"], written["sizes"]
        return written
