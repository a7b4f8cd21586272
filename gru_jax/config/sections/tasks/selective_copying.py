"""The section `task: {kind: selective_copying}`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.config.sections.base import Count, broken_rule
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import selective_copying


class SelectiveCopyingTask(Task, data=selective_copying):
    """Selective copying: `memorize` symbols strewn over `length` steps, told in their order after them."""

    kind: Literal["selective_copying"]
    length: Count = 4_096
    memorize: Count = 16
    vocab: Annotated[int, Field(ge=3, le=2**16)] = 16
    epoch: Count = 64_000
    valid: Count = 1_000
    test: Count = 1_000
    batch: Count = 64

    @model_validator(mode="after")
    def _symbols_have_steps(self) -> "SelectiveCopyingTask":
        if self.memorize > self.length:
            raise broken_rule("memorize", f"{self.memorize} symbols are more than length, {self.length} steps")
        return self
