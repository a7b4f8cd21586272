"""The sections of tasks that read files: sizes that are known, must be given, and are checked."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gru_jax.config.sections.tasks import AnyTask
from gru_jax.config.sections.tasks.digits import DigitsTask
from gru_jax.data.dataset import TaskShape

SECTION: TypeAdapter[DigitsTask] = TypeAdapter(AnyTask)

SHAPES = {
    "polyphonic": ({}, TaskShape(229, 76, 77, 128, 88, 88, "notes", next_step=True)),
    "another set": (
        {"kind": "polyphonic", "file": "a/Piano_midi.mat"},
        TaskShape(87, 12, 25, 3856, 88, 88, "notes", next_step=True),
    ),
    "another file": (
        {"kind": "polyphonic", "file": "x.npz", "sizes": {"train": 3, "valid": 2, "test": 1, "time": 9}},
        TaskShape(3, 2, 1, 9, 88, 88, "notes", next_step=True),
    ),
    "mnist": ({"permuted": True}, TaskShape(55_000, 5_000, 10_000, 784, 1, 10)),
    "test half": ({"kind": "mnist", "half": "test"}, TaskShape(8_000, 1_000, 1_000, 784, 1, 10)),
    "characters": ({}, TaskShape(3921, 436, 436, 256, 65, 65, "tags", True, True)),
    "windows": (
        {"kind": "characters", "file": "x", "time": 9, "windows": 7, "sizes": {"characters": 100, "vocabulary": 5}},
        TaskShape(7, 1, 1, 9, 5, 5, "tags", True, True),
    ),
    "tsv": (
        {"sizes": {"train": 9, "valid": 8, "test": 7, "time": 6, "vocabulary": 5, "classes": 4}},
        TaskShape(9, 8, 7, 6, 6, 4, "class", True),
    ),
    "uea": (
        {
            "train": "a.ts",
            "test": "b.ts",
            "sizes": {"train": 9, "valid": 8, "test": 7, "time": 6, "channels": 5, "classes": 4},
        },
        TaskShape(9, 8, 7, 6, 5, 4),
    ),
    "forecast": ({"window": 100, "horizon": 4}, TaskShape(1495, 226, 454, 100, 1, 4, "values")),
    "forecast with holes": (
        {"kind": "forecast", "missing": "gaps", "sizes": {"train": 9, "valid": 8, "test": 7}},
        TaskShape(9, 8, 7, 104, 3, 1, "values", gaps=True),
    ),
}


SIZES = {"train": 9, "valid": 8, "test": 7}
SERIES = {"kind": "series", "file": "x.csv", "sizes": SIZES}
SHAPES |= {
    "series": ({**SERIES, "target": "a"}, TaskShape(9, 8, 7, 168, 1, 24, "values", quantiles=())),
    "series with all there is": (
        {
            **SERIES, "target": ["a", "b"], "known": ["c", "hour", "weekday"], "time": "t", "window": 6, "horizon": 5,
            "missing": "gaps", "quantiles": [0.1, 0.5, 0.9],
        },
        TaskShape(9, 8, 7, 6, 21, 30, "values", gaps=True, quantiles=(0.1, 0.5, 0.9)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_sizes_are_known_without_a_file(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRU_JAX_DATA", raising=False)
    keys, shape = SHAPES[case]
    assert SECTION.validate_python({"kind": case, **keys}).shape() == shape


BROKEN = {
    "music without sizes": ({"kind": "polyphonic", "file": "x.mat"}, "sizes"),
    "text without sizes": ({"kind": "characters", "file": "x.txt"}, "sizes"),
    "a window longer than the text": (
        {"kind": "characters", "file": "x", "time": 90, "sizes": {"characters": 100, "vocabulary": 5}},
        "time",
    ),
    "a column without a count": ({"kind": "forecast", "file": "x.csv"}, "values"),
    "holes without sizes": ({"kind": "forecast", "missing": "last"}, "sizes"),
    "sizes without holes": ({"kind": "forecast", "sizes": {"train": 9, "valid": 8, "test": 7}}, "sizes"),
    "a window longer than the series": ({"kind": "forecast", "window": 2000}, "window"),
    "a horizon longer than a part": ({"kind": "forecast", "window": 2, "horizon": 300}, "window"),
    "a column told and known": ({**SERIES, "target": "a", "known": ["b", "a"]}, "known"),
    "a time told": ({**SERIES, "target": "a", "time": "a"}, "known"),
    "one sign for two things": ({**SERIES, "target": "a", "decimal": ",", "separator": ","}, "decimal"),
    "known values that no window holds": ({**SERIES, "target": "a", "known": ["b"], "window": 9}, "window"),
    "too many windows of a series": ({**SERIES, "target": "a", "sizes": {**SIZES, "train": 10**7}}, "stride"),
    "no file": ({"kind": "series", "file": "x.csv", "target": "a"}, "file"),
    "too many windows": ({"kind": "forecast", "values": 1_000_000, "window": 1000}, "stride"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_rules(case: str) -> None:
    section, key = BROKEN[case]
    with pytest.raises(ValidationError) as raised:
        SECTION.validate_python(section)
    assert [error["ctx"]["key"] for error in raised.value.errors()] == [key]


def test_a_permutation_is_written_only_where_there_is_one() -> None:
    assert "permutation_seed" not in DigitsTask(kind="digits").model_dump(mode="json")
    permuted = DigitsTask(kind="digits", permutation_seed=0)
    assert permuted.model_dump(mode="json")["permutation_seed"] == 0
    assert SECTION.validate_python(permuted.model_dump(mode="json")) == permuted
    assert permuted.load(None).fingerprint != DigitsTask(kind="digits").load(None).fingerprint


def test_what_becomes_of_holes_is_written_only_where_there_may_be_some() -> None:
    plain = SECTION.validate_python({"kind": "forecast"}).model_dump(mode="json")
    assert "missing" not in plain and "sizes" not in plain
    keys = {"missing": "gaps", "sizes": {"train": 9, "valid": 8, "test": 7}}
    found = SECTION.validate_python({"kind": "forecast", **keys})
    assert SECTION.validate_python(found.model_dump(mode="json")) == found


OWN = """
from gru_jax.data.dataset import TaskShape
def shape(**options): return TaskShape(4, 2, 2, 3, 1, 2)
def load(**options): pass
"""


def own_task(folder: Path, text: bytes, **options: Any) -> Any:
    (folder / "own.py").write_bytes(text)
    return {"kind": "python", "file": str(folder / "own.py"), "options": options}


def test_a_python_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    marked, plain = (own_task(tmp_path, text) for text in (b"\xef\xbb\xbf" + OWN.encode(), OWN.encode()))
    assert SECTION.validate_python(marked).source_hash == SECTION.validate_python(plain).source_hash


def test_what_is_no_text_is_said_without_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="own.py cannot be imported: SyntaxError: .*null bytes"):
        SECTION.validate_python(own_task(tmp_path, b"x\0"))


@pytest.mark.parametrize("got", [[1, 2], {"a": 1}, float("nan")])
def test_an_option_is_one_value(got: Any, tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as raised:
        SECTION.validate_python(own_task(tmp_path, OWN.encode(), n=3, xs=got))
    (error,) = raised.value.errors()
    assert error["loc"][-1] == "xs" and error["msg"].startswith("one value: a finite number")
