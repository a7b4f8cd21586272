"""The section `task: {kind: digits}`."""

from typing import Literal

from gru_jax.data import digits
from gru_jax.data.dataset import Dataset, TaskShape
from gru_jax.training.sections import Count, Section


class DigitsTask(Section):
    """scikit-learn's bundled handwritten digits: `view` 64 pixels one by one, or 8 rows of 8."""

    kind: Literal["digits"]
    view: Literal["pixels", "rows"] = "pixels"
    batch: Count = 32

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; loads nothing."""
        return digits.shape(self.view)

    def load(self, data_root: str | None) -> Dataset:
        """The data; `data_root` is not needed, scikit-learn carries this set along."""
        return digits.load(self.view)
