"""The benchmark of models with our computation inside: a tiny row, its table, and the bound on losses."""

from types import SimpleNamespace

import pytest

from benchmarks import agreement, inside, inside_keras
from tests.interop import keras_oracle
from tests.interop.keras_oracle import QUIETLY, theirs


@QUIETLY
def test_rows_and_their_table(monkeypatch):
    keras_oracle.keras()
    monkeypatch.setattr(inside_keras, "cases", lambda keras: {"plain": {"reset_after": False}})
    with theirs():
        rows = list(inside_keras.rows(True, 0.01))
    assert [row["kind"] for row in rows] == ["fit", "predict"] and all(row["losses_apart"] < 5e-6 for row in rows)
    assert all(row["theirs_over_ours"] > 0 and "x ours" in inside.printed(row) for row in rows)
    record = {"device": "cpu", "date": "today", "command": "c", "cpu": "c", "cores": 2, "versions": {"jax": "1"}}
    lines = inside.markdown(record | {"rows": rows}).splitlines()
    assert lines[4].count("|") == lines[-1].count("|") and lines[-1].startswith("| keras | predict | plain | 4,2,3,2 |")


def test_other_losses_are_not_timed():
    model = lambda loss: SimpleNamespace(fit=lambda *_, **__: SimpleNamespace(history={"loss": [1.0, loss]}))  # noqa: E731
    assert inside_keras.compared(model(0.5), model(0.5), inside_keras.QUICK[0], "a") == 0
    with pytest.raises(agreement.Disagreement, match="a: losses are off by 0.001"):
        inside_keras.compared(model(0.501), model(0.5), inside_keras.QUICK[0], "a")
