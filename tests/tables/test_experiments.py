"""The tables of this repository: each can be made, and its committed results are those of its configs."""

import json
from pathlib import Path

import pytest

from gru_jax.tables import overview
from gru_jax.tables.plans import plan
from gru_jax.tables.rendering import page
from gru_jax.tables.spec import known, load_table

from .tables import names

ROOT = Path(__file__).parents[2]
TABLES = names(ROOT)


def test_there_are_tables() -> None:
    assert {"music", "stress", "pixels", "selective_copying", "shakespeare", "gates"} <= set(TABLES)
    assert "state_tracking/languages" in TABLES


@pytest.mark.parametrize("name", TABLES)
def test_a_table_stands_as_committed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    table = load_table(name)
    plans = {(row.row.label, row.scale): row for scale in ("full", "smoke") for row in plan(table, scale)}
    # Several tables may be of one experiment.
    folder = table.folder if (table.folder / "README.md").exists() else table.folder.parent
    readme = (folder / "README.md").read_text()
    for heading in ("## Question", "## Protocol", "## Result"):
        assert heading in readme
    results = table.folder / "results.json"
    if not results.exists():
        return
    entries = json.loads(results.read_text())["rows"]
    assert entries
    for entry in entries:
        made = plans[entry["label"], entry["scale"]]
        if entry["values"]:
            assert entry["config_hash"] == made.config_hash, f"{entry['label']}: made from another config"
            assert entry["seeds"] == [run.seed for run in made.runs], f"{entry['label']}: other seeds"
    assert (table.folder / "table.md").read_text() == page(table)


def test_the_pages_of_all_tables_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path, text in overview.written([load_table(name) for name in known()]).items():
        assert path.read_text() == text, f"{path}: python -m gru_jax.tables.overview"
