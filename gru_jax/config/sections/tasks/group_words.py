"""The section `task: {kind: group_words}`."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count, Expected
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import group_words

Group = Annotated[
    str,
    Field(pattern=f"^({group_words.NAMES.pattern})$"),
    Expected("a group: C1 to C999 (cyclic), S2 to S6 (permutations), A2 to A6 (even ones)"),
]


class GroupWordsTask(Task, data=group_words):
    """The word problem of a `group`: the product of all its elements so far, at each of `length` steps.

    `test_length` null: as in training.
    """

    kind: Literal["group_words"]
    group: Group = "A5"
    length: Count = 20
    test_length: Count | None = None
    epoch: Count = 64_000
    valid: Count = 1_000
    test: Count = 1_000
    batch: Count = 64
