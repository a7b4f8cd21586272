"""The section `task: {kind: irregular}`."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count, Fraction, Positive
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import irregular


class IrregularTask(Task, data=irregular):
    """Noisy processes at random times, a share `missing` of their values; where all of them stand at the last step.

    `seen`, where a value is missing: `gaps`, the last value with a mask and the time since; the `last` value; `zeros`.
    """

    kind: Literal["irregular"]
    time: Annotated[int, Field(ge=2, le=10**5)] = 64
    channels: Annotated[int, Field(ge=1, le=2**10)] = 4
    missing: Fraction = 0.5
    noise: Positive = 0.5
    seen: irregular.Seen = "gaps"
    epoch: Count = 64_000
    valid: Count = 2_000
    test: Count = 4_000
    batch: Count = 64
