"""What the sections of all tasks share that name a module of `gru_jax.data`: its functions are given their keys."""

from types import ModuleType
from typing import Any, ClassVar

from pydantic_core import PydanticCustomError

from gru_jax.checks import did_you_mean
from gru_jax.config.sections.base import Section, broken_rule, broken_rules
from gru_jax.config.sections.by_name import given
from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, TaskShape
from gru_jax.data.series.header import WrongColumn, WrongColumns
from gru_jax.types import Options


class Task(Section):
    """A task of the module `data` with the functions `shape` and `load`, whose arguments are keys of the section."""

    data: ClassVar[ModuleType]

    def __init_subclass__(cls, data: ModuleType, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.data = data

    def arguments(self) -> Options:
        """What the functions take and no key says as it is."""
        return {}

    def shape(self) -> TaskShape:
        """The sizes a model and a schedule are built from; loads and makes no data."""
        return given(self.data.shape, self, **self.arguments())

    def load(self, data_root: str | None) -> Dataset:
        """The data: generated, or from files under `data_root`."""
        return given(self.data.load, self, data_root=data_root, **self.arguments())

    def notes(self, data_root: str | None) -> list[str]:
        """What the user should know of the data before a run."""
        return []


def broken_file(error: DataMissing | DataDamaged) -> PydanticCustomError:
    """What is wrong with the file of a task, said at the keys whose columns it lacks, else at `file`."""
    if not isinstance(error, WrongColumns):
        return broken_rule("file", str(error))
    return broken_rules(
        [(each.column.key, f"{error.file}: {each.fact}{_meant(each)}; {error.header}") for each in error.wrong]
    )


def _meant(wrong: WrongColumn) -> str:
    # Before the header, of which a line may have no room for all.
    said = did_you_mean(wrong.column.name, wrong.options, before=" (")
    return said and said + ")"
