"""Runs by Newton's method: what their lines say, going on with it, without it and from it."""

import shutil
from pathlib import Path

import pytest

from .command import TINY, gru_jax, metrics, process, result

# Two rounds are too few for these eight steps, so that all sequences fall back and the numbers are those of the steps.
METHOD = "model.method={kind: newton, max_iters: 2}"
RUN = ("run", "config.yaml", "log.every=4")
KEYS = {"newton/iterations", "newton/iterations_max", "newton/residual", "newton/fell_back"}


def finish(folder: Path, out: str, *overrides: str) -> str:
    """Runs to the end; what went to standard error."""
    done = gru_jax(*RUN, "--out", out, *overrides, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert out != "newton" or "newton/fell_back" in done.stdout
    return done.stderr


def cut(folder: Path, source: str, out: str) -> Path:
    """A copy of a finished run as a kill after step 30 would have left it: two steps after a line of metrics."""
    run = Path(shutil.copytree(folder / source, folder / out))
    for step in (35, 36):
        shutil.rmtree(run / "ckpt" / str(step))
    (run / "result.json").unlink()
    (run / "STATUS").write_text("running\n")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config.yaml and a finished run in newton/."""
    folder = tmp_path_factory.mktemp("newton")
    (folder / "config.yaml").write_text(TINY)
    (warning,) = finish(folder, "newton", METHOD).splitlines()
    said = "warning: Newton: 512 of 512 sequences in steps 1 to 4 did not converge within 2 iterations"
    assert warning.startswith(said) and "model.method=sequential" in warning
    return folder


@pytest.mark.slow
def test_lines_and_result(folder: Path) -> None:
    lines = metrics(folder / "newton")
    train = [line for line in lines if "train/loss" in line]
    valid = [line for line in lines if "valid/loss" in line]
    assert len(train) == 9 and len(valid) == 6
    for line in train:
        assert set(line) - {"lr", "grad_norm", "train/loss", "train/accuracy", "step", "epoch", "examples"} == KEYS
    for line in valid:
        assert KEYS == {key.removeprefix("valid/") for key in line if "newton" in key}
    for line, prefix in [(line, "") for line in train] + [(line, "valid/") for line in valid]:
        assert line[f"{prefix}newton/iterations"] == line[f"{prefix}newton/iterations_max"] == 2
        assert line[f"{prefix}newton/fell_back"] == 1 and line[f"{prefix}newton/residual"] > 1e-6
    values = result(folder / "newton")
    assert values["test/newton/fell_back"] == 1 and values["newton/residual"] == train[-1]["newton/residual"]
    assert values["valid/newton/iterations"] == 2


@pytest.mark.slow
def test_goes_on_with_the_same_lines(folder: Path) -> None:
    cut(folder, "newton", "again")
    finish(folder, "again", METHOD)
    assert metrics(folder / "again") == metrics(folder / "newton")


@pytest.mark.slow
def test_goes_on_with_another_method(folder: Path) -> None:
    finish(folder, "steps")
    assert not any("newton" in key for line in metrics(folder / "steps") for key in line)
    for source, method in (("newton", "sequential"), ("steps", "newton")):
        run = cut(folder, source, f"{source}-{method}")
        done = gru_jax(*RUN, "--out", run, f"model.method={method}", cwd=folder)
        assert done.returncode == 0, done.stderr
        before = "newton" if source == "newton" else "auto"
        assert f"continuing with model.method.kind: '{before}' -> '{method}'" in done.stdout
        lines = metrics(run)
        assert lines[: len(lines) // 2] == metrics(folder / source)[: len(lines) // 2]
        for line in lines:
            has = any("newton" in key for key in line)
            assert has == ((source == "newton") == (line["step"] <= 30)), line
        for line, other in zip(lines, metrics(folder / "steps"), strict=True):
            assert {key: line[key] for key in other} == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_forks(folder: Path) -> None:
    finish(folder, "newton", METHOD, "--fork")
    lines = metrics(folder / "newton-2")
    assert KEYS <= set(lines[0])
    assert lines[0]["train/loss"] < metrics(folder / "newton")[0]["train/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data", "pmap"])
def test_eight_devices(strategy: str, folder: Path) -> None:
    overrides = ("model.method=newton", f"parallel.strategy={strategy}")
    for out, devices, method in (("one", 1, overrides[:1]), (strategy, 8, overrides)):
        if not (folder / out).exists():
            done = process(*RUN, "--out", out, *method, cwd=folder, devices=devices)
            assert done.returncode == 0 and done.stderr == "", done.stderr
    for one, eight in zip(metrics(folder / "one"), metrics(folder / strategy), strict=True):
        for key in one:
            bounds = {"rel": 1, "abs": 1} if "max" in key or "residual" in key else {"rel": 2e-2, "abs": 1e-4}
            assert one[key] == pytest.approx(eight[key], **bounds), key


@pytest.mark.slow
def test_nan_for_what_does_not_converge_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY)
    method = "model.method={kind: newton, max_iters: 2, fallback: nan}"
    ended = gru_jax(*RUN, "log.every=1", "--out", "out", method, cwd=tmp_path)
    assert ended.returncode == 4 and "Traceback" not in ended.stderr
    assert "warning: Newton: 128 of 128 sequences did not converge within 2 iterations and became NaN" in ended.stderr
    assert "not finite at step 1" in ended.stderr and not (tmp_path / "out" / "ckpt").exists()
