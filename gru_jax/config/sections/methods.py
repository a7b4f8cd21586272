"""The section `model.method`: how the steps run over time, by `kind`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from gru_jax.config.sections.base import KIND_ALONE, Count, Expected, NonNegative, Positive, Section, members
from gru_jax.config.sections.by_name import given
from gru_jax.scans import Method, Newton, Sequential
from gru_jax.types import Plain


def _auto_or_few(value: Plain) -> int | str:
    if value == "auto" or (type(value) is int and 1 <= value <= 1024):
        return value
    raise ValueError(value)


AutoOrFew = Annotated[
    int | str,
    BeforeValidator(_auto_or_few),
    Expected("'auto' or a whole number >= 1 and <= 1024"),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 1024}]}),
]


def _no_number(value: Plain) -> Plain:
    # To Python, and so to pydantic, 1 is True.
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(value)
    return value


class AutoMethod(Section):
    """What is fastest for the cell on the device."""

    kind: Literal["auto"]

    def build(self) -> str | Method:
        return "auto"


class SequentialMethod(Section):
    """One step after another."""

    kind: Literal["sequential"]
    # Every step of them is compiled.
    unroll: Annotated[int, Field(ge=1, le=1024)] = 1
    kernel: Literal[
        "auto", "xla", "scan", "chunked", "llvm", "cudnn", "pallas", "interpret-gpu", "interpret-tpu"
    ] = "auto"
    keep: Literal["auto", "states", "gates"] = "auto"
    chunk: AutoOrFew = "auto"
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    hoist: Annotated[
        Literal["auto", True, False], BeforeValidator(_no_number), Expected("'auto', true or false")
    ] = "auto"
    cores: AutoOrFew = "auto"

    def build(self) -> str | Method:
        return given(Sequential, self)


class NewtonMethod(Section):
    """All steps at once, by Newton's method.

    There is no `fallback: error`: `nan` ends a run as well, with its last good checkpoint kept.
    """

    kind: Literal["newton"]
    jacobian: Literal["auto", "dense", "diagonal"] = "auto"
    damping: NonNegative = 0.0
    tol: Positive | None = None
    max_iters: Count = 64
    window: Count | None = None
    fallback: Literal["sequential", "nan"] = "sequential"
    kernel: Literal["auto", "xla", "pallas", "interpret-gpu", "interpret-tpu"] = "auto"

    def build(self) -> str | Method:
        return given(Newton, self)


AnyMethod = Annotated[
    AutoMethod | SequentialMethod | NewtonMethod,
    Field(discriminator="kind"),
    KIND_ALONE,
    Expected("'auto', 'sequential', 'newton' or a section with such a kind"),
]
METHODS = members(AnyMethod)
