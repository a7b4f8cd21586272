"""`gru-jax check --schema`: prints one schema for all configs, and takes none."""

import json
from pathlib import Path

import jsonschema
import pytest

from .command import TINY, gru_jax


def test_the_schema_is_printed(tmp_path: Path) -> None:
    done = gru_jax("check", "--schema", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("config.yaml", "--schema"),
            "--schema takes no CONFIG, got 'config.yaml': there is one schema for all of them",
        ),
        (
            ("--schema", "config.yaml"),
            "--schema takes no CONFIG, got 'config.yaml': there is one schema for all of them",
        ),
        ((), "check needs a CONFIG, or --schema; see"),
        (("config.yaml", "--shcema"), "unknown argument '--shcema', did you mean '--schema'?"),
    ],
)
def test_a_schema_or_a_config(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TINY)
    refused = gru_jax("check", *arguments, cwd=tmp_path)
    assert refused.returncode == 2 and refused.stdout == "" and said in refused.stderr
