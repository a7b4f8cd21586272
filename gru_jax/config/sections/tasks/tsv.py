"""The section `task: {kind: tsv}`: tables of the Long Range Arena."""

from typing import Literal

from gru_jax.config.sections.base import Count, Section
from gru_jax.data import tsv
from gru_jax.data.dataset import Dataset, TaskShape


class TableSizes(Section):
    """Rows of each file; tokens of the longest training row; different tokens and targets in the training file."""

    train: Count
    valid: Count
    test: Count
    time: Count
    vocabulary: Count
    classes: Count


class TableTask(Section):
    """Rows of tokens and their class, three files of `Source<TAB>Target` as the Long Range Arena has them.

    `tokens`: between white space, or characters. `drop`: characters taken out of every source, as `"()"` of ListOps.
    `cut`: tokens of a row after which the rest is left out.
    """

    kind: Literal["tsv"]
    train: str = "basic_train.tsv"
    valid: str = "basic_val.tsv"
    test: str = "basic_test.tsv"
    tokens: Literal["words", "characters"] = "words"
    drop: str = ""
    cut: Count | None = None
    sizes: TableSizes
    batch: Count = 32

    def _sizes(self) -> tsv.Sizes:
        return tsv.Sizes(**self.sizes.model_dump())

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; loads nothing."""
        return tsv.shape(self._sizes())

    def load(self, data_root: str | None) -> Dataset:
        """The data, from the files under `data_root`."""
        reading = tsv.Reading(self.tokens, self.drop, self.cut)
        return tsv.load((self.train, self.valid, self.test), data_root, self._sizes(), reading)
