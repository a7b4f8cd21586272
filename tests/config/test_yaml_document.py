"""Scalars of YAML 1.2, marks, and everything that a config file must not be."""

from pathlib import Path

import pytest

from gru_jax.config import yaml_document

SCALARS = {
    "1e-3": 1e-3,
    "1E3": 1000.0,
    "+1.5e+2": 150.0,
    ".5": 0.5,
    "1.": 1.0,
    "-.inf": float("-inf"),
    "010": 10,
    "0x1F": 31,
    "0o17": 15,
    "-3": -3,
    "true": True,
    "False": False,
    "no": "no",
    "on": "on",
    "y": "y",
    "1_000": "1_000",
    "12:30": "12:30",
    "2026-01-01": "2026-01-01",
    "~": None,
    "null": None,
    '"1e-3"': "1e-3",
    "'true'": "true",
    "1 epoch": "1 epoch",
    "0b1": "0b1",
    "1e": "1e",
    "!!str 5": "5",
    "!!float 5": 5.0,
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_scalar(text: str, value: object) -> None:
    document = yaml_document.parse(f"key: {text}")
    assert document.complaints == []
    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)


@pytest.mark.parametrize("value", [v for v in SCALARS.values() if v == v])
def test_dump_reads_back(value: object) -> None:
    read = yaml_document.parse(yaml_document.dump({"key": value, "list": [value, {"a": value}]}))
    assert read.complaints == []
    assert read.value == {"key": value, "list": [value, {"a": value}]}
    assert type(read.value["key"]) is type(value)


def test_marks_are_lines_and_columns_from_one() -> None:
    document = yaml_document.parse("a:\n  b: [1, 22]\n")
    assert document.key_marks[("a", "b")] == (2, 3)
    assert document.marks[("a", "b", 1)] == (2, 10)


REFUSED = {
    "a: 1\na: 2": ("key is repeated (first on line 1)", 2),
    "a: {b: 1, b: 2}": ("key is repeated", 1),
    "a: [1": ("not valid YAML", 0),
    "a: 'x": ("not valid YAML", 0),
    "\ta: 1": ("not valid YAML", 1),
    "a: 1\n---\nb: 2": ("not valid YAML", 2),
    "a: *b": ("undefined alias", 1),
    "x: !!python/object/apply:os.system ['true']": ("!!python/object/apply:os.system", 1),
    "x: !mine {a: 1}": ("tag '!mine' is not allowed", 1),
    "x: !!binary aGk=": ("tag '!!binary' is not allowed", 1),
    "!!set {a, b}": ("tag '!!set' is not allowed", 1),
    "x: !!int abc": ("expected a value of type int, got 'abc'", 1),
    "1: x": ("expected a key made of letters, got '1'", 1),
    "[1, 2]: x": ("expected a key made of letters, got 'a collection'", 1),
    "a: \x07": ("is not allowed in YAML", 1),
    "[" * 5000: ("nested", 1),
    "a: " + "[" * 40 + "]" * 40: ("nested more than", 1),
    "a: &a [*a]": ("nested more than", 1),
    "k: " + "9" * 5000: ("expected a value of type int", 1),
    "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{name}: &{name} [{','.join(f'*{before}' for _ in range(10))}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ): ("more than 10000 values", 1),
}


@pytest.mark.parametrize(("text", "fact", "line"), [(k, *v) for k, v in REFUSED.items()])
def test_refused_with_its_line(text: str, fact: str, line: int) -> None:
    document = yaml_document.parse(text)
    assert len(document.complaints) == 1
    assert fact in document.complaints[0].fact
    if line:
        assert document.complaints[0].line == line


def test_all_complaints_at_once() -> None:
    document = yaml_document.parse("a: 1\na: 2\nb: !x 1\nc: 3\nc: 4\n")
    assert [complaint.line for complaint in document.complaints] == [2, 3, 5]
    assert document.value["c"] == 3


FILES = {
    "missing": (None, "no such file"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00", "expected UTF-8 text, got byte 0x89"),
    "utf-16": ("a: 1".encode("utf-16"), "expected UTF-8 text"),
    "late": (b"a: 1\nb: \xff", "expected UTF-8 text"),
    "large": (b"#" * (yaml_document.MAX_BYTES + 1), "is larger than"),
    "nul": (b"a: \x00", "is not allowed in YAML"),
}


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_no_text(name: str, tmp_path: Path) -> None:
    content, fact = FILES[name]
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    (complaint,) = yaml_document.read_file(path).complaints
    assert fact in complaint.fact


def test_directory_is_no_file(tmp_path: Path) -> None:
    (complaint,) = yaml_document.read_file(tmp_path).complaints
    assert complaint.fact == "expected a YAML file, got a directory"


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: two\r\n")
    assert yaml_document.read_file(path).value == {"a": 1, "b": "two"}
