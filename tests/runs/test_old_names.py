"""Names that were documented before they moved."""

from gru_jax import runs
from gru_jax.training import trained


def test_load() -> None:
    assert trained.load is runs.load
