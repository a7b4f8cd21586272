"""The section `task: {kind: sequences}`: labelled sequences in files of one's own."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, model_validator

from gru_jax.config.sections.base import Count, broken_rule
from gru_jax.config.sections.by_name import given, section_of
from gru_jax.config.sections.tasks.series import Known, Shares
from gru_jax.config.sections.tasks.task import Task, broken_file
from gru_jax.data import files
from gru_jax.data.dataset import DataDamaged, DataMissing
from gru_jax.data.missing import Missing
from gru_jax.data.sequences import task
from gru_jax.data.sequences.rows import Reading
from gru_jax.data.series.numbers import Decimal
from gru_jax.types import Options

Column = Annotated[str, Field(min_length=1)]


class SequenceSizes(section_of(task.Sizes)):  # type: ignore[misc]
    __doc__ = task.Sizes.__doc__


class SequencesTask(Task, data=task):
    """Labelled sequences of any lengths: an .npz `file` of x, y and lengths, a CSV `file`, or a folder of CSV files.

    `file`: beside the config, else below data_root. Of a CSV file `id` names the column of sequences, `label` that of
    classes (null: label, or with `tags`, a class a row, tag), `time` one that rises and `features` those of numbers
    ([]: all others). `separator`, `decimal`: null finds them. `missing`, for a value that is: refuse the file; `gaps`,
    the last value with a mask and the time since; the `last` value; `zeros`, the mean. `split`: shares, where there is
    no split column. `sizes`: null counts; a run notes them.
    """

    kind: Literal["sequences"]
    file: Column
    id: Column = "id"
    label: Column | None = None
    time: Column | None = None
    features: Known = []
    tags: bool = False
    separator: Literal[",", ";", "\t", "|"] | None = None
    decimal: Decimal | None = None
    missing: Missing = "refuse"
    split: Shares = [0.7, 0.15, 0.15]
    sizes: SequenceSizes | None = None
    batch: Count = 32

    @model_validator(mode="after")
    def _with_sizes(self, info: ValidationInfo) -> "SequencesTask":
        if self.decimal is not None and self.decimal == self.separator:
            raise broken_rule("decimal", f"{self.decimal!r} parts the fields; choose another sign, or separator")
        if self.sizes is not None:
            return self
        context = info.context or {}
        beside, arguments = context.get("beside"), self.arguments()
        names = [self.file] if beside is None else [str(Path(beside, self.file)), self.file]
        try:
            path = files.find(names, context.get("data_root"))
            found = task.sizes_of(path, task.read(path), arguments["reading"], arguments["split"])
        except (DataMissing, DataDamaged) as error:
            raise broken_file(error) from error
        # What lies beside the config lies nowhere near the run, which keeps its place.
        is_beside = beside is not None and path == Path(beside, self.file)
        sizes = SequenceSizes.model_construct(**found._asdict())
        return self.model_copy(update={"file": str(path) if is_beside else self.file, "sizes": sizes})

    def arguments(self) -> Options:
        label = self.label or ("tag" if self.tags else "label")
        features, holes = tuple(self.features), self.missing != "refuse"
        reading = Reading(self.id, label, self.time, features, self.tags, self.separator, self.decimal, holes)
        return {"reading": reading, "split": task.Shares(*self.split)}

    def notes(self, data_root: str | None) -> list[str]:
        return given(task.notes, self, data_root=data_root, **self.arguments())
