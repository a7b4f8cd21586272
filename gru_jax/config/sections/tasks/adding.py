"""The section `task: {kind: adding}`."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import adding


class AddingTask(Task, data=adding):
    """The adding problem: the sum of the two marked ones of `time` random numbers."""

    kind: Literal["adding"]
    time: Annotated[int, Field(ge=2, le=10**7)] = 600
    marks: adding.Marks = "anywhere"
    epoch: Count = 50_000
    valid: Count = 1_000
    test: Count = 1_000
    batch: Count = 32
