"""The benchmark of models with our computation inside: a tiny row, its table, and the bound on losses."""

import sys
from types import SimpleNamespace

import pytest

from benchmarks import agreement, inside, inside_flax, inside_keras
from tests.interop import keras_oracle
from tests.interop.keras_oracle import QUIETLY, theirs


@QUIETLY
@pytest.mark.slow
def test_rows_and_their_table(monkeypatch):
    keras_oracle.keras()
    monkeypatch.setattr(inside_keras, "cases", lambda keras: {"plain": {"reset_after": False}})
    with theirs():
        rows = list(inside_keras.rows(True, 0.01))
    assert [row["kind"] for row in rows] == ["fit", "predict"] and all(row["apart"] < 5e-6 for row in rows)
    assert all(row["theirs_over_ours"] > 0 and "x ours" in inside.printed(row) for row in rows)
    record = {"device": "cpu", "date": "today", "command": "c", "cpu": "c", "cores": 2, "versions": {"jax": "1"}}
    lines = inside.markdown(record | {"rows": rows}).splitlines()
    assert lines[4].count("|") == lines[-1].count("|") and lines[-1].startswith("| keras | predict | plain | 4,2,3,2 |")


def test_other_losses_are_not_timed():
    model = lambda loss: SimpleNamespace(fit=lambda *_, **__: SimpleNamespace(history={"loss": [1.0, loss]}))  # noqa: E731
    assert inside_keras.compared(model(0.5), model(0.5), inside_keras.QUICK[0], "a") == 0
    with pytest.raises(agreement.Disagreement, match="a: losses are off by 0.001"):
        inside_keras.compared(model(0.501), model(0.5), inside_keras.QUICK[0], "a")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rows_of_flax_and_torch(monkeypatch):
    pytest.importorskip("torch")
    from benchmarks import inside_torch

    monkeypatch.setattr(inside_flax, "CASES", inside_flax.CASES[4:7])
    monkeypatch.setattr(inside_torch, "CASES", {name: inside_torch.CASES[name] for name in ("two layers", "packed")})
    rows = [row for part in (inside_flax, inside_torch) for row in part.rows(True, 0.01)]
    assert [row["case"] for row in rows] == [
        "linen SimpleCell", "linen GRUCell, lengths", "nnx GRUCell", *["two layers"] * 2, *["packed"] * 2,
    ]  # fmt: skip
    assert all(row["theirs_over_ours"] > 0 and row["apart"] < 1e-5 for row in rows)


def test_other_gradients_are_not_timed(monkeypatch):
    monkeypatch.setattr(inside_flax, "CASES", inside_flax.CASES[:1])
    numbers = iter([0.5, 0.501])

    def step(*_):
        made = next(numbers)
        return lambda: made

    monkeypatch.setattr(inside_flax, "step", step)
    with pytest.raises(agreement.Disagreement, match="flax, linen GRUCell, .*: gradients are off by 0.00"):
        next(inside_flax.rows(True, 0.01))


def test_quick_measures_nothing_worth_writing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.inside", "--quick", "--write"])
    with pytest.raises(SystemExit):
        inside.main()
    assert "measures nothing worth writing" in capsys.readouterr().err
