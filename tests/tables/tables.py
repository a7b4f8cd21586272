"""A folder with a config and a table for tests."""

from pathlib import Path
from typing import Any

import pytest

from gru_jax.config import yaml_document
from gru_jax.tables.spec import Table, load_table

CONFIG = """\
schema: 1
name: tiny
task: {kind: digits, view: rows, batch: 128}
model: {kind: gru, hidden: 4}
train: {epochs: 2}
"""


def row(label: str, **more: Any) -> dict[str, Any]:
    """A row of the config above."""
    return {"label": label, "config": "configs/tiny.yaml", **more}


def spec(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole table: one seed at smoke scale, three at full."""
    scales = {"full": {"seeds": [0, 1, 2]}, "smoke": {"seeds": [0], "set": {"train.epochs": 1}}}
    return {"title": "A title", "source": "Somebody 2014, Table 1", "rows": list(rows), "scales": scales, **more}


def write(folder: Path, values: dict[str, Any], name: str = "small") -> Path:
    """Writes experiments/<name>/table.yaml and configs/tiny.yaml."""
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "tiny.yaml").write_text(CONFIG)
    file = folder / "experiments" / name / "table.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml_document.dump(values))
    return file


def table(folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any], **more: Any) -> Table:
    """The table of these rows, with `folder` as the current directory."""
    write(folder, spec(*rows, **more))
    monkeypatch.chdir(folder)
    return load_table("small")


def names(root: Path) -> list[str]:
    """The names of the tables below root/experiments."""
    folder = root / "experiments"
    return sorted(file.parent.relative_to(folder).as_posix() for file in folder.rglob("table.yaml"))
