"""Runs of a Python file of one's own: what it may be made of, that it is kept, and how its runs may end."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from gru_jax.cli import main
from gru_jax.cli.data_files import _OF_A_CONFIG, _WANTED
from gru_jax.config.config import config_hash
from gru_jax.config.loading import ConfigError, load_config
from gru_jax.config.sections.tasks import READ_FROM_FILES
from gru_jax.config.sections.tasks.python_file import PythonTask
from gru_jax.data.dataset import DataMissing
from gru_jax.runs.load_trained import evaluate_run

OWN = """\
schema: 1
name: own
task: {kind: python, file: own.py, options: {length: 4}, batch: 8}
model: {kind: gru, hidden: 4}
train: {epochs: 1}
"""
HELPER = """\
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Sizes:
    outputs: int = 2
"""
TASK = """\
from __future__ import annotations
from dataclasses import dataclass, field
from pathlib import Path
import numpy as np
from gru_jax.data.dataset import Dataset, Sequences, Split, TaskShape
import helper

@dataclass
class Data:
    scale: float
    sizes: helper.Sizes = field(default_factory=helper.Sizes)

def shape(length, huge=1.0):
    return TaskShape(24, 8, 8, length, 1, Data(huge).sizes.outputs, "values" if huge > 1 else "class")

def load(length, data_root, huge=1.0):
    import helper as again
    assert again is helper and Path(__file__).with_name("own.py").name == "own.py"
    rng = np.random.default_rng(0)
    def drawn(n, scale=1.0):
        x = [rng.random((1 + i % length, 1), dtype=np.float32) for i in range(n)]
        y = [np.full(2, scale) if huge > 1 else int(each.sum() > 1) for each in x]
        return Sequences(x, y)
    return Dataset(drawn(24), drawn(8), drawn(8, huge), "own", "fingerprint")
"""


def write(folder: Path, task: str = TASK, helper: str = HELPER) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in (("own.yaml", OWN), ("own.py", task), ("helper.py", helper)):
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, `out`, of the task in `here`."""
    folder, before = tmp_path_factory.mktemp("own"), os.getcwd()
    write(folder / "here")
    os.chdir(folder)
    try:
        assert main(["run", "here/own.yaml", "--out", "out"]) == 0
    finally:
        os.chdir(before)
    return folder


