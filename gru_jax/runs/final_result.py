"""What a run leaves behind at its end: its result, its status, and its pictures."""

import math
from collections.abc import Mapping

import jax

from gru_jax.config.config import Config
from gru_jax.data.dataset import BETTER_HIGHER
from gru_jax.runs.answers import Answers
from gru_jax.runs.evaluation import split_metrics, split_sums
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.pictures import draw
from gru_jax.runs.record import Record
from gru_jax.runs.scores import answered, scores
from gru_jax.training.devices import Placement
from gru_jax.training.experiment import abstract_state, parameter_count
from gru_jax.types import Plain

Result = dict[str, Plain]
"""What result.json says."""


def finish(record: Record, placement: Placement) -> Result:
    """Writes the result, the pictures and the status of a run that has come to its end.

    Args:
        record: the run.
        placement: where its best parameters are tested.
    """
    run, found = record.run, _result(record, placement.devices)
    told: Answers | None = None
    if record.status == "done":
        params = placement.put_state(record.best_params)
        sums = split_sums(run.experiment, record.dataset, placement, params, "test")
        metrics, newton = split_metrics(run.experiment, sums, "test")
        # Of several processes the first one writes, and has all of the data.
        if run.group.first:
            told = answered(run.whole, record.dataset, record.best_params, "test")
            metrics |= scores(told, record.dataset, run.config.shape, "test")
        found = with_test_values(found, metrics)
        if told is not None and record.dataset.series is not None:
            found |= forecasts.beside(forecasts.of(told, record.dataset, run.config.shape))
        if not math.isfinite(metrics["test/loss"]):
            record.blame_method(newton)
    if run.group.first:
        run.directory.set_result(found)
        if record.status == "done":
            _pictures(record, told)
        run.directory.set_status(found["status"])
    return found


def _result(record: Record, devices: int) -> Result:
    """The result, test values apart."""
    run, config, history = record.run, record.run.config, record.history
    return {
        "status": record.status,
        **({"why": record.why} if record.why else {}),
        "name": config.name,
        "seed": config.seed,
        "config_hash": run.hash,
        "params": parameter_count(abstract_state(run.experiment).params),
        "steps": record.step,
        "total_steps": config.total_steps,
        "epochs": record.step / config.steps_per_epoch,
        "stopped_early": history.stopped_early,
        "best_step": history.best_step,
        **history.best,
        **history.last_train,
        "wall_s": round(history.train_s, 3),
        "wall_s_is": _wall_s_is(record.at_once),
        "compile_s": round(history.compile_s, 3),
        "task": record.dataset.description,
        "fingerprint": record.dataset.fingerprint,
        **({"classes": list(record.dataset.classes)} if record.dataset.classes else {}),
        "strategy": config.parallel.strategy,
        "devices": devices,
        "device_kind": jax.devices()[0].device_kind,
    }


def _wall_s_is(at_once: int) -> str:
    of = "" if at_once == 1 else f"the share of one of the {at_once} runs that were trained at once: of "
    return f"{of}training, validation and checkpoints; compilation is apart, in compile_s"


def with_test_values(result: Result, metrics: Mapping[str, float]) -> Result:
    """The result with the test values in it; where one is not finite, it is null and the run has diverged.

    Example:
        >>> with_test_values({"status": "done"}, {"test/loss": math.nan, "test/accuracy": 0.5})
        {'status': 'diverged', 'test/loss': None, 'test/accuracy': 0.5, 'why': 'test/loss is not finite'}
    """
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    said = result | {name: None if name in wrong else value for name, value in metrics.items()}
    if wrong:
        said |= {"status": "diverged", "why": f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not finite"}
    return said


def stopped_early(config: Config, result: Mapping[str, Plain]) -> str:
    """Why a run ended before its last epoch."""
    early, best_by = config.train.early_stop, config.train.best_by
    best, sign = result.get(best_by), 1 if best_by.endswith(BETTER_HIGHER) else -1
    why = "by train.early_stop"
    if early is not None and early.reached is not None and best is not None and sign * best >= sign * early.reached:
        why = f"{best_by} reached {early.reached:g}"
    elif early is not None:
        why = f"{best_by} had no new best in {early.patience} evaluation{'s' if early.patience > 1 else ''}"
    at = f"step {result['steps']} of {result['total_steps']}"
    return f"stopped early at {at}: {why}; best at step {result.get('best_step', 'an earlier one')}"


def _pictures(record: Record, told: Answers | None) -> None:
    """Draws the pictures of a run; they are a by-product: what keeps them from being drawn does not fail the run."""
    run, said = record.run, record.run.reporter
    try:
        paths = draw(run.directory, run.whole, record.dataset, record.best_params, told)
    except Exception as error:
        # Of whatever kind: the training is over and its result is written.
        said.warn(f"pictures were not drawn: {str(error).partition(chr(10))[0] or type(error).__name__}")
        return
    for path in paths:
        said.note(f"picture: {path}")
