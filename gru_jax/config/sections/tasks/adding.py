"""The section `task: {kind: adding}`."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count, Section
from gru_jax.data import adding
from gru_jax.data.dataset import Dataset, TaskShape


class AddingTask(Section):
    """The adding problem: the sum of the two marked ones of `time` random numbers."""

    kind: Literal["adding"]
    time: Annotated[int, Field(ge=2, le=10**7)] = 600
    marks: Literal["anywhere", "halves"] = "anywhere"
    epoch: Count = 50_000
    valid: Count = 1_000
    test: Count = 1_000
    batch: Count = 32

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; makes no data."""
        return adding.shape(self.time, epoch=self.epoch, valid=self.valid, test=self.test)

    def load(self, data_root: str | None) -> Dataset:
        """The data, which are generated: `data_root` is not needed."""
        return adding.load(self.time, self.marks, valid=self.valid, test=self.test)
