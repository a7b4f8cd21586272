"""Labelled sequences in files of one's own: archives, long tables, folders; their splits and scales."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gru_jax.config.config import Config, compared, config_hash
from gru_jax.config.loading import ConfigError, load_config
from gru_jax.data.dataset import DataDamaged, Dataset, Sequences, Split
from gru_jax.data.sequences import task
from gru_jax.data.sequences.labelled import Labelled
from gru_jax.data.sequences.rows import Reading
from gru_jax.data.sequences.task import Shares, Sizes

from .hostile import survive

READING = Reading("id", "label")
TAGS = Reading("id", "tag", tags=True)
LONG = "id,a,b,label\n7,1,2,walk\n7,3,4,walk\n8,5,6,fall\n"


def found(path: Path, reading: Reading = READING) -> Labelled:
    return task.sequences_of(path, task.read(path), reading)


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Files by name below a folder: text, or the arrays of an archive; the path of the first, or of its folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            np.savez(path, **content)
    first = next(iter(files))
    return folder / first.partition("/")[0]


TIMED = "when|label|id|b|a\n2025-01-01|walk|7|2|1\n2025-01-02|walk|7|4|3\n1999-01-01|fall|8|6|5\n"
LABELS = "file,label\n8.csv,fall\n7.csv,walk\n"
RAGGED = {"x": np.arange(6.0).reshape(3, 2) + 1, "lengths": np.array([2, 1])}
PADDED = {"x": np.array([[[1, 2], [3, 4]], [[5, 6], [0, 0]]]), "lengths": np.array([2, 1])}
SAME = [
    ({"a.csv": LONG}, READING),
    ({"a.csv": "id;a;b;label\n7;1,0;2;walk\n8;5;6;fall\n7;3;4;walk\n"}, READING),
    ({"a.csv": TIMED}, READING._replace(time="when", features=("a", "b"))),
    ({"own/walk/7.csv": "b,a\n2,1\n4,3\n", "own/fall/8.csv": "a,b\n5,6\n"}, READING),
    ({"own/7.csv": "a,b\n1,2\n3,4\n", "own/8.csv": "a,b\n5,6\n", "own/labels.csv": LABELS}, READING),
    ({"a.npz": RAGGED | {"y": np.array(["walk", "fall"])}}, READING),
    ({"a.npz": PADDED | {"y": np.array(["walk", "fall"])}}, READING),
]  # fmt: skip


@pytest.mark.parametrize(("files", "reading"), SAME)
def test_forms_of_the_same_two_sequences(tmp_path: Path, files: dict[str, Any], reading: Reading) -> None:
    made = found(write(tmp_path, files), reading)
    by_class = {made.classes[int(y)]: x.tolist() for x, y in zip(made.x, made.y, strict=True)}
    assert by_class == {"walk": [[1, 2], [3, 4]], "fall": [[5, 6]]}
    assert made.classes == ("fall", "walk") and made.split is None
    assert {str(x.dtype) for x in made.x} == {"float32"}
    if not any(name.endswith("npz") for name in files):
        assert {Path(each).stem for each in made.ids} == {"7", "8"}


TAGGED = [
    {"a.csv": "id,a,tag\n7,1,10\n7,2,9\n8,3,9\n"},
    {"own/7.csv": "a,tag\n1,10\n2,9\n", "own/8.csv": "a,tag\n3,9\n"},
    {"a.npz": {"x": np.array([1, 2, 3]), "y": np.array([10, 9, 9]), "lengths": np.array([2, 1])}},
    {"a.npz": {"x": np.array([[1, 2], [3, 0]]), "y": np.array([[10, 9], [9, 0]]), "lengths": np.array([2, 1])}},
]


@pytest.mark.parametrize("files", TAGGED)
def test_a_class_at_each_step(tmp_path: Path, files: dict[str, Any]) -> None:
    made = found(write(tmp_path, files), TAGS)
    assert made.classes == ("9", "10")  # by value, and without what only pads
    assert [y.tolist() for y in made.y] == [[1, 0], [0]] and [x.tolist() for x in made.x] == [[[1], [2]], [[3]]]


WRONG = [
    ({"a.csv": LONG + "8,7,8,walk\n"}, READING, "line 5 has the label 'walk', and '8' began with 'fall'"),
    ({"a.csv": LONG + "8,7\n"}, READING, "line 5 has 2 fields, and the header 4"),
    ({"a.csv": LONG + "8,x,,fall\n"}, READING, "line 5 holds 'x' in 'a', line 5 has nothing in 'b', where a number is"),
    ({"a.csv": LONG + "9,1,2,\n"}, READING, "line 5 has no label; fill it in"),
    ({"a.csv": LONG.replace("label", "class")}, READING, "has no column 'label'; its header, parted by commas, is"),
    ({"a.csv": LONG}, READING._replace(time="b", features=("a", "c")), "has no column 'c'"),
    ({"a.csv": LONG.replace("3,4", "3,2")}, READING._replace(time="b"), "line 3 has no later 'b' than the row before"),
    ({"a.csv": "id,a,label,split\n1,2,x,train\n2,3,y,exam\n"}, READING, "line 3 says 'exam'; write train, valid"),
    ({"own/walk/7.csv": "a\n1\n", "own/8.csv": "a\n2\n"}, READING, "does not say the class of 8.csv; write it"),
    ({"own/walk/7.csv": "a\n1\n", "own/fall/8.csv": "b\n2\n"}, READING, "7.csv: has the columns 'a', and fall/8.csv"),
    ({"own/7.csv": "a\n1\n", "own/labels.csv": "file,label\n7.csv,x\n8.csv,y\n"}, READING, "names 8.csv, not in the"),
    ({"a.npz": {"x": np.zeros((2, 3, 1))}}, READING, "holds no array 'y'"),
    ({"a.npz": {"x": np.zeros((2, 3, 1)), "y": np.zeros((2, 3), int)}}, READING, "'y' holds int64[2, 3]; save"),
    ({"a.npz": {"x": np.zeros((2, 3, 1)), "y": np.zeros(2, int)}}, TAGS, "tags: false is of a class each sequence"),
    ({"a.npz": PADDED | {"y": np.zeros(2, int), "lengths": np.array([3, 1])}}, READING, "do not fit 'x' [2, 2, 2]"),
    ({"a.npz": {"x": np.full((2, 3, 1), np.nan), "y": np.zeros(2, int)}}, READING, "not finite in sequence 0; fill it"),
    ({"own/readme.txt": "none"}, READING, "holds 0 files .csv"),
]


@pytest.mark.parametrize(("files", "reading", "fact"), WRONG, ids=[fact[:40] for _, _, fact in WRONG])
def test_what_is_wrong_with_files(tmp_path: Path, files: dict[str, Any], reading: Reading, fact: str) -> None:
    path = write(tmp_path, files)
    with pytest.raises(DataDamaged) as raised:
        found(path, reading)
    assert fact in str(raised.value) and str(path) in str(raised.value)


def _of_classes(counts: list[int], split: np.ndarray | None = None) -> Labelled:
    y = [np.int32(kind) for kind, count in enumerate(counts) for _ in range(count)]
    return Labelled([np.zeros((1, 1))] * len(y), y, tuple("abc"), split, ("",) * len(y))


def test_every_class_is_divided() -> None:
    made = _of_classes([100, 20, 3])
    parts = task.split_of(made, Shares(0.7, 0.1, 0.2), tags=False)
    assert sorted(np.concatenate(parts).tolist()) == list(range(123))
    counts = [np.bincount([made.y[row] for row in part], minlength=3).tolist() for part in parts]
    assert counts == [[70, 14, 1], [10, 2, 1], [20, 4, 1]]
    again = task.split_of(made, Shares(0.7, 0.1, 0.2), tags=False)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert np.diff(parts[2]).max() > 1  # not the last ones
    assert list(map(len, task.split_of(made, Shares(0.5, 0.25, 0.25), tags=True))) == [61, 31, 31]


def test_splits_that_the_files_say() -> None:
    said = np.array([2, 0, 1, 0])
    parts = task.split_of(_of_classes([4], said), Shares(0.7, 0.1, 0.2), tags=False)
    assert [part.tolist() for part in parts] == [[1, 3], [2], [0]]
    without = np.repeat([0, 2], [90, 10])
    train, valid, test = task.split_of(_of_classes([100], without), Shares(0.6, 0.2, 0.2), tags=False)
    assert (len(train), len(valid), test.tolist()) == (68, 22, list(range(90, 100)))
    assert set(train) | set(valid) == set(range(90))


def _loaded(path: Path, reading: Reading = READING, missing: Any = "refuse") -> Dataset:
    shares = Shares(0.5, 0.25, 0.25)
    sizes = task.sizes_of(path, task.read(path), reading, shares)
    return task.load(path.name, reading, missing, shares, sizes, str(path.parent))


def test_numbers_are_scaled_by_the_training_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 30, 40)
    x = rng.normal(3, 2, (lengths.sum(), 2)).astype(np.float32)
    x[:, 1] = 7  # says nothing
    path = write(tmp_path, {"a.npz": {"x": x, "lengths": lengths, "y": np.arange(40) % 4}})
    data = _loaded(path)
    assert isinstance(data.train, Sequences) and data.classes == ("0", "1", "2", "3") and data.ids is not None
    seen = np.concatenate(data.train.x)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), [1, 0], atol=1e-5)
    parts = np.split(x[:, 0], np.cumsum(lengths)[:-1])
    raw = np.concatenate([parts[int(name)] for name in data.ids["train"]])
    for name, example in zip(data.ids["test"], data.test, strict=True):
        scaled = (parts[int(name)] - raw.mean()) / raw.std()
        np.testing.assert_allclose(example.x[:, 0], scaled, rtol=1e-4, atol=1e-5)
        assert int(example.y) == int(name) % 4
    assert "of 5 to 29 steps of 2" in data.description and "24 train, 8 validation, 8 test" in data.description
    with pytest.raises(DataDamaged, match="train 24, not 25"):
        task.load("a.npz", READING, "refuse", Shares(0.5, 0.25, 0.25), Sizes(25, 8, 8, 29, 2, 4), str(tmp_path))


def test_equal_sequences_lie_side_by_side_and_holes_are_filled(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(12, 5, 2))
    x[::2, 3, 0] = np.nan
    path = write(tmp_path, {"a.npz": {"x": x, "y": np.arange(12) % 2}})
    data = _loaded(path, READING._replace(holes=True), "gaps")
    assert isinstance(data.train, Split) and data.train.x.shape == (4, 5, 6) and np.isfinite(data.train.x).all()
    shape = task.shape(Sizes(6, 4, 2, 5, 2, 2), READING, "gaps")
    assert (shape.features, shape.outputs, shape.gaps, shape.target) == (6, 2, True, "class")


MANY = LONG + "".join(f"{n},{n},-{n}.5,{'walk' if n % 3 else 'fall'}\n" for n in range(9, 20))


@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
def test_damage_is_refused_or_read_within_bounds(tmp_path: Path, name: str) -> None:
    labels, said = np.array(["walk", "fall"] * 6), np.array(["train", "valid", "test"]).repeat(4)
    archive = {"x": np.arange(48.0).reshape(24, 2), "lengths": np.full(12, 2), "y": labels, "split": said}
    path = write(tmp_path, {name: MANY if name == "a.csv" else archive})
    assert len(_loaded(path).classes) == 2
    refused, _ = survive(lambda: _loaded(path), path, path.read_bytes())
    assert refused > 40


CONFIG = """\
schema: 1
name: own
task: {kind: sequences, file: own.csv}
model: {kind: gru, hidden: 4}
"""


def test_a_config_counts_what_its_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{n},{n * step},{'up' if n % 2 else 'down'}\n" for n in range(40) for step in range(1, 2 + n % 3))
    (tmp_path / "own.csv").write_text("id,a,label\n" + rows)
    (tmp_path / "own.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path.parent)
    config = load_config(tmp_path / "own.yaml", ["task.batch=4"]).config
    assert tuple(config.shape[:6]) == (28, 6, 6, 3, 1, 2)
    # As a run notes it: the file may be gone when somebody only looks at the run.
    noted = config.resolved()
    assert noted["task"]["file"] == str(tmp_path / "own.csv") and noted["task"]["sizes"]["classes"] == 2
    (tmp_path / "own.csv").unlink()
    again = Config.model_validate(noted)
    elsewhere = Config.model_validate(noted | {"task": noted["task"] | {"file": "/else/own.csv"}})
    assert config_hash(again) == config_hash(elsewhere) == config_hash(config)
    assert compared(again) == compared(elsewhere)
    with pytest.raises(ConfigError, match=r"own.yaml:3:\d+: task.file: .*own.csv: no such data file; looked for"):
        load_config(tmp_path / "own.yaml")


def test_times_with_a_decimal_comma_and_names_in_capitals(tmp_path: Path) -> None:
    text = "id;t;v;label\n" + "".join(f"{i};{t},5;{t},25;{'ab'[i % 2]}\n" for i in range(4) for t in range(3))
    path = write(tmp_path, {"long.csv": text})
    assert [len(x) for x in found(path, Reading("id", "label", time="t")).x] == [3] * 4
    falling = path.read_text().replace("0;2,5", "0;0,25")
    path.write_text(falling)
    with pytest.raises(DataDamaged, match="no later 't'"):
        found(path, Reading("id", "label", time="t"))
    folder = write(tmp_path, {f"all/{name}": "v\n1\n2\n" for name in ("a/1.csv", "a/2.CSV", "b/3.csv")})
    assert len(found(folder, Reading(None, None)).x) == 3
