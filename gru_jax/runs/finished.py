"""Runs that have come to their end: whether they still are what a config asks for."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gru_jax.config.config import Config
from gru_jax.config.sections.tasks import READ_FROM_FILES
from gru_jax.data.dataset import DataMissing
from gru_jax.runs.on_disk.run_directory import require_same_data
from gru_jax.types import Plain


def require_data_of(
    config: Config, results: Mapping[Path, Mapping[str, Plain]], note: Callable[[str], object], fix: str
) -> None:
    """Looks whether the data of finished runs are those that are here now; what a config generates does not change.

    Args:
        config: of one of them; they have the task in common.
        results: by the runs' directories.
        note: is told where the data are not here, and nobody knows.
        fix: what to do where they are others.

    Raises:
        RunError: the data of a run are others by now.
        DataDamaged: they can no longer be read.
    """
    if config.task.kind not in READ_FROM_FILES:
        return
    try:
        now = config.task.load(config.data_root).fingerprint
    except DataMissing as error:
        note(f"note: the data are not here to be compared with those of then: {error}")
        return
    for path, result in results.items():
        # Runs from before there was one have nothing to tell.
        require_same_data(path, result.get("fingerprint", now), now, fix)
