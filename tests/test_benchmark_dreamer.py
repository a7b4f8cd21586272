"""The benchmark of Dreamer's cell: tiny rows of both forms, and their table."""

import jax

from benchmarks import dreamer


def test_rows_and_their_table():
    # The plain form adds its biases plainly.
    with jax.numpy_rank_promotion("allow"):
        found = list(dreamer.rows(True, 0.01))
    assert [row["layers"] for row in found] == [0, 1]
    assert all(row["apart"] < 1e-5 and row["ours_ms"] > 0 for row in found)
    assert "plain flax" in dreamer.printed(found[0])
    record = {"device": "cpu", "date": "today", "command": "c", "cpu": "c", "cores": 2, "versions": {"jax": "1"}}
    lines = dreamer.markdown(record | {"rows": found}).splitlines()
    assert lines[4].count("|") == lines[5].count("|") == lines[7].count("|")
    assert lines[6].startswith("| 5, 2, 3, 8 | 0 |")
