"""The page on an experiment of one's own, followed word by word; and what goes wrong in a file of one's own."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gru_jax.config.config import config_hash
from gru_jax.config.loading import ConfigError, load_config
from gru_jax.data.dataset import Dataset, Sequences, Split, TaskShape
from gru_jax.data.fitting import misfit

from .command import PACKAGE_ROOT, gru_jax

PAGE = (PACKAGE_ROOT / "docs" / "guide" / "own-experiment.md").read_text()
OWN = """\
schema: 1
name: own
task: {kind: python, file: own.py, options: {length: 5}}
model: {kind: gru, hidden: 4}
"""
GOOD = """\
from gru_jax.data.dataset import TaskShape

def shape(length):
    return TaskShape(64, 8, 8, length, 1, 2)

def load(length):
    raise NotImplementedError
"""


def blocks(language: str) -> list[str]:
    """The blocks of code in one language, in their order on the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_can_be_followed(tmp_path: Path) -> None:
    (module,) = blocks("py")
    config, table = blocks("yaml")
    for name, text in (("majority.py", module), ("majority.yaml", config), ("table.yaml", table)):
        (tmp_path / name).write_text(text)
    commands = [line for block in blocks("shell") for line in block.splitlines()]
    assert [line.split()[1] for line in commands] == ["check", "run", "table"]
    for line in commands:
        done = gru_jax(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, line + done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/majority/*/result.json")]
    assert max(result["test/accuracy"] for result in results) > 0.9
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["label"] for row in rows if row["scale"] == "smoke"] == ["GRU", "minGRU"]


SPLIT = Split(np.zeros((2, 4, 1), np.float32), np.zeros((2, 4), np.int32))
SHAPE = TaskShape(2, 2, 2, time=4, features=1, outputs=3, target="tags")


@pytest.mark.parametrize(
    ("part", "shape", "said"),
    [
        (SPLIT, SHAPE, None),
        (Sequences(SPLIT.x, SPLIT.y), SHAPE, None),
        (Sequences([], []), SHAPE, "valid is empty"),
        (SPLIT, SHAPE._replace(valid=3), "valid holds 2 sequences where the sizes say 3"),
        (SPLIT, SHAPE._replace(features=2), "valid.x must be [N, T, 2], got [2, 4, 1]"),
        (SPLIT, SHAPE._replace(target="class"), "valid.y must be [N] for target='class', got [2, 4]"),
        (SPLIT._replace(y=SPLIT.y[:, :3]), SHAPE, "valid.y tells 3 steps where .x has 4"),
        (SPLIT._replace(y=SPLIT.y + 3), SHAPE, "valid.y holds 3 where outputs=3 has the numbers 0 to 2"),
        (SPLIT._replace(y=SPLIT.y + 0.5), SHAPE, "valid.y must be whole numbers, got float64"),
        (SPLIT._replace(x=SPLIT.y - 1), SHAPE._replace(tokens=True), "valid.x holds -1 where features=1"),
    ],
)
def test_data_that_do_not_fit_their_sizes_are_named(part: Any, shape: TaskShape, said: str | None) -> None:
    wrong = misfit(Dataset(lambda key, examples: SPLIT, part, part, "", ""), shape)
    assert (wrong is None) == (said is None) and (said or "") in (wrong or "")


@pytest.mark.parametrize(
    ("source", "key", "said"),
    [
        (None, "file", "cannot be read: No such file or directory (looked for in"),
        ("x = (", "file", "own.py cannot be imported: line 1: SyntaxError"),
        ("\nraise ValueError('no\\nnumbers')", "file", "own.py cannot be imported: line 2: ValueError: no numbers"),
        ("raise KeyError", "file", "own.py cannot be imported: line 1: KeyError"),
        ("shape = 3", "file", "own.py has no function shape(); a task has shape() and load()"),
        ("import sys; sys.exit(0)", "file", "own.py cannot be imported: line 1: SystemExit: 0"),
        (GOOD.split("def load")[0], "file", "own.py has no function load()"),
        ("def shape(length): return 7", "file", "shape() of own.py must return a TaskShape, got int"),
        ("def shape(size): return 7", "options", "shape() of own.py: missing a required argument: 'size'"),
        (GOOD.replace("1, 2)", "1, 2, 'tag')"), "file", "target must be one of 'class', 'values', 'tags', 'notes'"),
        (GOOD.replace("64, 8", "0, 8"), "file", "train must be a plain whole number from 1 to 10**9, got 0"),
        ("def shape(length):\n    return 1 / 0", "options", "shape() of own.py: line 2: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    source: str | None, key: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN)
    if source is not None:
        Path("own.py").write_text(source)
    with pytest.raises(ConfigError) as raised:
        load_config("own.yaml")
    (line,) = raised.value.lines
    assert f"task.{key}: " in line and said in line and line.startswith("own.yaml:3:")


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN)
    hashes = set()
    for sequences in (64, 128):
        Path("own.py").write_text(GOOD.replace("64", str(sequences)))
        config = load_config("own.yaml").config
        assert config.shape.train == sequences
        hashes.add(config_hash(config))
    assert len(hashes) == 2, "a finished run of the old file would stand for the new one"
    monkeypatch.chdir(tmp_path.parent)
    beside = load_config(f"{tmp_path.name}/own.yaml").config
    assert beside.shape.train == 128 and config_hash(beside) in hashes
