"""The tables of this repository: each can be made, and its committed results are those of its configs."""

import json
from pathlib import Path

import pytest

from gru_jax.tables.plans import plan
from gru_jax.tables.rendering import page
from gru_jax.tables.spec import load_table

ROOT = Path(__file__).parents[2]
TABLES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/table.yaml"))


def test_there_are_tables() -> None:
    assert set(TABLES) >= {"music", "stress", "pixels", "formal", "selective_copying", "shakespeare", "gates"}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_stands_as_committed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    table = load_table(name)
    plans = {(row.row.label, row.scale): row for scale in ("full", "smoke") for row in plan(table, scale)}
    readme = (table.folder / "README.md").read_text()
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
