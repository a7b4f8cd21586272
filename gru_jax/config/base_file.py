"""`base: other.yaml`: a config laid over another file, section by section, as overrides are laid over it."""

import contextlib
import dataclasses
import os
from pathlib import Path

from gru_jax.config import error_messages, yaml_document
from gru_jax.config.sections.base import Section, of_kind_alone
from gru_jax.config.sections.in_words import show
from gru_jax.config.sections.sweep import is_draws
from gru_jax.config.yaml_document import Complaint, Document, KeyPath
from gru_jax.types import Plain


@dataclasses.dataclass
class Base:
    """The file that a config is laid over.

    Attributes:
        file: its path.
        document: its text, complaints and values, and the places of those values that the config has left as they are.
        kept: path of a section whose kind the config changes -> keys whose values are still the base's.
    """

    file: str
    document: Document
    kept: dict[KeyPath, list[str]] = dataclasses.field(default_factory=dict)


def read_base(path: Path, document: Document, values: dict[str, Plain]) -> Base | None:
    """Reads the file that a config names, and takes the key out of its values.

    Args:
        path: of the config.
        document: of the config; gains a complaint when the base cannot be read.
        values: of the config.

    Returns:
        The base, None where the config has none, or none that can be read.
    """
    if "base" not in values:
        return None
    named = values.pop("base")
    if not isinstance(named, str) or not named:
        fact = f"expected the path of a config, got {show(named)}"
        document.complaints.append(Complaint(fact, ("base",), *document.marks["base",]))
        return None
    base = Base(str(path.parent / named), yaml_document.read_file(path.parent / named))
    fact = _unusable(base, path)
    if fact:
        name = base.file if base.file.isprintable() else repr(base.file)
        document.complaints.append(Complaint(name + fact, ("base",), *document.marks["base",]))
        return None
    found = base.document
    if not isinstance(found.value, dict):
        if not found.complaints:
            fact = f"expected keys with values, got {show(found.value)}; it is the base of {path}"
            found.complaints.append(Complaint(fact, (), *found.marks[()]))
    elif "base" in found.value:
        fact = f"it is the base of {path}, and a base has none of its own; put the values of both into one file"
        found.complaints.append(Complaint(fact, ("base",), *found.key_marks["base",]))
    return base


def _unusable(base: Base, config: Path) -> str:
    """What is wrong with the file as a whole, after its name; "" where it has lines to speak of."""
    found = base.document
    if found.complaints and not found.complaints[0].line:
        return f": {found.complaints[0].fact}"
    with contextlib.suppress(OSError, ValueError):
        if os.path.samefile(config, base.file):
            return " is this file itself; name another one"
    return ": is empty" if found.value is None and not found.complaints else ""


def lay_over(base: Base, values: dict[str, Plain], root: type[Section]) -> dict[str, Plain]:
    """The base's values with the config's laid over them.

    A new `kind` drops those values of the base that the kind does not have. Lists, draws and single values are
    replaced whole.

    Args:
        base: as it was read; forgets the places of what is replaced.
        values: of the config.
        root: what the whole is: tells which keys a kind has.
    """
    result: dict[str, Plain] = base.document.value
    gone: set[KeyPath] = set()
    _lay(result, values, (), root, gone, base.kept)
    for marks in (base.document.marks, base.document.key_marks):
        for path in [path for path in marks if any(path[:length] in gone for length in range(1, len(path) + 1))]:
            del marks[path]
    return result


def _lay(
    under: dict[str, Plain],
    over: dict[str, Plain],
    at: KeyPath,
    root: type[Section],
    gone: set[KeyPath],
    kept: dict[KeyPath, list[str]],
) -> None:
    known = error_messages.keys_of_kind(root, at, over["kind"]) if "kind" in over else None
    if known is not None and under.get("kind") != over["kind"]:
        for key in [key for key in under if key not in known]:
            del under[key]
            gone.add((*at, key))
        if "kind" in under:
            kept[at] = [key for key in under if key not in over]
    for key, value in over.items():
        below = (*at, key)
        section: Plain = under.get(key)
        if error_messages.kind_alone(root, below):
            section = of_kind_alone(section)
        if section is None and isinstance(value, dict):
            # As with overrides, the keys of a section that the base leaves out are those of its default kind.
            kind = error_messages.default_kind(root, below)
            section = {} if kind is None or "kind" in value else {"kind": kind}
        if _is_section(section, below) and _is_section(value, below):
            under[key] = section
            _lay(section, value, below, root, gone, kept)
        else:
            under[key] = value
            gone.add(below)


def _is_section(value: Plain, path: KeyPath) -> bool:
    return isinstance(value, dict) and not (path[0] == "sweep" and is_draws(value))
