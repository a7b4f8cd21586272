"""The section `task: {kind: mnist}`."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import mnist


class MNISTTask(Task, data=mnist):
    """MNIST's digits as 784 pixels one by one, `permuted` or not; `half: test` splits the test images alone."""

    kind: Literal["mnist"]
    permuted: bool = False
    permutation_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    half: mnist.Half = "all"
    batch: Count = 64
