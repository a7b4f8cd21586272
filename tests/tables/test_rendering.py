"""A table as Markdown, LaTeX and CSV."""

import csv
import io
from pathlib import Path

import pytest

from gru_jax.tables import overview
from gru_jax.tables.plans import plan
from gru_jax.tables.rendering import mean_and_sd, number, page, render
from gru_jax.tables.results import Ended, keep, row_result, row_without_data
from gru_jax.tables.spec import Table

from .tables import row, table

HARD = "50% of A|B_c <d> & $1 #2 {x}^~\\*[e]"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Four rows: reproduced, one seed diverged, no data, not run; the first at smoke scale too."""
    made = table(
        tmp_path,
        monkeypatch,
        row(HARD, published=8.54, tolerance=0.2, note="the note\nof a row"),
        row("b", metric="test/accuracy", better="higher", published=0.97, tolerance=0.01, source="Else, page 3"),
        row("c"),
        row("d"),
        metric="valid/loss",
    )
    a, b, c, _ = plan(made, "full")
    (first, *_) = plan(made, "smoke")
    keep(made, row_result(made, a, [Ended(value, 200, 12.3, "H200") for value in (8.52, 8.54321, 8.6)]))
    keep(made, row_result(made, b, [Ended(value, 200, 345.6, "H200") for value in (0.96, None, 0.97)]))
    keep(made, row_without_data(made, c))
    keep(made, row_result(made, first, [Ended(9.9, 20, 1.23, "CPU, 2 cores")]))
    return made


def test_markdown(small: Table) -> None:
    hard = r"50% of A\|B\_c \<d\> & \$1 #2 {x}^\~\\\*\[e\]"
    assert render(small, ["full"], "md").splitlines() == [
        "**A title**",
        "",
        "| row | published | ours, mean ± sd | best | seeds | steps | seconds | hardware | status |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
        f"| {hard} | 8.54 | 8.554 ± 0.041 | 8.520 | 3 | 200 | 12 | H200 | reproduced |",
        "| b (test/accuracy) | 0.97 | 0.9650 ± 0.0071 | 0.9700 | 2 of 3, 1 diverged | 200 | 346 | H200 | differs |",
        "| c | - | - | - | - | - | - | - | no data |",
        "| d | - | - | - | - | - | - | - | not run |",
        "",
        "valid/loss, lower is better. Published: Somebody 2014, Table 1.",
        "",
        f"- {hard}: the note of a row.",
        "- b: test/accuracy, higher is better; published: Else, page 3.",
        "",
        "Made by `gru-jax table small --scale full`.",
    ]


def test_a_smoke_row_never_stands_beside_a_published_number_without_the_label(small: Table) -> None:
    lines = render(small, ["smoke"], "md").splitlines()
    assert lines[0] == "**A title: smoke scale**"
    assert lines[2].startswith("| row | (published, full scale) | ours at smoke scale, mean ± sd |")
    assert "| (8.54) | 9.900 | 9.900 | 1 | 20 | 1.230 | CPU, 2 cores | smoke only |" in lines[4]
    assert any(line.startswith("- Smoke scale: ") for line in lines)
    assert page(small) == render(small, ["full", "smoke"], "md")


def test_a_row_without_a_config_is_what_was_published_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {"label": "a: theirs", "published": 0.5, "published_sd": 0.012}
    mine = row("a: ours", published=0.75, tolerance=0.1)
    made = table(tmp_path, monkeypatch, alone, mine, row("b: ours"))
    lines = render(made, ["full"], "md").splitlines()
    assert lines[4] == "| a: theirs | 0.50 ± 0.01 | - | - | - | - | - | - | published |"
    assert "theirs" not in render(made, ["smoke"], "md") and "published,0.5,0.012" not in page(made)
    assert "full,a: theirs,test/loss,0.5,0.012," in render(made, ["full"], "csv")
    (plan_a, plan_b) = plan(made, "full")
    for each, value in ((plan_a, 0.7), (plan_b, 0.2)):
        keep(made, row_result(made, each, [Ended(value, 20, 1.2, "H200")]))
    (tmp_path / "README.md").write_text("a\n<!-- tables -->\nold\n<!-- /tables -->\nb\n")
    (made.folder / "README.md").write_text("")
    texts = {str(path): text for path, text in overview.written([made]).items()}
    listed = "| [small](experiments/small/README.md): A title | 1 new, 1 reproduced |"
    assert texts["README.md"].splitlines()[4] == listed
    grid = texts["docs/tables.md"].splitlines()
    rows = grid[grid.index("| | a | b |") + 2 :]
    assert rows[:2] == ["| theirs | (0.50 ± 0.01) |  |", "| ours | 0.7000 (0.75) | 0.2000 |"]


def test_latex(small: Table) -> None:
    text = render(small, ["full"], "tex")
    hard = (
        r"50\% of A\textbar{}B\_c \textless{}d\textgreater{} \& \$1 \#2 "
        r"\{x\}\textasciicircum{}\textasciitilde{}\textbackslash{}*[e]"
    )
    assert rf"{hard} & 8.54 & 8.554 $\pm$ 0.041 & 8.520 & 3 & 200 & 12 & H200 & reproduced \\" in text.splitlines()
    assert r"\begin{tabular}{lrrrrrrll}" in text and r"\toprule" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 5 and {line.replace(r"\&", "").count("&") for line in body} == {8}


def test_csv(small: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(render(small, ["full", "smoke"], "csv"))))
    assert [(line["scale"], line["status"]) for line in lines] == [
        *(("full", each) for each in ("reproduced", "differs", "no data", "not run")),
        *(("smoke", each) for each in ("smoke only", "not run", "not run", "not run")),
    ]
    first, second = lines[:2]
    assert first["row"] == HARD and first["mean"] == "8.5544" and first["sd"] == "0.0411578"
    assert (second["seeds"], second["diverged"], second["source"]) == ("3", "1", "Else, page 3")
    assert first["command"].startswith("for seed in 0 1 2; do gru-jax run configs/tiny.yaml")


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [((9.1, 8.54), ["9.10", "8.54"]), ((1.0, 1), ["1", "1"]), ((5.3e-5, 0.164), ["5.3e-05", "0.164"])],
)
def test_published_numbers_have_the_places_of_their_neighbours(
    numbers: tuple[float, float], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(f"{number}", published=number, tolerance=1.0) for number in numbers]
    rows[1]["label"] = "b"
    lines = render(table(tmp_path, monkeypatch, *rows), ["full"], "md").splitlines()
    assert [line.split(" | ")[1] for line in lines[4:6]] == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-8.5432, "-8.543"), (21.5, "21.50"), (99.996, "100.00"), (1e-4, "0.0001"), (-5.3e-7, "-5.3e-07")],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (8.5, 0.0, "8.500 ± 0"),
        (8.5, 12.3, "8 ± 12"),
        (0.0, 0.0, "0 ± 0"),
        (-0.5, 0.02, "-0.500 ± 0.020"),
        (1.0, 1e-9, "1.000000 ± 0.000000"),
        (2e-4, 3e-4, "0.0002 ± 0.0003"),
    ],
)
def test_mean_and_sd(mean: float, sd: float, text: str) -> None:
    assert mean_and_sd(mean, sd) == text
