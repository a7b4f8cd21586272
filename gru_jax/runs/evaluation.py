"""The metrics of parameters over a whole split."""

import functools
from collections.abc import Callable
from typing import Any

from gru_jax.data.dataset import Dataset
from gru_jax.training.devices import Placement
from gru_jax.training.experiment import Experiment, eval_batches
from gru_jax.training.losses import add_up, metrics_of
from gru_jax.training.newton_sums import NewtonSums, joined, newton_metrics
from gru_jax.types import Params


def evaluate(
    experiment: Experiment,
    dataset: Dataset,
    placement: Placement,
    params: Params,
    split: str,
    call: Callable[..., Any] = lambda name, function, *arguments: function(*arguments),
) -> tuple[dict[str, float], NewtonSums | None]:
    """Evaluates on the devices, batch by batch; what pads the last batch does not count.

    Args:
        experiment: whose model it is.
        dataset: of the task.
        placement: the compiled steps.
        params: parameters on the devices.
        split: "valid" or "test".
        call: `(name, function, *arguments) -> result`: calls the compiled function, and may watch the clock.

    Returns:
        The metrics, and Newton's statistics where the run uses it.
    """
    config = experiment.config
    parts = []
    share = placement.rows(config.task.batch)
    for batch in eval_batches(dataset, split, config.shape, config.task.batch, share):
        batch = placement.put_batch(batch)
        parts.append(call(("eval", batch.x.shape), placement.eval_step, params, batch))
    fetched = [placement.get(part) for part in parts]
    metrics = metrics_of(add_up(fetched), config.shape.target, split)
    if config.newton is None:
        return metrics, None
    newton = functools.reduce(joined, (part.newton for part in fetched))
    return metrics | newton_metrics(newton, f"{split}/"), newton
