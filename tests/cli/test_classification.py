"""Classes from one's own files, from the table to the scores; what `eval` writes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from .command import gru_jax, metrics, result


def test_eval_says_all_in_json_and_writes_predictions(copy: Path) -> None:
    done = gru_jax("eval", "out", "--json", "--predictions", "said.csv", cwd=copy)
    assert done.returncode == 0 and done.stderr == ""
    said = json.loads(done.stdout)
    wrote = result(copy / "out")
    assert said["metrics"] == pytest.approx({key: value for key, value in wrote.items() if key.startswith("test/")})
    assert len(said["metrics"]) == 5
    counts = np.array(said["confusion"])
    assert counts.shape == (10, 10) and said["classes"] == list("0123456789")
    assert counts.trace() / counts.sum() == pytest.approx(wrote["test/accuracy"])
    with (copy / "said.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sequence"]) for row in rows] == list(range(353))
    assert np.mean([row["true"] == row["predicted"] for row in rows]) == pytest.approx(wrote["test/accuracy"])
    shares = np.array([[float(row[f"p_{digit}"]) for digit in range(10)] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert [row["predicted"] for row in rows] == list(map(str, shares.argmax(1)))
    refused = gru_jax("eval", "out", "--predictions", "nowhere/said.csv", cwd=copy)
    assert refused.returncode == 2 and "nowhere is no directory; make it first" in refused.stderr
    train = gru_jax("eval", "out", "--split", "train", cwd=copy)
    assert train.returncode == 0 and train.stdout.startswith("train/loss: ")


CONFIG = """\
schema: 1
name: steps
task: {kind: sequences, file: steps.csv, time: time, batch: 16}
model: {kind: gru, hidden: 16, pool: mean}
optim: {kind: adam, lr: 1e-2, clip_norm: 1.0}
train:
  epochs: 12
  class_weights: balanced
  label_smoothing: 0.05
  early_stop: {metric: valid/macro_f1, patience: 12}
"""
KINDS = {"walk": 0.8, "stumble": 0.12, "fall": 0.08}


def write_steps(folder: Path) -> None:
    """200 sequences of 5 to 400 steps in three unequal classes, one long table."""
    rng = np.random.default_rng(0)
    with (folder / "steps.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["id", "time", "ax", "ay", "label"])
        for number in range(200):
            label = rng.choice(list(KINDS), p=list(KINDS.values()))
            t = np.arange([5, 400][number] if number < 2 else rng.integers(5, 401))
            ax, ay = np.sin([0.3 * t, 0.3 * t + 1.5]) + rng.normal(0, 0.3, (2, len(t)))
            ax += label == "stumble"
            ay -= label == "fall"
            for at, *numbers in zip(t, ax, ay, strict=True):
                table.writerow([f"s{number}", at, *(f"{each:.3f}".replace(".", ",") for each in numbers), label])


@pytest.mark.slow
def test_unequal_classes_from_a_table_to_their_scores(tmp_path: Path) -> None:
    write_steps(tmp_path)
    (tmp_path / "steps.yaml").write_text(CONFIG)
    done = gru_jax("run", "steps.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "of 5 to 400 steps of 2, each sequence of one of 3 classes (fall, stumble, walk)" in done.stdout
    found = result(tmp_path / "out")
    lines = [line["valid/macro_f1"] for line in metrics(tmp_path / "out") if "valid/macro_f1" in line]
    assert len(lines) == 12 and found["valid/macro_f1"] == max(lines)
    assert found["best_step"] == (1 + lines.index(max(lines))) * found["total_steps"] // 12
    assert found["test/macro_f1"] > 0.8 and found["test/auc"] > 0.9 and found["classes"] == ["fall", "stumble", "walk"]
    assert f"{found['test/macro_f1']:.4f}" in done.stdout
    picture = tmp_path / "out/plots/confusion.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()
    assert gru_jax("plot", "out", cwd=tmp_path).returncode == 0 and picture.exists()
    evaluated = gru_jax("eval", "out", "--json", "--predictions", "said.csv", cwd=tmp_path)
    said = json.loads(evaluated.stdout)
    assert said["metrics"]["test/macro_f1"] == pytest.approx(found["test/macro_f1"])
    assert np.array(said["confusion"]).sum(1).min() > 0
    with (tmp_path / "said.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["true"] for row in rows} == set(KINDS) and all(row["id"].startswith("s") for row in rows)
    # Without its file a run can still be looked at, not evaluated.
    (tmp_path / "steps.csv").unlink()
    refused = gru_jax("eval", "out", cwd=tmp_path)
    assert refused.returncode == 3 and "no such data file" in refused.stderr


@pytest.mark.slow
def test_a_stack_weighs_classes_as_a_run_alone_does(tmp_path: Path) -> None:
    write_steps(tmp_path)
    short = CONFIG.replace("epochs: 12", "epochs: 1")
    (tmp_path / "steps.yaml").write_text(short + "sweep: {optim.lr: [1e-3, 1e-2]}\n")
    assert gru_jax("sweep", "steps.yaml", cwd=tmp_path).returncode == 0
    assert gru_jax("run", "steps.yaml", "--out", "alone", cwd=tmp_path).returncode == 0
    alone = result(tmp_path / "alone")
    stacked = [each for each in map(result, (tmp_path / "runs/steps").glob("*-s0")) if each["lr"] == alone["lr"]]
    assert len(stacked) == 1 and stacked[0]["config_hash"] == alone["config_hash"]
    for name in ("train/loss", "valid/loss", "valid/macro_f1", "test/loss", "test/auc", "test/macro_f1"):
        np.testing.assert_allclose(stacked[0][name], alone[name], rtol=2e-3)


def test_balanced_weights_of_generated_classes_are_refused(tmp_path: Path) -> None:
    config = CONFIG.replace("{kind: sequences, file: steps.csv, time: time, batch: 16}", "{kind: copying, blank: 4}")
    (tmp_path / "made.yaml").write_text(config.replace(", pool: mean", ""))
    refused = gru_jax("run", "made.yaml", "--out", "out", cwd=tmp_path)
    assert refused.returncode == 2 and not (tmp_path / "out").exists()
    said = "made.yaml:8:18: train.class_weights: 'balanced' counts the classes of the training data, and these are"
    assert said in refused.stderr
