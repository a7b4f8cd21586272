"""The section `task: {kind: polyphonic}`."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from gru_jax.config.sections.base import Count, Section, broken_rule
from gru_jax.data import music
from gru_jax.data.dataset import Dataset, TaskShape


class MusicSizes(Section):
    """Sequences of each split, and steps told of the longest training sequence, one less than it has."""

    train: Count
    valid: Count
    test: Count
    time: Count


class MusicTask(Section):
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

    def _sizes(self) -> music.Sizes | None:
        return music.Sizes(**self.sizes.model_dump()) if self.sizes else None

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; loads nothing."""
        return music.shape(self.file, self._sizes())

    def load(self, data_root: str | None) -> Dataset:
        """The data, from the file under `data_root`."""
        return music.load(self.file, data_root, self._sizes())
