"""What a trained model answers on a whole split, beside what it was to tell."""

from typing import NamedTuple

import jax
import numpy as np

from gru_jax.data.batches import evaluation_order
from gru_jax.data.dataset import Dataset
from gru_jax.training.experiment import Experiment, eval_batches
from gru_jax.types import Params


class Answers(NamedTuple):
    """M answers, in the order of the split: one a sequence, or, of tags and notes, one a step that counts.

    Attributes:
        outputs: `[M, O]` float32, of the model: logits, or numbers in the units of the task.
        y: what was to be told: classes or tags `[M]`, values or notes `[M, O]`.
        sequence: `[M]`, the place of the sequence in the split.
        step: `[M]`, the step in the sequence; None where there is one answer a sequence.
        split: "train", "valid" or "test".
    """

    outputs: np.ndarray
    y: np.ndarray
    sequence: np.ndarray
    step: np.ndarray | None
    split: str = "test"


def answers(experiment: Experiment, dataset: Dataset, params: Params, split: str) -> Answers:
    """The answers of parameters on a split.

    Args:
        experiment: whose model it is, whole: with no axis of time that is split over devices.
        dataset: of the task.
        params: parameters.
        split: "valid" or "test"; "train" where it is not generated.
    """
    config = experiment.config
    order = evaluation_order(getattr(dataset, split))
    # The function itself, not one made here: the runs of a stack have the same model, and compile it once.
    apply = jax.jit(experiment.model.apply, static_argnames="deterministic")
    found = []
    for number, batch in enumerate(eval_batches(dataset, split, config.shape, config.task.batch)):
        told = np.nonzero(np.asarray(batch.weight) > 0)
        outputs = np.asarray(apply(params, batch.x, lengths=batch.lengths, deterministic=True)).astype(np.float32)
        found.append((outputs[told], np.asarray(batch.y)[told], order[number * config.task.batch + told[0]], *told[1:]))
    outputs, y, sequence, *steps = map(np.concatenate, zip(*found, strict=True))
    sorted_by = np.argsort(sequence, kind="stable")
    step = steps[0][sorted_by] if steps else None
    return Answers(outputs[sorted_by], y[sorted_by], sequence[sorted_by], step, split)
