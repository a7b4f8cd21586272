"""The section `task: {kind: formal}`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from gru_jax.config.sections.base import Count, Expected, broken_rule
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import formal
from gru_jax.types import Plain


def _range(value: Plain) -> list[int]:
    whole = isinstance(value, list) and len(value) == 2 and all(type(bound) is int for bound in value)
    if not whole or not 1 <= value[0] <= value[1] <= 10**5:
        raise ValueError(value)
    return value


Range = Annotated[
    list[Annotated[int, Field(ge=1, le=10**5)]],
    Field(min_length=2, max_length=2),
    BeforeValidator(_range),
    Expected("two lengths from 1 to 100000, the shorter one first, such as [41, 100]"),
]
"""The shortest and the longest, both included."""


class FormalTask(Task, data=formal):
    """A formal language: strings of up to `train_length` tokens to classify, and longer ones in the test.

    `ask`: one more token after each string, which asks for its class. `valid_lengths` null: as in training.
    """

    kind: Literal["formal"]
    language: formal.Language
    train_shortest: Count = 1
    train_length: Count = 40
    valid_lengths: Range | None = None
    test_lengths: Range = [41, 100]
    test_per_length: Count = 512
    ask: bool = False
    epoch: Count = 128_000
    valid: Count = 1_000
    batch: Count = 128

    @model_validator(mode="after")
    def _lengths_in_order(self) -> "FormalTask":
        if self.train_shortest > self.train_length:
            fact = f"{self.train_shortest} is more than train_length, {self.train_length}"
            raise broken_rule("train_shortest", fact)
        return self

    @model_validator(mode="after")
    def _test_can_be_held(self) -> "FormalTask":
        shortest, longest = self.test_lengths
        if (longest - shortest + 1) * self.test_per_length * longest > 2**31:
            fact = "the test split has more than 2**31 tokens; make fewer or shorter strings"
            raise broken_rule("test_per_length", fact)
        return self
