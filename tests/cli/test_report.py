"""`gru-jax report`: one HTML file about runs, with nothing outside it."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.report import contents

from .command import gru_jax, result

NASTY = "<script>alert(1)</script> & $body 'ü'"
VOID = {"meta", "img", "wbr"}


class Page(html.parser.HTMLParser):
    """Reads a page; fails on an element that is not closed where it should be, and on what lies outside the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.rows: list[list[str]] = []
        self.best: list[list[str]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert values.get("src", "data:").startswith("data:") and not values.keys() & {"href", "srcset", "onload"}
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
            if values.get("class") == "best":
                self.best.append(self.rows[-1])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        self.words += data


def test_of_a_run(copy: Path) -> None:
    run = copy / "out <b>&"
    (copy / "out").rename(run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("data_root: null", f"data_root: {json.dumps(NASTY)}"))
    done = gru_jax("report", run.name, "--out", "pages/one.html", cwd=copy)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "pages/one.html\n")
    page = Page(copy / "pages/one.html")
    assert page.count["script"] == 1 and NASTY.split("'")[0] in page.words
    # The run's own, and its curves drawn anew.
    assert page.count["img"] == len(list((run / "plots").iterdir())) > 1
    assert ["test/loss", f"{result(run)['test/loss']:.6g}"] in page.rows
    assert "done; out <b>&" in page.words and "packages: jaxlib" in [row[0] for row in page.rows]
    head, row = page.rows[:2]
    assert row[head.index("test/loss")] == f"{result(run)['test/loss']:.5g}"


def test_folders_of_this_machine_stay_here(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data_root: /somewhere/else\ntask: {file: '/home/me/load.csv'}\n")
    assert contents._config(RunDirectory(tmp_path)) == "data_root: else\ntask:\n  file: load.csv\n"
    (tmp_path / "env.json").write_text('{"argv": ["/somewhere/bin/gru-jax", "run"]}')
    said = contents._environment(RunDirectory(tmp_path))
    assert "gru-jax, run" in said and "/somewhere" not in said


def test_of_a_forecast(copy: Path) -> None:
    path = copy / "out" / "result.json"
    errors = {"mae": 95.58162, "mae_by_horizon": [99.40705882, 1e-7]}
    own = {"test/mae": 36.739936, "mae_by_horizon": [34.30851043], "baselines": {"seasonal_naive": errors}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    assert gru_jax("report", "out", cwd=copy).returncode == 0
    rows = Page(copy / "report.html").rows
    at = rows.index(["", "mae"])
    assert rows[at + 1 : at + 3] == [["this run", "36.74"], ["seasonal-naive", "95.58"]]
    assert ["mae_by_horizon", "34.31"] in rows and not [row for row in rows if row[0].startswith("baselines")]


def variant(folder: Path, name: str, lr: float, seed: int, loss: float, status: str = "done") -> None:
    """A run like the finished one, with another learning rate, seed and result."""
    run = shutil.copytree(folder / "out", folder / name)
    config = run / "config.yaml"
    text = re.sub(r"^seed: 3$", f"seed: {seed}", config.read_text(), flags=re.MULTILINE)
    config.write_text(re.sub(r"^  lr: .*$", f"  lr: {lr}", text, flags=re.MULTILINE))
    values = json.loads((run / "result.json").read_text()) | {"valid/loss": loss, "seed": seed}
    (run / "result.json").write_text(json.dumps(values))
    (run / "STATUS").write_text(status)


def test_of_several(copy: Path) -> None:
    variant(copy, "a", 0.1, 0, 1.0)
    variant(copy, "b", 0.1, 1, 2.0)
    variant(copy, "c", 0.2, 0, 1.25)
    variant(copy, "d", 0.3, 0, 0.5, status="running")
    runs = ["a", "b", "c", "d"]
    (copy / "sweep-1").mkdir()
    summary = {"pick": "valid/loss", "runs": [{"run": f"elsewhere/{run}"} for run in [*runs, "not-begun"]]}
    (copy / "sweep-1" / "summary.json").write_text(json.dumps(summary))
    done = gru_jax("report", "sweep-1", cwd=copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert gru_jax("report", *runs, "--out", "again.html", cwd=copy).returncode == 0
    page = Page(copy / "report.html")
    assert (copy / "report.html").read_bytes() == (copy / "again.html").read_bytes()
    head, *rows = page.rows[:4]
    place = head.index("valid/loss")
    assert head[0] == "optim.lr" and head[-5:] == ["seeds", "status", "params", "best_step", "wall_s"]
    assert [row[place] for row in rows] == ["1.5 ± 0.71", "1.25", "0.5"]
    assert [row[-5:-3] for row in rows] == [["2", "done"], ["1", "done"], ["1", "running"]]
    # 0.3 has the lowest loss, and is not at its end.
    assert [row[0] for row in page.best] == ["0.2"]
    own = len(list((copy / "a" / "plots").iterdir())) - 1
    assert page.count["details"] == 4 and page.count["img"] == 2 + 4 * own


REFUSED = [
    (("nowhere",), "nowhere: no such directory"),
    ((".",), "holds no run"),
    (("out", "--out", "report.txt"), "report.txt: a report ends in .html"),
    (("out", "--out", "taken.html"), "taken.html is a directory"),
    (("sweep",), "summary.json cannot be read"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_refused(arguments: tuple[str, ...], said: str, folder: Path) -> None:
    (folder / "taken.html").mkdir()
    (folder / "sweep").mkdir()
    (folder / "sweep" / "summary.json").write_text("{")
    refused = gru_jax("report", *arguments, cwd=folder)
    assert refused.returncode in (1, 2) and said in refused.stderr
    assert not list(folder.glob("report*"))


BROWSERS = ("chromium", "google-chrome")
TO_PRINT = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")


@pytest.mark.slow
def test_a_browser_sorts_the_table(copy: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    for name, lr, loss in (("a", 0.1, 1.0), ("b", 0.2, 3.0), ("c", 0.3, 2.0)):
        variant(copy, name, lr, 0, loss)
    assert gru_jax("report", "a", "b", "c", cwd=copy).returncode == 0
    page = copy / "report.html"
    # A click, as a reader would make it: the page's own policy lets no other script in, so it stands in the page's.
    click = 'document.querySelectorAll("th")[1].click();\n</script>'
    page.write_text(page.read_text().replace("</script>", click))
    shown = subprocess.run(
        [browser, *TO_PRINT, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (copy / "shown.html").write_text(shown.stdout)
    rows = Page(copy / "shown.html").rows[1:4]
    assert [row[0] for row in rows] == ["0.1", "0.3", "0.2"]
