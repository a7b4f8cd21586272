"""The section `task: {kind: polyphonic}`."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from gru_jax.config.sections.base import Count, broken_rule
from gru_jax.config.sections.by_name import section_of
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import music


class MusicSizes(section_of(music.Sizes)):  # type: ignore[misc]
    __doc__ = music.Sizes.__doc__


class MusicTask(Task, data=music):
    """Piano rolls in a `file`, .mat or .npz: the notes of each step from those before; `sizes` if not a known file."""

    kind: Literal["polyphonic"]
    file: str = "JSB_Chorales.mat"
    sizes: MusicSizes | None = None
    batch: Count = 16

    @model_validator(mode="after")
    def _sizes_known(self) -> "MusicTask":
        if self.sizes is None and Path(self.file).name not in music.KNOWN:
            fact = "is missing; {train, valid, test, time} are known without it for " + ", ".join(music.KNOWN)
            raise broken_rule("sizes", fact)
        return self
