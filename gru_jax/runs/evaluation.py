"""The metrics of parameters over a whole split."""

import functools
from collections.abc import Callable, Sequence

from gru_jax.data.dataset import Dataset
from gru_jax.training.devices import Placement
from gru_jax.training.experiment import Experiment, eval_batches
from gru_jax.training.losses import Sums, add_up, metrics_of
from gru_jax.training.newton_sums import NewtonSums, joined, newton_metrics
from gru_jax.types import Params, Tree

Call = Callable[..., Tree]


def _call(name: object, function: Call, *arguments: Tree) -> Tree:
    return function(*arguments)


def split_sums(
    experiment: Experiment, dataset: Dataset, placement: Placement, params: Params, split: str, call: Call = _call
) -> list[Sums]:
    """The totals of every batch of a split, on the host; what pads the last batch does not count.

    Args:
        experiment: whose model it is.
        dataset: of the task.
        placement: the compiled steps.
        params: parameters on the devices.
        split: "valid" or "test".
        call: `(name, function, *arguments) -> result`: calls the compiled function; may watch the clock.
    """
    config = experiment.config
    parts = []
    share = placement.rows(config.task.batch)
    for batch in eval_batches(dataset, split, config.shape, config.task.batch, share):
        batch = placement.put_batch(batch)
        parts.append(call(("eval", batch.x.shape), placement.eval_step, params, batch))
    return [placement.get(part) for part in parts]


def split_metrics(
    experiment: Experiment, sums: Sequence[Sums], split: str
) -> tuple[dict[str, float], NewtonSums | None]:
    """What the totals of a split come to, and Newton's statistics where the run uses it."""
    metrics = metrics_of(add_up(sums), experiment.config.shape.target, split)
    if experiment.config.newton is None:
        return metrics, None
    newton = functools.reduce(joined, (part.newton for part in sums if part.newton is not None))
    return metrics | newton_metrics(newton, f"{split}/"), newton
