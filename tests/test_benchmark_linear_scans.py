"""The benchmark of linear recurrences: tiny rows, what they compare, what the command refuses and writes."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import agreement, linear_scans, timing
from benchmarks.layer_shapes import Shape

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("what", linear_scans.WHAT)
def test_a_row(what):
    left_out = []
    row = linear_scans.recurrence_row((2, 9, 4), "float32", what, "auto", 0.01, left_out)
    assert row["subject"] == "linear_scan" and row["shape"] == {"B": 2, "T": 9, "H": 4} and row["what"] == what
    assert row["fraction_of_copy"] == pytest.approx(row["copy_ms"] / row["ours_ms"], rel=1e-2)
    assert row["associative_scan_ms"] > 0 and row["iterations"] >= 5 and left_out == []
    assert "of a copy's speed" in linear_scans.printed(row) and "associative_scan" in linear_scans.printed(row)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_the_kernel_agrees_with_the_loop(dtype):
    given = linear_scans.problem((1, 6, 4), dtype)
    results = [linear_scans.with_gradient(linear_scans.ours(k))(*given) for k in ("interpret-gpu", "scan")]
    linear_scans.compared(*results, dtype, "the kernel")
    assert [array.shape for array in results[0]] == [(1, 6, 4)] * 3


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.slow
def test_mingru_beside_torch():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        row = linear_scans.layer_row(Shape(5, 2, 3, 4), "float32", "auto", 0.01, [])
    assert row["torch_gru_ms"] > 0 and "torch's GRU / ours" in linear_scans.printed(row)


def test_a_missing_peer_is_told(monkeypatch, capsys):
    def missing(*_):
        raise linear_scans.peers.LeftOut("not installed")

    monkeypatch.setattr(linear_scans.peers, "peer", missing)
    left_out = []
    row = linear_scans.layer_row(Shape(5, 2, 3, 4), "float32", "auto", 0.01, left_out)
    assert row["torch_gru_ms"] is None and row["torch_gru_over_ours"] is None and row["plain_ms"] > 0
    assert left_out == ["torch's GRU, float32, T,B,I,H = 5,2,3,4: not installed"]
    assert f"left out: {left_out[0]}" in capsys.readouterr().out


def test_copies_move_what_the_recurrence_moves():
    given = linear_scans.problem((2, 3, 4), "float32")
    forward, gradient = (jax.jit(linear_scans.copied(what)) for what in linear_scans.WHAT)
    np.testing.assert_array_equal(forward(*given), given.a + given.b)
    h, d_a, d_b = gradient(*given)
    assert h.shape == d_a.shape == d_b.shape == (2, 3, 4) and not jnp.allclose(d_a, d_b)


def test_what_disagrees_is_not_timed():
    ones = jnp.ones((2, 3))
    for wrong in (2 * ones, jnp.full_like(ones, jnp.nan)):
        with pytest.raises(agreement.Disagreement, match=r"a form: off by .* that rounding explains in float32"):
            linear_scans.compared([ones], [wrong], "float32", "a form")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shapes", "8,4"], "must be three whole numbers B,T,H from 1, such as 8,4096,1536; got '8,4'"),
        (["--budget", "0"], "--budget must be above 0 seconds"),
        (["--device", "gpu"], "--device gpu: JAX runs on 'cpu' here"),
        (["--kernel", "palas"], "did you mean 'pallas'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.linear_scans", *arguments])
    with pytest.raises(SystemExit) as ended:
        linear_scans.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in " ".join(error.split()) and "Traceback" not in error


@pytest.mark.slow
def test_the_command_runs():
    arguments = ["--shapes", "2,9,4", "--dtypes", "float32", "--budget", "0.01"]
    command = [sys.executable, "-m", "benchmarks.linear_scans", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of a copy's speed") == 2


def test_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    arguments = ["--shapes", "2,9,4", "--dtypes", "float32", "--budget", "0.01", "--write"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.linear_scans", *arguments])
    linear_scans.main()
    table, file = sorted(tmp_path.iterdir(), reverse=True)
    assert file.name.endswith("-cpu-linear_scans.json") and table.name == file.with_suffix(".md").name
    record = json.loads(file.read_text())
    assert [row["what"] for row in record["rows"]] == ["forward", "gradient"] and record["left_out"] == []
    assert record["command"] == f"python -m benchmarks.linear_scans {' '.join(arguments)}"
    assert "# Linear recurrences: " in table.read_text() and "B,T,H = 2,9,4" in table.read_text()
