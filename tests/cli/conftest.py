"""One run that was left alone, trained once for all tests and all workers, and copies of it."""

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from .command import TINY, gru_jax


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with config.yaml."""
    (tmp_path / "config.yaml").write_text(TINY)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with config.yaml and a finished run in out/; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent  # xdist gives each worker a folder below
    folder = shared / "finished"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "out" / "result.json").exists():
            folder.mkdir(exist_ok=True)
            (folder / "config.yaml").write_text(TINY)
            done = gru_jax("run", "config.yaml", "--out", "out", cwd=folder)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            assert "1266 train, 178 validation, 353 test" in done.stdout
            assert "test/accuracy" in done.stdout
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, which may be changed."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def settings_of_readers() -> Iterator[None]:
    """JAX's own ones, in every thread: a vector may be added to a matrix."""
    strict = jax.config.jax_numpy_rank_promotion
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    jax.config.update("jax_numpy_rank_promotion", strict)
