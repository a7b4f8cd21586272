"""What goes wrong outside: bad configs, missing packages, full disks, losses that explode."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from gru_jax.runs import loop

from .command import TINY, command, environment, gru_jax, metrics, process, result, snapshot

RUN = ("run", "config.yaml", "--out", "out")


BAD_CONFIGS = [
    (TINY.replace("hidden", "hiden"), ["config.yaml:5:20: model.hiden: unknown key for kind 'gru'; did you mean"]),
    (TINY.replace("1e-2", "fast").replace("every: 3", "every: 0"), ["optim.lr", "log.every", "2 errors"]),
    (b"\x80\x81\x82", ["expected UTF-8 text"]),
    ("", ["is empty"]),
    ("a: [1", ["not valid YAML"]),
    (TINY + "seed: 4\n", ["config.yaml:10:1: seed: key is repeated (first on line 3)"]),
    (TINY.replace("seed: 3", "seed: !!python/object/apply:os.getpid []"), ["is not allowed"]),
    (None, ["config.yaml: no such file"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "content", "said"),
    [("run", *case) for case in BAD_CONFIGS] + [("check", *case) for case in BAD_CONFIGS[:2]],
)
def test_bad_config(verb: str, content: str | bytes | None, said: list[str], tmp_path: Path) -> None:
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "config.yaml").write_bytes(data)
    before = snapshot(tmp_path)
    refused = gru_jax(verb, "config.yaml", cwd=tmp_path)
    assert refused.returncode == 2 and refused.stdout == ""
    for part in said:
        assert part in refused.stderr
    assert refused.stderr.endswith("; nothing was started.\n")
    assert "Traceback" not in refused.stderr
    assert snapshot(tmp_path) == before and not (tmp_path / "runs").exists()


DEVICES = [
    (("parallel.strategy=data", "task.batch=33"), "task.batch: 33 does not split evenly over 8 devices"),
    (("parallel.strategy=time", "parallel.parts=3"), "parallel.parts: 8 devices do not make groups of 3"),
    (("parallel.strategy=time", "parallel.devices=5"), "the 8 steps of a sequence do not split evenly over 5 devices"),
    (("parallel.strategy=pmap", "parallel.devices=9"), "9 devices are asked for, and jax has 8; XLA_FLAGS=--xla_"),
]


@pytest.mark.parametrize(("overrides", "said"), DEVICES)
def test_devices_that_do_not_fit(overrides: tuple[str, ...], said: str, folder: Path) -> None:
    refused = gru_jax(*RUN, *overrides, cwd=folder)
    assert refused.returncode == 2
    assert said in refused.stderr and "1 error; nothing was started." in refused.stderr
    assert not (folder / "out").exists()


OUTS = [
    ("config.yaml", "is a file"),
    ("config.yaml/below", "cannot be written"),
    ("taken", "holds files but no run"),
    ("/proc/gru-jax", "cannot be written"),
    ("x" * 300, "File name too long"),
    ("dangling", "dangling is a link to nowhere, which does not exist"),
    ("foreign", "holds files but no run (first: .git)"),
]


@pytest.mark.parametrize(("out", "said"), OUTS)
def test_directory_that_cannot_be_used(out: str, said: str, folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.tex").write_text("mine")
    (folder / "foreign" / ".git").mkdir(parents=True)
    (folder / "dangling").symlink_to("nowhere")
    before = snapshot(folder)
    refused = gru_jax("run", "config.yaml", "--out", out, cwd=folder)
    assert refused.returncode == 2
    assert said in refused.stderr and "nothing was changed" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert snapshot(folder) == before


# Met while the config is read, which these tests have done long before; and where the run needs them.
FIRST = ["pydantic", pytest.param("yaml", marks=pytest.mark.slow)]


@pytest.mark.parametrize("package", [*FIRST, "orbax.checkpoint", "sklearn.datasets"])
def test_missing_package_names_the_extra(package: str, folder: Path) -> None:
    if package in ("pydantic", "yaml"):
        missing = process(*RUN, cwd=folder, before=f"sys.modules[{package!r}] = None")
    else:
        with mock.patch.dict(sys.modules, {package: None}):
            missing = gru_jax(*RUN, cwd=folder)
    assert missing.returncode == 3
    assert "pip install '.[experiments]'" in missing.stderr and "Traceback" not in missing.stderr
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_missing_matplotlib_costs_the_pictures_only(folder: Path) -> None:
    done = process(*RUN, "train.epochs=1", cwd=folder, before="sys.modules['matplotlib'] = None")
    assert done.returncode == 0
    assert "pictures were not drawn" in done.stderr
    assert result(folder / "out")["status"] == "done"


def test_nan_stops_with_4_and_keeps_the_last_good_checkpoint(folder: Path) -> None:
    at_boundary = loop.Loop._at_boundary

    def poison(self: loop.Loop, step: int, state: Any) -> Any:
        """The parameters become NaN before step 20: after the checkpoints of steps 5, 10 and 15."""
        state = yield from at_boundary(self, step, state)
        if step == 19:
            state = state._replace(params=jax.tree.map(lambda p: p * jnp.float32("nan"), state.params))
        return state

    with mock.patch.object(loop.Loop, "_at_boundary", poison):
        diverged = gru_jax(*RUN, cwd=folder)
    out = folder / "out"
    assert diverged.returncode == 4
    assert "the last good checkpoint, step 15, is kept" in diverged.stderr
    assert (out / "STATUS").read_text() == "diverged\n"
    assert sorted(int(path.name) for path in (out / "ckpt").iterdir()) == [5, 10, 15]
    assert result(out)["status"] == "diverged" and "test/loss" not in result(out)
    for line in metrics(out):
        assert all(math.isfinite(v) for v in line.values()) and line["step"] < 20
    again = gru_jax(*RUN, cwd=folder)
    assert again.returncode == 4 and "diverged" in again.stdout
    forked = gru_jax(*RUN, "--fork", cwd=folder)
    assert forked.returncode == 0, "the checkpoint that was kept can be started from"


@pytest.mark.slow
def test_a_huge_learning_rate_diverges(folder: Path) -> None:
    arguments = (*RUN, "optim.kind=sgd", "optim.lr=1e38", "optim.clip_norm=null")
    diverged = gru_jax(*arguments, "checkpoint.every=1 steps", cwd=folder)
    assert diverged.returncode == 4, diverged.stdout
    assert "not finite" in diverged.stderr and "Traceback" not in diverged.stderr


# Files may grow to so many bytes and no further, as on a disk that is full.
@pytest.mark.slow
@pytest.mark.parametrize("limit", [500, 3000])
def test_full_disk_loses_nothing(limit: int, folder: Path) -> None:
    full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    # The cache of compiled programs would meet the limit too, and says so on standard error.
    failed = process(*RUN, cwd=folder, before=full, JAX_ENABLE_COMPILATION_CACHE="false")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "error: " in failed.stderr and "Traceback" not in failed.stderr, failed.stderr
    out = folder / "out"
    leftovers = [path for path in out.rglob("*") if ".tmp" in path.name or ".writing" in path.name]
    assert leftovers == []
    done = gru_jax(*RUN, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in metrics(out)] == sorted(line["step"] for line in metrics(out))


@pytest.mark.slow
def test_closed_output_ends_quietly(folder: Path) -> None:
    started = subprocess.Popen(
        command(*RUN, "train.epochs=1"),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.stdout.close()
    stderr = started.stderr.read()
    started.stderr.close()
    assert started.wait(timeout=120) == 0, stderr
    assert stderr == ""
    assert result(folder / "out")["status"] == "done"


ABACUS = "Unknown backend: 'abacus' requested, but no platforms that are instances of abacus are present. (set ...)"


@pytest.mark.parametrize("of_jax_itself", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_device(of_jax_itself: bool, folder: Path) -> None:
    if of_jax_itself:
        failed = process(*RUN, cwd=folder, JAX_PLATFORMS="abacus")
    else:
        with mock.patch.object(jax, "devices", side_effect=RuntimeError(ABACUS)):
            failed = gru_jax(*RUN, cwd=folder)
    assert failed.returncode == 1
    assert "jax finds no device" in failed.stderr and "Traceback" not in failed.stderr
    assert not (folder / "out").exists()


STRICT = {
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DEBUG_NANS": "1",
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["single", "pmap"])
def test_strictest_settings_of_jax(strategy: str, folder: Path) -> None:
    arguments = (*RUN, "train.epochs=1", "optim.schedule.kind=cosine", f"parallel.strategy={strategy}")
    done = process(*arguments, cwd=folder, PYTHONWARNINGS="error", **STRICT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_read_only_home_and_no_git(folder: Path) -> None:
    lean = {"HOME": "/nonexistent", "PATH": os.path.dirname(sys.executable)}
    done = process(*RUN, "train.epochs=1", cwd=folder, **lean)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
