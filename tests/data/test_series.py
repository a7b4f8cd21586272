"""Series of CSV files: how they are read, laid on the grid of their times, and cut into windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gru_jax.data import csv_column
from gru_jax.data.csv_column import Window, Windows
from gru_jax.data.dataset import DataDamaged, Dataset
from gru_jax.data.files import DataFile
from gru_jax.data.series import windows
from gru_jax.data.series.coming import coming
from gru_jax.data.series.numbers import decimal_of, number
from gru_jax.data.series.table import Reading, Table, read_table
from gru_jax.data.series.times import WORDS, calendar
from gru_jax.data.series.windows import Parts

from .hostile import survive


def table(content: str, *target: str, **reading: Any) -> Table:
    return read_table(DataFile(Path("x.csv"), content.encode(), b"", ""), Reading(target, **reading))


PLAIN = "when,load,b\n2025-01-30 00:00,1234.5,1\n2025-01-31 00:00,,2\n2025-02-01 00:00,-2.25,3\n"
SAME = {
    "commas": PLAIN,
    "a mark before, and other ends of lines": "\ufeff" + PLAIN.replace("\n", "\r\n") + "\r\n\r\n",
    "thousands in quotes": PLAIN.replace("1234.5", '"1,234.5"').replace("-2.25", " -2.25 "),
    "semicolons and decimal commas": PLAIN.replace(",", ";").replace(".", ","),
    "points of thousands": PLAIN.replace(",", ";").replace(".", ",").replace("1234", "1.234"),
    "spaces of thousands": PLAIN.replace(",", "\t").replace(".", ",").replace("1234", "1\u202f234"),
    "bars, a day first": PLAIN.replace(",", "|").replace("2025-01-30", "30.1.2025").replace("|,|", "|NaN|"),
    "a day first, no clock": PLAIN.replace(" 00:00", "").replace("2025-02-01", "01.02.2025"),
    "days and clocks": PLAIN.replace("when", "clock,day").replace("2025-01-30 00:00", "00:00,30.01.2025").replace(
        "2025-01-31 00:00", "0:00,31.1.2025").replace("2025-02-01 00:00", "00:00:00,1.2.2025"),
    "a first line for spreadsheets": "sep=;\n" + PLAIN.replace(",", ";").replace(".", ","),
    "names and values in quotes": PLAIN.replace(",", '","').replace("\n", '"\n"')[:-1].replace("when", '"when').replace(
        '""', '"-"'),
    "the newest first, ends of days": "when,load,b\n"
    "31.1.2025 24:00,-2.25,3\n2025-01-30T24:00,n/a,2\n2025-01-29 24:00:00,1234.5,1",
    "ISO 8601 with its letter": PLAIN.replace(" 00:00", "T00:00:00Z"),
}


@pytest.mark.parametrize("case", SAME)
def test_one_table_in_many_makes(case: str) -> None:
    time = ("day", "clock") if "clock" in SAME[case] else ("when",)
    made = table(SAME[case], "load", known=("b",), time=time)
    np.testing.assert_array_equal(made.values[:, 0], [1234.5, np.nan, -2.25])
    np.testing.assert_array_equal(made.known[:, 0], [1, 2, 3])
    assert made.grid is not None and (made.grid.step, made.grid.period) == ("1 day", 7)
    lines = {"a first line for spreadsheets": [3, 4, 5], "the newest first, ends of days": [4, 3, 2]}
    assert made.line.tolist() == lines.get(case, [2, 3, 4]) and str(made.grid.times[-1]) == "2025-02-01T00:00:00.000000"


@pytest.mark.parametrize(
    ("cells", "separator", "sign"),
    [
        (["1", "20"], ";", "."),
        (["1.5", "12"], ";", "."),
        (["1.234", "1,5"], ";", ","),
        (["1,234", "1.234,5"], ";", ","),
        (["1.234.567"], ";", ","),
        (["0.123"], ";", "."),
        (["1.234", "12.345"], ";", "1.234"),
        (["1,234"], "\t", "1,234"),
        (["1.234", "12.345"], ",", "."),
        (["1,234"], ",", "."),
        (["2.5", "2,5", "3,5"], ";", ","),
    ],
)
def test_the_decimal_sign(cells: list[str], separator: str, sign: str) -> None:
    assert decimal_of(cells, separator) == sign


@pytest.mark.parametrize(
    "cell", ["1 23", "12,34.5", "1,2345", "0,123.4", "1e400", "inf", "1_0", "1.2.3", "+", ".", "e5", "5 kW"]
)
def test_what_is_no_number(cell: str) -> None:
    assert number(cell, ".") is None


def hourly(clock: str, count: int = 6) -> str:
    """Rows an hour apart in UTC, with what the clock of central Europe shows."""
    begin = np.datetime64(clock, "h")
    rows = []
    for n in range(count):
        utc = begin + n
        ahead = 2 if np.datetime64("2025-03-30T01") <= utc < np.datetime64("2025-10-26T01") else 1
        rows.append(f"{utc + np.timedelta64(ahead, 'h')}:00+0{ahead}:00,{n}\n")
    return "when,a\n" + "".join(rows)


def test_clocks_that_are_put_back() -> None:
    """With offsets all hours are there; the calendar has the clock of the file."""
    made = table(hourly("2025-10-25T23"), "a", known=("hour",), time=("when",))
    assert made.grid is not None and (made.grid.step, made.grid.period) == ("1:00:00", 24)
    assert made.values[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert [str(time)[11:13] for time in made.grid.times] == ["01", "02", "02", "03", "04", "05"]
    np.testing.assert_array_equal(made.calendar[1], made.calendar[2])
    without = hourly("2025-10-25T23").replace("+02:00", "").replace("+01:00", "")
    with pytest.raises(DataDamaged, match="1 times do not rise: line 4 is at 2025-10-26 02:00:00, as line 3;.* back"):
        table(without, "a", time=("when",))
    # Put forward, an hour is one that nobody measured.
    made = table(hourly("2025-03-29T23").replace("+02:00", "").replace("+01:00", ""), "a", time=("when",))
    np.testing.assert_array_equal(made.values[:, 0], [0, 1, np.nan, 2, 3, 4, 5])


def test_days_of_a_clock_that_is_put_back() -> None:
    days = ("25T00:00+02:00", "26T00:00+02:00", "27T00:00+01:00", "28T00:00+01:00")
    content = "".join(f"2025-10-{day},{n}\n" for n, day in enumerate(days, start=1))
    made = table("t,a\n" + content, "a", time=("t",))
    assert made.values[:, 0].tolist() == [1, 2, 3, 4] and made.grid is not None and made.grid.step == "1 day"


GRIDS = {
    "quarters of an hour": (["2025-01-01 00:00", "2025-01-01 00:15", "2025-01-01 00:45"], [0, 1, 3], "0:15:00", 96),
    "half days": (["2025-01-01", "2025-01-01 12:00", "2025-01-02"], [0, 1, 2], "12:00:00", 2),
    "weeks": (["2025-01-01", "2025-01-08", "2025-01-22", "2025-01-29"], [0, 1, 3, 4], "7 days", 52),
    "months": (["2024-12-01", "2025-01-01", "2025-04-01"], [0, 1, 4], "1 month", 12),
    "ends of months": (["2025-01-31", "2025-02-28", "2025-03-31"], [0, 1, 2], "1 month", 12),
    "months without days": (["2024-11", "2024-12", "2025-02"], [0, 1, 3], "1 month", 12),
    "quarters": (["2024-12-15", "2025-03-15", "2025-09-15"], [0, 1, 3], "3 months", 4),
    "years": (["2020-01-01", "2021-01-01", "2022-01-01"], [0, 1, 2], "1 year", 1),
    "half seconds": (["2025-01-01 00:00:00", "2025-01-01 00:00:00.5"], [0, 1], "0:00:00.500000", 172_800),
}


@pytest.mark.parametrize("case", GRIDS)
def test_grids(case: str) -> None:
    times, rows, step, period = GRIDS[case]
    made = table("t,a\n" + "".join(f"{time},{row}\n" for time, row in zip(times, rows, strict=True)), "a", time=("t",))
    assert made.grid is not None and (made.grid.step, made.grid.period) == (step, period)
    assert len(made.values) == rows[-1] + 1 and made.values[rows, 0].tolist() == rows
    assert np.isnan(made.values).sum() == len(made.values) - len(rows)
    assert all(str(made.grid.times[row]).startswith(time[:10]) for row, time in zip(rows, times, strict=True))


def test_the_calendar() -> None:
    times = np.array(["2025-01-01", "2025-01-05T12:00", "2024-12-31"], "datetime64[us]")
    turn = {word: np.arctan2(*calendar(times, word).T) / (2 * np.pi) % 1 for word in WORDS}
    np.testing.assert_allclose(turn["hour"], [0, 0.5, 0], atol=1e-9)
    np.testing.assert_allclose(turn["weekday"], [2 / 7, 6 / 7, 1 / 7], atol=1e-9)
    np.testing.assert_allclose(turn["day"], [0, 4 / 31, 30 / 31], atol=1e-9)
    np.testing.assert_allclose(turn["month"], [0, 4 / 365, 365 / 366], atol=1e-9)


SEMICOLONS = PLAIN.replace(",", ";")
HOURS = "t,a\n" + "".join(f"2025-01-01 {hour:02}:00,{hour}\n" for hour in range(9))
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no column": (SEMICOLONS, {"known": ("c",)}, "no column 'c'; .*, parted by semicolons, is 'when', 'load', 'b'"),
    "a word without times": (PLAIN, {"known": ("hour",)}, "no column 'hour' .'hour' is a word of .*, made from the"),
    "two columns": (PLAIN.replace("when", "load"), {}, "has 2 columns 'load'"),
    "no rows": ("load\n", {}, "no rows under its header"),
    "another separator than said": (PLAIN, {"separator": ";"}, "by semicolons, is 'when,load,b'"),
    "another decimal sign than said": (PLAIN, {"decimal": ","}, "2 of 3 values of 'load' .* ',': line 2 holds"),
    "a sign that does not tell": ("a;load\n1;1.234\n2;12.345\n", {}, "whether '1.234' has .*; say it by the key"),
    "a decimal comma between commas": ("load,b\n1,5,2\n2,5,3\n", {}, "2 of 2 rows, .* 3 fields, and the header 2"),
    "a short row": (PLAIN.replace("-2.25,3", "-2.25").replace("load,b", "b,load"), {}, "line 4 has 2 fields"),
    "no number": (PLAIN.replace("-2.25", "low"), {}, "1 of 3 values of 'load' .*: line 4 holds 'low'"),
    "no time": (HOURS.replace("2025-01-01 03:00", "3 o'clock"), {}, "1 of 9 times of 't' .*: line 5 holds"),
    "no such day": (HOURS.replace("2025-01-01 03:00", "30.2.2025 03:00"), {}, "line 5 holds '30.2.2025 03:00'"),
    "a time left out": (HOURS.replace("2025-01-01 03:00", ""), {}, "line 5 is empty"),
    "some with an offset": (HOURS.replace("03:00", "03:00Z"), {}, "8 of 9 times of 't' have no offset .*: line 2"),
    "backwards": (HOURS.replace("01-01 05", "01-02 05"), {}, "line 8 is at 2025-01-01 06:00:00, before line 7"),
    "beside the grid": (HOURS.replace("05:00", "05:10"), {}, "1 of 9 rows .*: line 7 is at 2025-01-01 05:10:00"),
    "almost nothing there": (HOURS.replace("01-01 08", "02-01 08"), {}, "9 rows on a grid of 753 steps of 1:00:00"),
    "one row": (HOURS[: HOURS.index("2025-01-01 01")], {}, "has one row"),
    "a quotation mark without an end": (PLAIN.replace("1234.5", '"1234.5'), {}, "line [0-9]+: .*; correct the line"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    content, reading, said = REFUSED[case]
    is_hours = content.startswith("t,a")
    with pytest.raises(DataDamaged, match=said):
        table(content, "a" if is_hours else "load", **({"time": ("t",)} if is_hours else {}) | reading)


ROWS = 100


def file_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Writes 100 hours of a and b and of c, which is known ahead, with holes; the first two, and the other one."""
    rng = np.random.default_rng(0)
    told, known = rng.normal(50, 9, (ROWS, 2)).round(2), rng.normal(size=ROWS).round(2)
    told[[3, 40, 85], 0], told[60:66], known[20], known[60:66] = (np.nan,) * 4
    hours = np.datetime64("2025-01-01T00") + np.arange(ROWS)
    lines = ["t;a;b;c"]
    for hour, (a, b), c in zip(hours, told, known, strict=True):
        if not np.isnan(b):
            lines.append(f"{hour}:00;{a};{b};{c}".replace(".", ",").replace("nan", ""))
    (folder / "x.csv").write_text("\n".join(lines))
    return told, known