def test_a_run_keeps_its_file_and_what_that_imports(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    assert {path.name: path.read_text() for path in (ran / "out/task").iterdir()} == {
        "own.py": TASK,
        "helper.py": HELPER,
    }
    result = json.loads((ran / "out/result.json").read_text())
    tested = {name: value for name, value in result.items() if "test/" in name}
    # Another folder's file of the same name, and its helper, are nothing to it.
    write(ran / "elsewhere", "raise ValueError", "raise ValueError")
    monkeypatch.chdir(ran / "elsewhere")
    assert evaluate_run("../out", note=pytest.fail) == tested
    monkeypatch.chdir(ran)
    for changes in ({"helper": HELPER + "# more\n"}, {"task": TASK.replace("> 1)", "> 9)")}):
        write(ran / "here", **changes)
        assert main(["eval", "out"]) == 0
        said = capsys.readouterr()
        assert f"test/loss: {tested['test/loss']}" in said.out
        assert "here/own.py has changed since, or is gone; evaluated with out/task/own.py" in said.err
        assert main(["run", "here/own.yaml", "--out", "out", "train.epochs=2"]) == 2
        assert "task.file: was 'own.py (" in capsys.readouterr().err
    (ran / "here/own.py").unlink()
    assert evaluate_run("out", note=lambda text: None) == tested
    write(ran / "here")
    assert main(["run", "out/config.yaml", "--out", "out"]) == 0
    assert "this run is finished" in capsys.readouterr().out


def test_a_finished_run_of_other_data_is_no_result(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(ran)
    shutil.copytree("out", tmp_path / "out")
    again = ["run", "here/own.yaml", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:

        def load(task: PythonTask, data_root: str | None) -> None:
            raise DataMissing("gone")

        patched.setattr(PythonTask, "load", load)
        assert main(again) == 0
        said = capsys.readouterr().out
        assert "not here to be compared with those of then: gone" in said and "this run is finished" in said
        shutil.rmtree(tmp_path / "out/plots")
        assert main(["plot", str(tmp_path / "out")]) == 3
        assert "the curves alone were drawn: gone" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "out/plots").iterdir()] == ["curves.png"]
    # As if the data were others now.
    result = tmp_path / "out/result.json"
    result.write_text(result.read_text().replace('"fingerprint": "fingerprint"', '"fingerprint": "of others"'))
    assert main(again) == 1
    said = capsys.readouterr()
    assert "the data have changed since" in said.err and "--fresh" in said.err and "test/loss" not in said.out


def test_what_a_config_does_not_decide_is_read_from_files() -> None:
    assert {*READ_FROM_FILES} == {"python", *_WANTED, *_OF_A_CONFIG}


def test_a_run_from_before_files_were_kept(ran: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil

    from gru_jax.runs.on_disk.run_directory import RunError

    shutil.copytree(ran / "out", tmp_path / "old", ignore=lambda folder, names: {"task"} & set(names))
    write(ran / "here")
    assert evaluate_run(tmp_path / "old")
    write(ran / "here", TASK.replace("> 1)", "> 9)"))
    with pytest.raises(RunError, match=r"here/own.py is not the file that .*; put the old one there"):
        evaluate_run(tmp_path / "old")
    write(ran / "here")


def test_what_is_imported_from_beside_a_file_counts(tmp_path: Path) -> None:
    hashes = []
    for folder, helper in (("a", HELPER), ("b", HELPER.replace("= 2", "= 3")), ("c", HELPER)):
        write(tmp_path / folder, helper=helper)
        config = load_config(tmp_path / folder / "own.yaml").config
        assert config.shape.outputs == (3 if folder == "b" else 2)
        hashes.append(config_hash(config))
    assert hashes[0] == hashes[2] != hashes[1]
    package = tmp_path / "d/helper"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from helper.inner import Sizes")
    (package / "inner.py").write_text(HELPER.replace("= 2", "= 4"))
    for name in ("own.yaml", "own.py"):
        (tmp_path / "d" / name).write_text((tmp_path / "a" / name).read_text())
    assert load_config(tmp_path / "d/own.yaml").config.shape.outputs == 4
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_test_loss_that_is_not_finite_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    again = ["run", "own.yaml", "task.options={length: 4, huge: 3e30}", "--out", "out"]
    assert main(again) == 4
    said = capsys.readouterr()
    assert "warning: test/loss is not finite; the last good checkpoint, step 3, is kept" in said.err
    assert "not finite" in said.out
    result = json.loads((tmp_path / "out/result.json").read_text(), parse_constant=pytest.fail)
    assert (result["status"], result["test/loss"], result["steps"]) == ("diverged", None, 3)
    assert result["valid/loss"] > 0 and (tmp_path / "out/STATUS").read_text() == "diverged\n"
    assert (tmp_path / "out/plots/curves.png").exists()
    assert main(again) == 4
    assert "diverged at step 3 (test/loss is not finite); --fresh starts" in capsys.readouterr().out


def test_a_module_of_another_name_than_it_seems_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import gives what Python has under the name, and not the file beside."""
    for name, of in (("calendar", "Python's own"), ("types", "Python's own"), ("yaml", "/yaml/__init__.py")):
        write(tmp_path / name, TASK.replace("import helper\n", f"import helper, {name}\n"))
        (tmp_path / name / f"{name}.py").write_text("x = 1")
        with pytest.raises(ConfigError) as raised:
            load_config(tmp_path / name / "own.yaml")
        (line,) = raised.value.lines
        said = f"{of}, and not {name}.py beside it; rename that file"
        assert said in line and f"own.py cannot be imported: an import of {name!r} gives " in line
        (tmp_path / name / f"{name}.py").unlink()
        load_config(tmp_path / name / "own.yaml")
    # A helper that this process has imported itself is the one beside, and counts.
    (tmp_path / "beside").mkdir()
    task = TASK.replace("import helper as again", "again = helper")
    write(tmp_path / "beside", task.replace("import helper", "import own_helper as helper"))
    (tmp_path / "beside/own_helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path / "beside")
    import own_helper  # noqa: F401

    config = load_config(tmp_path / "beside/own.yaml").config
    assert [name for name, _ in config.task.source.texts] == ["own.py", "own_helper.py"]
    monkeypatch.delitem(sys.modules, "own_helper")


LATE = "    from gru_jax.data.dataset import DataMissing\n    raise DataMissing('x')\n    return TaskShape"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def load(length, data_root", "def load(size, data_root", "load() of {}: missing a required argument: 'size'"),
        ("def load(length, data_root, huge=1.0)", "def load()", "load() of {}: got an unexpected keyword argument"),
        ("    return TaskShape", LATE, "shape() of {}: line 15: DataMissing: x"),
        ("import helper\n", "import helpers\n", "{} cannot be imported: line 6: ModuleNotFoundError: No module"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_before_anything_starts(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path, TASK.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "own.yaml")
    (line,) = raised.value.lines
    assert said.format(tmp_path / "own.py") in line and "own.yaml:3:" in line
