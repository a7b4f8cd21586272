"""`gru-jax run` from start to finish, and everything that the same command does afterwards."""

import json
import shutil
from pathlib import Path

import pytest

from .command import STEPS, TINY, gru_jax, metrics, process, result, snapshot


def test_directory_holds_what_it_should(finished: Path) -> None:
    out = finished / "out"
    names = {path.name for path in out.iterdir()} - {".lock"}
    assert names == {
        *("config.yaml", "source.yaml", "env.json", "metrics.jsonl", "result.json", "STATUS"),
        *("ckpt", "plots"),
    }
    assert (out / "STATUS").read_text() == "done\n"
    assert sorted(int(path.name) for path in (out / "ckpt").iterdir()) == [30, 35, STEPS]
    for name in ("curves.png", "gates.png"):
        assert (out / "plots" / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (out / "source.yaml").read_text() == TINY
    env = json.loads((out / "env.json").read_text())
    assert env["devices"] == 1 and env["packages"]["jax"] and env["argv"][1] == "run"


def test_result(finished: Path) -> None:
    values = result(finished / "out")
    assert values["status"] == "done"
    assert values["steps"] == values["total_steps"] == STEPS
    # GRU: 3 gates of (8 x 8 + 8 x 8 + 2 x 8), head: 8 x 10 + 10.
    assert values["params"] == 3 * (8 * 8 + 8 * 8 + 2 * 8) + 8 * 10 + 10
    assert 0.1 < values["test/accuracy"] <= 1 and values["test/loss"] > 0
    assert values["wall_s"] > 0 and values["compile_s"] > 0
    assert "compil" in values["wall_s_is"]
    assert "353 test" in values["task"]


def test_metrics(finished: Path) -> None:
    lines = metrics(finished / "out")
    train = [line["step"] for line in lines if "train/loss" in line]
    valid = [line["step"] for line in lines if "valid/loss" in line]
    assert STEPS == 36
    assert train == [*range(3, 37, 3)]
    assert valid == [7, 14, 21, 28, 35, 36]
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert lines[-1]["examples"] == STEPS * 128
    best = min((line["valid/loss"], line["step"]) for line in lines if "valid/loss" in line)
    values = result(finished / "out")
    assert best == (values["valid/loss"], values["best_step"])


def test_again_prints_the_result_and_touches_nothing(copy: Path) -> None:
    before = snapshot(copy)
    again = gru_jax("run", "config.yaml", "--out", "out", cwd=copy)
    assert again.returncode == 0 and again.stderr == ""
    assert "this run is finished" in again.stdout
    assert f"{result(copy / 'out')['test/accuracy']:.4f}" in again.stdout
    assert snapshot(copy) == before


@pytest.mark.slow
def test_resolved_config_is_rerunnable_and_gives_the_same_numbers(copy: Path) -> None:
    done = process("run", "out/config.yaml", "--out", "again", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert metrics(copy / "again") == metrics(copy / "out")


FROZEN = [
    ("model.hidden=9", "model.hidden: was 8, now 9"),
    ("optim.lr=0.5", "optim.lr: was 0.01, now 0.5"),
    ("task.view=pixels", "task.view: was 'rows', now 'pixels'"),
    ("seed=4", "seed: was 3, now 4"),
    ("train.epochs=2", "train.epochs: was 4, now 2"),
]


def test_changed_keys_are_refused_with_both_values(copy: Path) -> None:
    before = snapshot(copy / "out")
    overrides = [override for override, _ in FROZEN]
    refused = gru_jax("run", "config.yaml", "--out", "out", *overrides, cwd=copy)
    assert refused.returncode == 2
    for _, said in FROZEN:
        assert said in refused.stderr
    assert "--fresh" in refused.stderr and "Traceback" not in refused.stderr
    assert snapshot(copy / "out") == before


@pytest.mark.slow
def test_default_directory_fresh_and_fork(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY)
    short = ("run", "config.yaml", "train.epochs=1")
    for number, extra in enumerate([(), ("--fresh",), ("--fork",)], start=1):
        done = gru_jax(*short, *extra, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = sorted(path.name for path in (tmp_path / "runs" / "tiny").iterdir())
        assert len(found) == number
    first, fresh, fork = found
    assert first.endswith("-s3") and len(first) == len("01234567-s3")
    assert (fresh, fork) == (f"{first}-2", f"{first}-3")
    runs = [tmp_path / "runs" / "tiny" / name for name in found]
    assert metrics(runs[0]) == metrics(runs[1])
    losses = [metrics(run)[0]["train/loss"] for run in runs]
    assert (runs[2] / "ckpt" / "0").is_dir(), "a kill must not lose what the fork started from"
    assert losses[2] < losses[0], "the fork starts from trained parameters"
    misfit = gru_jax(*short, "model.hidden=9", "--out", runs[0], "--fork", cwd=tmp_path)
    assert misfit.returncode == 2 and "do not fit" in misfit.stderr
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 3


@pytest.mark.slow
def test_more_epochs_continue_a_finished_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY)
    base = ("run", "config.yaml", "train.eval_every=1 epoch", "log.every=9")
    for epochs in (1, 3):
        done = gru_jax(*base, f"train.epochs={epochs}", "--out", "grown", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "continuing with train.epochs: 1 -> 3" in done.stdout
    assert "resuming at step 9 of 27" in done.stdout
    at_once = gru_jax(*base, "train.epochs=3", "--out", "whole", cwd=tmp_path)
    assert at_once.returncode == 0
    assert metrics(tmp_path / "grown") == metrics(tmp_path / "whole")
    assert result(tmp_path / "grown")["test/loss"] == result(tmp_path / "whole")["test/loss"]


@pytest.mark.slow
def test_free_keys_continue_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY)
    first = gru_jax("run", "config.yaml", "train.epochs=1", "--out", "out", cwd=tmp_path)
    assert first.returncode == 0
    done = process(
        *("run", "config.yaml", "train.epochs=2", "--out", "out", "log.every=2"),
        *("checkpoint.keep=1", "parallel.strategy=data"),
        cwd=tmp_path,
        devices=4,
    )
    assert done.returncode == 0, done.stderr
    for note in ("log.every: 3 -> 2", "checkpoint.keep: 3 -> 1", "strategy: 'single' -> 'data'"):
        assert note in done.stdout
    assert len(list((tmp_path / "out" / "ckpt").iterdir())) == 1
    assert result(tmp_path / "out")["devices"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data", pytest.param("pmap", marks=pytest.mark.slow)])
def test_eight_devices_give_the_numbers_of_one(strategy: str, copy: Path) -> None:
    out = f"out-{strategy}"
    arguments = ("run", "config.yaml", f"parallel.strategy={strategy}", "--out", out)
    done = process(*arguments, cwd=copy, devices=8)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert result(copy / out)["devices"] == 8
    for one, eight in zip(metrics(copy / "out"), metrics(copy / out), strict=True):
        assert one == pytest.approx(eight, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_early_stop(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY)
    arguments = ("run", "config.yaml", "optim.lr=1e-9", "train.early_stop.metric=valid/accuracy")
    done = gru_jax(*arguments, "train.early_stop.patience=2", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = result(tmp_path / "out")
    assert values["stopped_early"] and values["steps"] == 21 and values["best_step"] == 7
    again = gru_jax(*arguments, "train.early_stop.patience=2", "--out", "out", cwd=tmp_path)
    assert again.returncode == 0 and "this run is finished" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "again"), [(".", "--fresh"), pytest.param("ckpt/..", "--fork", marks=pytest.mark.slow)]
)
def test_a_new_directory_stands_beside_the_run(out: str, again: str, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished / "out", tmp_path / "run")
    done = gru_jax("run", "config.yaml", again, "--out", out, cwd=run)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "run-2")["status"] == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
    assert snapshot(run) == snapshot(finished / "out")


@pytest.mark.slow
def test_output_in_ascii(folder: Path) -> None:
    arguments = ("run", "config.yaml", "train.epochs=1", "--out", "größe")
    done = process(*arguments, cwd=folder, text=False, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"run directory: gr??e" in done.stdout and b"test/accuracy" in done.stdout
