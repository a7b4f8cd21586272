"""`gru-jax export` on a run that is finished."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import runs
from gru_jax.cli import arguments
from gru_jax.runs.exporting import read_safetensors, writing

from .command import PACKAGE_ROOT, gru_jax


def test_a_run_as_onnx(finished: Path, tmp_path: Path) -> None:
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    done = gru_jax("export", finished / "out", "--to", "onnx", "--out", "model.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith("max difference ") and first.endswith(" on 32 test sequences") and second == "model.onnx"
    config, model, params = runs.load(finished / "out")
    test = config.task.load(config.data_root).test
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": test.x})
    result = json.loads((finished / "out" / "result.json").read_text())
    assert np.mean(logits.argmax(-1) == test.y) == pytest.approx(result["test/accuracy"])
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert about["target"] == "class" and about["data"].startswith("digits as 8 steps of 8, 10 classes")
    assert json.loads(about["config"]) == config.resolved()


def test_parameters_of_a_run_come_back(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    words = ("--to", "safetensors", "--out", tmp_path / "model.safetensors")
    done = gru_jax("export", finished / "out", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "max difference 0e+00 on 32 test sequences" in done.stdout
    _, _, params = runs.load(finished / "out")
    _, back = read_safetensors(tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_a_package_that_is_missing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = gru_jax("export", finished / "out", "--to", "torch", "--out", "model.pt", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("error: torch is not installed; gru-jax[interop] brings it: pip install '.[interop]'")
    assert not list(tmp_path.iterdir())


def test_the_command_knows_every_format() -> None:
    assert (arguments.EXPORTED, arguments.PLATFORMS) == (tuple(writing.FORMATS), writing.PLATFORMS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("out", "--to", "onnx", "--out", "model.onnx"), "error: out holds no run"),
        (("out", "--to", "onxx", "--out", "model.onnx"), "invalid choice: 'onxx'"),
        (("out", "--to", "stablehlo", "--out", "m", "--platforms", "gpu"), "among cuda, rocm, tpu, got 'gpu'"),
        (("out", "--to", "onnx"), "the following arguments are required: --out"),
    ],
)
def test_wrong_words(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    refused = gru_jax("export", *words, cwd=tmp_path)
    assert refused.returncode == 2 and said in refused.stderr and refused.stdout == ""


@pytest.mark.slow
def test_a_trained_run_of_two_layers_both_ways_in_onnxruntime(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    config = PACKAGE_ROOT / "configs" / "digits" / "bigru.yaml"
    done = gru_jax("run", config, "model.layers=2", "train.epochs=2", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = gru_jax("export", "run", "--to", "onnx", "--out", "bi.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trained = runs.load(tmp_path / "run")
    x = np.asarray(trained.config.task.load(None).test.x[:50])
    wanted = trained.model.apply(trained.params, jnp.asarray(x), deterministic=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "bi.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    assert np.abs(found - wanted).max() < 1e-5 and np.abs(wanted).max() > 1
