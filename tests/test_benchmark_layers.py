"""The benchmark of layers: a tiny run, its tables and plots, and that only what agrees is timed."""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from benchmarks import agreement, layer_shapes, layers, layers_extras, layers_plots, layers_report, peers, timing
from benchmarks.layer_shapes import Case, Shape
from tests.scans.cases import table

ROOT = Path(__file__).parents[1]
TINY = Shape(5, 2, 3, 4)
FIELDS = {
    "subject", "group", "shape", "dtype", "ours_ms", "ours_spread_ms", "peer", "peer_ms", "peer_spread_ms", "floor_ms",
    "iterations", "ours_compile_s", "peer_compile_s", "ours_temp_MiB", "peer_temp_MiB",
}


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.layers", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.slow
def test_the_command_runs():
    done = command("--quick", "--shapes", "5,2,3,4", "--kinds", "forward", "training", "--peers", "nnx", "torch")
    assert done.returncode == 0, done.stderr
    measured = [line.split()[:4] for line in done.stdout.splitlines() if "floor" in line and "| " in line]
    assert measured == [[kind, "float32", "5,2,3,4", "ours"] for kind in layer_shapes.KINDS]
    assert ("left out: torch" in done.stdout) == (find_spec("torch") is None)
    assert " nnx " in done.stdout and "geometric mean" in done.stdout and "measured in" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shapes", "wide"], "must be one of design, grid, streaming, deepbench, time, batch, hidden, or four whole"),
        (["--shapes", "5,2,3"], "four whole numbers T,B,I,H from 1"),
        (["--shapes", "5,0,3,4"], "got '5,0,3,4'"),
        (["--peers", "haiku"], "torch"),
        (["--quick", "--write"], "--quick measures nothing worth writing"),
        (["--device", "gpu"], "--device gpu: JAX runs on 'cpu' here"),
        (["--name", "a/b"], "--name must be letters, digits, - and _"),
        (["--budget", "0"], "--budget must be above 0"),
        (["--draw", "nowhere.json"], "--draw: nowhere.json cannot be read"),
    ],
)
def test_arguments_that_do_not_fit(arguments, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.layers", *arguments])
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as ended:
        layers.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in error and "Traceback" not in error


@pytest.fixture(scope="module")
def rows():
    """What a tiny run measures."""
    left_out = []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = [
            row
            for kind in layer_shapes.KINDS
            for row in layers.measured(Case(TINY, "given"), "float32", kind, ["nnx", "linen"], 0.01, left_out)
        ]
    assert not left_out
    return found


@pytest.mark.slow
def test_rows(rows):
    assert len(rows) == 4
    for row in rows:
        assert row.keys() == FIELDS
        assert Shape(**row["shape"]) == TINY and row["iterations"] >= 5
        assert all(row[name] > 0 for name in ("ours_ms", "peer_ms", "floor_ms"))
        assert row["ours_spread_ms"] >= 0 and row["ours_compile_s"] > 0 and row["peer_temp_MiB"] >= 0
    json.dumps(rows)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_peer_agrees_and_says_what_it_compiled(name, dtype):
    if find_spec({"nnx": "flax", "linen": "flax"}.get(name, name)) is None:
        pytest.skip(f"needs {name}")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        given = peers.problem(TINY, dtype)
        kind = "training" if dtype == "float32" else "forward"
        ours, made = peers.ours(given, kind), peers.peer(name, given, kind)
        expected, found = ours.read(ours.run()), made.read(made.run())
    assert expected.keys() == ({"gradient of x", "gradient of w_h"} if kind == "training" else {"outputs"})
    agreement.check(expected, found, dtype, name)
    assert (made.compile_s is None) == (name == "torch")
    assert max(np.abs(array).max() for array in expected.values()) > 0.1


def doctored(factor, monkeypatch):
    """nnx with its weights times a factor."""
    def wrong(given):
        made = peers.nnx(given)
        return made._replace(weights=jax.tree.map(lambda w: w * factor, made.weights))

    monkeypatch.setitem(peers.LAYERS, "nnx", wrong)


@pytest.mark.parametrize("kind", ["forward", pytest.param("training", marks=pytest.mark.slow)])
def test_a_wrong_peer_stops_the_run(kind, monkeypatch):
    doctored(1.01, monkeypatch)
    told = rf"nnx, {kind}, float32, T,B,I,H = 5,2,3,4: its .* are off by 0\.0\d* of the largest number, more than"
    with pytest.raises(agreement.Disagreement, match=told):
        layers.measured(Case(TINY, "given"), "float32", kind, ["nnx"], 0.01, [])
    arguments = ["--shapes", "5,2,3,4", "--dtypes", "float32", "--kinds", kind, "--peers", "nnx"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.layers", *arguments])
    with pytest.raises(SystemExit, match="benchmarks.layers: nnx") as ended:
        layers.main()
    assert isinstance(ended.value.code, str)  # a message, with exit code 1


def test_distances():
    ones = np.ones((2, 3), np.float32)
    assert agreement.distance(2 * ones, ones) == 0.5
    assert agreement.distance(ones, ones[:1]) == agreement.distance(ones, ones * np.nan) == float("inf")
    arrays = {"gradient of w_h": ones}
    agreement.check(arrays, {"gradient of w_h": 3 * ones}, "bfloat16", "long", steps=agreement.STANDSTILL + 1)
    with pytest.raises(agreement.Disagreement, match="off by 2 of the largest number, more than the 0.3"):
        agreement.check(arrays, {"gradient of w_h": 3 * ones}, "bfloat16", "short", steps=agreement.STANDSTILL)


def test_what_cannot_run_is_told(monkeypatch, capsys):
    def refuses(given):
        raise NotImplementedError("no such dtype\nand more")

    monkeypatch.setitem(peers.LAYERS, "nnx", refuses)
    left_out = []
    (row,) = layers.measured(Case(TINY, "given"), "float32", "forward", ["nnx"], 0.01, left_out)
    assert row["peer"] is None and row["peer_ms"] is None and row["floor_ms"] > 0
    assert left_out == ["nnx, forward, float32, T,B,I,H = 5,2,3,4: NotImplementedError: no such dtype"]
    assert f"left out: {left_out[0]}" in capsys.readouterr().out
    assert "no peer" in layers_report.printed(layers_report.lines([row])[0])


@pytest.mark.parametrize(("kind", "inside", "outside"), [("forward", 1, 1), ("training", 2, 4)])
def test_the_floor_is_products_alone_and_keeps_them(kind, inside, outside):
    call = peers.floor(peers.problem(TINY, "float32"), kind).run
    jaxpr = call.func.trace(*call.args).jaxpr.jaxpr
    loops = [each.params["jaxpr"].jaxpr for each in jaxpr.eqns if each.primitive.name == "scan"]
    assert sum(str(loop).count("dot_general") for loop in loops) == inside
    assert str(jaxpr).count("dot_general[") == inside + outside
    assert not {"tanh", "logistic", "add", "mul"} & {each.primitive.name for loop in loops for each in loop.eqns}
    compiled = call.func.lower(*call.args).compile().as_text()
    T, B, I, H = TINY
    assert compiled.count(" dot(") == inside + outside
    assert f"f32[{B},{3 * H}]" in next(line for line in compiled.splitlines() if " dot(" in line and f"[{B}," in line)


def test_groups():
    shapes = {name: [case.shape for case in group("cpu")] for name, group in layer_shapes.GROUPS.items()}
    assert Shape(100, 32, 64, 64) in shapes["design"] and len(shapes["design"]) == 10
    assert len(shapes["grid"]) == 23 and max(map(layer_shapes.gflop, shapes["grid"])) < 10
    assert all(case.kinds == ("forward",) and case.shape.T == 1 for case in layer_shapes.streaming("cpu"))
    assert [shape.T for shape in shapes["time"]] == [100, 1000, 10000, 100000, 1000000]
    assert len(shapes["batch"]) == 9 and shapes["hidden"][-1].H == 1024
    whole, scaled = layer_shapes.deepbench("gpu"), layer_shapes.deepbench("cpu")
    assert len(whole) == 19 + 54 and Case(Shape(1500, 32, 2816, 2816), "deepbench") in whole
    assert Case(Shape(187, 4, 1536, 1536), "deepbench", ("forward",)) in whole
    assert len(scaled) == 11 + 30 and Case(Shape(37, 32, 352, 352), "deepbench") in scaled
    assert Case(Shape(1, 32, 64, 64), "deepbench") in scaled


def test_a_shape_that_is_asked_for_twice_is_measured_once():
    cases = layer_shapes.cases(["streaming", Shape(1, 1, 64, 128), Shape(5, 2, 3, 4)], "cpu")
    assert cases[0] == Case(Shape(1, 1, 64, 128), "streaming", ("forward", "training"))
    assert len(cases) == 4 and cases[-1].shape == Shape(5, 2, 3, 4)
    assert layer_shapes.group_or_shape("100,32,64,64") == Shape(100, 32, 64, 64)
    with pytest.raises(argparse.ArgumentTypeError, match="from 1, such as"):
        layer_shapes.group_or_shape("1,2,3,-4")


def test_means_and_slopes():
    assert layers_report.geometric_mean([0.5, 2.0]) == pytest.approx(1)
    assert layers_report.geometric_mean([1.0, 4.0]) == pytest.approx(2)
    long = [layers_report.Line("forward", "float32", Shape(T, 1, 16, 32), T / 50, T**2, {}) for T in (100, 1000)]
    assert layers_report.slopes(long, "ours") == [(1000, pytest.approx(1))]
    assert layers_report.slopes(long, "floor") == [(1000, pytest.approx(2))]
    assert layers_report.slopes(long, "torch") == []


def made_up(shape, ours, torch, nnx, floor, subject="forward", group="given"):
    """Two rows of one shape."""
    common = {"subject": subject, "group": group, "shape": shape._asdict(), "dtype": "float32", "ours_ms": ours}
    return [common | {"peer": name, "peer_ms": ms, "floor_ms": floor} for name, ms in (("torch", torch), ("nnx", nnx))]


def record():
    """A file's content: a win, a loss, lengths, and an extra."""
    rows = [*made_up(Shape(5, 2, 3, 4), 1.0, 2.0, 3.0, 0.5), *made_up(Shape(6, 2, 3, 4), 2.0, 1.0, 3.0, 0.9)]
    for T in (100, 1000):
        rows += [row for kind in layer_shapes.KINDS
                 for row in made_up(Shape(T, 1, 16, 32), T, 2 * T, 2 * T, T / 2, kind, "time")]
    extra = {"subject": "mask, forward", "group": "extras", "shape": {"T": 3}, "dtype": "float32", "ours_ms": 2.0}
    rows.append(extra | {"peer": "plain layers", "peer_ms": 1.0, "floor_ms": None, "ratio": 2.0, "aim": 1.05})
    origin = {"name": "layers", "platform": "cpu", "device": "cpu", "cpu": "some CPU", "cores": 2, "date": "2026-01-01"}
    versions = {"jax": "0.10.2"}
    return origin | {"command": "python -m x", "versions": versions, "left_out": ["keras: why"], "rows": rows}


def test_the_summary_and_the_page_tell_losses_as_wins():
    told = "\n".join(layers_report.summary(record()["rows"]))
    assert "forward, float32: best peer / ours over 4 shapes: geometric mean 1.41, least 0.50 at 6,2,3,4" in told
    assert "slower than torch: 6,2,3,4, torch / ours 0.50" in told
    assert "near the floor: 6,2,3,4, floor / torch 0.90, ours / floor 2.22" in told
    assert "ours grows as T to the power 1.00 to 1000" in told
    assert "mask, forward, T = 3: 2 ms, 2.00 x plain layers (aim 1.05: MISSED)" in told
    page = layers_report.markdown(record())
    assert "| T, B, I, H | ours | torch | nnx | floor | best peer | gain | floor / best peer | ours / floor |" in page
    assert "| 5,2,3,4 | 1 | 2 | 3 | 0.5 | torch | 2.00 | 0.25 | 2.00 |" in page
    assert "## training, float32" in page and "slower than torch" in page and "left out: keras: why" in page


def test_what_is_written(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(layers, "IMAGES", tmp_path / "images")
    arguments = ["--shapes", "5,2,3,4", "--dtypes", "float32", "--kinds", "forward", "--peers", "nnx"]
    arguments += ["--budget", "0.01", "--write", "--name", "odd"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.layers", *arguments])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        layers.main()
    table, file = sorted((tmp_path / "results").iterdir(), reverse=True)
    assert file.name.endswith("-cpu-odd.json") and table.name == file.with_suffix(".md").name
    written = json.loads(file.read_text())
    assert written["command"] == f"python -m benchmarks.layers {' '.join(arguments)}" and written["cpu"]
    assert written["versions"]["jax"] == jax.__version__ and "flax" in written["versions"]
    assert [row["peer"] for row in written["rows"]] == ["nnx"] and written["left_out"] == []
    assert "## forward, float32" in table.read_text() and "| 5,2,3,4 |" in table.read_text()
    (picture,) = (tmp_path / "images").iterdir()
    assert picture.name == "odd_cpu_ratio_float32.svg"
    picture.unlink()
    monkeypatch.setattr(sys, "argv", ["benchmarks.layers", "--draw", str(file)])
    layers.main()
    assert picture.exists() and "drawn: odd_cpu_ratio_float32.svg" in capsys.readouterr().out


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        layers_plots.draw(record(), tmp_path / name)
    names = {"layers_cpu_ratio_float32.svg", "layers_cpu_scaling.svg"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        text = (tmp_path / "a" / name).read_text()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert text == (tmp_path / "b" / name).read_text(), "the same numbers give the same file"
        assert "training" in text and "torch" in text and "None" not in text


def test_times_are_of_one_call_and_all_take_their_turn():
    calls = {"fast": 0, "slow": 0}

    def step(name):
        calls[name] += 1

    found = timing.interleaved({name: lambda name=name: step(name) for name in calls}, budget_s=1e-9, most=7)
    assert {each.rounds for each in found.values()} == {5}
    assert all(0 < each.ms < 1 and each.spread_ms >= 0 for each in found.values())
    assert min(calls.values()) > 5 * 100, "a short call is repeated until a sample can be timed"
    assert timing.interleaved({"one": lambda: None}, budget_s=60, most=7)["one"].rounds == 7


@pytest.mark.parametrize(
    "name, kind",
    table(("stack", "mask", "keras", "torch"), ("forward", "training"), quick=lambda *row: row == ("mask", "forward")),
)
def test_extras_compute_what_the_plain_layers_do(name, kind):
    pair = layers_extras.layer_pair(name, getattr(layers_extras, name), kind, TINY)
    row = layers_extras.measured(pair, 0.01)
    assert row.keys() == FIELDS | {"aim", "ratio"} and row["peer"] == "plain layers" and row["ours_ms"] > 0
    assert bool(pair.ours.read(pair.ours.run())) == (name != "mask")


@pytest.mark.slow
def test_the_linear_recurrence_beside_copies():
    pairs = [make() for make in layers_extras.linear_pairs(list(layer_shapes.KINDS), [(6, 2, 4)])]
    assert [pair.peer for pair in pairs] == ["copy", "copy of all three", "forward", "copy", "forward"]
    assert [pair.aim for pair in pairs] == [1.5, None, 3.0, 4.5, 3.0]
    assert layers_extras.measured(pairs[-1], 0.01)["ours_ms"] > 0
    assert [array.shape for array in pairs[1].theirs.run()] == [(6, 2, 4)] * 3
