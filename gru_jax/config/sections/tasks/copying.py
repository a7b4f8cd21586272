"""The section `task: {kind: copying}`."""

from typing import Literal

from gru_jax.config.sections.base import Count, Section
from gru_jax.data import copying
from gru_jax.data.dataset import Dataset, TaskShape


class CopyingTask(Section):
    """Copying memory: `symbols` tokens, told again after a blank of `blank` steps."""

    kind: Literal["copying"]
    blank: Count = 1_000
    symbols: Count = 10
    epoch: Count = 10_000
    valid: Count = 1_000
    test: Count = 1_000
    batch: Count = 32

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; makes no data."""
        return copying.shape(self.blank, self.symbols, epoch=self.epoch, valid=self.valid, test=self.test)

    def load(self, data_root: str | None) -> Dataset:
        """The data, which are generated: `data_root` is not needed."""
        return copying.load(self.blank, self.symbols, valid=self.valid, test=self.test)
