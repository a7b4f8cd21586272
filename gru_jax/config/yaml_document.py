"""YAML text to plain Python values, remembering on which line each value stood, and back.

PyYAML reads YAML 1.1, where `1e-3` is text, `no` is false and a repeated key silently wins. This
loader reads the scalars of YAML 1.2, refuses repeated keys and every tag, and collects its
complaints rather than stopping at the first.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import yaml

from gru_jax.types import Plain

KeyPath = tuple[str | int, ...]
"""Where a value sits in the document: the keys (and list positions) that lead to it."""

MAX_BYTES = 1 << 20
MAX_VALUES = 10_000  # a document of aliases to aliases can otherwise grow to billions of values
MAX_DEPTH = 32
MAX_BITS = 4096  # Python writes no integer of more than some 14,000

_TAG = "tag:yaml.org,2002:"


class _Yaml12(yaml.SafeLoader):
    """SafeLoader with the scalar types of YAML 1.2 in place of those of 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


class _Yaml12Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what either version of YAML would not read as text."""


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    for _class in (_Yaml12, _Yaml12Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


def dump(value: Plain) -> str:
    """A plain value as YAML, keys in their order."""
    return yaml.dump(value, Dumper=_Yaml12Dumper, sort_keys=False, default_flow_style=False)


@dataclasses.dataclass(frozen=True)
class Complaint:
    """One fact about one place: `line` and `column` count from 1; 0 means the file as a whole."""

    fact: str
    path: KeyPath = ()
    line: int = 0
    column: int = 0


@dataclasses.dataclass
class Document:
    """The values of a YAML text, the (line, column) of values and keys, and what was wrong."""

    text: str = ""
    value: Plain = None
    marks: dict[KeyPath, tuple[int, int]] = dataclasses.field(default_factory=dict)
    key_marks: dict[KeyPath, tuple[int, int]] = dataclasses.field(default_factory=dict)
    complaints: list[Complaint] = dataclasses.field(default_factory=list)
    flow: bool = True  # False when the outermost value is a mapping or list in block style


def read_file(path: Path) -> Document:
    """Reads and parses a file; whatever keeps it from being read becomes a complaint."""
    try:
        if not path.exists():
            return Document(complaints=[Complaint("no such file")])
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            return Document(complaints=[Complaint(f"expected a YAML file, got {kind}")])
        if path.stat().st_size > MAX_BYTES:
            return Document(complaints=[Complaint(f"is larger than {MAX_BYTES} bytes: not a config")])
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return Document(complaints=[Complaint(f"cannot be read: {reason}")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fact = f"expected UTF-8 text, got byte 0x{data[error.start]:02x} at offset {error.start}"
        return Document(complaints=[Complaint(fact, line=line)])
    return parse(text)


def parse(text: str) -> Document:
    """Parses one YAML document."""
    document = Document(text)
    try:
        node = yaml.compose(text, Loader=_Yaml12)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fact = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        document.complaints.append(Complaint(f"not valid YAML: {fact}", (), line, column))
        return document
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        fact = f"not text: character {error.character!r} is not allowed in YAML"
        document.complaints.append(Complaint(fact, line=line))
        return document
    except RecursionError:
        document.complaints.append(Complaint("is nested too deeply for a config", line=1))
        return document
    if node is not None:
        _Builder(document).build(node)
    return document


def one_line(value: Plain) -> str:
    """A value as YAML on one line, text without quotes where it needs none.

    Example:
        >>> one_line("JSB.mat"), one_line("3"), one_line({"kind": "gru", "layers": 2})
        ('JSB.mat', '"3"', '{"kind": "gru", "layers": 2}')
    """
    if isinstance(value, str):
        plain = parse(value)
        if not plain.complaints and plain.value == value:
            return value
    return json.dumps(value)


def is_text(characters: str) -> bool:
    """Whether they can be written to a file: an escape such as `\\ud800`, half of a pair, cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in characters)


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _TooMuch(Exception):
    """Ends a document that grows or nests beyond what a config can be."""


class _Builder:
    """Turns composed nodes into values, noting marks and complaints."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def build(self, node: yaml.Node) -> None:
        try:
            self.document.value = self._value(node, ())
        except _TooMuch as error:
            self._complain(str(error), (), node)
        self.document.flow = bool(getattr(node, "flow_style", True))

    def _complain(self, fact: str, path: KeyPath, node: yaml.Node) -> None:
        self.document.complaints.append(Complaint(fact, path, *_position(node)))

    def _value(self, node: yaml.Node, path: KeyPath) -> Plain:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _TooMuch(f"holds more than {MAX_VALUES} values (aliases counted): not a config")
        if len(path) > MAX_DEPTH:
            raise _TooMuch(f"is nested more than {MAX_DEPTH} levels deep")
        self.document.marks[path] = _position(node)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        return self._refuse_tag(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Plain]:
        result: dict[str, Plain] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a collection"
                self._complain(f"expected a key made of letters, got {shown!r}", path, key_node)
                continue
            key = key_node.value
            if not is_text(key):
                self._complain(f"expected a key made of letters, got {key!r}", path, key_node)
                continue
            if key in first_line:
                fact = f"key is repeated (first on line {first_line[key]}); keep one of the two"
                self._complain(fact, (*path, key), key_node)
                continue
            first_line[key] = key_node.start_mark.line + 1
            self.document.key_marks[(*path, key)] = _position(key_node)
            result[key] = self._value(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Plain:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
                if number.bit_length() > MAX_BITS:
                    raise ValueError(text)
                return number
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
            if kind == "str" and is_text(text):
                return text
        except (ValueError, KeyError):
            shown = text if len(text) <= 40 else f"{text[:37]}..."
            self._complain(f"expected a value of type {kind}, got {shown!r}", path, node)
            return None
        if kind == "str":
            self._complain(f"expected text, got half of a surrogate pair in {text[:40]!r}", path, node)
            return None
        return self._refuse_tag(node, path)

    def _refuse_tag(self, node: yaml.Node, path: KeyPath) -> None:
        tag = node.tag.replace(_TAG, "!!")
        fact = f"tag {tag!r} is not allowed; a config holds plain values only"
        self._complain(fact, path, node)
