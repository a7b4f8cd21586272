"""table.yaml: what may stand in it, how it is found, what is said of mistakes."""

import re
from pathlib import Path
from typing import Any

import pytest

from gru_jax.config.loading import ConfigError
from gru_jax.tables.plans import plan
from gru_jax.tables.spec import known, load_table

from .tables import row, spec, table, write


def errors_of(name: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_table(name)
    return caught.value.lines


@pytest.mark.parametrize("name", ["small", "experiments/small", "experiments/small/table.yaml"])
def test_a_table_is_found_by_name_and_by_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, spec(row("a")))
    monkeypatch.chdir(tmp_path)
    assert load_table(name).name == "small"
    assert known() == ["small"]


def test_a_table_elsewhere_reads_its_configs_beside_experiments_or_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, spec(row("a")))
    monkeypatch.chdir(tmp_path.parent)
    found = load_table(str(file))
    assert found.name == "small" and found.config_file(found.spec.rows[0]) == tmp_path / "configs" / "tiny.yaml"
    own = file.parent / "configs" / "tiny.yaml"
    (tmp_path / "configs").rename(own.parent)
    assert found.config_file(found.spec.rows[0]) == own


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("smal", "did you mean 'small'?"),
        ("music/else", "choose one of 'small'"),
        ("experiments/small/notes.yaml", "no such table"),
    ],
)
def test_an_unknown_table(name: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, spec(row("a")))
    file.with_name("notes.yaml").write_text("title: x\n")
    monkeypatch.chdir(tmp_path)
    (line,) = errors_of(name)
    assert line.startswith(f"table '{name}': no such table") and fact in line


def test_no_tables_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there are none under experiments/ here" in errors_of("music")[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"titel": "x"}, "titel: unknown key"),
        ({"better": "more"}, "better: expected one of 'lower', 'higher', got 'more'"),
        ({"rows": []}, "rows: expected a list of rows"),
        ({"rows": [row("a", lable="x")]}, "rows.0.lable: unknown key; did you mean 'label'?"),
        ({"rows": [row("a", published=1.0)]}, "rows.0.tolerance: is missing"),
        ({"rows": [row("a", tolerance=1.0)]}, "rows.0.tolerance: nothing is published"),
        ({"rows": [row("a", published="8.54", tolerance=1.0)]}, "rows.0.published: expected a number"),
        ({"rows": [row("a", published=8, tolerance=0)]}, "rows.0.tolerance: expected a number > 0"),
        ({"rows": [row("a"), row("b"), row("a")]}, "rows.2.label: 'a' is also the label of the row on line"),
        ({"rows": [row("a", published_sd=1.0)]}, "rows.0.published_sd: nothing is published"),
        ({"rows": [{"label": "a"}]}, "rows.0.config: is missing; a row without one has to have a published number"),
        ({"rows": [{"label": "a", "published": 1.0, "tolerance": 1.0}]}, "rows.0.config: is missing; without one"),
        ({"rows": [row("a", set=[1])]}, "rows.0.set: expected values laid over the config's"),
        ({"rows": [row("a", scales={"ful": {}})]}, "rows.0.scales.ful: unknown key; did you mean 'full'?"),
        ({"scales": {"full": {"seeds": [0, 0]}, "smoke": {"seeds": [0]}}}, "scales.full.seeds: expected different"),
        ({"scales": {"full": {"seeds": []}, "smoke": {"seeds": [0]}}}, "scales.full.seeds: expected different"),
        ({"scales": {"full": {"seeds": [True]}, "smoke": {"seeds": [0]}}}, "scales.full.seeds: expected different"),
        ({"scales": {"full": {"seeds": [0]}}}, "scales.smoke: is missing"),
    ],
)
def test_mistakes_have_their_place(
    change: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, spec(row("a")) | change)
    monkeypatch.chdir(tmp_path)
    (line,) = errors_of("small")
    file, number, column, said = line.split(":", 3)
    assert file == "experiments/small/table.yaml" and int(number) > 0 and int(column) > 0
    assert said.strip().startswith(expected)


