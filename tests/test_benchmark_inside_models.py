"""The benchmarks of flax's and torch's models with our computation inside: tiny rows, their table, and the bounds."""

import functools
import sys

import pytest

from benchmarks import agreement, inside_command, inside_flax

RECORD = {
    "name": "n", "device": "cpu", "date": "today", "command": "c", "cpu": "c", "cores": 2, "versions": {"jax": "1"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rows_of_both(monkeypatch, capsys):
    pytest.importorskip("torch")
    from benchmarks import inside_torch

    monkeypatch.setattr(inside_flax, "CASES", inside_flax.CASES[4:7])
    monkeypatch.setattr(inside_torch, "CASES", {name: inside_torch.CASES[name] for name in ("two layers", "packed")})
    rows = [row for part in (inside_flax, inside_torch) for row in part.rows(True, 0.01)]
    assert [row["case"] for row in rows] == [
        "linen SimpleCell", "linen GRUCell, lengths", "nnx GRUCell", *["two layers"] * 2, *["packed"] * 2,
    ]  # fmt: skip
    assert all(row["theirs_over_ours"] > 0 and row["apart"] < 1e-5 for row in rows)
    lines = inside_command.markdown(RECORD | {"rows": rows}).splitlines()
    assert lines[4].count("|") == lines[-1].count("|")
    assert lines[-1].startswith("| torch | forward | packed | 17,2,3,4 |")


def test_other_gradients_are_not_timed(monkeypatch):
    monkeypatch.setattr(inside_flax, "CASES", inside_flax.CASES[:1])
    numbers = iter([0.5, 0.501])
    monkeypatch.setattr(inside_flax, "step", lambda *_: functools.partial(float, next(numbers)))
    with pytest.raises(agreement.Disagreement, match="flax, linen GRUCell, T,B,I,H = 5,2,3,4: gradients are off"):
        next(inside_flax.rows(True, 0.01))


def test_quick_measures_nothing_worth_writing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.inside_flax", "--quick", "--write"])
    with pytest.raises(SystemExit):
        inside_command.main("inside-flax", "inside_flax", inside_flax.rows)
    assert "measures nothing worth writing" in capsys.readouterr().err
