"""What pydantic found wrong, said in one voice: path, fact, what was got, the nearest key."""

import types
import typing
from collections.abc import Iterable

import annotated_types
from pydantic import BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gru_jax.checks import did_you_mean, listed
from gru_jax.config.sections.base import AloneInFiles, Expected, Section, of_kind_alone
from gru_jax.config.sections.in_words import show
from gru_jax.config.yaml_document import KeyPath


class Problem(typing.NamedTuple):
    """A fact about the value (or, with `at_key`, about the key) at `path`."""

    path: KeyPath
    fact: str
    at_key: bool = False


def problems(error: ValidationError, root: type[Section]) -> list[Problem]:
    """One problem for each thing that is wrong."""
    found = [problem for detail in error.errors(include_url=False) for problem in _problems(detail, root)]
    # A section of an unknown kind has no keys to compare with: only its kind is wrong.
    kinds = {p.path[:-1] for p in found if p.path[-1:] == ("kind",)}
    return [p for p in found if p.path[-1:] == ("kind",) or not _under(p.path, kinds)]


def _under(path: KeyPath, sections: set[KeyPath]) -> bool:
    return any(len(path) > len(section) and path[: len(section)] == section for section in sections)


def suggestion(got: object, options: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the nearest option, or the choices when none is near."""
    options = list(options)
    return did_you_mean(got, options, f"choose one of {listed(options, repr)}")


def _problems(detail: ErrorDetails, root: type[Section]) -> list[Problem]:
    if detail["type"] != "rules":
        return [_problem(detail, root)]
    path, _ = _locate(detail["loc"], root)
    return [Problem((*path, key), fact) for key, fact in detail["ctx"]["found"]]


def _problem(detail: ErrorDetails, root: type[Section]) -> Problem:
    path, section = _locate(detail["loc"], root)
    kind = detail["type"]
    if kind == "extra_forbidden":
        keys = _keys(section)
        of_kind = _kind_of(section)
        known = f"unknown key for kind {of_kind!r}" if of_kind else "unknown key"
        full = full_keys(root, str(path[-1])) if len(path) == 1 else []
        if full:
            return Problem(path, known + "; did you mean " + " or ".join(map(repr, full)) + "?", at_key=True)
        if keys == ["kind"]:
            kinds = [of for of in kinds_at(root, path[:-1]) if path[-1] in (keys_of_kind(root, path[:-1], of) or ())]
            known += f"; it is a key of {', '.join(map(repr, kinds))}" if kinds else ""
            return Problem(path, known, at_key=True)
        return Problem(path, known + suggestion(path[-1], keys), at_key=True)
    if kind == "union_tag_not_found":
        return Problem((*path, "kind"), f"is missing; choose one of {listed(kinds_at(root, path), repr)}")
    if kind == "union_tag_invalid":
        got = detail["input"]["kind"]
        return Problem((*path, "kind"), _unknown_kind(got, kinds_at(root, path)))
    if kind == "literal_error" and path[-1] == "kind":
        return Problem(path, _unknown_kind(detail["input"], [_kind_of(section)]))
    if kind == "rule":
        return Problem((*path, detail["ctx"]["key"]), detail["ctx"]["fact"])
    if kind == "expected":
        return Problem(path, f"expected {detail['msg']}, got {show(detail['input'])}")
    field = _field(section, path[-1])
    expected = "a value" if field is None else _expected(field.annotation, field.metadata)
    if kind == "missing":
        return Problem(path, f"is missing; expected {expected}")
    got = detail["input"]
    fact = f"expected {expected}, got {show(got)}"
    if isinstance(got, str) and kind in ("float_type", "int_type", "bool_type"):
        fact += _unquote_hint(got)
    fact += "".join(item.hint(got) for item in (field.metadata if field else []) if isinstance(item, Expected))
    if kind == "literal_error":
        fact += did_you_mean(got, _literals(section, path[-1]))
    return Problem(path, fact)


def _unknown_kind(got: object, kinds: Iterable[str]) -> str:
    return f"unknown kind {show(got)}" + suggestion(got, kinds)


def _unquote_hint(got: str) -> str:
    from gru_jax.config.yaml_document import parse

    plain = parse(got)
    is_number = not plain.complaints and isinstance(plain.value, int | float)
    return "; write it without quotes" if is_number else ""


def _kind_of(section: type[Section]) -> str:
    field = section.model_fields.get("kind")
    return str(typing.get_args(field.annotation)[0]) if field else ""


def _keys(section: type[Section]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _field(section: type[Section], key: object) -> FieldInfo | None:
    for name, field in section.model_fields.items():
        if key == (field.alias or name):
            return field
    return None


def _sections(annotation: object) -> list[type[Section]]:
    """The section classes an annotation admits: none for a plain value, several for a union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in _sections(part)]


def sections_at(root: type[Section], path: KeyPath) -> list[type[Section]]:
    """The section classes that may stand at a path of the config."""
    candidates = [root]
    for key in path:
        fields = [field for section in candidates if (field := _field(section, key))]
        candidates = [found for field in fields for found in _sections(field.annotation)]
    return candidates


