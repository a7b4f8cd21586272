"""`experiments/<name>/table.yaml`: the rows of a table, and what was published of them."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from gru_jax.config.error_messages import suggestion
from gru_jax.config.loading import ConfigError, error_at, load_section
from gru_jax.config.sections.base import Expected, NonNegative, Positive, Section, broken_rule
from gru_jax.config.yaml_document import Document, KeyPath
from gru_jax.types import Plain

EXPERIMENTS = Path("experiments")
FILE = "table.yaml"
ScaleName = Literal["full", "smoke"]
SCALES: tuple[ScaleName, ...] = ("full", "smoke")
MOST_SEEDS = 1000


def _check_seeds(seeds: Plain) -> list[int]:
    whole = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds) or len(seeds) > MOST_SEEDS:
        raise ValueError(seeds)
    return seeds


Seeds = Annotated[list[int], BeforeValidator(_check_seeds), Expected("different whole numbers >= 0, such as [0, 1, 2]")]
Values = Annotated[dict[str, Plain], Expected("values laid over the config's, such as {optim.lr: 1e-3}")]
Text = Annotated[str, Field(min_length=1), Expected("text")]
Label = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$"), Expected("text on one line")]


class RowScale(Section):
    """What one row does otherwise at one scale."""

    seeds: Seeds | None = None
    set: Values = {}
    skip: bool = False


class RowScales(Section):
    """The scales of one row."""

    full: RowScale = RowScale()
    smoke: RowScale = RowScale()


class Row(Section):
    """One row: a config, and the number that was published for it; without a config, that number alone."""

    label: Label
    config: Text | None = None
    set: Values = {}
    metric: Text | None = None
    better: Literal["lower", "higher"] | None = None
    published: float | None = None
    published_sd: NonNegative | None = None
    tolerance: Positive | None = None
    source: Text | None = None
    note: Text | None = None
    needs: Text | None = None
    scales: RowScales = RowScales()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.published is None and self.published_sd is not None:
            raise broken_rule("published_sd", "nothing is published that it could be of; leave it out")
        if self.config is None:
            self._check_published_alone()
        elif self.published is not None and self.tolerance is None:
            raise broken_rule("tolerance", "is missing; how far from the published number is still reproduced?")
        if self.published is None and self.tolerance is not None:
            raise broken_rule("tolerance", "nothing is published to compare with; leave it out")
        return self

    def _check_published_alone(self) -> None:
        if self.published is None:
            raise broken_rule("config", "is missing; a row without one has to have a published number")
        if self.set or self.needs or self.tolerance is not None or self.scales != RowScales():
            raise broken_rule("config", "is missing; without one there are no set, needs, tolerance and scales")


class Scale(Section):
    """The seeds of one scale, and what it lays over the configs of all rows."""

    seeds: Seeds
    set: Values = {}


class Scales(Section):
    """Every table can be made at both scales: in minutes, and as it was published."""

    full: Scale
    smoke: Scale


class TableSpec(Section):
    """The whole of a table.yaml."""

    title: Text
    source: Text
    metric: Text = "test/loss"
    better: Literal["lower", "higher"] = "lower"
    compared: Literal["mean", "best"] = "mean"
    rows: Annotated[list[Row], Field(min_length=1), Expected("a list of rows")]
    scales: Scales


class Table(NamedTuple):
    """A table and where it was read from.

    Attributes:
        name: the table's folder below experiments/, or the folder's name alone elsewhere.
        file: its table.yaml.
        spec: what the file says.
        document: the places of what it says.
    """

    name: str
    file: Path
    spec: TableSpec
    document: Document

    @property
    def folder(self) -> Path:
        """Where the results lie."""
        return self.file.parent

    def config_file(self, row: Row) -> Path:
        """The config of a row that has one: beside experiments/, else in the table's own folder."""
        assert row.config is not None
        above = [parent.parent for parent in self.file.parents if parent.name == EXPERIMENTS.name]
        beside = above[0] / row.config if above else self.folder / row.config
        return beside if beside.exists() or not (self.folder / row.config).exists() else self.folder / row.config

    def metric(self, row: Row) -> str:
        """The metric that the row shows."""
        return row.metric or self.spec.metric

    def better(self, row: Row) -> str:
        """`lower` or `higher`."""
        return row.better or self.spec.better

    def error(self, found: list[tuple[KeyPath, str]]) -> ConfigError:
        """The error for problems found in the file."""
        return error_at(self.file, self.document, found)


def known() -> list[str]:
    """The names of the tables under experiments/ here."""
    return sorted(file.parent.relative_to(EXPERIMENTS).as_posix() for file in EXPERIMENTS.rglob(FILE))


def find(name: str) -> Path:
    """The table.yaml of a table.

    Args:
        name: a folder below experiments/, or the path of a folder or of a table.yaml.

    Raises:
        ConfigError: there is none.
    """
    for path in (EXPERIMENTS / name / FILE, Path(name) / FILE, Path(name)):
        # One table to a folder: its results have their names there.
        if path.name == FILE and path.is_file():
            return path
    names = known()
    none = f"; there are none under {EXPERIMENTS}/ here; name a folder that holds a {FILE}"
    raise ConfigError([f"table {name!r}: no such table{suggestion(name, names) if names else none}"])


def load_table(name: str) -> Table:
    """Reads the table of a name.

    Args:
        name: as for `find`.

    Raises:
        ConfigError: with one line `file:line:column: path: fact` for each thing that is wrong.

    Example:
        >>> load_table("nowhere/at-all")
        Traceback (most recent call last):
        gru_jax.config.loading.ConfigError: table 'nowhere/at-all': no such table; ...
    """
    file = find(name)
    needs = "a table needs at least the keys title, source, rows and scales"
    spec, document = load_section(file, TableSpec, needs)
    inside = EXPERIMENTS in file.parents
    folder = file.parent.relative_to(EXPERIMENTS) if inside else file.parent.resolve()
    table = Table(folder.as_posix() if inside else folder.name, file, spec, document)
    labels: dict[str, int] = {}
    found: list[tuple[KeyPath, str]] = []
    for index, row in enumerate(spec.rows):
        if row.label in labels:
            where = document.marks[("rows", labels[row.label], "label")][0]
            fact = f"{row.label!r} is also the label of the row on line {where}; results are kept by label"
            found.append((("rows", index, "label"), fact))
        labels.setdefault(row.label, index)
    if found:
        raise table.error(found)
    return table
