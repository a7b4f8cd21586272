"""The section `task: {kind: keep_nth}`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.config.sections.base import Count, Width, broken_rule
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import keep_nth


class KeepNthTask(Task, data=keep_nth):
    """The `nth` of `time` tokens, told at the end; `positions` numbers beside each token say which step it is."""

    kind: Literal["keep_nth"]
    time: Count = 100
    nth: Count = 5
    vocab: Width = 128
    positions: Annotated[int, Field(ge=0, le=2**12, multiple_of=2)] = 0
    epoch: Count = 64_000
    valid: Count = 1_000
    test: Count = 4_000
    batch: Count = 64

    @model_validator(mode="after")
    def _nth_is_a_step(self) -> "KeepNthTask":
        if self.nth > self.time:
            raise broken_rule("nth", f"{self.nth} is more than time, {self.time} steps")
        return self
