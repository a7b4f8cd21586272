"""The section `task: {kind: uea}`: time series of the UEA and UCR archives."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count
from gru_jax.config.sections.by_name import section_of
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import ts


class SeriesSizes(section_of(ts.Sizes)):  # type: ignore[misc]
    __doc__ = ts.Sizes.__doc__


class SeriesTask(Task, data=ts):
    """Time series and their class, a `train` and a `test` file of the UEA or UCR archive (.ts).

    `valid_every`: of so many training series of a class, one is for validation.
    """

    kind: Literal["uea"]
    train: str
    test: str
    valid_every: Annotated[int, Field(ge=2, le=10**7)] = 5
    sizes: SeriesSizes
    batch: Count = 32
