"""The crossover map: a tiny run, what is left out, the table, the plot, and what "auto" could be told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

import gru_jax as gj
from benchmarks import crossover, crossover_column, crossover_plots, crossover_report
from benchmarks.crossover import Column
from gru_jax.scans import choices
from gru_jax.scans.choices import Sizes, Tuned

ROOT = Path(__file__).parents[1]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.crossover", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.slow
def test_the_command_runs():
    chosen = ("--methods", "newton diagonal", "sequential", "--weights", "torch", "--budget", "0.1")
    done = command("--sizes", "9,2,1", *chosen)
    assert done.returncode == 0, done.stderr
    measured = [line.split()[:5] for line in done.stdout.splitlines() if " torch  " in line]
    assert measured == [
        ["9", "2", "1", "torch", kind] for kind in ("forward", "training") for _ in ("sequential", "newton")
    ]
    assert "torch weights, training: Newton faster at" in done.stdout and "measured in" in done.stdout
    assert "left out" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sizes", "wide"], "must be one of small, full, deer, or three whole numbers T,B,H from 1"),
        (["--sizes", "1000,0,3"], "got '1000,0,3'"),
        (["--sizes", "1,1,3"], "the adding problem has at least 2 steps"),
        (["--methods", "newton dense"], "--methods must have sequential among them"),
        (["--budget", "0"], "--budget must be above 0"),
        (["--name", "a/b"], "--name must be letters, digits, - and _"),
        (["--draw", "nowhere.json"], "--draw: nowhere.json cannot be read"),
        (["--draw", "pyproject.toml"], "--draw: pyproject.toml cannot be read"),
    ],
)
def test_arguments_that_do_not_fit(arguments, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.crossover", *arguments])
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as ended:
        crossover.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in error and "Traceback" not in error


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is another device")
@pytest.mark.slow
def test_a_device_that_is_not_there():
    done = command("--device", "gpu", "--sizes", "9,2,1")
    assert done.returncode == 1 and "--device gpu: JAX does not run on one here" in done.stderr
    assert "Traceback" not in done.stderr


def test_columns():
    made = crossover.columns(["deer", Sizes(50, 1, 3), Sizes(20, 1, 3), Sizes(50, 1, 3)])
    assert made[-1] == Column("grid", 1, 3, (50, 20))
    assert {column.group for column in made[:-1]} == {"deer"} and {column.B for column in made[:-1]} == {16}
    assert [column.H for column in made[:-1]] == [1, 2, 4, 8, 16, 32]
    assert len(crossover.FULL) == len(set(crossover.FULL)) and len(crossover.SMALL) == len(set(crossover.SMALL))


def job(**changed):
    return {
        "group": "grid", "B": 2, "H": 4, "lengths": [6], "methods": ["sequential", "newton dense"],
        "weights": ["torch"], "budget": 0.1, "memory": 1e12, "updates": 2, **changed,
    }


def measured(**changed):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return list(crossover_column.column(job(**changed)))


def test_what_takes_too_much_memory_or_time_is_left_out(monkeypatch):
    told = [each["left_out"] for each in measured(memory=200.0, weights=[]) if "left_out" in each]
    assert len(told) == 4
    assert told[1].startswith("T,B,H = 6,2,4, forward, newton dense: its Jacobians alone take")
    assert "sequential: it takes" in told[0] and told[0].endswith("GiB")
    with pytest.raises(crossover_column.LeftOut, match="a call would take about 20 s, by that of T = 1000"):
        crossover_column.too_long({"a": (1000, 2.0)}, ["a", "b"], 10_000, budget=5)
    crossover_column.too_long({"a": (1000, 0.4)}, ["a", "b"], 10_000, budget=5)


@pytest.mark.slow
def test_what_disagrees_is_told_and_has_no_time(monkeypatch):
    class Wrong(gj.Sequential):
        def trajectory(self, cell, context, steps, reverse):
            return super().trajectory(cell, context, steps._replace(x=1.1 * steps.x), reverse)

    monkeypatch.setitem(crossover_column.METHODS, "newton dense", lambda: Wrong(kernel="scan"))
    found = measured()
    rows = [each for each in found if "ms" in each]
    assert [row["method"] for row in rows] == ["sequential", "sequential"]
    assert sum("DISAGREES: it is off by" in each.get("left_out", "") for each in found) == 2


@pytest.mark.slow
def test_weights_are_trained_and_the_same_every_time():
    _, start = crossover_column.start(8)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (params, loss), (again, _) = (crossover_column.trained(8, 200) for _ in range(2))
    # Telling 1 for every sequence has an error of 1/6.
    assert loss < 0.1 and float(abs(params.w_h - start.w_h).max()) > 0.1
    np.testing.assert_array_equal(params.w_h, again.w_h)


def rows(newton_ms=2.0):
    """What a run would give; Newton is the faster one at 10,000 steps with fresh weights, never with trained ones."""
    sizes = (("grid", 1000, 1, 8), ("grid", 10_000, 1, 8), ("grid", 1000, 4, 16), ("deer", 10_000, 16, 1))
    for group, T, B, H in sizes:
        for weights in ("torch", "trained"):
            for kind in ("forward", "training"):
                common = {
                    "group": group, "shape": {"T": T, "B": B, "H": H}, "weights": weights, "subject": kind,
                    "compile_s": 1.0, "temp_MiB": 0.5, "difference": 1e-7, "spread_ms": None, "samples": 1,
                }
                known = {"rounds": 6, "converged": 1.0, "fell_back": 0.0}
                steps = {**known, "rounds": 0}
                found = {**known, "rounds": 64, "fell_back": 1.0} if weights == "trained" else known
                ms = newton_ms * (10 if weights == "trained" else 1)
                forward = kind == "forward"
                yield {**common, **(steps if forward else {}), "method": "sequential", "ms": T / 1000}
                yield {**common, **(found if forward else {}), "method": "newton diagonal", "ms": ms}
                if T < 10_000:
                    yield {**common, **(found if forward else {}), "method": "newton dense", "ms": 3 * ms}


def test_the_report():
    known = {"H": 8, "weights": "trained", "lyapunov": -0.01, "loss": 1e-3}
    text = "\n".join(crossover_report.summary(list(rows()), [known]))
    assert "torch weights, forward: Newton faster at 2 of 4 shapes, sequential / Newton 0.5 to 5" in text
    assert "faster: T,B,H = 10000,1,8, newton diagonal, sequential / it 5.00" in text
    assert "H = 8, trained weights: Lyapunov exponent -0.0100, mean squared error 0.001" in text
    assert "DEER's shape T,B,H = 10000,16,1, forward: newton diagonal 2 ms, 5 x sequential" in text
    assert "DEER's own: 138 x loop" in text and "DEER's own: 299 x loop" in text
    printed = [crossover_report.printed(row) for row in rows()]
    assert len({len(line) for line in (crossover_report.HEADER, *printed)}) == 1


def test_what_auto_could_be_told():
    steps, newton = {"method": "sequential"}, {"method": "newton", "jacobian": "diagonal", "kernel": "xla"}
    slow, fast = crossover_report.choices(rows()), crossover_report.choices(rows(newton_ms=0.5))
    assert [row["method"] for row in slow] == ["sequential"] * 4 and [row["gain"] for row in slow] == [0.05, 0.5] * 2
    assert fast == [
        {"T": 1000, "B": 1, "H": 8, **steps, "gain": 0.2},
        {"T": 10_000, "B": 1, "H": 8, **newton, "gain": 2.0},
        {"T": 1000, "B": 4, "H": 16, **steps, "gain": 0.2},
        {"T": 10_000, "B": 16, "H": 1, **newton, "gain": 2.0},
    ]


def record():
    return {
        "name": "crossover", "platform": "cpu", "device": "cpu", "cpu": "a", "cores": 2, "date": "2026-01-01",
        "command": "python -m benchmarks.crossover", "versions": {"jax": "1"}, "rows": list(rows()),
        "weights": [], "left_out": ["T,B,H = 5,5,5, forward, newton dense: its Jacobians alone take 9 GiB"],
    }


def test_markdown():
    page = crossover_report.markdown(record())
    assert "| 1000, 1, 8 | 1 | 2 (6) | 6 (6) | 0.50 | 0.5, 0.5, 0.5 |" in page
    assert "| 10000, 1, 8 | 10 | 20 (64*) | - | 0.50 |" in page
    assert "- left out: T,B,H = 5,5,5" in page and "None" not in page


@pytest.mark.slow
def test_the_plot(tmp_path):
    pytest.importorskip("matplotlib")
    crossover_plots.draw(record(), tmp_path / "a")
    crossover_plots.draw(json.loads(json.dumps(record())), tmp_path / "b")
    text = (tmp_path / "a" / "crossover_cpu.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert text == (tmp_path / "b" / "crossover_cpu.svg").read_text(), "the same numbers give the same file"
    assert "B = 16, trained weights, training" in text and "10k" in text and "0.5" in text


def test_what_auto_reads_is_written_beside_what_is_there(monkeypatch, tmp_path):
    before = Tuned.load(next(choices.MEASURED.glob("cpu-*.json")))
    monkeypatch.setattr(choices, "MEASURED", tmp_path)
    monkeypatch.setattr(choices, "shipped", lambda device, backend: before)
    found = crossover_report.choices(rows(newton_ms=0.5))
    crossover.choose(found)
    after = Tuned.load(tmp_path / choices.file_name(before.device, "cpu"))
    assert after.newton == tuple(found) and after.rows == before.rows
