"""Forecasting a column: windows, splits by time, standardising, and values that are none."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gru_jax.data import csv_column
from gru_jax.data.csv_column import Window
from gru_jax.data.dataset import DataDamaged, DataMissing
from gru_jax.data.files import DataFile

from .hostile import survive

SERIES = 5 + np.arange(100) / 8
CONTENT = 'day, level,"a, b"\n' + "".join(f"{i},{value},x\n" for i, value in enumerate(SERIES))


def load(folder: Path, window: Window, content: str = CONTENT, values: int = 100) -> csv_column.Dataset:
    (folder / "x.csv").write_text(content)
    return csv_column.load("x.csv", "level", values, window, str(folder))


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=30)
def test_windows_are_before_what_is_told_and_told_values_stay_in_their_part(
    steps: int, horizon: int, stride: int
) -> None:
    window = Window(steps, horizon, stride)
    shape = csv_column.shape(100, window)
    for starts, begin, end, count in zip(
        csv_column._starts(100, window), (0, 70, 80), (70, 80, 100), shape[:3], strict=True
    ):
        assert count == len(starts)
        for start in starts:
            assert start >= steps and begin <= start and start + horizon <= end


def test_windows_of_a_file(tmp_path: Path) -> None:
    window = Window(6, 3, 2)
    dataset, shape = load(tmp_path, window), csv_column.shape(100, window)
    scaled = (SERIES - SERIES[:70].mean()) / SERIES[:70].std()
    for name, first, stride in (("train", 6, 2), ("valid", 70, 1), ("test", 80, 1)):
        split = getattr(dataset, name)
        assert split.x.shape == (getattr(shape, name), 6, 1) and split.y.shape == (getattr(shape, name), 3)
        assert split.x.dtype == split.y.dtype == np.float32
        for i in range(len(split.y)):
            start = first + i * stride
            assert np.allclose(split.x[i, :, 0], scaled[start - 6 : start], atol=1e-6)
            assert np.allclose(split.y[i], scaled[start : start + 3], atol=1e-6)
    assert "split by time" in dataset.description
    assert shape.target == "values" and shape.outputs == 3


ODD = {
    "no column": (CONTENT.replace("level", "height"), "has no column 'level'; its header is 'day', 'height', 'a, b'"),
    "two": (CONTENT.replace("day", "level"), "has 2 columns 'level'"),
    "no rows": (CONTENT[: CONTENT.index("\n")], "no rows"),
    "missing": (CONTENT.replace(",5.125,", ",,"), "1 of 100 values of 'level' cannot be read: line 3 is empty; fill"),
    "nan": (CONTENT.replace(",5.125,", ",nan,"), "line 3 holds 'nan'"),
    "huge": (CONTENT.replace(",5.125,", ",1e40,"), "line 3 holds '1e40'"),
    "short row": (CONTENT.replace(",5.125,x", ""), "line 3 is empty"),
    "fewer": (CONTENT[: CONTENT.rindex("99,")], "values 99, not 100"),
    "many": (CONTENT.replace("x\n", "x,7\n"), "98 of 98 values|cannot be read: line 2 .* fields, and the header"),
    "a decimal comma": (CONTENT.replace(",5.125,", ',"5,125",'), "line 3 holds '5,125'; write 2.5 for 2,5"),
    "two decimal commas": (CONTENT.replace(",5.125,", ",5,125,"), "line 3 has 4 fields, and the header 3; write 2.5"),
    "semicolons": (CONTENT.replace(",", ";"), "is parted by semicolons: has no column 'level'; .*part it by commas"),
    "an underscore": (CONTENT.replace(",5.125,", ",5_125,"), "line 3 holds '5_125'"),
    "a quotation mark without an end": (CONTENT.replace("1,5.125,x", '1,5.125,"x'), "unexpected end of data; correct"),
    "a field without an end": (CONTENT.replace("1,5.125", '"' + "x" * 200_000), "field larger than"),
}


@pytest.mark.parametrize("case", ODD)
def test_other_content_is_refused(case: str, tmp_path: Path) -> None:
    content, fact = ODD[case]
    with pytest.raises(DataDamaged, match=fact):
        load(tmp_path, Window(4), content)


HOLES = CONTENT.replace(",5.125,", ",,").replace(",6.5,", ", NaN,").replace(",15.5,", ",?,")


def test_holes_are_filled_as_the_task_says(tmp_path: Path) -> None:
    """Rows 1, 12 and 84 are missing: a window that tells one of them is left out, one that sees it says so."""
    (tmp_path / "x.csv").write_text(HOLES)
    window, sizes = Window(6, 3), csv_column.Windows(59, 8, 15)
    made = {
        missing: csv_column.load("x.csv", "level", 100, window, str(tmp_path), missing, sizes)  # type: ignore[arg-type]
        for missing in ("gaps", "last", "zeros")
    }
    known = np.delete(SERIES[:70], [1, 12])
    scaled = ((SERIES - known.mean()) / known.std()).astype(np.float32)
    x: np.ndarray = np.asarray(made["gaps"].train.x)  # type: ignore[union-attr]
    assert x.shape == (59, 6, 3) and csv_column.shape(100, window, "gaps", sizes)[:6] == (59, 8, 15, 6, 3, 3)
    np.testing.assert_allclose(x[0, :, 0], scaled[[0, 0, 2, 3, 4, 5]], atol=1e-6)
    np.testing.assert_array_equal(x[0, :, 1:].T, [[1, 0, 1, 1, 1, 1], [0, 1, 2, 1, 1, 1]])
    # A window knows nothing of the time before it: what it has not seen is 0, the mean.
    np.testing.assert_array_equal(x[1, 0], [0, 0, 0])
    np.testing.assert_array_equal(made["last"].train.x[0], x[0, :, :1])  # type: ignore[union-attr, index]
    assert made["zeros"].train.x[0, 1] == 0  # type: ignore[union-attr, index]
    # Those that tell row 12 begin at its third, second and first place.
    np.testing.assert_allclose(made["zeros"].train.y[3:5, 0], scaled[[9, 13]], atol=1e-6)  # type: ignore[union-attr]
    assert all(np.isfinite(split.y).all() for split in made["gaps"][:3])  # type: ignore[union-attr]
    assert len({one.fingerprint for one in made.values()}) == 3
    assert csv_column.shape(100, window, "gaps", sizes).gaps and not csv_column.shape(100, window, "last", sizes).gaps


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (HOLES, "other sizes than announced: train 59, not 60; correct"),
        (HOLES.replace("2,5.25,x", "2"), "line 4 is empty; fill them in, or leave their lines out$"),
        (HOLES.replace("5.25", "5;25"), "line 4 holds '5;25'"),
        ("level\n" + "nan\n" * 70 + "1\n" * 30, "has no value of 'level' in its first 70 %"),
    ],
)
def test_what_is_no_hole_is_refused(content: str, fact: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataDamaged, match=fact):
        sizes = csv_column.Windows(60, 8, 15)
        csv_column.load("x.csv", "level", 100, Window(6, 3), str(tmp_path), "gaps", sizes)


def test_a_constant_series_stays_finite(tmp_path: Path) -> None:
    dataset = load(tmp_path, Window(4), "level\n" + "7\n" * 100)
    assert not dataset.train.x.any() and not dataset.test.y.any()


def test_damage_is_refused_or_read_within_bounds(tmp_path: Path) -> None:
    refused, _ = survive(
        lambda: csv_column.load("x.csv", "level", 100, Window(4), str(tmp_path)), tmp_path / "x.csv", CONTENT.encode()
    )
    assert refused > 30


def test_co2_comes_with_statsmodels() -> None:
    pytest.importorskip("statsmodels")
    series = csv_column.co2()
    assert len(series) == csv_column.CO2_VALUES and np.isfinite(series).all()
    assert 310 < series.min() < series.max() < 380
    dataset = csv_column.load(None, "co2", len(series), Window(104), None)
    assert abs(float(np.mean(dataset.train.y))) < 0.1 and "CO2" in dataset.description
    assert np.isnan(csv_column.co2(holes=True)).sum() == 59


def test_without_statsmodels_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    with pytest.raises(DataMissing, match=r"statsmodels.*gru-jax\[experiments\]"):
        csv_column.load(None, "co2", 2284, Window(104), None)


def test_columns_may_be_quoted() -> None:
    file = DataFile(Path("x.csv"), b'"a, b",c\r\n"1.5",2\r\n', b"", "")
    assert csv_column.read_column(file, "a, b").tolist() == [1.5]
