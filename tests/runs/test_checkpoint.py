"""Checkpoints: what is saved comes back, what is torn is skipped, what is not finite is refused."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint, CheckpointError, NotFinite

PARAMS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": (np.float32(1.5),)}
STATE = {"params": PARAMS, "step": np.int32(4), "seed": np.uint32(2**32 - 1), "nothing": ()}


def make(step: int, **meta: Any) -> Checkpoint:
    state = STATE | {"step": np.int32(step)}
    return Checkpoint(step, state, {"w": PARAMS["w"] + step, "b": PARAMS["b"]}, meta)


def save(folder: Path, *steps: int, keep: int = 10) -> None:
    for step in steps:
        checkpoint.save(folder, make(step, note="x"), keep)


def restore(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    return checkpoint.restore(folder, STATE, PARAMS)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved = make(7, history={"best": {"valid/loss": 0.1}}, fingerprint="ab")
    checkpoint.save(tmp_path / "ckpt", saved, keep=1)
    found, warnings = restore(tmp_path / "ckpt")
    assert warnings == [] and found is not None
    assert found.step == 7 and found.meta == saved.meta
    np.testing.assert_array_equal(found.state["params"]["w"], PARAMS["w"])
    np.testing.assert_array_equal(found.best_params["w"], PARAMS["w"] + 7)
    assert found.state["seed"] == 2**32 - 1 and found.state["seed"].dtype == np.uint32
    assert found.state["nothing"] == ()


def test_no_candidates_is_a_fresh_start(tmp_path: Path) -> None:
    assert restore(tmp_path / "ckpt") == (None, [])


def test_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 15, 100, keep=2)
    assert checkpoint.steps(tmp_path) == [100, 15]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["100", "15"]


def files_of(step: Path) -> list[str]:
    return sorted(str(p.relative_to(step)) for p in step.rglob("*") if p.is_file())


def tear(path: Path, how: str) -> None:
    if how == "delete":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif how == "garbage":
        path.write_bytes(os.urandom(max(64, path.stat().st_size)))


@pytest.mark.parametrize("how", ["delete", "empty", "half", "garbage"])
def test_torn_newest_is_skipped(how: str, tmp_path: Path) -> None:
    save(tmp_path / "good", 5, 10)
    names = files_of(tmp_path / "good" / "10")
    assert len(names) > 5
    for name in names:
        folder = tmp_path / "torn"
        shutil.copytree(tmp_path / "good", folder)
        before = (folder / "10" / name).read_bytes()
        tear(folder / "10" / name, how)
        found, warnings = restore(folder)
        untouched = (folder / "10" / name).exists() and (folder / "10" / name).read_bytes() == before
        assert found is not None
        if untouched:  # some files are empty from the start
            assert found.step == 10 and warnings == []
        else:
            assert found.step == 5 and len(warnings) == 1, name
            assert "10 is torn, skipped" in warnings[0]
        shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["empty directory", "other shapes"])
def test_when_none_loads_it_stops(what: str, tmp_path: Path) -> None:
    if what == "empty directory":
        (tmp_path / "5").mkdir()
    else:
        save(tmp_path, 5)
    other = {"w": np.zeros((4, 4), np.float32), "b": (np.float32(0),)}
    before = files_of(tmp_path)
    with pytest.raises(CheckpointError, match="never restarted from step 0"):
        checkpoint.restore(tmp_path, STATE | {"params": other}, other)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(bad: float, tmp_path: Path) -> None:
    save(tmp_path, 5)
    poisoned = make(10)
    poisoned.state["params"] = PARAMS | {"w": np.full((2, 3), bad, np.float32)}
    with pytest.raises(NotFinite):
        checkpoint.save(tmp_path, poisoned, keep=1)
    assert checkpoint.steps(tmp_path) == [5]


def test_a_failed_write_keeps_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5)

    class Full:
        def save(self, *args: object, **options: object) -> None:
            raise RuntimeError("RESOURCE_EXHAUSTED: no space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(checkpoint, "_checkpointer", lambda _: Full())
    with pytest.raises(OSError, match="could not be written: RESOURCE_EXHAUSTED"):
        checkpoint.save(tmp_path, make(10), keep=1)
    monkeypatch.undo()
    found, warnings = restore(tmp_path)
    assert found is not None and found.step == 5 and warnings == []


def test_leftovers_of_a_kill_are_no_candidates(tmp_path: Path) -> None:
    save(tmp_path, 5)
    for name in ("10.writing", "10.writing.orbax-checkpoint-tmp-123", "3.removed"):
        (tmp_path / name).mkdir()
    found, warnings = restore(tmp_path)
    assert found is not None and found.step == 5 and warnings == []
    checkpoint.clean(tmp_path, continued_from=5)
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_torn_ones_do_not_count_as_kept(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "10").mkdir()
    found, _ = restore(tmp_path)
    assert found is not None
    checkpoint.clean(tmp_path, continued_from=found.step)
    save(tmp_path, 7, keep=1)
    assert checkpoint.steps(tmp_path) == [7]
