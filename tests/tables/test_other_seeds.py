"""A row shown by other seeds than the table's own: what gives way is said, and the command makes it again."""

import re
import shlex
from pathlib import Path

import pytest

from gru_jax.cli.arguments import parse
from gru_jax.tables import rendering
from gru_jax.tables.command import _seeds

from .tables import row, table
from .test_running import Runs, rows_of, runs  # noqa: F401 - a fixture


def test_other_seeds_are_said_and_can_be_made_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: Runs,  # noqa: F811
) -> None:
    small = table(tmp_path, monkeypatch, row("a (1)"), row("b", set={"model.hidden": 8}))
    rows_of(small)
    own = rendering.render(small, ["full"], "md")
    assert own.endswith("\n\nMade by `gru-jax table small --scale full`.\n")
    _, said, entries = rows_of(small, seeds=[7], rows=re.compile("a"))
    assert said[-1] == "a (1): now of seed 7, in place of seeds 0, 1, 2; no run is lost, --seeds 0,1,2,7 shows all"
    page = rendering.render(small, ["full"], "md").splitlines()
    assert page[-2] == "Made by `gru-jax table small --scale full`." and page[-1].startswith("a (1) is of other seeds")
    for form, line in (("md", page[-1]), ("tex", rendering.render(small, ["full"], "tex").splitlines()[1])):
        command = re.search(r"`(.*)`" if form == "md" else r"(gru-jax table .*)", line)
        assert command is not None
        asked = parse(shlex.split(command[1])[1:])
        assert re.search(asked.rows, "a (1)") and not re.search(asked.rows, "b")
        assert _seeds(asked.seeds) == entries["a (1)"]["seeds"] == [7]
    _, said, _ = rows_of(small)
    assert any("a (1): now of seeds 0, 1, 2, in place of seed 7" in line for line in said)
    assert rendering.render(small, ["full"], "md") == own
