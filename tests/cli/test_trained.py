"""A trained model gives in Python the numbers that its run wrote."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.runs import load_trained
from gru_jax.runs.on_disk.checkpoint import CheckpointError
from gru_jax.runs.on_disk.run_directory import RunError

from .command import TINY, result


def test_best_parameters_of_a_run(copy: Path) -> None:
    out = copy / "out"
    config, model, params = load_trained.load(out)
    test = config.task.load(config.data_root).test
    logits = model.apply(params, jnp.asarray(test.x), deterministic=True)
    assert np.mean(np.asarray(logits.argmax(axis=-1)) == test.y) == pytest.approx(result(out)["test/accuracy"])
    wrote = result(out)
    for split in ("test", "valid"):
        metrics = load_trained.evaluate_run(out, split)
        names = ("loss", "accuracy", "macro_f1", "balanced_accuracy", "auc")
        assert set(metrics) == {f"{split}/{name}" for name in names}
        # Of the validation split a run says what it has looked at on its way.
        there = {key: value for key, value in metrics.items() if split == "test" or key in wrote}
        assert there == pytest.approx({key: wrote[key] for key in there}, rel=1e-6)
    for file in (out / "ckpt").rglob("sha256.json"):
        file.unlink()
    for read in (load_trained.load, load_trained.evaluate_run):
        with pytest.raises(CheckpointError, match="torn"):
            read(out)
    (out / "ckpt").rename(out / "elsewhere")
    for read in (load_trained.load, load_trained.evaluate_run):
        with pytest.raises(RunError, match="holds no checkpoint yet"):
            read(out)


def test_no_run(tmp_path: Path) -> None:
    for read in (load_trained.load, load_trained.evaluate_run):
        with pytest.raises(RunError, match="holds no run"):
            read(tmp_path)


def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Saved:
        meta = {"fingerprint": "of other data"}

    config = tmp_path / "config.yaml"
    config.write_text(TINY)
    monkeypatch.setattr("gru_jax.runs.resume.checkpoint.restore", lambda *_: (Saved, []))
    with pytest.raises(RunError, match=r"the data are not those.*of other data.*--data-root"):
        load_trained.evaluate_run(tmp_path)
