"""The section `task: {kind: copying}`."""

from typing import Literal

from gru_jax.config.sections.base import Count
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import copying


class CopyingTask(Task, data=copying):
    """Copying memory: `symbols` tokens, told again after a blank of `blank` steps."""

    kind: Literal["copying"]
    blank: Count = 1_000
    symbols: Count = 10
    epoch: Count = 10_000
    valid: Count = 1_000
    test: Count = 1_000
    batch: Count = 32
