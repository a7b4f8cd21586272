"""`key.sub=value` arguments laid over the values of a config file."""

import dataclasses
from collections.abc import Callable, Sequence

from gru_jax.config import yaml_document
from gru_jax.config.sections.base import of_kind_alone
from gru_jax.config.yaml_document import Complaint, KeyPath
from gru_jax.types import Plain

KeysOfKind = Callable[[KeyPath, object], frozenset[str] | None]
"""(path of a section, its `kind`) -> the keys of that kind, or None if there is no such kind."""

DefaultKind = Callable[[KeyPath], str | None]
"""Path of a section that the file leaves out -> the `kind` it then has, or None."""

KindAlone = Callable[[KeyPath], bool]
"""Path of a section -> whether the name of its kind may stand for it."""


@dataclasses.dataclass
class Overrides:
    """What came of the arguments.

    Attributes:
        origin: where each landed.
        complaints: (argument, what is wrong with it).
        kept: path of a section whose kind was changed -> keys whose values are still the file's.
    """

    origin: dict[KeyPath, str] = dataclasses.field(default_factory=dict)
    complaints: list[tuple[str, Complaint]] = dataclasses.field(default_factory=list)
    kept: dict[KeyPath, list[str]] = dataclasses.field(default_factory=dict)


def apply(
    values: dict[str, Plain],
    arguments: Sequence[str],
    keys_of_kind: KeysOfKind,
    default_kind: DefaultKind,
    kind_alone: KindAlone,
    alone_here: KindAlone,
) -> Overrides:
    """Lays the arguments over `values`, in place, from left to right.

    Values are read as in the file: a YAML scalar or a flow value such as `{kind: cosine}`. A new
    `kind` drops those values of the file that the kind does not have, as they spoke of another one. `kind_alone` tells
    of the file, `alone_here` of the arguments.
    """
    result = Overrides()
    for argument in arguments:
        path, value, fact = _read(argument)
        if not fact:
            if alone_here(path):
                value = of_kind_alone(value)
            fact = _put(values, path, value, argument, result, keys_of_kind, default_kind, kind_alone)
        if fact:
            result.complaints.append((argument, Complaint(fact)))
    return result


def _read(argument: str) -> tuple[KeyPath, Plain, str]:
    """(path, value, what is wrong with the argument or "")."""
    key, equals, text = argument.partition("=")
    fact = _other_notation(key, equals, text)
    path = tuple(key.split("."))
    if not fact and not (all(path) and yaml_document.is_text(key)):
        fact = f"expected keys joined by single dots before '=', got {key!r}"
    elif not fact and path[0] == "base":
        fact = "base is read before any override; write it in the file"
    if fact:
        return (), None, fact
    document = yaml_document.parse(text)
    if document.complaints:
        return path, None, f"{key}: {document.complaints[0].fact}"
    if not document.flow:
        hint = "write lists as [a, b] and mappings as {a: b}, and quote text that holds ': '"
        return path, None, f"{key}: expected one value on one line; {hint}"
    return path, document.value, ""


def _other_notation(key: str, equals: str, text: str) -> str:
    """What to write in place of an override of other tools, "" for one of ours."""
    name = key.strip()
    if name.startswith("~"):
        return f"'~' is not supported; give the key the value that it should have: {name[1:]}=..."
    if not equals:
        key, colon, text = key.partition(":")
        return "expected key.sub=value" + (f"; did you mean '{key.strip()}={text.strip()}'?" if colon else "")
    if name.startswith("+"):
        return f"'+' is not needed; a key that the file leaves out is set as any other: {name.lstrip('+')}={text}"
    if name.endswith(("+", "-", ":", "?", "|")):
        return f"'{name[-1]}=' is not supported; write the whole value: {name[:-1].rstrip()}=..."
    if name != key:
        return f"expected no space before '='; write {name}={text.strip()}"
    if name.endswith("]") and "[" in name:
        return f"a list has no keys; write all of it: {name.partition('[')[0]}=[a, b]"
    if "/" in name:
        return f"keys are joined by dots; write {name.replace('/', '.')}={text}"
    return ""


def _put(
    values: dict[str, Plain],
    path: KeyPath,
    value: Plain,
    argument: str,
    result: Overrides,
    keys_of_kind: KeysOfKind,
    default_kind: DefaultKind,
    kind_alone: KindAlone,
) -> str:
    section, origin = values, result.origin
    if isinstance(value, str) and value and keys_of_kind(path, value) is not None:
        name = ".".join(map(str, path))
        return f"{name} is a section with keys; did you mean '{name}.kind={value}'?"
    for depth, key in enumerate(path[:-1], start=1):
        # An empty section in the file (`log:`) reads as null and is as good as an absent one.
        if section.get(str(key)) is None:
            default = default_kind(path[:depth])
            section[str(key)] = {} if default is None or path[depth:] == ("kind",) else {"kind": default}
            origin[path[:depth]] = argument
        if kind_alone(path[:depth]):
            section[str(key)] = of_kind_alone(section[str(key)])
        section = section[str(key)]
        if not isinstance(section, dict):
            name = ".".join(map(str, path[:depth]))
            return f"{name} is one value, not a section with keys"
    if path[-1] == "kind" and section.get("kind") != value:
        known = keys_of_kind(path[:-1], value)
        for key in list(section):
            from_file = not any(at[: len(path)] == (*path[:-1], key) for at in origin)
            if known is not None and key not in known and from_file:
                del section[key]
        if "kind" in section:
            result.kept[path[:-1]] = [str(key) for key in section if key != "kind"]
    for at in [at for at in origin if at[: len(path)] == path]:
        del origin[at]
    origin[path] = argument
    section[str(path[-1])] = value
    return ""