def test_an_empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, spec(row("a"))).write_text("")
    monkeypatch.chdir(tmp_path)
    assert errors_of("small") == [
        "experiments/small/table.yaml: is empty; a table needs at least the keys title, source, rows and scales"
    ]


def test_the_errors_of_all_configs_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(
        tmp_path,
        monkeypatch,
        row("a", set={"model.hiden": 3}),
        row("b", config="configs/none.yaml"),
        row("c", scales={"smoke": {"set": {"optim.lr": -1}}}),
        row("d", scales={"smoke": {"set": {"optim.lr": -1}, "skip": True}}),
    )
    with pytest.raises(ConfigError) as caught:
        plan(small, "smoke")
    a, b, c = caught.value.lines
    places = small.document.key_marks
    for line, path in (
        (a, ("rows", 0, "set", "model.hiden")),
        (b, ("rows", 1, "config")),
        (c, ("rows", 2, "scales", "smoke", "set", "optim.lr")),
    ):
        number, column = places[path]
        assert line.startswith(f"experiments/small/table.yaml:{number}:{column}: row ")
    assert a.endswith(
        "row 'a': override 'model.hiden=3': model.hiden: unknown key for kind 'gru'; did you mean 'hidden'?"
    )
    assert b.endswith("row 'b': configs/none.yaml: no such file")
    assert "optim.lr: expected a number > 0, got -1" in c


def test_what_a_row_lays_over_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(
        tmp_path,
        monkeypatch,
        row(
            "a",
            set={"model.hidden": 5, "train.epochs": 9, "optim": {"kind": "adam", "lr": 1e-5}, "model.bias": "full"},
            scales={"smoke": {"set": {"model.hidden": 6}, "seeds": [4, 2]}},
        ),
        row("b"),
    )
    (one, _) = plan(small, "smoke", data_root="/some where")
    first, second = (run.loaded.config for run in one.runs)
    assert (first.seed, second.seed) == (4, 2)
    # The scale over the row, the row's own scale over both.
    assert first.train.epochs == 1 and first.model.hidden == 6 and first.optim.lr == 1e-5
    assert first.data_root == "/some where"
    assert one.runs[0].path.name == f"{one.config_hash}-s4"
    assert one.command == (
        "for seed in 4 2; do gru-jax run configs/tiny.yaml model.hidden=5 train.epochs=9"
        """ 'optim={"kind": "adam", "lr": 1e-05}' model.bias=full train.epochs=1 model.hidden=6 seed=$seed; done"""
    )
    (full,) = plan(small, "full", rows=re.compile("^b$"), seeds=[7])
    assert [run.seed for run in full.runs] == [7] and full.row.label == "b"
    assert full.command == "gru-jax run configs/tiny.yaml seed=7"


def test_rows_that_would_share_a_directory_though_they_compute_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newton = {"model.method": "newton"}
    small = table(tmp_path, monkeypatch, row("a"), row("b", metric="test/accuracy"), row("c", set=newton))
    with pytest.raises(ConfigError, match="row 'c' differs from row 'a' only in model.method"):
        plan(small, "full")
    small = table(tmp_path, monkeypatch, row("a"), row("c", set=newton | {"name": "tiny/newton"}))
    assert len(plan(small, "full")) == 2


def test_a_metric_that_no_run_of_the_task_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = table(tmp_path, monkeypatch, row("a", metric="test/acuracy"), row("b", metric="steps"), metric="test/nll")
    with pytest.raises(ConfigError) as caught:
        plan(small, "full")
    (line,) = caught.value.lines
    number, column = small.document.marks["rows", 0, "metric"]
    assert line == (
        f"experiments/small/table.yaml:{number}:{column}: row 'a': task 'digits' gives no 'test/acuracy';"
        " did you mean 'test/accuracy'?"
    )