READING = Reading(("a", "b"), ("c", "hour"), ("t",))
SPLIT = Parts(0.7, 0.1, 0.2)


def load(
    folder: Path, window: Window, missing: Any = "gaps", sizes: Windows | None = None, relative: bool = False
) -> Dataset:
    if sizes is None:
        content = windows.read("x.csv", str(folder), None)
        sizes = windows.sizes_of(content, READING, window, missing, None, SPLIT)
    return windows.load("x.csv", READING, window, missing, None, (0.5,), SPLIT, relative, sizes, str(folder))


def test_windows_by_hand(tmp_path: Path) -> None:
    """What is known ahead stands H steps before its time; a window tells some value, and sees no other's part."""
    told, known = file_of(tmp_path)
    T, H = 8, 3
    dataset = load(tmp_path, Window(T, H, 2))
    facts = dataset.series
    assert facts is not None and (facts.period, facts.horizon, facts.trained, facts.names) == (24, H, 70, ("a", "b"))
    scaled = (told - np.nanmean(told[:70], 0)) / np.nanstd(told[:70], 0)
    ahead = (known - np.nanmean(known[:70])) / np.nanstd(known[:70])
    clock = 2 * np.pi * np.arange(ROWS) / 24
    channels = np.column_stack([scaled, ahead, np.sin(clock), np.cos(clock)])
    parts = {"train": (T, 70, 2), "valid": (70, 80, 1), "test": (80, 100, 1)}
    for (name, (begin, end, stride)), starts in zip(parts.items(), facts.starts, strict=True):
        split: Any = getattr(dataset, name)
        expected = [s for s in range(begin, end - H + 1, stride) if not np.isnan(told[s : s + H]).all()]
        assert starts.tolist() == expected and split.x.shape == (len(expected), T, 15) and split.y.shape[1] == 2 * H
        assert np.isfinite(split.x).all() and split.x.dtype == split.y.dtype == np.float32
        for s, x, y in zip(expected, split.x, split.y, strict=True):
            np.testing.assert_allclose(y.reshape(H, 2), scaled[s : s + H], atol=1e-5)
            for t in range(T):
                at = s - T + t
                now = [*channels[at, :2], *channels[at + H, 2:]]
                np.testing.assert_array_equal(x[t, 5:10], ~np.isnan(now))
                seen = x[t, :5][~np.isnan(now)]
                np.testing.assert_allclose(seen, np.array(now)[~np.isnan(now)], atol=1e-5)
        np.testing.assert_array_equal(facts.told(starts), [told[s : s + H] for s in expected])
    assert 60 not in facts.starts[0] and 62 not in facts.starts[0] and 64 in facts.starts[0]
    assert "100 rows of 1:00:00, 10 with values missing (9 in the target), a season of 24" in dataset.description
    assert "drifts" not in dataset.description


