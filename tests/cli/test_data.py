"""`gru-jax data`: which files are wanted, found, damaged; and runs on data in files."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from gru_jax.cli.data_files import kinds, report
from gru_jax.config.sections.tasks import TASKS
from gru_jax.data import mnist, music, text

from .command import gru_jax


def labels(count: int) -> bytes:
    return bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(count)


def test_every_known_file_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRU_JAX_DATA", str(tmp_path))
    said = report(None, None)
    assert said.missing and not said.damaged
    for name in (*music.KNOWN, *mnist.KNOWN, *text.KNOWN):
        assert sum(name in line and "missing; get it from" in line for line in said.lines) == 1
    assert str(tmp_path) in said.lines[0] and "GRU_JAX_DATA" in said.lines[0]
    # A task with a field of that name reads files, and has to be there.
    with_files = [kind for kind, task in zip(kinds(), TASKS, strict=True) if {"file", "train"} & set(task.model_fields)]
    for kind in set(with_files) - {"listops", "python"}:
        assert f"{kind}:" in said.lines


def test_found_unknown_and_damaged(tmp_path: Path) -> None:
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels(12)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels(5))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(labels(5))
    said = report("mnist", str(tmp_path))
    assert said.missing and said.damaged
    lines = {line.split(":")[0].strip(): line for line in said.lines}
    assert "12; t10k-labels-idx1-ubyte.gz is not the known file" in lines["t10k-labels-idx1-ubyte.gz"]
    assert lines["train-labels-idx1-ubyte"].endswith(": 5; sha256 not known of this name")
    assert "starts with 00000801, not 00000803" in lines[str(tmp_path / "train-images-idx3-ubyte")]


def test_a_text_is_counted(tmp_path: Path) -> None:
    (tmp_path / "tinyshakespeare.txt").write_text("abba")
    said = report("characters", str(tmp_path))
    assert not said.missing and not said.damaged
    assert any("4 characters, 2 different; tinyshakespeare.txt is not the known" in line for line in said.lines)


def test_a_kind_without_files_and_no_kind() -> None:
    assert report("digits", None).lines == ["digits: reads no file"]
    with pytest.raises(ValueError, match="no task of kind 'mnits'; did you mean 'mnist'"):
        report("mnits", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("data",), 0),
        (("data", "mnist"), 3),
        (("data", "digits"), 0),
        (("data", "characters"), 1),
        (("data", "mnits"), 2),
        (("data", "--dataroot", "x"), 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_exit_codes(arguments: tuple[str, ...], code: int, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tinyshakespeare.txt").write_bytes(b"\xff")
    root = () if "--dataroot" in arguments else ("--data-root", "here")
    done = gru_jax(*arguments, *root, cwd=tmp_path)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


CONFIG = """\
schema: 1
name: files
task: {kind: polyphonic, file: x.npz, batch: 4, sizes: {train: 9, valid: 4, test: 4, time: 6}}
model: {kind: gru, hidden: 8}
train: {epochs: 1, early_stop: {metric: valid/loss}}
data_root: here
"""


@pytest.mark.slow
def test_a_run_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    missing = gru_jax("run", "config.yaml", cwd=tmp_path)
    assert missing.returncode == 3 and "x.npz: no such data file" in missing.stderr
    (tmp_path / "here").mkdir()
    arrays = {}
    for name, count in (("train", 9), ("valid", 4), ("test", 4)):
        lengths = np.arange(count) % 5 + 3
        arrays |= {name: np.zeros((lengths.sum(), 88), np.uint8), f"{name}_lengths": lengths}
    np.savez(tmp_path / "here" / "x.npz", **arrays)
    done = gru_jax("run", "config.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "here" / "x.npz").write_bytes(b"PK")
    damaged = gru_jax("run", "config.yaml", "--fresh", cwd=tmp_path)
    assert damaged.returncode == 1 and "x.npz: is no whole .npz file" in damaged.stderr
