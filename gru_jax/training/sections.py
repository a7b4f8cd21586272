"""What the parts of a config are made of: the base class, number types, rules, intervals."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """One mapping of a config: frozen, no unknown keys, no conversion of one type into another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class Expected(str):
    """How an error message names the values that a field takes, where its type does not say it."""


# The upper bounds only catch slips of the finger: beyond them nothing could be allocated or
# counted.
Count = Annotated[int, Field(ge=1, le=10**7)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def of_kind_alone(value: Any) -> Any:
    """`{kind: name}` for a name, anything else as it is."""
    return {"kind": value} if isinstance(value, str) else value


KIND_ALONE = BeforeValidator(of_kind_alone)
"""Marks a field of sections where the name of a kind stands for the section with all of its defaults."""


def broken_rule(key: str, fact: str) -> PydanticCustomError:
    """The error of a check that looks at several keys of a section; it is reported at `key`."""
    return PydanticCustomError("rule", "{fact}", {"key": key, "fact": fact})


_INTERVAL = re.compile(r"([0-9]{1,9}) ?(step|epoch)s?")


def _check_interval(text: str) -> str:
    match = _INTERVAL.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(text)
    return text


Interval = Annotated[str, AfterValidator(_check_interval), Expected("an interval such as '20 steps' or '1 epoch'")]
"""A stretch of training: '20 steps', '1 epoch'."""


def interval_steps(interval: str, steps_per_epoch: int) -> int:
    """The number of optimizer steps in an interval.

    Example:
        >>> interval_steps("20 steps", 19), interval_steps("2 epochs", 19)
        (20, 38)
    """
    match = _INTERVAL.fullmatch(interval)
    assert match is not None, interval
    return int(match[1]) * (steps_per_epoch if match[2] == "epoch" else 1)
