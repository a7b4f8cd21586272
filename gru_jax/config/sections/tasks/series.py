"""The section `task: {kind: series}`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from gru_jax.config.sections.base import Count, Expected, broken_rule
from gru_jax.config.sections.tasks.forecast import MOST_NUMBERS, WindowSizes
from gru_jax.config.sections.tasks.task import Task, broken_file
from gru_jax.data.csv_column import Window
from gru_jax.data.dataset import DataDamaged, DataMissing
from gru_jax.data.missing import Missing
from gru_jax.data.series import windows
from gru_jax.data.series.numbers import Decimal
from gru_jax.data.series.table import Reading
from gru_jax.data.series.times import WORDS
from gru_jax.types import Options, Plain

_MOST_COLUMNS = 1000


def _is_name(got: object) -> bool:
    return isinstance(got, str) and got != "" and got == got.strip()


def _names(least: int, expected: str, most: int = _MOST_COLUMNS) -> BeforeValidator:
    def check(got: Plain) -> list[str]:
        names = isinstance(got, list) and least <= len(got) <= most and all(map(_is_name, got))
        if not names or len(set(got)) < len(got):
            raise PydanticCustomError("expected", "{expected}", {"expected": expected})
        return got

    return BeforeValidator(check)


def _columns(got: Plain) -> Plain:
    # One column is as good as a list of it.
    return [got] if _is_name(got) else got


_NAME = {"type": "string", "minLength": 1, "pattern": r"^\S(.*\S)?$"}
_A_COLUMN = "the name of a column, or a list of different ones, such as [load, price]"
Columns = Annotated[
    list[str],
    _names(1, _A_COLUMN),
    BeforeValidator(_columns),
    Expected(_A_COLUMN),
    WithJsonSchema(
        {
            "anyOf": [
                _NAME,
                {"type": "array", "items": _NAME, "minItems": 1, "maxItems": _MOST_COLUMNS, "uniqueItems": True},
            ]
        }
    ),
]
_TIME = "null, the name of a column, or of two, days and clocks, such as [date, hour]"


def _time(got: Plain) -> Plain:
    return [] if got is None else _columns(got)


Time = Annotated[
    list[str],
    _names(0, _TIME, most=2),
    BeforeValidator(_time),
    Expected(_TIME),
    WithJsonSchema(
        {"anyOf": [_NAME, {"type": "array", "items": _NAME, "maxItems": 2, "uniqueItems": True}, {"type": "null"}]}
    ),
]
_KNOWN = f"a list of different columns, or of {', '.join(WORDS)}, such as [temperature, hour]"
Known = Annotated[
    list[str],
    _names(0, _KNOWN),
    Expected(_KNOWN),
    WithJsonSchema({"type": "array", "items": _NAME, "maxItems": _MOST_COLUMNS, "uniqueItems": True}),
]


def _numbers_within(got: object, least: int, most: int) -> bool:
    """Whether it is a list of numbers between 0 and 1, none of them at an end."""
    return isinstance(got, list) and least <= len(got) <= most and all(
        type(part) in (int, float) and 0 < part < 1 for part in got
    )  # fmt: skip


_QUANTILES = "null, or numbers between 0 and 1 that rise and hold 0.5, such as [0.1, 0.5, 0.9]"


def _quantiles(got: Plain) -> list[float] | None:
    if got is None:
        return got
    if not _numbers_within(got, 1, 99) or 0.5 not in got or any(a >= b for a, b in zip(got, got[1:], strict=False)):
        raise PydanticCustomError("expected", "{expected}", {"expected": _QUANTILES})
    return got


_SHARE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
Quantiles = Annotated[
    list[float] | None,
    BeforeValidator(_quantiles),
    Expected(_QUANTILES),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _SHARE, "minItems": 1, "maxItems": 99, "contains": {"const": 0.5}},
                {"type": "null"},
            ]
        }
    ),
]
_SPLIT = "three shares that add up to 1: training, validation and testing, such as [0.7, 0.1, 0.2]"


def _split(got: Plain) -> list[float]:
    if not _numbers_within(got, 3, 3) or abs(sum(got) - 1) > 1e-6:
        raise PydanticCustomError("expected", "{expected}", {"expected": _SPLIT})
    return got


Shares = Annotated[
    list[float],
    BeforeValidator(_split),
    Expected(_SPLIT),
    WithJsonSchema({"type": "array", "items": _SHARE, "minItems": 3, "maxItems": 3}),
]


class SeriesForecastTask(Task, data=windows):
    """The next `horizon` rows of columns of a CSV file, from a `window` of those before and what is `known` ahead.

    `file`: beside the config, else below data_root. `target`: a column, or several. `time`: a column, or those of days
    and clocks. `known`: columns, or of the time hour, weekday, day, month. `separator`, `decimal`: null finds them.
    `period`: rows of a season, null as the times have it. `missing`, for a value that is: refuse the file; `gaps`, the
    last value with a mask and the time since; the `last` value; `zeros`, the mean. `quantiles`: null for the mean.
    `relative`: told as the change from the last value, for what drifts. `split`: shares of the rows. `stride`: rows
    from one training example to the next. `sizes`: null counts the windows that tell something; a run notes them.
    """

    kind: Literal["series"]
    file: Annotated[str, Field(min_length=1)]
    target: Columns
    known: Known = []
    time: Time = []
    separator: Literal[",", ";", "\t", "|"] | None = None
    decimal: Decimal | None = None
    period: Count | None = None
    window: Count = 168
    horizon: Count = 24
    missing: Missing = "refuse"
    quantiles: Quantiles = None
    relative: bool = False
    split: Shares = [0.7, 0.1, 0.2]
    stride: Count = 1
    sizes: WindowSizes | None = None
    batch: Count = 32

    @model_validator(mode="after")
    def _with_sizes(self, info: ValidationInfo) -> "SeriesForecastTask":
        twice = sorted({*self.target} & {*self.known} | {*self.target, *self.known} & {*self.time})
        if twice:
            raise broken_rule("known", f"{twice[0]!r} is named twice, as target, known or time; leave one of them out")
        if self.decimal is not None and self.decimal == self.separator:
            raise broken_rule("decimal", f"{self.decimal!r} parts the fields; choose another sign, or separator")
        if self.known and self.window < self.horizon:
            fact = f"{self.window} is shorter than the horizon of {self.horizon}, whose known values it has to carry"
            raise broken_rule("window", fact)
        made = self if self.sizes is not None else self._counted(info.context or {})
        shape = made.shape()
        for name in ("train", "valid", "test"):
            if getattr(shape, name) < 1:
                fact = f"{self.window} and horizon {self.horizon} leave no window that tells a value in {name}"
                raise broken_rule("window", f"{fact}; take more rows, or another split")
        if shape.train * (self.window * shape.features + shape.values) > MOST_NUMBERS:
            raise broken_rule("stride", f"{shape.train} windows of {self.window} are too many; take a larger stride")
        return made

    def _counted(self, context: dict[str, str | None]) -> "SeriesForecastTask":
        """The task with the sizes that its file has, and the place where that is."""
        beside, arguments = context.get("beside"), self.arguments()
        try:
            content = windows.read(self.file, beside, context.get("data_root"))
            keys = ("reading", "window", "missing", "period", "split")
            asked: list[Any] = [arguments.get(key, getattr(self, key, None)) for key in keys]
            found = windows.sizes_of(content, *asked)
        except (DataMissing, DataDamaged) as error:
            raise broken_file(error) from error
        # What lies beside the config lies nowhere near the run, which keeps its place.
        is_beside = beside is not None and content.path == Path(beside, self.file)
        sizes = WindowSizes.model_construct(**found._asdict())
        return self.model_copy(update={"file": str(content.path) if is_beside else self.file, "sizes": sizes})

    def arguments(self) -> Options:
        known, target = tuple(self.known), tuple(self.target)
        return {
            "reading": Reading(target, known, tuple(self.time), self.separator, self.decimal),
            "window": Window(self.window, self.horizon, self.stride),
            "quantiles": tuple(self.quantiles or ()),
            "split": windows.Parts(*self.split),
        }