def test_changes_from_the_last_value(tmp_path: Path) -> None:
    """Relative windows are shown, and told, from the last value known, over the deviation of what is told from it."""
    told, known = file_of(tmp_path)
    T, H = 8, 3
    plain, made = (load(tmp_path, Window(T, H), relative=relative) for relative in (False, True))
    assert plain.series is not None and made.series is not None and plain.fingerprint != made.fingerprint
    last = told.copy()
    for row in range(1, ROWS):
        last[row] = np.where(np.isnan(last[row]), last[row - 1], last[row])
    starts = made.series.starts[0]
    np.testing.assert_array_equal(made.series.level(starts), last[starts - 1])
    off = np.stack([told[s : s + H] - last[s - 1] for s in starts])
    deviation = np.sqrt(np.nanmean(off**2, (0, 1)))
    np.testing.assert_allclose(made.series.deviation, deviation)
    split: Any = made.train
    np.testing.assert_allclose(split.y.reshape(-1, H, 2), off / deviation, atol=1e-5)
    for s, x in zip(starts, split.x, strict=True):
        seen = (told[s - T : s] - last[s - 1]) / deviation
        np.testing.assert_array_equal(x[:, 5:7], ~np.isnan(seen))
        np.testing.assert_allclose(x[:, :2][~np.isnan(seen)], seen[~np.isnan(seen)], atol=1e-4)
    np.testing.assert_array_equal(split.x[:, :, [2, 3, 4]], np.asarray(plain.train.x)[:, :, [2, 3, 4]])  # type: ignore[union-attr]


