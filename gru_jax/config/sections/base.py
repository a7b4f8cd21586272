"""What the parts of a config are made of: the base class, number types, rules, intervals."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gru_jax.types import Plain


class Section(BaseModel):
    """One mapping of a config: frozen, no unknown keys, no conversion of one type into another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class Expected(str):
    """How an error message names the values that a field takes, where its type does not say it.

    `hint` is what else is said of a wrong value, "" for nothing.
    """

    hint: Callable[[object], str]

    def __new__(cls, text: str, hint: Callable[[object], str] = lambda got: "") -> Expected:
        expected = super().__new__(cls, text)
        expected.hint = hint
        return expected


# The upper bounds only catch slips of the finger: beyond them nothing could be allocated or
# counted.
Count = Annotated[int, Field(ge=1, le=10**7)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Layers = Annotated[int, Field(ge=1, le=256)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def of_kind_alone(value: Plain) -> Plain:
    """`{kind: name}` for a name, anything else as it is."""
    return {"kind": value} if isinstance(value, str) else value


KIND_ALONE = BeforeValidator(of_kind_alone)
"""Marks a field of sections where the name of a kind stands for the section with all of its defaults."""


class AloneInFiles(BeforeValidator):
    """As KIND_ALONE, but not on the command line, where it would drop what the file says without a word."""


ALONE_IN_FILES = AloneInFiles(of_kind_alone)


def members(union: object) -> tuple[type[Section], ...]:
    """The sections of an annotated union of them."""
    return typing.get_args(typing.get_args(union)[0])


def broken_rule(key: str, fact: str) -> PydanticCustomError:
    """The error of a check that looks at several keys of a section; it is reported at `key`."""
    return PydanticCustomError("rule", "{fact}", {"key": key, "fact": fact})


def broken_rules(found: Sequence[tuple[str, str]]) -> PydanticCustomError:
    """`broken_rule` of several keys at once."""
    return PydanticCustomError("rules", "{found}", {"found": found})


_INTERVAL = re.compile(r"([0-9]{1,9}) ?(step|epoch)s?")
_STRETCH = re.compile(r"\s*([-+]?[0-9][0-9.eE+_-]*?)\s*([A-Za-z]*)\s*")


def _check_interval(text: str) -> str:
    match = _INTERVAL.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(text)
    return text


def _interval_hint(got: object) -> str:
    """What is wrong with an interval: its unit, or its number."""
    match = _STRETCH.fullmatch(str(got)) if type(got) in (str, int, float) else None
    if match is None:
        return ""
    number, unit = match.groups()
    if unit and unit not in ("step", "steps", "epoch", "epochs"):
        return f"; {unit!r} is no unit of it"
    if _INTERVAL.fullmatch(f"{number} steps") and int(number):
        return f"; of what? '{number} steps' or '{number} epochs'"
    return "; its number is whole, from 1 to 999999999"


INTERVAL_PATTERN = "^(?=.*[1-9])[0-9]{1,9} ?(step|epoch)s?$"
Interval = Annotated[
    str,
    AfterValidator(_check_interval),
    WithJsonSchema({"type": "string", "pattern": INTERVAL_PATTERN}),
    Expected("an interval such as '20 steps' or '1 epoch'", _interval_hint),
]
"""A stretch of training: '20 steps', '1 epoch'."""


def is_interval(value: object) -> bool:
    """Whether a value is the text of an interval."""
    return isinstance(value, str) and re.match(INTERVAL_PATTERN, value) is not None


def interval_steps(interval: str, steps_per_epoch: int) -> int:
    """The number of optimizer steps in an interval.

    Example:
        >>> interval_steps("20 steps", 19), interval_steps("2 epochs", 19)
        (20, 38)
    """
    match = _INTERVAL.fullmatch(interval)
    assert match is not None, interval
    return int(match[1]) * (steps_per_epoch if match[2] == "epoch" else 1)
