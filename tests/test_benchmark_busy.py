"""The benchmarks of the first call and of a busy machine: tiny rows and their tables."""

import subprocess

import pytest

from benchmarks import busy, first_call

RECORD = {"device": "cpu", "date": "today", "command": "c", "cpu": "c", "cores": 2, "versions": {"jax": "1"}}


@pytest.mark.slow
def test_a_shape_beside_each_number_of_neighbours(monkeypatch):
    monkeypatch.setattr(busy, "NEIGHBOURS", (0, 1))
    alone, beside = rows = list(busy.rows(busy.QUICK, 0.01))
    assert (alone["neighbours"], beside["neighbours"]) == (0, 1) and alone["auto_ms"] > 0 and beside["cores=1_ms"] > 0
    assert "1 busy" in busy.printed(beside)
    lines = busy.markdown(RECORD | {"rows": rows}).splitlines()
    assert len({line.count("|") for line in lines[4:]}) == 1 and lines[6].startswith("| 6, 2, 3, 4 | 0 |")


def test_neighbours_end_with_what_they_were_beside(monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(busy.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with pytest.raises(ValueError), busy.neighbours(2):
        assert all(each.poll() is None for each in started)
        raise ValueError
    assert len(started) == 2 and all(each.poll() is not None for each in started)


@pytest.mark.slow
@pytest.mark.parametrize("who", first_call.WHO)
def test_first_calls_in_processes_of_their_own(who, tmp_path):
    first, again = (first_call.seconds(who, "one layer", first_call.QUICK, tmp_path) for _ in range(2))
    assert 0 < again < 2 * first and (tmp_path / "jax").is_dir()


def test_the_table_of_first_calls(monkeypatch):
    monkeypatch.setattr(first_call, "seconds", lambda who, case, shape, caches: 2.0 if who == "ours" else 1.0)
    rows = list(first_call.rows(first_call.QUICK, 3))
    assert [row["ours_over_flax"] for row in rows] == [2.0] * 4
    assert "cold" in first_call.printed(rows[0])
    lines = first_call.markdown(RECORD | {"rows": rows}).splitlines()
    assert len(lines) == 10 and len({line.count("|") for line in lines[4:]}) == 1