def test_rows_that_only_go_on_are_none_of_training(tmp_path: Path) -> None:
    content = "a,c\n" + "".join(f"{row % 7},{row % 3}\n" for row in range(60))
    reading, window, split = Reading(("a",), ("c",)), Window(8, 3), SPLIT
    there, more = (
        windows.sizes_of(DataFile(Path("x.csv"), text.encode(), b"", ""), reading, window, "refuse", None, split)
        for text in (content, content + ",1\n,2\n,0\n")
    )
    assert there == more


def test_drift_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n" + "".join(f"{row % 7},{row}\n" for row in range(100)))
    reading, window = Reading(("a", "b")), Window(8, 3)
    fixed: Any = ("refuse", 7, (), SPLIT)
    sizes = Windows(60, 8, 18)
    said = [
        windows.load("x.csv", reading, window, *fixed, relative, sizes, str(tmp_path)).description
        for relative in (False, True)
    ]
    assert said[0].endswith("; 'b' drifts, by 2.7 deviations until the test: relative: true is for that")
    assert "drifts" not in said[1]


def test_other_ways_to_fill_and_other_fingerprints(tmp_path: Path) -> None:
    file_of(tmp_path)
    made: list[Any] = [load(tmp_path, Window(8, 3), missing) for missing in ("gaps", "last", "zeros")]
    np.testing.assert_array_equal(made[0].train.x[:, :, :5], made[1].train.x)
    assert made[2].train.x.shape == made[1].train.x.shape and np.isfinite(made[2].train.x).all()
    assert len({one.fingerprint for one in made}) == 3
    with pytest.raises(DataDamaged, match=r"10 of 100 rows .* line 5 \(a\), line 22 \(c\), .*, no row after line 61"):
        load(tmp_path, Window(8, 3), "refuse")
    with pytest.raises(DataDamaged, match="train 56, not 59"):
        load(tmp_path, Window(8, 3), "gaps", Windows(59, 8, 18))