def kinds_at(root: type[Section], path: KeyPath) -> list[str]:
    """The kinds that the section at a path may have."""
    return list(dict.fromkeys(_kind_of(section) for section in sections_at(root, path)))


def options_at(root: type[Section], path: KeyPath) -> list[str]:
    """The values to choose from at a key, as they are written; [] where it takes numbers, text or a section."""
    fields = [field for section in sections_at(root, path[:-1]) if (field := _field(section, path[-1]))]
    options = [option for field in fields for option in _options(field.annotation)]
    if any(bool in (field.annotation, *typing.get_args(field.annotation)) for field in fields):
        options += [True, False]
    return list(dict.fromkeys(str(option).lower() if isinstance(option, bool) else str(option) for option in options))


def keys_of_kind(root: type[Section], path: KeyPath, kind: object) -> frozenset[str] | None:
    """The keys of the section of that kind at a path, or None if there is none."""
    for section in sections_at(root, path):
        if _kind_of(section) == kind:
            return frozenset(_keys(section))
    return None


def kind_alone(root: type[Section], path: KeyPath, in_file: bool = True) -> bool:
    """Whether the name of a kind may stand for the section at a path: in a file, or in an override."""
    fields = [_field(section, path[-1]) for section in sections_at(root, path[:-1])] if path else []
    kinds = [item for field in fields if field is not None for item in field.metadata if type(item) in _ALONE]
    return any(in_file or type(item) is BeforeValidator for item in kinds if item.func is of_kind_alone)


_ALONE = (BeforeValidator, AloneInFiles)


# What other libraries call our keys.
_ELSEWHERE = {
    "learning_rate": "lr", "batch_size": "batch", "hidden_size": "hidden", "hidden_dim": "hidden",
    "num_layers": "layers", "n_layers": "layers", "optimizer": "optim", "grad_clip": "clip_norm",
}  # fmt: skip


def full_keys(root: type[Section], name: str) -> list[str]:
    """Where a key stands in the config: `lr` is at `optim.lr`."""
    name = _ELSEWHERE.get(name, name)
    return [path for path in dict.fromkeys(dotted_keys(root)) if path.rpartition(".")[2] == name]


def dotted_keys(section: type[Section]) -> Iterable[str]:
    for name, field in section.model_fields.items():
        yield field.alias or name
        for below in _sections(field.annotation):
            yield from (f"{name}.{key}" for key in dotted_keys(below))


def default_kind(root: type[Section], path: KeyPath) -> str | None:
    """The kind of the section at a path when the config leaves it out; None if it has none."""
    for section in sections_at(root, path[:-1]):
        field = _field(section, path[-1])
        if field is not None and isinstance(field.default, Section):
            return getattr(field.default, "kind", None)
    return None


def _locate(loc: tuple[str | int, ...], root: type[Section]) -> tuple[KeyPath, type[Section]]:
    """(the path without pydantic's union tags, the section class that holds its last key)."""
    path: list[str | int] = []
    section, members = root, [root]
    for part in loc:
        if len(members) > 1:
            section = next(member for member in members if _kind_of(member) == part)
            members = [section]
            continue
        if members:
            section = members[0]
        path.append(part)
        field = _field(section, part)
        members = _sections(field.annotation) if field else []
    return tuple(path), section


def _literals(section: type[Section], key: object) -> list[str]:
    field = _field(section, key)
    return [] if field is None else [str(option) for option in _options(field.annotation)]


def _options(annotation: object) -> list[object]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [option for part in typing.get_args(annotation) for option in _options(part)]


def _expected(annotation: object, metadata: Iterable[object]) -> str:
    """'a number > 0', 'one of 'a', 'b'', ... from a field's type and bounds."""
    metadata = list(metadata)
    for item in metadata:
        if isinstance(item, Expected):
            return str(item)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _expected(args[0], _flat_metadata(args[1:]))
    if origin in (typing.Union, types.UnionType):
        said = [_expected(part, metadata) for part in args if part is not type(None)]
        said = list(dict.fromkeys(said)) + (["null"] if type(None) in args else [])
        return " or ".join(said)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(option) for option in args)
    if _sections(annotation):
        return "a section (a mapping of keys to values)"
    names: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(annotation, "another value") + _bounds(metadata)


def _flat_metadata(items: Iterable[object]) -> list[object]:
    return [part for item in items for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _bounds(metadata: Iterable[object]) -> str:
    said = []
    for item in metadata:
        for symbol, kind, name in (
            (">", annotated_types.Gt, "gt"),
            (">=", annotated_types.Ge, "ge"),
            ("<", annotated_types.Lt, "lt"),
            ("<=", annotated_types.Le, "le"),
        ):
            if isinstance(item, kind):
                said.append(f"{symbol} {getattr(item, name)}")
    return " " + " and ".join(said) if said else ""
