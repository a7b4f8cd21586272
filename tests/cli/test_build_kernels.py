"""`gru-jax build-kernels`."""

import subprocess
import sys
from pathlib import Path

import pytest

from gru_jax.scans.engines.cudnn import build

from .command import command, environment, gru_jax


def is_missing() -> bool:
    """Whether NVIDIA's packages, or a compiler, are not here."""
    try:
        build.find()
        build.compiler()
    except build.PartMissing:
        return True
    return False


def run(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command with variables of its own."""
    return subprocess.run(
        command("build-kernels", *arguments),
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.skipif(not is_missing(), reason="NVIDIA's packages are installed")
def test_says_what_is_missing(tmp_path: Path) -> None:
    done = gru_jax("build-kernels", cwd=tmp_path)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "gru-jax[cuda] brings it: pip install '.[cuda]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("extra",), "unknown argument 'extra'"), (("--int", "x"), "unknown argument '--int', did you mean '--into'?")],
)
def test_bad_usage(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    refused = gru_jax("build-kernels", *arguments, cwd=tmp_path)
    assert refused.returncode == 2 and said in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.skipif(is_missing(), reason="NVIDIA's packages are not installed, or no compiler is")
def test_builds_where_it_is_told(tmp_path: Path) -> None:
    first = run("--into", "here", cwd=tmp_path)
    assert first.returncode == 0 and first.stderr == ""
    (made,) = (tmp_path / "here").iterdir()
    assert f": built {made}\n" in first.stdout and f"GRU_JAX_CACHE={made.parent} lets gru_jax find it" in first.stdout
    assert f": there is {made}\n" in run(cwd=tmp_path, GRU_JAX_CACHE=str(made.parent)).stdout
    assert f": built {made}\n" in run("--force", cwd=tmp_path, GRU_JAX_CACHE=str(made.parent)).stdout


def home_of_nothing(root: Path) -> dict[str, str]:
    """CUDNN_HOME and CUDA_HOME with all that is looked for, but nothing in it."""
    names = ("include/cudnn.h", "include/cuda_runtime_api.h", "include/crt/host_defines.h", "lib/libcudnn.so.9")
    for name in (*names, "lib/libcudart.so.13"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "include" / "cudnn_version.h").write_text("#define CUDNN_MAJOR 9\n")
    return {"CUDNN_HOME": str(root), "CUDA_HOME": str(root)}


@pytest.mark.skipif(not is_missing(), reason="NVIDIA's own packages come first")
def test_what_fails_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home_of_nothing(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    for compiler, said in ((f"{sys.executable} --no-such-option", "failed with exit code"), ("none", "is no command")):
        monkeypatch.setenv("CXX", compiler)
        done = gru_jax("build-kernels", "--into", "here", cwd=tmp_path)
        assert done.returncode == (3 if compiler == "none" else 1) and done.stdout == ""
        assert said in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    monkeypatch.setenv("CXX", sys.executable)
    into = gru_jax("build-kernels", "--into", tmp_path / "home" / "include" / "cudnn.h", cwd=tmp_path)
    assert into.returncode == 1 and "cannot hold the library" in into.stderr
