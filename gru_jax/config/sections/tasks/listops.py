"""The section `task: {kind: listops}`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.config.sections.base import Count, broken_rule
from gru_jax.config.sections.by_name import given
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import listops
from gru_jax.data.dataset import DataDamaged, Dataset
from gru_jax.types import Options


class ListOpsTask(Task, data=listops):
    """ListOps: the value of a nested expression, of more than `min_length` and fewer than `max_length` tokens."""

    kind: Literal["listops"]
    min_length: Annotated[int, Field(ge=0, le=10**5)] = 500
    max_length: Annotated[int, Field(ge=2, le=10**5)] = 2_000
    max_depth: Annotated[int, Field(ge=1, le=100)] = 10
    max_args: Annotated[int, Field(ge=2, le=100)] = 10
    train: Count = 96_000
    valid: Count = 2_000
    test: Count = 2_000
    batch: Count = 32

    @model_validator(mode="after")
    def _some_length_is_left(self) -> "ListOpsTask":
        if self.max_length - self.min_length < 2:
            raise broken_rule("max_length", f"no length lies between {self.min_length} and {self.max_length}")
        return self

    def load(self, data_root: str | None) -> Dataset:
        """The data, which are generated, in some seconds."""
        try:
            return super().load(data_root)
        except ValueError as error:
            # The limits admit too few expressions, which only shows when they are drawn.
            raise DataDamaged(str(error)) from error

    def arguments(self) -> Options:
        return {"limits": given(listops.Limits, self)}
