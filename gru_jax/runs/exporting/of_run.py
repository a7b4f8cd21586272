"""A run's best parameters as a file of another framework, compared on sequences of its test split."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gru_jax.config.config import Config
from gru_jax.config.sections.devices import PrecisionConfig
from gru_jax.config.sections.methods import AutoMethod
from gru_jax.data.batches import evaluation_batches
from gru_jax.data.dataset import DataMissing
from gru_jax.models import Model
from gru_jax.runs.exporting.checked import Trial
from gru_jax.runs.exporting.writing import Exported, export
from gru_jax.runs.load_trained import load
from gru_jax.runs.plan import devices_here
from gru_jax.training.precision import widened

SEQUENCES = 32
"""How many of the test split are compared."""


def export_run(
    run_directory: str | Path,
    path: str | os.PathLike[str],
    to: str,
    *,
    lengths: bool = False,
    platforms: Sequence[str] = (),
    data_root: str | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> Exported:
    """Writes a run's best parameters in the format of another framework.

    What is written is the run's model in float32, one step after the other; its config and the description of its data,
    which says how numbers were scaled, go into the file.

    Args:
        run_directory: as for `gru_jax.runs.load`.
        path, to, platforms: as for `export`.
        lengths: whether it takes the lengths of sequences; it always does where the task's sequences differ in theirs.
        data_root: where the data files are, in place of what the run's config says.
        note: is told what the user should know.

    Returns:
        An `Exported`.

    Raises:
        RunError: there is no run, or it has no checkpoint yet; or as `export`.
        CheckpointError: there are checkpoints, and none can be read.
        ImportError, OSError: as `export`.
    """
    devices_here()
    config, _, params = load(run_directory)
    if config.precision != PrecisionConfig():
        note(f"the run computes in {config.precision.compute}; what is written computes in float32")
    about = {"config": json.dumps(config.resolved()), "target": config.shape.target}
    trial = None
    try:
        dataset = config.task.load(config.data_root if data_root is None else data_root)
    except DataMissing as error:
        note(f"compared on random sequences, and with lengths, for {error}")
        lengths = True
    else:
        about["data"] = dataset.description
        part, weight = next(evaluation_batches(dataset.test, config.shape, SEQUENCES))
        rows = weight > 0
        differ = part.lengths is not None
        trial = Trial(np.asarray(part.x)[rows], np.asarray(part.lengths)[rows] if differ else None, "test")
        lengths = lengths or differ
    given = {"lengths": lengths, "about": about, "platforms": platforms, "trial": trial}
    return export((plain(config), widened(params)), path, to, **given)


def plain(config: Config) -> Model:
    """The model of a config in float32, whatever the run computes in, and by whichever method."""
    section = config.model.model_copy(update={"method": AutoMethod(kind="auto")})
    return section.build(config.shape)
