"""The section `task: {kind: uea}`: time series of the UEA and UCR archives."""

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from gru_jax.config.sections.base import Count
from gru_jax.config.sections.by_name import section_of
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import ts
from gru_jax.data.missing import Missing
from gru_jax.types import Plain


class SeriesSizes(section_of(ts.Sizes)):  # type: ignore[misc]
    __doc__ = ts.Sizes.__doc__


class SeriesTask(Task, data=ts):
    """Time series and their class, a `train` and a `test` file of the UEA or UCR archive (.ts).

    `valid_every`: of so many training series of a class, one is for validation. `missing`, for a value that is: refuse
    the file; `gaps`, the last value with a mask and the time since; the `last` value; `zeros`, the channel's mean.
    """

    kind: Literal["uea"]
    train: str
    test: str
    valid_every: Annotated[int, Field(ge=2, le=10**7)] = 5
    missing: Missing = "refuse"
    sizes: SeriesSizes
    batch: Count = 32

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Plain]:
        # Without holes the key is left out, so that runs from before there was one keep their hash.
        written = write(self)
        if self.missing == "refuse":
            del written["missing"]
        return written
