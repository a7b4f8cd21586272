"""Sections made from the signatures of functions of optax: a key for every argument that YAML can write."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from gru_jax.config.sections.base import Expected, Fraction, NonNegative, Section
from gru_jax.types import Function, Options, Plain

# What is no value of YAML, by its name: which parameters are meant, in what dtype, with which random key.
_NO_VALUES = ("mask", "dtype", "key")
# optax takes any number; beyond these, nothing that it is named after would be left of the algorithm.
_BELOW_ONE = {"b1", "b2", "b3", "beta", "beta3", "betas", "rho", "decay", "momentum", "adam_b1", "adam_b2"}
_AT_LEAST_ZERO = ("eps", "adam_eps", "weight_decay", "adam_weight_decay")
Annotation: TypeAlias = Any
"""What a field of a section is annotated with: a class, a union of such, or one of them with bounds."""

_Whole = Annotated[int, Field(ge=0, le=10**9)]


def section_for(
    kind: str, function: Function, base: type[Section], besides: Collection[str], **fields: Any
) -> type[Section]:
    """A section whose keys are the arguments of a function, and those of a base.

    Args:
        kind: its name in configs.
        function: whose arguments become keys, with their defaults.
        base: the class that it is one of.
        besides: arguments that are no keys.
        fields: (type, default) of keys in place of what the signature says.

    Raises:
        TypeError: an argument without a default is in none of the two.

    Example:
        >>> import optax
        >>> made = section_for("lion", optax.lion, Section, ["learning_rate"])
        >>> made(kind="lion", b1=0.5)
        lion(b1=0.5, b2=0.99, weight_decay=0.001, kind='lion')
    """
    found: Options = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in besides or name in fields:
            continue
        annotation = _type_of(name, parameter)
        if annotation is not None:
            found[name] = (annotation, parameter.default)
        elif parameter.default is parameter.empty:
            raise TypeError(f"{kind}: {name} has no default, and is no number")
    summary = (inspect.getdoc(function) or kind).splitlines()[0]
    keys = found | fields | {"kind": (Literal[kind], ...)}
    return create_model(kind, __base__=base, __doc__=summary, **keys)


def _type_of(name: str, parameter: inspect.Parameter) -> Annotation:
    """What a key takes; None where YAML cannot write it."""
    default, hint = parameter.default, parameter.annotation
    if any(part in name for part in _NO_VALUES):
        return None
    if typing.get_origin(hint) is Literal:
        return hint
    if isinstance(default, bool):
        return bool
    if isinstance(default, int):
        return _Whole
    if isinstance(default, str):
        return str
    admits = set(_admitted(hint))
    if isinstance(default, float):
        return _number(name, default) | None if type(None) in admits else _number(name, default)
    if isinstance(default, tuple) and all(isinstance(part, float) for part in default):
        return _numbers(name, default)
    if default is None and collections.abc.Mapping not in admits:  # no tree of arrays
        return _number(name) | None if float in admits else _Whole | None if int in admits else None
    return None


def _number(name: str, default: float = 0.0) -> Annotation:
    if name in _BELOW_ONE and default < 1:
        return Fraction
    return NonNegative if name.startswith(_AT_LEAST_ZERO) else float


def _numbers(name: str, default: tuple[float, ...]) -> Annotation:
    """A list of as many numbers as the default has."""
    low, high = (0.0, 1.0) if name in _BELOW_ONE else (float("-inf"), float("inf"))
    within = " >= 0 and < 1" if name in _BELOW_ONE else ""
    expected = f"{len(default)} numbers{within}, such as {list(default)}"

    def check(got: Plain) -> tuple[float, ...]:
        numbers = isinstance(got, list | tuple) and all(type(part) in (int, float) for part in got)
        if not numbers or len(got) != len(default) or not all(low <= part < high for part in got):
            raise PydanticCustomError("expected", "{expected}", {"expected": expected})
        return tuple(float(part) for part in got)

    schema = {"type": "array", "items": {"type": "number"}, "minItems": len(default), "maxItems": len(default)}
    if within:
        schema["items"] = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
    return Annotated[tuple[float, ...], BeforeValidator(check), Expected(expected), WithJsonSchema(schema)]


def _admitted(hint: Annotation) -> Iterator[Annotation]:
    """The types of an annotation, those of unions one by one, generic ones without their arguments."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _admitted(part)
    else:
        yield typing.get_origin(hint) or hint
