"""The benchmark of one step a call: a tiny row, its table, and that other numbers are not timed."""

import numpy as np
import pytest

from benchmarks import agreement, streaming


def test_a_row_and_its_table():
    (row,) = streaming.rows(True, 0.01)
    assert row["apart"] < 1e-5 and row["ours_us"] > 0 and row["jitted step_over_ours"] > 1
    assert "ours" in streaming.printed(row)
    record = {"device": "cpu", "date": "today", "command": "c", "cpu": "c", "cores": 2, "versions": {"jax": "1"}}
    lines = streaming.markdown(record | {"rows": [row]}).splitlines()
    assert lines[4].count("|") == lines[5].count("|") == lines[6].count("|") and lines[6].startswith("| tiny | 3 |")


def test_other_numbers_are_not_timed():
    steps = {"ours": lambda x: x, "torch": lambda x: x + np.float32(1e-3)}
    with pytest.raises(agreement.Disagreement, match="tiny: torch is off by 0.001"):
        streaming.compared("tiny", steps, 3)
