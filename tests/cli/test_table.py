"""`gru-jax table` and `gru-jax eval` from the command line to the files."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gru_jax.cli import main

from .command import TINY, command, environment, gru_jax, result, snapshot

TABLE = """\
title: Digits
source: Nobody, Table 1
metric: test/accuracy
better: higher
rows:
  - {label: eight, config: configs/tiny.yaml, published: 0.9, tolerance: 0.8}
  - {label: again, config: configs/tiny.yaml, metric: test/loss, better: lower}
  - {label: nine, config: configs/tiny.yaml, set: {model.hidden: 9}, scales: {smoke: {skip: true}}}
scales:
  smoke: {seeds: [0], set: {train.epochs: 1}}
  full: {seeds: [0, 1], set: {train.epochs: 1}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.yaml").write_text(TINY)
    (tmp_path / "experiments" / "digits").mkdir(parents=True)
    (tmp_path / "experiments" / "digits" / "table.yaml").write_text(TABLE)
    return tmp_path


def entries(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads((folder / "experiments" / "digits" / "results.json").read_text())["rows"]
    return {(entry["scale"], entry["label"]): entry for entry in found}


def test_a_table_is_made_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("gru_jax.runs.final_result.draw", lambda *_: [])
    assert main(["table", "digits", "--scale", "smoke"]) == 0
    done = capsys.readouterr()
    assert done.out.startswith("**Digits: smoke scale**\n") and "| eight | (0.9) |" in done.out
    assert done.err.splitlines()[:2] == ["digits: 2 runs, 0 finished before", "left: 1 run of rows that were never run"]
    assert len(done.err.splitlines()) == 4
    assert (folder / "experiments" / "digits" / "table.md").read_text() == done.out
    (run,) = (folder / "runs" / "tiny").iterdir()
    values, made = result(run), entries(folder)
    assert set(made) == {("smoke", "eight"), ("smoke", "again")}
    assert made["smoke", "eight"]["mean"] == float(f"{values['test/accuracy']:.6g}")
    assert made["smoke", "again"]["mean"] == float(f"{values['test/loss']:.6g}")
    assert made["smoke", "eight"]["status"] == "smoke only" and "core" in made["smoke", "eight"]["hardware"]

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(["table", "digits", "--scale", "smoke"]) == 0
    assert capsys.readouterr().out == done.out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    assert main(["table", "digits", "--show", "--scale", "smoke", "--curves", "curves.png"]) == 0
    assert capsys.readouterr().err == "picture: curves.png\n"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_eval_says_what_the_run_wrote(folder: Path) -> None:
    done = gru_jax("run", "configs/tiny.yaml", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    values, before = result(folder / "out"), snapshot(folder)
    for split, options in (("test", ()), ("valid", ("--split", "valid"))):
        evaluated = gru_jax("eval", "out", *options, cwd=folder)
        assert evaluated.stderr == "" and evaluated.returncode == 0
        written = {name: value for name, value in values.items() if name.startswith(f"{split}/")}
        said = dict(line.split(": ") for line in evaluated.stdout.splitlines())
        # The run itself counts the confusions of the test split alone.
        assert written.items() <= {name: float(value) for name, value in said.items()}.items()
        assert said.keys() == {f"{split}/{name.removeprefix('test/')}" for name in values if name.startswith("test/")}
    assert snapshot(folder) == before


def test_nothing_is_started_when_anything_is_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    bad = TABLE.replace("model.hidden: 9", "model.hiden: 9, optim.lr: -1").replace("skip: true", "skip: false")
    (folder / "experiments" / "digits" / "table.yaml").write_text(bad)
    before = snapshot(folder)
    assert main(["table", "digits", "--scale", "smoke"]) == 2
    refused = capsys.readouterr()
    assert refused.out == "" and refused.err.count("experiments/digits/table.yaml:8:") == 2
    assert refused.err.endswith("2 errors; nothing was started.\n")
    assert snapshot(folder) == before


def test_show_runs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    before = snapshot(folder)
    assert main(["table", "digits", "--show"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("| not run |") == 5 and shown.count("**Digits") == 2
    assert main(["table", "digits"]) == 2
    assert "--scale: choose smoke" in capsys.readouterr().err
    assert main(["table", "digits", "--scale", "smoke", "--curves", "curves.txt"]) == 2
    assert "curves.txt: a picture ends in .png" in capsys.readouterr().err
    assert main(["table", "digits", "--show", "--curves", "curves.png"]) == 0
    assert "curves.png was not drawn: there are no runs" in capsys.readouterr().err
    assert main(["table", "digits", "--show", "--lengths", "lengths.png"]) == 0
    assert "lengths.png was not drawn: there are no finished runs" in capsys.readouterr().err
    assert main(["eval", "nowhere"]) == 2
    assert "nowhere holds no run" in capsys.readouterr().err
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs", "0"], "--jobs: expected a number from 1 to 1024, got '0'"),
        (["--formt", "md"], "unknown argument '--formt', did you mean '--format'?"),
        (["model.hidden=3"], "unknown argument 'model.hidden=3'"),
        (["--scale", "huge"], "'huge'"),
    ],
)
def test_unknown_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["table", "digits", *words])
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--rows", "("], ["--seeds", "3-1"], ["--seeds", "a"], ["--rows", "none of them"]])
def test_bad_choices_of_rows_and_seeds(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["table", "digits", "--scale", "full", *words]) == 2
    assert words[1] in capsys.readouterr().err or words[0] == "--rows"


@pytest.mark.slow
def test_several_runs_at_a_time_give_the_same_table(folder: Path) -> None:
    one = gru_jax("table", "digits", "--scale", "full", cwd=folder)
    assert one.returncode == 0, one.stderr
    made = entries(folder)
    for name in ("runs", "experiments/digits/results.json"):
        (folder / name).rename(folder / f"{name}-1")
    two = gru_jax("table", "digits", "--scale", "full", "--jobs", "2", "--format", "csv", cwd=folder)
    assert two.returncode == 0, two.stderr
    said = two.stderr.splitlines()
    assert said[0] == "digits: 6 runs, 0 finished before" and said[1].startswith("left: ")
    assert [line.split("]")[0] for line in said[2:]] == [f"[{count}/6" for count in range(1, 7)]
    assert two.stdout.count("\n") == 4
    for key, entry in entries(folder).items():
        assert entry["values"] == pytest.approx(made[key]["values"], rel=1e-4)
        assert entry["config_hash"] == made[key]["config_hash"] and entry["seeds"] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_signal_stops_the_table_and_the_same_command_goes_on(folder: Path, jobs: str, number: int) -> None:
    # Long enough to be met in the middle.
    (folder / "configs" / "tiny.yaml").write_text(TINY.replace("every: 5 steps", "every: 50 epochs"))
    table = folder / "experiments" / "digits" / "table.yaml"
    table.write_text(TABLE.replace("seeds: [0, 1], set: {train.epochs: 1}", "seeds: [0, 1], set: {train.epochs: 400}"))
    words = command("table", "digits", "--scale", "full", "--rows", "eight|again", "--jobs", jobs)
    process = subprocess.Popen(
        words, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not any(len(path.read_text().splitlines()) > 20 for path in folder.glob("runs/tiny/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "the same command goes on" in errors and "| eight | 0.9 |" in out
    statuses = {(path / "STATUS").read_text() for path in folder.glob("runs/tiny/*") if (path / "STATUS").exists()}
    assert "preempted\n" in statuses and "running\n" not in statuses
    table.write_text(TABLE.replace("train.epochs: 1}", "train.epochs: 400}").replace("seeds: [0, 1]", "seeds: [0]"))
    again = gru_jax("table", "digits", "--scale", "full", "--rows", "eight|again", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert entries(folder)["full", "eight"]["values"][0] > 0.5
