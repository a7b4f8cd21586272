"""The section `task: {kind: tsv}`: tables of the Long Range Arena."""

from typing import Literal

from gru_jax.config.sections.base import Count
from gru_jax.config.sections.by_name import section_of
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import tsv
from gru_jax.types import Options


class TableSizes(section_of(tsv.Sizes)):  # type: ignore[misc]
    __doc__ = tsv.Sizes.__doc__


class TableTask(Task, data=tsv):
    """Rows of tokens and their class, three files of `Source<TAB>Target` as the Long Range Arena has them.

    `tokens`: between white space, or characters. `drop`: characters taken out of every source, as `"()"` of ListOps.
    `cut`: tokens of a row after which the rest is left out.
    """

    kind: Literal["tsv"]
    train: str = "basic_train.tsv"
    valid: str = "basic_val.tsv"
    test: str = "basic_test.tsv"
    tokens: tsv.Unit = "words"
    drop: str = ""
    cut: Count | None = None
    sizes: TableSizes
    batch: Count = 32

    def arguments(self) -> Options:
        files = (self.train, self.valid, self.test)
        return {"files": files, "reading": tsv.Reading(self.tokens, self.drop, self.cut)}
