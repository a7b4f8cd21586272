"""A trained model gives in Python the numbers that its run wrote."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.training import trained
from gru_jax.training.checkpoint import CheckpointError
from gru_jax.training.run_directory import RunError

from .command import TINY, gru_jax, result


def test_best_parameters_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY)
    out = tmp_path / "out"
    done = gru_jax("run", "config.yaml", "train.epochs=1", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config, model, params = trained.load(out)
    test = config.task.load(config.data_root).test
    logits = model.apply(params, jnp.asarray(test.x), deterministic=True)
    assert np.mean(np.asarray(logits.argmax(axis=-1)) == test.y) == pytest.approx(result(out)["test/accuracy"])
    for file in (out / "ckpt").rglob("sha256.json"):
        file.unlink()
    with pytest.raises(CheckpointError, match="torn"):
        trained.load(out)
    (out / "ckpt").rename(out / "elsewhere")
    with pytest.raises(RunError, match="holds no checkpoint yet"):
        trained.load(out)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        trained.load(tmp_path)
