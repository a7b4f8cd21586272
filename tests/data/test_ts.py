"""`.ts` files: channels, unequal lengths, the validation split, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from gru_jax.data import ts
from gru_jax.data.dataset import DataDamaged, DataMissing, Sequences, Split
from gru_jax.data.files import DataFile

from .hostile import survive

HEADER = "# made for a test\n@problemName Tiny\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 2\n"
LABELS = "@classLabel true up down\n\n@data\n"


def write(series: list[np.ndarray], labels: list[str], header: str = HEADER + LABELS) -> str:
    rows = [":".join(",".join(map(str, channel)) for channel in x.T) for x in series]
    return header + "".join(f"{row}:{label}\n" for row, label in zip(rows, labels, strict=True))


def made(*lengths: int) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [(3 + 2 * random.randn(length, 2)).round(3) for length in lengths]


def parsed(content: str) -> ts.Series:
    return ts.read_ts(DataFile(Path("x.ts"), content.encode(), b"", ""))


def test_reads_what_was_written() -> None:
    series, labels = made(4, 7, 2), ["down", "up", "down"]
    got = parsed(write(series, labels))
    assert got.classes == ["up", "down"] and got.y.tolist() == [1, 0, 1]
    for x, expected in zip(got.x, series, strict=True):
        assert np.array_equal(x, expected.astype(np.float32)) and x.dtype == np.float32


@pytest.mark.parametrize("lengths", [(5,) * 12, (5, 3) * 6], ids=["equal", "unequal"])
def test_splits_are_standardised_by_training(lengths: tuple[int, ...], tmp_path: Path) -> None:
    series = made(*lengths)
    labels = ["up", "down", "down"] * 4
    (tmp_path / "a.ts").write_text(write(series, labels))
    (tmp_path / "b.ts").write_text(write(series[:3], labels[:3]))
    # Of the four "up" and of the eight "down" each third is held out: one and two.
    sizes = ts.Sizes(train=9, valid=3, test=3, time=5, channels=2, classes=2)
    dataset = ts.load("a.ts", "b.ts", str(tmp_path), sizes, valid_every=3)
    assert "9 train, 3 validation, 3 test" in dataset.description
    equal = len(set(lengths)) == 1
    assert isinstance(dataset.train, Split if equal else Sequences)
    train = dataset.train.x if equal else [dataset.train[i].x for i in range(9)]
    rows = np.concatenate(list(train))
    assert np.allclose(rows.mean(0), 0, atol=1e-5) and np.allclose(rows.std(0), 1, atol=1e-5)
    held_y = dataset.valid.y if equal else [dataset.valid[i].y for i in range(3)]
    assert list(held_y) == [1, 0, 1]
    test_y = dataset.test.y if equal else [dataset.test[i].y for i in range(3)]
    assert list(test_y) == [0, 1, 1]
    assert ts.shape(sizes)[:6] == (9, 3, 3, 5, 2, 2)


ROW = "1,2:3,4:up\n"
ODD = {
    "no data": (HEADER, "no line @data"),
    "no series": (HEADER + LABELS, "no series"),
    "no labels": (HEADER + "@classLabel false\n@data\n" + ROW, "no different class labels"),
    "labels twice": (HEADER + "@classLabel true up up\n@data\n" + ROW, "no different class labels"),
    "an unknown label": (HEADER + LABELS + ROW.replace("up", "left"), "line 10 ends with 'left'"),
    "missing": (HEADER + LABELS + ROW.replace("2", "?"), r"line 10 has missing values \(\?\)"),
    "nan": (HEADER + LABELS + ROW.replace("2", "NaN"), "line 10 has missing or infinite"),
    "huge": (HEADER + LABELS + ROW.replace("2", "1e39"), "line 10 has missing or infinite"),
    "an underscore": (HEADER + LABELS + ROW.replace("2", "1_0"), "line 10 holds something that is no number"),
    "numbers to be told": (HEADER + "@targetlabel true\n@data\n" + ROW, "only series of classes are read"),
    "text": (HEADER + LABELS + ROW.replace("2", "two"), "line 10 holds something that is no number"),
    "channels of two lengths": (HEADER + LABELS + ROW.replace("1,", ""), r"channels of \[1, 2\] steps"),
    "fewer channels": (HEADER + LABELS + ROW + "1,2:up\n", "line 11 has 1 channels, and the first has 2"),
    "no channels": (HEADER + LABELS + "up\n", "line 10 has channels of"),
    "time stamps": (HEADER.replace("timeStamps false", "timeStamps true") + LABELS + ROW, "time stamps"),
    "text before data": ("1,2,3:up\n" + HEADER + LABELS, "line 1 is neither"),
}


@pytest.mark.parametrize("case", ODD)
def test_other_content_is_refused(case: str) -> None:
    content, fact = ODD[case]
    with pytest.raises(DataDamaged, match=fact):
        parsed(content)


def test_tabs_and_nothing_in_the_header() -> None:
    assert parsed("@\n@classLabel\ttrue  up\tdown\n@data\n1,2:down\n").y.tolist() == [1]


def test_all_wrong_lines_are_told() -> None:
    rows = [ROW, ROW.replace("2", "?"), ROW.replace("up", "left"), "1:up\n", ROW, ROW.replace("2", "two")]
    with pytest.raises(DataDamaged) as caught:
        parsed(HEADER + LABELS + "".join(rows))
    facts = "line 11 has missing values (?), line 12 ends with 'left', no class that its header lists,"
    facts += " line 13 has 1 channels, and the first has 2, line 15 holds something that is no number"
    assert str(caught.value) == f"x.ts: {facts}; correct the lines"
    said = "line 14 has missing or infinite values and 2 more; fill them in, or say what becomes of them$"
    with pytest.raises(DataDamaged, match=said):
        parsed(HEADER + LABELS + ROW.replace("2", "NaN") * 7)


def test_other_sizes_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(write(made(4, 4, 4), ["up", "up", "down"]))
    (tmp_path / "b.ts").write_text(write(made(4), ["a"], HEADER + "@classLabel true a b\n@data\n"))
    sizes = ts.Sizes(2, 1, 3, 4, 2, 2)
    assert ts.load("a.ts", "a.ts", str(tmp_path), sizes, 2).fingerprint
    with pytest.raises(DataDamaged, match="other classes or channels than a.ts"):
        ts.load("a.ts", "b.ts", str(tmp_path), sizes, 2)
    with pytest.raises(DataDamaged, match="time 4, not 5"):
        ts.load("a.ts", "a.ts", str(tmp_path), sizes._replace(time=5), 2)
    with pytest.raises(DataMissing, match=r"c\.ts: no such"):
        ts.load("a.ts", "c.ts", str(tmp_path), sizes, 2)


def test_holes_are_filled_as_the_task_says(tmp_path: Path) -> None:
    rows = ["1,?,3:0,1,NaN:up\n", "?,5,?:2,3,4:up\n"] * 2
    (tmp_path / "a.ts").write_text(HEADER + LABELS + "".join(rows))
    sizes = ts.Sizes(2, 2, 4, 3, 2, 2)
    made = {}
    for missing in ("gaps", "last", "zeros"):
        made[missing] = ts.load("a.ts", "a.ts", str(tmp_path), sizes, 2, missing)  # type: ignore[arg-type]
        assert made[missing].train.x.shape[-1] == ts.shape(sizes, missing).features  # type: ignore
    x = made["gaps"].train.x  # type: ignore[union-attr]
    # Training has the first and the third row: 1 and 3, 0 and 1.
    np.testing.assert_allclose(x[0, :, 0], [-1, -1, 1])
    np.testing.assert_array_equal(x[0, :, 2:], [[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 2, 1]])
    np.testing.assert_array_equal(made["last"].test.x[0], x[0, :, :2])  # type: ignore[union-attr]
    assert made["zeros"].valid.x[0, 0, 0] == 0 and np.isfinite(made["zeros"].valid.x).all()  # type: ignore[union-attr]
    assert len({one.fingerprint for one in made.values()}) == 3
    assert ts.shape(sizes, "gaps").gaps and not ts.shape(sizes, "last").gaps
    with pytest.raises(DataDamaged, match=r"line 10 has missing values \(\?\) and 3 more|missing"):
        ts.load("a.ts", "a.ts", str(tmp_path), sizes, 2)
    (tmp_path / "a.ts").write_text(HEADER + LABELS + "?,?:0,1:up\n" * 4)
    with pytest.raises(DataDamaged, match="has no value in channel 1; leave the channel out"):
        ts.load("a.ts", "a.ts", str(tmp_path), sizes._replace(time=2), 2, "gaps")


def test_damage_is_refused_or_read_within_bounds(tmp_path: Path) -> None:
    content = write(made(4, 7, 2, 9), ["up", "up", "down", "down"])
    sizes = ts.Sizes(2, 2, 4, 4, 2, 2)
    refused, read = survive(
        lambda: ts.load("x.ts", "x.ts", str(tmp_path), sizes, 2), tmp_path / "x.ts", content.encode()
    )
    assert refused > 30 and read > 0
