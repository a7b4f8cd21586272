"""The section `task: {kind: mqar}`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.config.sections.base import Count, Positive, Width, broken_rule
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import mqar


class MQARTask(Task, data=mqar):
    """Multi-query associative recall: `pairs` of a key and a value, then the keys again, in `time` steps."""

    kind: Literal["mqar"]
    time: Annotated[int, Field(ge=4, le=2**16)] = 64
    pairs: Count = 4
    vocab: Width = 8_192
    power: Annotated[Positive, Field(le=8)] = 0.01
    random_filler: bool = False
    epoch: Count = 100_000
    valid: Count = 3_000
    test: Count = 3_000
    batch: Count = 512

    @model_validator(mode="after")
    def _sizes_fit(self) -> "MQARTask":
        if self.time % 2:
            raise broken_rule("time", f"{self.time} steps are an odd number, pairs fill an even one")
        if 4 * self.pairs > self.time:
            raise broken_rule("pairs", f"{self.pairs} pairs and their queries need 4 steps each, time is {self.time}")
        if self.vocab <= self.time:
            raise broken_rule("vocab", f"{self.vocab} tokens are not more than time, {self.time}")
        return self
