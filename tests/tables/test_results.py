"""results.json: what a row has come to, what is kept and what is written."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gru_jax.runs import many_runs
from gru_jax.tables import rendering, results, running
from gru_jax.tables.plans import RowPlan, plan
from gru_jax.tables.results import Ended, keep, read, row_result, row_without_data, shown, status
from gru_jax.tables.spec import Table, load_table

from .tables import row, spec, table, write

RUN = Ended(1.0, 18, 0.5, "a machine")


@pytest.mark.parametrize(
    ("scale", "published", "tolerance", "mean", "diverged", "expected"),
    [
        ("full", 8.54, 0.2, 8.54, 0, "reproduced"),
        ("full", 8.54, 0.2, 8.74, 0, "reproduced"),  # 8.74 - 8.54 > 0.2 in binary
        ("full", 8.54, 0.2, 8.34, 0, "reproduced"),
        ("full", 8.54, 0.2, 8.75, 0, "differs"),
        ("full", 8.54, 0.2, 8.33, 0, "differs"),  # better by more than the tolerance is not the same either
        ("full", 8.54, 0.2, 8.54, 1, "differs"),
        ("full", 8.54, 0.2, None, 3, "differs"),
        ("full", -1.5, 0.1, -1.55, 0, "reproduced"),
        ("full", None, None, 8.54, 0, "new"),
        ("full", None, None, 8.54, 1, "new"),
        ("smoke", 8.54, 0.2, 8.54, 0, "smoke only"),
        ("smoke", 8.54, 0.2, None, 1, "smoke only"),
        ("smoke", None, None, 8.54, 0, "new"),
    ],
)
def test_status(
    scale: str, published: float | None, tolerance: float | None, mean: float | None, diverged: int, expected: str
) -> None:
    assert status(scale, published, tolerance, mean, diverged) == expected


def test_what_was_published_of_the_best_seed_is_compared_with_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = table(tmp_path, monkeypatch, row("a", published=1.0, tolerance=0.1), compared="best", better="higher")
    (one,) = plan(small, "full")
    keep(small, row_result(small, one, [Ended(value, 1, 1.0, "one") for value in (0.2, 0.95, 0.3)]))
    (entry,) = shown(small, "full")
    assert entry["status"] == "reproduced" and entry["best"] == 0.95 and entry["mean"] < 0.5


def planned(small: Table, scale: str = "full") -> list[RowPlan]:
    return plan(small, scale)  # type: ignore[arg-type]


def test_the_entry_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(
        tmp_path, monkeypatch, row("a", published=2, tolerance=0.5, note="why"), row("b", better="higher", source="X")
    )
    a, b = planned(small)
    runs = [Ended(1.0, 10, 1.0, "one"), Ended(2.0000001, 12, 2.0, "two"), Ended(3.5, 12, 3.0, "one")]
    entry = row_result(small, a, runs)
    assert entry["mean"] == 2.16667 and entry["sd"] == 1.25831 and entry["best"] == 1
    assert entry["values"] == [1, 2, 3.5] and entry["seeds"] == [0, 1, 2]
    assert entry["steps"] == 11 and entry["seconds"] == 2 and entry["hardware"] == "one; two"
    assert entry["status"] == "reproduced" and entry["note"] == "why" and entry["source"] == small.spec.source
    assert entry["config_hash"] == a.config_hash and entry["command"] == a.command
    entry = row_result(small, b, runs)
    assert entry["best"] == 3.5 and entry["source"] == "X" and entry["status"] == "new"
    entry = row_result(small, a, [runs[0]._replace(value=None), runs[1], runs[2]._replace(value=None)])
    assert entry["values"] == [None, 2, None] and entry["sd"] is None and entry["status"] == "differs"
    entry = row_result(small, a, [each._replace(value=None) for each in runs])
    assert entry["mean"] is None and entry["best"] is None and entry["status"] == "differs"


def test_rows_are_kept_in_the_order_of_the_table_and_nothing_else_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = table(tmp_path, monkeypatch, row("a"), row("b"))
    a, b = planned(small)
    file = small.folder / results.FILE
    keep(small, row_result(small, planned(small, "smoke")[1], [RUN]))
    keep(small, row_result(small, b, [RUN] * 3))
    keep(small, row_result(small, a, [RUN] * 3))
    assert [(each["scale"], each["label"]) for each in read(small)] == [("full", "a"), ("full", "b"), ("smoke", "b")]
    assert json.loads(file.read_text())["table"] == "small"
    before, at = file.read_bytes(), file.stat().st_mtime_ns
    keep(small, row_result(small, a, [RUN] * 3))
    assert file.read_bytes() == before and file.stat().st_mtime_ns == at
    keep(small, row_result(small, a, [RUN._replace(value=7.0)] * 3))
    assert [each["mean"] for each in read(small)] == [7, 1, 1]
    assert {path.name for path in small.folder.iterdir()} == {"table.yaml", "results.json"}


def test_rows_made_at_the_same_time_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"row {number}" for number in range(12)]
    small = table(tmp_path, monkeypatch, *map(row, labels))
    entries = [row_result(small, each, [RUN] * 3) for each in planned(small)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda entry: keep(small, entry), entries))
    assert [each["label"] for each in read(small)] == labels


def test_missing_data_do_not_undo_runs_made_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(tmp_path, monkeypatch, row("a"))
    (a,) = planned(small)
    keep(small, row_without_data(small, a))
    assert [each["status"] for each in read(small)] == ["no data"]
    keep(small, row_result(small, a, [RUN] * 3))
    keep(small, row_without_data(small, a))
    assert [each["status"] for each in read(small)] == ["new"]
    # Those of another config do not stand for this one.
    small = table(tmp_path, monkeypatch, row("a", set={"model.hidden": 5}))
    keep(small, row_without_data(small, *planned(small)))
    assert [each["status"] for each in read(small)] == ["no data"]


def test_what_the_table_says_now_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(tmp_path, monkeypatch, row("a"), row("gone"))
    for each in planned(small):
        keep(small, row_result(small, each, [RUN] * 3))
    rows = row("a", published=1, tolerance=0.1, note="added"), row("later", scales={"smoke": {"skip": True}})
    write(tmp_path, spec(*rows))
    small = load_table("small")
    a, later = shown(small, "full")
    assert a["status"] == "reproduced" and a["note"] == "added" and a["mean"] == 1
    assert later["status"] == "not run" and later["mean"] is None
    assert [each["label"] for each in shown(small, "smoke")] == ["a"]
    # A number of another metric is not the row's.
    write(tmp_path, spec(*rows, metric="test/accuracy"))
    assert [each["status"] for each in shown(load_table("small"), "full")] == ["not run", "not run"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"rows": 3}', '{"rows": [{"label": "a"}]}', '{"rows": [3]}', "\xff"]
)
def test_a_damaged_file_is_as_good_as_none(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(tmp_path, monkeypatch, row("a"))
    (small.folder / results.FILE).write_bytes(content.encode("latin-1"))
    assert read(small) == []
    keep(small, row_result(small, *planned(small), [RUN] * 3))
    assert [each["status"] for each in read(small)] == ["new"]


def test_a_row_of_another_config_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(tmp_path, monkeypatch, row("a"))
    (a,) = planned(small)
    keep(small, row_result(small, a, [RUN] * 3))
    assert shown(small, "full")[0]["status"] == "new"
    config = tmp_path / "configs" / "tiny.yaml"
    config.write_text(config.read_text().replace("hidden: 4", "hidden: 5"))
    assert shown(small, "full")[0]["status"] == "stale" and shown(small, "full")[0]["values"] == []
    said: list[str] = []
    monkeypatch.setattr(many_runs, "make", lambda *_: iter([]))
    monkeypatch.setattr(many_runs, "prepare", lambda _: None)
    assert running.make(small, planned(small), 1, said.append) == 0
    assert said[1] == "a: stale, its config has changed since it was run; it is run anew"
    assert said[2] == "left: some 1 min"


def test_what_rows_need_that_were_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanting = row("b: GRU", needs="a file that is\nnot here", published=0.5, tolerance=0.1)
    small = table(tmp_path, monkeypatch, row("a: GRU"), wanting, row("b: LSTM", needs="a file that is not here"))
    assert [each["label"] for each in shown(small, "full")] == ["a: GRU"]
    line = "- Not run, for want of a file that is not here: b: GRU (published 0.5); b: LSTM."
    assert line in rendering.render(small, ["full"], "md").splitlines()
    (b,) = plan(small, "full", rows=re.compile("b: GRU"))
    keep(small, row_without_data(small, b))
    assert [each["label"] for each in shown(small, "full")] == ["a: GRU"]
    keep(small, row_result(small, b, [RUN] * 3))
    assert [each["label"] for each in shown(small, "full")] == ["a: GRU", "b: GRU"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", "NaN"), ("sd", "Infinity"), ("seconds", "-Infinity"), ("best", "1" + "0" * 400),
        ("hardware", '"\\ud800"'),
    ],
)  # fmt: skip
def test_entries_that_nobody_can_print_are_no_entries(
    key: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = table(tmp_path, monkeypatch, row("a"))
    keep(small, row_result(small, planned(small)[0], [RUN] * 3))
    file = small.folder / "results.json"
    entry = json.loads(file.read_text())["rows"][0]
    file.write_text(file.read_text().replace(f'"{key}": {json.dumps(entry[key])}', f'"{key}": {value}'))
    assert read(small) == []
    assert shown(small, "full")[0]["status"] == "not run"
