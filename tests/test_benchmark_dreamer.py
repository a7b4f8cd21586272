"""The benchmark of Dreamer's cell: tiny rows, which have the numbers of the plain form, and their table."""

import jax
import pytest

from benchmarks import dreamer


@pytest.mark.slow
def test_a_row_and_its_table():
    # The plain form adds its biases plainly.
    with jax.numpy_rank_promotion("allow"):
        row = next(dreamer.rows(True, 0.01))
    assert row["layers"] == 0 and row["apart"] < 1e-5 and row["ours_ms"] > 0
    assert "plain flax" in dreamer.printed(row)
    record = {"device": "cpu", "date": "today", "command": "c", "cpu": "c", "cores": 2, "versions": {"jax": "1"}}
    lines = dreamer.markdown(record | {"rows": [row]}).splitlines()
    assert lines[4].count("|") == lines[5].count("|") == lines[6].count("|")
    assert lines[6].startswith("| 5, 2, 3, 8 | 0 |")


@pytest.mark.slow
def test_both_forms():
    with jax.numpy_rank_promotion("allow"):
        found = list(dreamer.rows(True, 0.01))
    assert [row["layers"] for row in found] == [0, 1] and all(row["apart"] < 1e-5 for row in found)
