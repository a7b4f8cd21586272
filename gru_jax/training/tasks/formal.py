"""The section `task: {kind: formal}`."""

from typing import Literal

from pydantic import model_validator

from gru_jax.data import formal
from gru_jax.data.dataset import Dataset, TaskShape
from gru_jax.training.sections import Count, Section, broken_rule


class FormalTask(Section):
    """A formal language: strings of up to `train_length` tokens to classify, and longer ones in the test."""

    kind: Literal["formal"]
    language: Literal["parity", "even_pairs", "cycle_navigation", "modular_arithmetic"]
    train_length: Count = 40
    test_lengths: list[Count] = [41, 100]
    test_per_length: Count = 512
    epoch: Count = 128_000
    valid: Count = 1_000
    batch: Count = 128

    @model_validator(mode="after")
    def _lengths_are_a_range(self) -> "FormalTask":
        if len(self.test_lengths) != 2 or self.test_lengths[0] > self.test_lengths[1]:
            raise broken_rule("test_lengths", f"shortest and longest are needed, got {self.test_lengths}")
        return self

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; makes no data."""
        return formal.shape(*self._of_strings, epoch=self.epoch, valid=self.valid)

    def load(self, data_root: str | None) -> Dataset:
        """The data, which are generated: `data_root` is not needed."""
        return formal.load(*self._of_strings, valid=self.valid)

    @property
    def _of_strings(self) -> tuple[formal.Language, int, tuple[int, int], int]:
        shortest, longest = self.test_lengths
        return self.language, self.train_length, (shortest, longest), self.test_per_length