@pytest.mark.parametrize("relative", [False, True])
def test_what_comes_is_seen_as_it_was_in_training(relative: bool, tmp_path: Path) -> None:
    """Cut after a row of the test split, with what is known ahead, the file shows the window that told what follows."""
    told, _ = file_of(tmp_path)
    H, T = 3, 8
    whole: Any = load(tmp_path, Window(T, H), relative=relative)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    for place in (0, 6, len(whole.test.x) - 1):
        start = int(whole.series.starts[2][place])
        kept = [line for line in lines[1:] if int(line[8:10]) * 24 + int(line[11:13]) < 24 + start + H]
        ahead = [";;".join([line.split(";")[0], line.split(";")[3]]) for line in kept[-H:]]
        ahead = [line.replace(";;", ";;;") for line in ahead]
        content = DataFile(Path("x.csv"), "\n".join([lines[0], *kept[:-H], *ahead]).encode(), b"", "")
        made = coming(content, READING, Window(T, H), "gaps", None, (0.5,), relative, whole.series.scale)
        assert made.start == start and len(made.series.values) == start + H and made.series.period == 24
        np.testing.assert_allclose(made.x[0], whole.test.x[place], atol=1e-6)
        assert np.isnan(made.series.values[start:]).all()
        assert str(made.series.times[-1]) == str(whole.series.times[start + H - 1])
    without = DataFile(Path("x.csv"), "\n".join(lines).encode(), b"", "")
    with pytest.raises(DataDamaged, match="of the 3 rows to tell after line 95, 0 have 'c'; append rows"):
        coming(without, READING, Window(T, H), "gaps", None, (), False, whole.series.scale)
    # What is known may have holes where they are filled, and must not end before the horizon.
    for rows, missing, said in (("3;4;", "gaps", "2 have 'c'"), ("3;;4", "gaps", ""), ("3;;4", "refuse", "2 have 'c'")):
        cells = "\n".join(f"2025-01-05T{hour:02}:00;;;{cell}" for hour, cell in enumerate(rows.split(";"), 4))
        more = DataFile(Path("x.csv"), "\n".join([*lines, cells]).encode(), b"", "")
        rest: Any = missing, None, (), False, whole.series.scale
        if said:
            with pytest.raises(DataDamaged, match=f"of the 3 rows to tell after line 95, {said}; append rows"):
                coming(more, READING, Window(T, H), *rest)
        else:
            holes = coming(more, READING, Window(T, H), *rest).holes
            assert holes.endswith("after line 95, 2 have 'c'; the others are filled, as missing: gaps says")
    # A calendar goes on by itself.
    clock = Reading(("a", "b"), ("hour",), ("t",))
    made = coming(without, clock, Window(T, H), "last", None, (), False, whole.series.scale)
    assert made.start == ROWS and str(made.series.times[-1])[:13] == "2025-01-05T06"
    with pytest.raises(DataDamaged, match="has 100 rows up to the last value of 'a', 'b', fewer than .* 101"):
        coming(without, clock, Window(101, H), "last", None, (), False, whole.series.scale)


