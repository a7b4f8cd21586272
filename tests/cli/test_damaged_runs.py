"""Files of a run that something else has damaged: one line says which, and nothing is changed."""

import shutil
from pathlib import Path

import pytest

from .command import gru_jax, metrics, result, snapshot

RUN = ("run", "config.yaml", "--out", "out")


MORE = (*RUN, "train.epochs=5")
DAMAGED = [
    (RUN, "STATUS", b"\xff\xfe", "out/STATUS is damaged"),
    (RUN, "STATUS", b"dome\n", "it holds 'dome', none of running, done, preempted, diverged"),
    (RUN, "STATUS", None, "out/STATUS is a directory, where a run keeps a file"),
    (MORE, "metrics.jsonl", b'{"step": 3}\n\xff\n', "out/metrics.jsonl is damaged: byte 12 is not UTF-8"),
    (MORE, "metrics.jsonl", None, "out/metrics.jsonl is a directory"),
    (MORE, "ckpt", b"", "out/ckpt is a file, where a run keeps a directory"),
    (("plot", "out"), "metrics.jsonl", b"\xff", "out/metrics.jsonl is damaged"),
]


@pytest.mark.parametrize(("arguments", "name", "content", "said"), DAMAGED)
def test_damaged_file_is_named(
    arguments: tuple[str, ...], name: str, content: bytes | None, said: str, copy: Path
) -> None:
    path = copy / "out" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    lock = copy / "out" / ".lock"
    lock.unlink()
    before = snapshot(copy)
    refused = gru_jax(*arguments, cwd=copy)
    lock.unlink(missing_ok=True)
    assert refused.returncode == 1
    assert said in refused.stderr and refused.stderr.endswith("\nnothing was changed.\n")
    assert len(refused.stderr.splitlines()) == 2
    assert snapshot(copy) == before


SLOWLY = [pytest.param(content, marks=pytest.mark.slow) for content in (b"{}", b"[]", b"\xff")]


@pytest.mark.parametrize("content", [*SLOWLY, None])
def test_damaged_result_is_computed_again(content: bytes | None, copy: Path) -> None:
    path, lost = copy / "out" / "result.json", result(copy / "out")
    damaged = path.read_bytes().replace(b'"total_steps": 36', b'"total_steps": "36"') if content is None else content
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    before = metrics(copy / "out")
    done = gru_jax(*RUN, cwd=copy)
    assert done.returncode == 0, done.stderr
    again = result(copy / "out")
    assert {key for key in again if again[key] != lost[key]} <= {"wall_s", "compile_s"}
    assert metrics(copy / "out") == before


@pytest.mark.slow
def test_missing_lines_of_metrics_are_noticed(copy: Path) -> None:
    (copy / "out" / "metrics.jsonl").write_text('{"step": 3}\n')
    done = gru_jax(*MORE, cwd=copy)
    assert done.returncode == 0
    assert done.stderr == "warning: out/metrics.jsonl has 1 of the 18 lines up to step 36\n"
