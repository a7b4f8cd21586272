"""`gru-jax new`: what it writes is checked, runs, and replaces nothing."""

from pathlib import Path

import pytest

from gru_jax.cli.new import WRITTEN
from gru_jax.config.loading import load_config
from gru_jax.data.fitting import misfit

from .command import gru_jax, result

pytestmark = pytest.mark.usefixtures("settings_of_readers")


@pytest.mark.parametrize("what", WRITTEN)
def test_what_is_written_is_right(what: str, tmp_path: Path) -> None:
    made = gru_jax("new", what, "mine", "--out", "there", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    files = sorted(path.name for path in (tmp_path / "there").iterdir())
    assert files == sorted({f"mine{Path(template).suffix}" for template in WRITTEN[what]})
    assert "next: gru-jax check there/mine.yaml" in made.stdout
    config = load_config(tmp_path / "there/mine.yaml").config
    assert config.name == "mine"
    assert list(config.own_files) == {"task": ["task"], "cell": ["model"]}.get(what, [])
    dataset = config.task.load(None)
    assert misfit(dataset, config.shape) is None and len(dataset.test.x) == config.shape.test


REFUSED = [
    (("task", "mine"), "mine.yaml is there already"),
    (("task", "random"), "random.py would stand in the way of Python's own random"),
    (("config", "../up"), "NAME: expected a letter"),
    (("cell", "other", "--out", "mine.yaml"), "mine.yaml is a file"),
    (("network", "mine"), "invalid choice: 'network'"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_refused(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    refused = gru_jax("new", *arguments, cwd=tmp_path)
    assert refused.returncode == 2 and said in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    assert (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(("what", "accuracy"), [("task", 0.8), ("cell", 0.8), ("config", 0.8), ("sequences", 0.8)])
def test_it_trains(what: str, accuracy: float, tmp_path: Path) -> None:
    assert gru_jax("new", what, "mine", cwd=tmp_path).returncode == 0
    checked = gru_jax("check", "mine.yaml", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    done = gru_jax("run", "mine.yaml", "train.epochs=5", "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert result(tmp_path / "out")["test/accuracy"] > accuracy
