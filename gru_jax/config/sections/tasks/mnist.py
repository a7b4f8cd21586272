"""The section `task: {kind: mnist}`."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count, Section
from gru_jax.data import mnist
from gru_jax.data.dataset import Dataset, TaskShape


class MNISTTask(Section):
    """MNIST's digits as 784 pixels one by one, `permuted` or not; `half: test` splits the test images alone."""

    kind: Literal["mnist"]
    permuted: bool = False
    permutation_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    half: Literal["all", "test"] = "all"
    batch: Count = 64

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; loads nothing."""
        return mnist.shape(self.half)

    def load(self, data_root: str | None) -> Dataset:
        """The data, from the IDX files under `data_root`."""
        return mnist.load(data_root, self.half, self.permuted, self.permutation_seed)
