"""Watching runs from the command line: TensorBoard, wandb, the profiler, and curves against what one likes."""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from ..runs.event_files import scalars
from ..sweeps.sweeps import CONFIG, folder_with, sweep
from .command import ONLY_READS, TINY, gru_jax, process, snapshot

RUN = ("run", "config.yaml", "--out", "out")
WATCHED = TINY.replace("{every: 3}", "{every: 3, tensorboard: true, profile: {start_step: 7, num_steps: 2}}")

# Between two checkpoints, after a line of training and one of validation; both are handed on before the kill.
KILL = """
import os, signal
from gru_jax.runs.watching.watchers import Watchers
write = Watchers.write
def cut(self, line):
    write(self, line)
    if line["step"] == 14:
        os.kill(os.getpid(), signal.SIGKILL)
Watchers.write = cut
"""


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value), as `metrics.jsonl` has them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        for key in line.keys() - {"step"}:
            found.setdefault(key, []).append((line["step"], float(np.float32(line[key]))))
    return found


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in out/ that was killed at step 14, after the checkpoint of step 10."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "config.yaml").write_text(WATCHED)
    cut = process(*RUN, cwd=folder, before=KILL, **ONLY_READS)
    assert cut.returncode == -9, cut.stderr
    assert f"trace of steps 8 to 9: {Path('out') / 'profile'}" in cut.stdout
    assert "xprof --logdir" in cut.stdout
    return folder


@pytest.mark.slow
def test_killed_and_continued_every_reader_sees_every_step_once(killed: Path) -> None:
    out = killed / "out"
    assert max(step for step, _ in scalars(out)["valid/loss"]) == 14
    traces = snapshot(out / "profile")
    assert any(name.endswith(".xplane.pb") for name in traces)
    done = gru_jax(*RUN, cwd=killed)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "no trace: the run goes on at step 10, past log.profile.start_step 7" in done.stdout
    assert scalars(out) == shown(out)
    assert snapshot(out / "profile") == traces
    done = gru_jax("plot", "out", "--out", "both.svg", cwd=killed)
    assert done.returncode == 0, done.stderr
    both = (killed / "both.svg").read_text()
    assert ">training step</text>" in both and ">training, seconds</text>" in both
    done = gru_jax("plot", "out", "--out", "one.svg", "--x", "epoch", cwd=killed)
    assert done.returncode == 0, done.stderr
    one = (killed / "one.svg").read_text()
    assert ">epoch</text>" in one and ">training step</text>" not in one and "seconds" not in one


BAD_PLOTS = [
    (("--x", "time"), "--x is of the picture of all runs; name it with --out PICTURE"),
    (("--x", "hours", "--out", "a.png"), "invalid choice: 'hours'"),
    (("--xx", "time"), "unknown argument '--xx', did you mean '--x'?"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD_PLOTS)
def test_plot_against_what(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    refused = gru_jax("plot", ".", *arguments, cwd=tmp_path)
    assert refused.returncode == 2 and said in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("verb", "package", "override"),
    [
        ("run", "tensorboardX", "log.tensorboard=true"),
        ("run", "wandb", "log.wandb.project=p"),
        ("sweep", "tensorboardX", "log.tensorboard=true"),
    ],
)
def test_a_missing_package_is_said_before_anything_is_written(
    verb: str, package: str, override: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(TINY + "sweep: {seed: 0-1}\n")
    before = snapshot(tmp_path)
    with mock.patch.dict(sys.modules, {package: None}):
        missing = gru_jax(verb, "config.yaml", override, cwd=tmp_path)
    assert missing.returncode == 3
    fix = "gru-jax[watch] brings it: pip install '.[watch]' in a clone"
    assert missing.stderr.endswith(f"error: {package} is not installed; {fix}\n") and "Traceback" not in missing.stderr
    assert snapshot(tmp_path) == before and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_sweep_is_watched_run_by_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace("{every: 3}", "{every: 3, tensorboard: true}")
    folder_with(tmp_path, monkeypatch, "{optim.lr: [3e-3, 1e-2]}", config)
    assert sweep() == 0
    runs = sorted(tmp_path.glob("runs/tiny/*-s0"))
    assert len(runs) == 2 and scalars(runs[0]) != scalars(runs[1])
    for run in runs:
        assert scalars(run) == shown(run)


@pytest.mark.slow
def test_a_killed_sweep_that_is_watched(tmp_path: Path) -> None:
    config = TINY.replace("{every: 3}", "{every: 3, tensorboard: true}").replace("epochs: 4", "epochs: 2")
    (tmp_path / "config.yaml").write_text(config + "sweep: {optim.lr: [3e-3, 1e-2], seed: [3]}\n")
    cut = process("sweep", "config.yaml", cwd=tmp_path, before=KILL, **ONLY_READS)
    assert cut.returncode == -9 and "2 runs trained at once" in cut.stderr
    done = gru_jax("sweep", "config.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted(tmp_path.glob("runs/tiny/*-s3"))
    assert len(runs) == 2
    for run in runs:
        assert scalars(run) == shown(run)


@pytest.mark.slow
def test_runs_with_a_trace_are_made_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(WATCHED.replace("epochs: 4", "epochs: 1") + "sweep: {seed: 0-1}\n")
    done = gru_jax("sweep", "config.yaml", cwd=tmp_path)
    assert done.returncode == 0 and "at once" not in done.stderr, done.stderr
    assert len(list(tmp_path.glob("runs/tiny/*-s?/profile/**/*.xplane.pb"))) == 2


def _history(file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values) of every row in a session's file of wandb: seven bytes, then the log format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record, at = record + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            parsed, record = Record.FromString(record), b""
            if parsed.WhichOneof("record_type") == "history":
                pairs = ((item.key or "/".join(item.nested_key), item.value_json) for item in parsed.history.item)
                yield parsed.history.step.num, {key: json.loads(value) for key, value in pairs if key[0] != "_"}


@pytest.mark.slow
def test_wandb_itself_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "config.yaml").write_text(TINY)
    words = (*RUN, "log.wandb={project: p, mode: offline}")
    cut = process(*words, cwd=tmp_path, before=KILL, **ONLY_READS)
    assert cut.returncode == -9, cut.stderr
    done = gru_jax(*words, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    (session,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    rows = list(_history(next(session.glob("*.wandb"))))
    lines = shown(tmp_path / "out")
    assert [step for step, _ in rows] == sorted({step for points in lines.values() for step, _ in points})
    for key in ("train/loss", "valid/loss"):
        assert [(step, float(np.float32(row[key]))) for step, row in rows if key in row] == lines[key]
