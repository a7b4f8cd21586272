"""The page on cells of one's own, followed word by word; and what goes wrong in a file with a cell."""

import json
import re
import shlex
from pathlib import Path

import pytest

from gru_jax.config.config import config_hash
from gru_jax.config.loading import ConfigError, load_config
from gru_jax.runs.load_trained import evaluate_run, load
from gru_jax.runs.plan import prepare

from .command import PACKAGE_ROOT, gru_jax, result

PAGE = (PACKAGE_ROOT / "docs" / "guide" / "own-cells.md").read_text()


def blocks(language: str) -> list[str]:
    """The blocks of code in one language, in their order on the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("settings_of_readers")
def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light, peephole, *_ = blocks("python")
    config, table = blocks("yaml")
    for name, text in (("cells.py", light + peephole), ("digits.yaml", config), ("table.yaml", table)):
        (tmp_path / name).write_text(text)
    commands = [line for block in blocks("shell") for line in block.splitlines()]
    assert [line.split()[1] for line in commands] == ["check", "run", "run", "table"]
    for line in commands:
        done = gru_jax(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, line + done.stderr
    runs = [path.parent for path in tmp_path.glob("runs/digits/own/*/result.json")]
    good = [run for run in runs if result(run)["test/accuracy"] > 0.9]
    assert len(good) == 2
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    labels = ["GRU", "light GRU", "GRU with peepholes"]
    assert [row["label"] for row in rows if row["scale"] == "smoke"] == labels

    # What a run has learnt is read by the copy of the cell that it has kept.
    monkeypatch.chdir(tmp_path)
    assert (good[0] / "model" / "cells.py").read_text() == light + peephole
    (tmp_path / "cells.py").write_text("raise ValueError")
    notes: list[str] = []
    tested = evaluate_run(good[0], note=notes.append)
    assert tested["test/accuracy"] == result(good[0])["test/accuracy"]
    for to, code in (("stablehlo", 0), ("onnx", 2)):
        done = gru_jax("export", good[0], "--to", to, "--out", f"own.{to}", cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert (tmp_path / f"own.{to}").exists() == (code == 0)
    assert "cells.py has changed since, or is gone; evaluated with" in notes[0] and "/model/cells.py" in notes[0]
    assert type(load(good[0]).config.model.cell()).__name__ in ("LiGRU", "PeepholeGRU")


CONFIG = """\
schema: 1
name: own
task: {kind: digits, view: rows}
model: {kind: python, file: own.py, name: Own, options: {gain: 0.5}, hidden: 4}
"""
CELL = """\
import dataclasses
import jax.numpy as jnp

@dataclasses.dataclass(frozen=True)
class Own:
    hidden_size: int
    gain: float = 1.0

    def init(self, key, input_size): return jnp.zeros((input_size, self.hidden_size))
    def project(self, params, x): return x @ params
    def step(self, params, u, h): return self.gain * h + u
    def initial_state(self, batch, dtype): return jnp.zeros((*batch, self.hidden_size), dtype)
    def output(self, h): return h
"""


def test_a_file_s_cell_is_made_with_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/own.yaml").write_text(CONFIG)
    hashes = []
    for text in (CELL, CELL.replace("+ u", "- u"), CELL):
        (tmp_path / "here/own.py").write_text(text)
        config = load_config("here/own.yaml").config
        cell = config.model.cell()
        assert (cell.hidden_size, cell.gain, cell.step(None, 1.0, 2.0)) == (4, 0.5, 0.0 if "- u" in text else 2.0)
        hashes.append(config_hash(config))
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize(
    ("source", "override", "key", "said"),
    [
        (None, "", "file", "'here/own.py' cannot be read: No such file or directory"),
        ("x = (", "", "file", "own.py cannot be imported: line 1: SyntaxError"),
        (CELL.replace("class Own", "class Owm"), "", "name", "own.py has no class Own; did you mean 'Owm'?"),
        (CELL + "Own = 3", "", "name", "own.py has no class Own"),
        (CELL.replace("def output", "def out"), "", "name", "Own of own.py is no cell: Own has no output"),
        (CELL.replace("gain", "scale"), "", "options", "Own of own.py: got an unexpected keyword argument 'gain'"),
        (CELL.replace("(frozen=True)", ""), "", "options", "Own of own.py: TypeError: unhashable type: 'Own'"),
        (CELL, "model.recurrent_dropout=0.1", "recurrent_dropout", "has no step(params, u, h, drop)"),
        (CELL, "model.name=0", "name", "expected a name such as 'LiGRU', got 0"),
        (CELL, "model.hiden=3", "hiden", "unknown key for kind 'python'; did you mean 'hidden'?"),
    ],
)
def test_what_is_wrong_with_a_cell_is_said(
    source: str | None, override: str, key: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here" if source else tmp_path)
    Path("own.yaml").write_text(CONFIG if source else CONFIG.replace("own.py", "here/own.py"))
    if source is not None:
        Path("own.py").write_text(source)
    with pytest.raises(ConfigError) as raised:
        load_config("own.yaml", [override] if override else [])
    (line,) = raised.value.lines
    assert f"model.{key}: " in line and said in line and (override in line if override else "own.yaml:4:" in line)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("self.gain * h + params['w']", "Own of own.py: line 11: TypeError: "),
        ("self.gane * h + u", "Own of own.py: line 11: AttributeError: 'Own' object has no attribute 'gane'"),
        ("u if u.sum() > 0 else h", "line 11: TracerBoolConversionError: Attempted boolean conversion of traced array"),
        ("jnp.tile(u, 2)", "step of Own in own.py returned [batch, 8] float32 where its state is [batch, 4] float32"),
        ("(u > 0) | (h > 0)", "returned [batch, 4] bool where its state is [batch, 4] float32"),
        ("(u, h)", "returned ([batch, 4] float32, [batch, 4] float32) where its state is [batch, 4] float32"),
    ],
)
def test_a_step_that_cannot_be_taken_is_said_before_anything_starts(
    step: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(CONFIG)
    Path("own.py").write_text(CELL.replace("self.gain * h + u", step))
    with pytest.raises(ConfigError) as raised:
        prepare(load_config("own.yaml"))
    (line,) = raised.value.lines
    assert line.startswith("own.yaml:4:") and "model.file: " in line and said in line and "tracing" not in line


def test_each_layer_of_a_cell_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(CONFIG)
    # Rows of digits have 8 features, and the layer puts out 4.
    Path("own.py").write_text(CELL.replace("x @ params", "x.reshape(*x.shape[:-1], 2, 4).sum(-2) @ params[:4]"))
    prepare(load_config("own.yaml"))
    with pytest.raises(ConfigError, match="Own of own.py: line 10: "):
        prepare(load_config("own.yaml", ["model.layers=2"]))
    prepare(load_config("own.yaml", ["model.layers=2", "model.bidirectional=true"]))
