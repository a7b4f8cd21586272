"""A run in bfloat16 by the command: gone on with, evaluated, read, and started from."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from gru_jax.runs import load_trained

from .command import TINY, gru_jax, metrics, result


@pytest.mark.slow
def test_a_run_goes_on_is_evaluated_and_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY + "precision: {params: bfloat16, compute: bfloat16}\n")
    whole = gru_jax("run", "config.yaml", "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0 and whole.stderr == ""
    for epochs in (2, 4):
        again = gru_jax("run", "config.yaml", f"train.epochs={epochs}", "--out", "parts", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
    # But for where the shorter run ended, with an evaluation.
    by_step = {(line["step"], "valid/loss" in line): line for line in metrics(tmp_path / "parts")}
    kept = metrics(tmp_path / "whole")
    assert [by_step[line["step"], "valid/loss" in line] for line in kept][-1] == kept[-1]
    evaluated = gru_jax("eval", "whole", cwd=tmp_path)
    found = result(tmp_path / "whole")
    assert f"test/accuracy: {found['test/accuracy']}" in evaluated.stdout and found["test/accuracy"] > 0.2
    made, model, params = load_trained.load(tmp_path / "whole")
    test = made.task.load(None).test
    logits = model.apply(params, jnp.asarray(test.x), deterministic=True)
    assert logits.dtype == jnp.float32 and {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert float((logits.argmax(axis=-1) == test.y).mean()) == pytest.approx(found["test/accuracy"], abs=0.01)
    forked = gru_jax("run", "config.yaml", "precision.params=float32", "--fork", "--out", "whole", cwd=tmp_path)
    assert forked.returncode == 0, forked.stderr
    frozen = gru_jax("run", "config.yaml", "precision.params=float32", "--out", "whole", cwd=tmp_path)
    assert frozen.returncode == 2 and "precision.params" in frozen.stderr
