"""The section `task: {kind: digits}`."""

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from gru_jax.config.sections.base import Count
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import digits
from gru_jax.types import Plain


class DigitsTask(Task, data=digits):
    """scikit-learn's bundled handwritten digits: `view` 64 pixels one by one, or 8 rows of 8.

    `permutation_seed`: the steps of every image in another order, drawn with this seed; null leaves them.
    """

    kind: Literal["digits"]
    view: Literal["pixels", "rows"] = "pixels"
    permutation_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    batch: Count = 32

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Plain]:
        # Without a permutation the key is left out, so that runs from before there was one keep their hash.
        written = write(self)
        if self.permutation_seed is None:
            del written["permutation_seed"]
        return written
