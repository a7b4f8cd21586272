"""A run's best parameters as a file of another framework, compared on sequences of its test split."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config.config import Config
from gru_jax.config.sections.devices import PrecisionConfig
from gru_jax.config.sections.methods import AutoMethod
from gru_jax.data.batches import evaluation_batches
from gru_jax.data.dataset import DataMissing, Dataset
from gru_jax.models import Model
from gru_jax.runs.exporting.checked import Trial
from gru_jax.runs.exporting.of_series import about_series
from gru_jax.runs.exporting.request import Scaling
from gru_jax.runs.exporting.writing import Exported, export
from gru_jax.runs.file_names import without_folders
from gru_jax.runs.load_trained import newest
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.plan import devices_here
from gru_jax.training.experiment import build
from gru_jax.training.precision import widened
from gru_jax.types import Options, Params

SEQUENCES = 32
"""How many of the test split are compared."""
RAW = "as it is in the data: the model scales it itself"
SCALED = "scaled: each value less its mean, over its deviation; the keys scale and series say which"


def export_run(
    run_directory: str | Path,
    path: str | os.PathLike[str],
    to: str,
    *,
    lengths: bool = False,
    scaled: bool = False,
    platforms: Sequence[str] = (),
    data_root: str | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> Exported:
    """Writes a run's best parameters in the format of another framework.

    What is written is the run's model in float32, whatever the run computes in; its config and the description of its
    data, which says how numbers were scaled, go into the file. Where each number of a step was scaled by its mean and
    deviation, the model does it itself and takes the numbers of the data, but for "safetensors", which is no program.

    Args:
        run_directory: as for `gru_jax.runs.load`.
        path, to, platforms: as for `export`.
        lengths: whether it takes the lengths of sequences; it always does where the task's sequences differ in theirs.
        scaled: whether the model takes numbers that are scaled already.
        data_root: where the data files are, in place of what the run's config says.
        note: is told what the user should know.

    Returns:
        An `Exported`.

    Raises:
        RunError: there is no run, it has no checkpoint yet, or the data are others than those it was trained on; or as
            `export`.
        CheckpointError: there are checkpoints, and none can be read.
        ImportError, OSError: as `export`.
    """
    devices_here()
    config, params, fingerprint = _best(RunDirectory(Path(run_directory)))
    precision = config.precision
    if precision != PrecisionConfig():
        held = f"the run holds parameters in {precision.params} and computes in {precision.compute}"
        note(f"{held}; what is written does both in float32")
    # Without folders, which are of this machine.
    resolved = without_folders(config.resolved() | {"data_root": None})
    about, trial, scaling = {"config": json.dumps(resolved), "target": config.shape.target}, None, None
    try:
        dataset = config.task.load(config.data_root if data_root is None else data_root)
    except DataMissing as error:
        note(f"compared on random sequences, and with lengths, for {error}; x is taken as the task scales it")
        lengths = True
    else:
        if dataset.fingerprint != fingerprint:
            raise RunError(
                f"the data are not those that {run_directory} was trained on (fingerprint {fingerprint}, now"
                f" {dataset.fingerprint}); name the folder of the others with --data-root",
                exit_code=1,
            )
        about |= _of_data(dataset, config.task)
        # Masks and times since are no numbers of the data.
        if dataset.scale is not None and not config.shape.gaps and not scaled and to != "safetensors":
            scaling = Scaling(*(np.asarray(each, np.float32) for each in dataset.scale))
        part, weight = next(evaluation_batches(dataset.test, config.shape, SEQUENCES))
        rows = weight > 0
        differ = part.lengths is not None
        x, ends = np.asarray(part.x)[rows], np.asarray(part.lengths)[rows] if differ else None
        if scaling is not None:
            # Past their ends raw sequences hold zeros, as those of others will.
            inside = True if ends is None else (np.arange(x.shape[1]) < ends[:, None])[..., None]
            x = np.where(inside, scaling.unscaled(x), np.float32(0))
        trial = Trial(x, ends, "test")
        lengths = lengths or differ
        if dataset.scale is not None or dataset.series is not None:
            about["x"] = SCALED if scaling is None else RAW
            note(f"x is {about['x']}")
    given: Options = {"lengths": lengths, "about": about, "platforms": platforms, "trial": trial}
    given["scale"] = scaling
    return export((plain(config), widened(params)), path, to, **given)


def _best(directory: RunDirectory) -> tuple[Config, Params, str]:
    """The config of a run, its best parameters, and the fingerprint of the data that they were trained on."""
    if not directory.is_run():
        raise RunError(f"{directory.path} holds no run")
    experiment = build(directory.config())
    found = newest(directory, experiment)
    return experiment.config, jax.tree.map(jnp.asarray, found.best_params), found.meta["fingerprint"]


def _of_data(dataset: Dataset, task: Any) -> dict[str, str]:
    """What the numbers that go in and come out are, as far as the data say it."""
    about = {"data": dataset.description}
    if dataset.classes:
        about["classes"] = json.dumps(dataset.classes)
    if dataset.series is not None:
        about["series"] = json.dumps(about_series(dataset.series, task.arguments()["reading"], task.missing))
    if dataset.scale is not None:
        mean, deviation = (part.tolist() for part in dataset.scale)
        about["scale"] = json.dumps({"mean": mean, "deviation": deviation})
    return about


def plain(config: Config) -> Model:
    """The model of a config in float32, whatever the run computes in, and by whichever method."""
    section = config.model.model_copy(update={"method": AutoMethod(kind="auto")})
    return section.build(config.shape)