def test_a_file_is_found_by_its_name_elsewhere(tmp_path: Path) -> None:
    file_of(tmp_path)
    sizes = windows.sizes_of(windows.read("x.csv", str(tmp_path), None), READING, Window(8, 3), "last", 1, SPLIT)
    there = windows.load("/gone/x.csv", READING, Window(8, 3), "last", 1, (), SPLIT, False, sizes, str(tmp_path))
    assert there.series is not None and there.series.period == 1


def test_damage_is_refused_or_read_within_bounds(tmp_path: Path) -> None:
    file_of(tmp_path)
    content = (tmp_path / "x.csv").read_bytes()
    refused, _ = survive(lambda: load(tmp_path, Window(8, 3)), tmp_path / "x.csv", content)
    assert refused > 30


def test_a_column_that_is_constant_while_training_stays_small(tmp_path: Path) -> None:
    """A flag that is first up in the test part is 1 there, not a hundred million."""
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, ROWS)
    lines = [f"{value:.4f},{int(at >= 85)},{0.1 if at < 75 else 0.2}" for at, value in enumerate(values)]
    (tmp_path / "x.csv").write_text("\n".join(["a,flag,b", *lines]))
    reading, window = Reading(("a", "b"), ("flag",)), Window(8, 3)
    sizes = windows.sizes_of(windows.read("x.csv", str(tmp_path), None), reading, window, "refuse", None, SPLIT)
    made = windows.load("x.csv", reading, window, "refuse", None, (), SPLIT, False, sizes, str(tmp_path))
    assert made.series is not None and made.series.scale["flag"] == (0, 1)
    test: Any = made.test
    assert np.abs(test.x).max() < 10 and np.abs(test.y).max() < 10 and test.x[..., 2].max() == 1


@pytest.mark.parametrize(
    ("days", "missing"),
    [
        (["2025-01-31", "2025-02-28", "2025-03-31", "2025-05-31"], "2025-04-30"),
        (["2025-01-15", "2025-02-15", "2025-03-15", "2025-05-15"], "2025-04-15"),
        (["2025-01-01", "2025-02-01", "2025-04-01", "2025-05-01"], "2025-03-01"),
    ],
)
def test_a_month_that_is_missing_has_its_own_day(days: list[str], missing: str) -> None:
    made = table("t,v\n" + "".join(f"{day},{at}\n" for at, day in enumerate(days)), "v", time=("t",))
    assert made.grid is not None
    assert made.grid.times.astype("datetime64[D]").astype(str).tolist() == sorted([*days, missing])


def test_rows_of_nothing_are_steps_where_no_time_says_so() -> None:
    holes = table("v,w\n1,2\n,\n3,4\n\n , \n5,6\n", "v")
    np.testing.assert_array_equal(holes.values[:, 0], [1, np.nan, 3, np.nan, 5])
    timed = table("t,v\n2025-01-01,1\n,\n2025-01-02,3\n", "v", time=("t",))
    assert timed.values[:, 0].tolist() == [1, 3]


def test_a_single_column_that_is_constant_while_training_stays_small(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n" + "0.1\n" * 75 + "0.2\n" * 25)
    made: Any = csv_column.load("x.csv", "a", 100, Window(8, 3), str(tmp_path)).test
    assert np.abs(made.x).max() < 1 and np.abs(made.y).max() < 1
