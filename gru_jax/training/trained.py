"""A trained model, read back from the directory of its run."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax.models import Model
from gru_jax.training import checkpoint
from gru_jax.training.config import Config
from gru_jax.training.experiment import abstract_state, build
from gru_jax.training.run_directory import RunDirectory, RunError
from gru_jax.types import Params


class Trained(NamedTuple):
    """What a run has learnt.

    Attributes:
        config: the run's config; `config.task.load(config.data_root)` gives its data.
        model: the network with its output layer, a pair of pure functions `init` and `apply`.
        params: the parameters of the run's best evaluation, those that its test values belong to.
    """

    config: Config
    model: Model
    params: Params


def load(run_directory: str | Path) -> Trained:
    """Reads the best parameters from a run's newest whole checkpoint; also while the run goes on.

    Args:
        run_directory: what `gru-jax run` printed, or its `--out`.

    Returns:
        The config, the model and its parameters.

    Raises:
        RunError: there is no run, or it has no checkpoint yet.
        CheckpointError: there are checkpoints, and none can be read.

    Example:
        >>> load("nowhere")
        Traceback (most recent call last):
        gru_jax.training.run_directory.RunError: nowhere holds no run
    """
    directory = RunDirectory(Path(run_directory))
    if not directory.is_run():
        raise RunError(f"{directory.path} holds no run")
    experiment = build(directory.config())
    like = abstract_state(experiment)
    found, _ = checkpoint.restore(directory.checkpoints, like, like.params)
    if found is None:
        raise RunError(f"{directory.path} holds no checkpoint yet")
    return Trained(experiment.config, experiment.model, jax.tree.map(jnp.asarray, found.best_params))
