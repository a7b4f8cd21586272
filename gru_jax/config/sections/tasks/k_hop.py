"""The section `task: {kind: k_hop}`."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count, Width
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import k_hop


class KHopTask(Task, data=k_hop):
    """k hops: from each token to the one that followed it the last time, and from there again, `hops` times."""

    kind: Literal["k_hop"]
    time: Annotated[int, Field(ge=2, le=10**7)] = 100
    hops: Annotated[int, Field(ge=1, le=64)] = 1
    vocab: Width = 10
    epoch: Count = 64_000
    valid: Count = 1_000
    test: Count = 10_000
    batch: Count = 64
