"""The benchmark of parallel methods: a tiny measurement, its table, its plots, and the bound it holds Newton to."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import alone, parallel, parallel_plots

ROOT = Path(__file__).parents[1]


def test_one_measurement():
    job = {"measure": "run", "cell": "MinGRU", "T": 20, "B": 2, "H": 4, "method": "associative chunked", "rounds": 1}
    row = alone.run(job)
    assert job.items() <= row.items() and row["largest_difference"] < 1e-5 and not row["fell_back"]
    assert all(row[name] > 0 for name in ("training_ms", "training_compile_s", "temporary_MiB"))
    assert row["forward_of_sequential"] > 0
    if sys.platform == "linux":
        assert row["peak_MiB"] >= 0
    assert "associative chunked" in parallel.printed(row)


@pytest.mark.skipif(sys.platform != "linux", reason="read off /proc")
def test_the_peak_is_of_what_ran_since():
    peak = alone.start_of_peak()
    held = bytearray(64 * alone.MIB)
    held[::4096] = b"1" * len(held[::4096])
    del held
    assert 60 < peak() < 80


@pytest.mark.parametrize("backend", ("cpu", "gpu"))
def test_what_is_measured(backend):
    jobs = parallel.jobs(backend, rounds=5, quick=False)
    dense = [job for job in jobs if job.get("method") == "newton dense"]
    assert dense and {job["measure"] for job in dense} == {"compiled_memory"}
    assert len({str(job) for job in jobs}) == len(jobs)
    assert any(parallel.shape_of(job) == parallel.LARGEST and job["method"] == "newton diagonal" for job in jobs[:-1])
    assert jobs[-1]["measure"] == "scales"


def rows():
    """What a full run would give, with memory in proportion to T and H, or H squared."""
    for job in parallel.jobs("cpu", rounds=1, quick=False):
        if job["measure"] == "scales":
            found = {"rounds": 5, "converged": 4, "fell_back": 0}
            each = [{"scale": s, "lyapunov": s / 10 - 1, "dense": found, "diagonal": found} for s in job["scales"]]
            yield job | {"rows": each}
            continue
        mib = job["T"] * job["H"] ** (1 + (job["method"] == "newton dense")) / 1e4
        timed = {f"{kind}_{unit}": job["T"] / 10 for kind in ("forward", "training") for unit in ("ms", "compile_s")}
        timed |= {f"{kind}_of_sequential": 1.0 for kind in ("forward", "training")}
        yield job | timed | {"temporary_MiB": mib, "peak_MiB": None, "rounds_taken": 3, "fell_back": False}


def test_memory_is_reported_with_its_growth(capsys):
    parallel.report_memory(list(rows()))
    told = capsys.readouterr().out
    assert "grows as T^1.00" in told and "grows as H^1.00" in told
    assert f"T, B, H = {parallel.LARGEST}" in told and "within the bound of 2560 MiB" in told


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    record = {"device": "cpu", "cores": 2, "rows": list(rows())}
    parallel_plots.draw(record, tmp_path / "a")
    parallel_plots.draw(record, tmp_path / "b")
    names = {f"newton_{name}.svg" for name in ("iterations", "memory")}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        text = (tmp_path / "a" / name).read_text()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert text == (tmp_path / "b" / name).read_text(), "the same numbers give the same file"
        assert "diagonal" in text and "None" not in text


@pytest.mark.slow
def test_memory_of_the_diagonal_training_step_is_linear_and_bounded():
    T, B, H = parallel.LARGEST

    def mib(T, H):
        job = {"T": T, "B": B, "H": H, "method": "newton diagonal"}
        return alone.compiled_memory(job)["temporary_MiB"]

    assert mib(T, H) < parallel.ALLOWED
    assert mib(T // 4, H) == pytest.approx(mib(T, H) / 4, rel=0.1)
    assert mib(T // 4, H // 4) == pytest.approx(mib(T // 4, H) / 4, rel=0.2)


@pytest.mark.slow
def test_the_command_runs():
    command = [sys.executable, "-m", "benchmarks.parallel", "--quick", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "newton diagonal" in done.stdout and "drawn: newton_iterations.svg" in done.stdout


def test_quick_numbers_are_not_written(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.parallel", "--quick", "--write"])
    with pytest.raises(SystemExit) as ended:
        parallel.main()
    assert ended.value.code == 2 and "measures nothing worth writing" in capsys.readouterr().err


@pytest.mark.slow
def test_what_fails_is_told_and_left_out(capsys):
    job = {"measure": "run", "cell": "GRU", "T": 5, "B": 1, "H": 4, "method": "newton full", "rounds": 1}
    assert parallel.alone(job) is None
    assert "jacobian must be one of" in capsys.readouterr().err
