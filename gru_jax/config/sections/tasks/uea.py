"""The section `task: {kind: uea}`: time series of the UEA and UCR archives."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count, Section
from gru_jax.data import ts
from gru_jax.data.dataset import Dataset, TaskShape


class SeriesSizes(Section):
    """Series of each split; steps of the longest training series; channels; classes."""

    train: Count
    valid: Count
    test: Count
    time: Count
    channels: Count
    classes: Count


class SeriesTask(Section):
    """Time series and their class, a `train` and a `test` file of the UEA or UCR archive (.ts).

    `valid_every`: of so many training series of a class, one is for validation.
    """

    kind: Literal["uea"]
    train: str
    test: str
    valid_every: Annotated[int, Field(ge=2, le=10**7)] = 5
    sizes: SeriesSizes
    batch: Count = 32

    def _sizes(self) -> ts.Sizes:
        return ts.Sizes(**self.sizes.model_dump())

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; loads nothing."""
        return ts.shape(self._sizes())

    def load(self, data_root: str | None) -> Dataset:
        """The data, from the files under `data_root`."""
        return ts.load(self.train, self.test, data_root, self._sizes(), self.valid_every)
