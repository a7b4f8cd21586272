"""The section `task: {kind: characters}`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.config.sections.base import Count, broken_rule
from gru_jax.config.sections.by_name import section_of
from gru_jax.config.sections.tasks.task import Task
from gru_jax.data import text


class TextSizes(section_of(text.Sizes)):  # type: ignore[misc]
    __doc__ = text.Sizes.__doc__
    characters: Annotated[int, Field(ge=20, le=2**28)]


class CharactersTask(Task, data=text):
    """Windows of `time` characters of a text `file`, each to be told from those before; `sizes` if not a known file.

    `windows`: those in an epoch, each from a place drawn anew; null is as many as lie side by side.
    """

    kind: Literal["characters"]
    file: str = "tinyshakespeare.txt"
    time: Count = 256
    windows: Count | None = None
    sizes: TextSizes | None = None
    batch: Count = 64

    @model_validator(mode="after")
    def _sizes_fit(self) -> "CharactersTask":
        if self.sizes is None and Path(self.file).name not in text.KNOWN:
            fact = "is missing; {characters, vocabulary} are known without it for " + ", ".join(text.KNOWN)
            raise broken_rule("sizes", fact)
        characters = (self.sizes or text.KNOWN[Path(self.file).name][1]).characters
        places = int(characters * 0.9) - self.time
        if places < 1:
            raise broken_rule("time", f"{self.time} is no less than the characters for training")
        if self.batch > places:
            raise broken_rule("batch", f"{self.batch} is more than the {places} windows of the text for training")
        return self
