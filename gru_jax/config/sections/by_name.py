"""Sections and what they configure: calls that are given a section's keys by name, sections made of a tuple's names."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from pydantic import create_model

from gru_jax.config.sections.base import Count, Section
from gru_jax.types import Function, Options

_T = TypeVar("_T")


class OfSizes(Section):
    """A section that stands for a NamedTuple of sizes."""

    of: ClassVar[Function]


def section_of(sizes: type[tuple[int, ...]]) -> Any:
    """A base class for sections: a `Count`, which has to be given, for every field of a NamedTuple.

    Example:
        >>> from gru_jax.data import text
        >>> class Sizes(section_of(text.Sizes)): ...
        >>> list(Sizes.model_fields)
        ['characters', 'vocabulary']
    """
    fields: Options = {name: (Count, ...) for name in sizes._fields}  # type: ignore[attr-defined]
    made = create_model(sizes.__name__, __base__=OfSizes, **fields)
    made.of = sizes
    return made


def given(function: Callable[..., _T], section: Section, **more: object) -> _T:
    """Calls a function with those of its parameters that are keys of a section.

    Args:
        function: what is called; a key is passed to the parameter of its name.
        section: whose values are passed, sections within it as what they stand for.
        more: parameters by name, in place of keys; those that the function does not have are left out.
    """
    values = {name: _meant(getattr(section, name)) for name in type(section).model_fields} | more
    return function(**{name: values[name] for name in inspect.signature(function).parameters if name in values})


def _meant(value: object) -> object:
    if isinstance(value, OfSizes):
        return given(value.of, value)
    return tuple(value) if isinstance(value, list) else value
