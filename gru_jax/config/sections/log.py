"""The section `log`: what of a run is written down while it goes, and where it can be watched."""

from typing import Annotated, Literal

from pydantic import Field

from gru_jax.config.sections.base import Count, Section


class WandbConfig(Section):
    """Metrics sent to Weights & Biases as well; `offline` writes them below the run directory and sends nothing."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    entity: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    mode: Literal["online", "offline"] = "online"


class ProfileConfig(Section):
    """A trace of `num_steps` steps after `start_step` of them, by jax.profiler, into profile/ of the run directory."""

    start_step: Annotated[int, Field(ge=0, le=10**9)] = 10
    num_steps: Annotated[int, Field(ge=1, le=1000)] = 5


class LogConfig(Section):
    """Every how many steps a line of training metrics is written, and where else it goes.

    `tensorboard`: event files in tensorboard/ of the run directory.
    """

    every: Count = 50
    tensorboard: bool = False
    wandb: WandbConfig | None = None
    profile: ProfileConfig | None = None
