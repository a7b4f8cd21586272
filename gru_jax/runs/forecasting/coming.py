"""What a trained run forecasts after the last value of a file, that of its training or a newer one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from gru_jax.config.config import Config
from gru_jax.config.loading import load_config
from gru_jax.data.series import coming as data
from gru_jax.data.series import windows
from gru_jax.runs.forecasting.baselines import seasonal_naive
from gru_jax.runs.forecasting.forecasts import Forecasts, in_units
from gru_jax.runs.load_trained import newest
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.plan import prepare
from gru_jax.training.experiment import whole
from gru_jax.types import Plain


def coming(
    run_directory: Path,
    file: str | None = None,
    data_root: str | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> tuple[str, Forecasts]:
    """The forecast of one window, the last one of a file, by a run's best parameters.

    Args:
        run_directory: of a finished run of a series.
        file: a CSV file with the columns of the config, here or below `data_root`; None for that of the config.
        data_root: where data files are, in place of what the run's config says.
        note: is told what the user should know, such as that values known ahead were filled.

    Returns:
        The name of the run; the forecast, with no truth, and beside it the seasonal-naive one.

    Raises:
        RunError: there is no finished run of a series.
        CheckpointError: it has no checkpoint that can be read.
        DataMissing, DataDamaged: the file is not there, cannot be read so, or does not say what has to be known.
    """
    directory = RunDirectory(run_directory)
    if not directory.is_run():
        raise RunError(f"{directory.path} holds no run")
    elsewhere = [] if data_root is None else [f"data_root={json.dumps(data_root)}"]
    loaded = load_config(directory.path / "config.yaml", elsewhere)
    config = loaded.config
    result = directory.result() or {}
    scale = result.get("scale")
    if config.task.kind != "series" or not isinstance(scale, dict):
        fact = f"its task is of kind {config.task.kind!r}" if config.task.kind != "series" else "it is not finished"
        raise RunError(f"{directory.path} does not forecast: {fact}; train one of kind 'series' to its end")
    window = _window(config, file, result)
    if "step" in result and window.series.step != result["step"]:
        steps = [step or "of no known time" for step in (window.series.step, result["step"])]
        fact = f"the rows of {file} are {steps[0]} apart, those that {directory.path} was trained on {steps[1]}"
        raise RunError(f"{fact}; give it rows of the same step", exit_code=1)
    if window.holes:
        note(window.holes)
    experiment = whole(prepare(loaded))
    params = newest(directory, experiment).best_params
    outputs = np.asarray(jax.jit(experiment.model.apply)(params, window.x)).astype(np.float32)
    starts = np.array([window.start])
    others = {"seasonal_naive": seasonal_naive(window.series, starts)}
    told, truth = in_units(outputs, window.series, starts), window.series.told(starts)
    return config.name, Forecasts("next", window.series, starts, truth, told, others, window.x.shape[1])


def _window(config: Config, file: str | None, result: Mapping[str, Plain]) -> data.Coming:
    task = config.task
    assert task.kind == "series"
    if file is None:
        content = windows.read_again(task.file, config.data_root)
    else:
        content = windows.read(file, str(Path.cwd()), config.data_root)
    known = task.arguments()
    scale = {name: (mean, deviation) for name, (mean, deviation) in result["scale"].items()}
    return data.coming(
        content,
        known["reading"],
        known["window"],
        task.missing,
        result.get("period", task.period),
        known["quantiles"],
        task.relative,
        scale,
    )
