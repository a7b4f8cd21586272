"""The keys `train.class_weights` and `train.label_smoothing`: what they take, and of which tasks."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from gru_jax.config.sections.base import Expected
from gru_jax.data.dataset import TaskShape
from gru_jax.types import Plain

_EXPECTED = "'balanced', or a list with a number above 0 for each class"


def _checked(got: Plain) -> str | tuple[float, ...] | None:
    if got is None or got == "balanced":
        return got
    numbers = isinstance(got, list | tuple) and all(type(each) in (int, float) for each in got)
    if numbers and got and all(0 < each < math.inf for each in got):
        return tuple(map(float, got))
    raise PydanticCustomError("expected", _EXPECTED)


ClassWeights = Annotated[
    Literal["balanced"] | tuple[float, ...] | None,
    BeforeValidator(_checked),
    Expected(_EXPECTED),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "balanced"},
                {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1},
                {"type": "null"},
            ]
        }
    ),
]
"""What each class counts in the loss of training."""


def broken_rules(
    weights: Literal["balanced"] | tuple[float, ...] | None, smoothing: float, shape: TaskShape
) -> Iterator[tuple[str, str]]:
    """(key of `train`, fact) for every rule that these break together with the task."""
    of_classes = shape.target in ("class", "tags")
    for key, given in (("class_weights", weights is not None), ("label_smoothing", smoothing > 0)):
        if given and not of_classes:
            yield key, f"is of classes, and this task tells {shape.target}; leave it out"
    if of_classes and isinstance(weights, tuple) and len(weights) != shape.outputs:
        yield "class_weights", f"there are {shape.outputs} classes, got {len(weights)} weights"
