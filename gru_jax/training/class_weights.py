"""What each class counts in the loss of training: what a list says, or a rare class as much as a frequent one."""

import functools

import numpy as np

from gru_jax.data.dataset import Dataset, Split
from gru_jax.training.experiment import Experiment, eval_batches


def weighed(experiment: Experiment, dataset: Dataset) -> Experiment:
    """The experiment whose training step weighs classes as its config says; the same one where it says nothing.

    Args:
        experiment: of the config.
        dataset: of its task.

    Raises:
        ValueError: the weights are to be balanced, and the training data are generated.
    """
    wanted = experiment.config.train.class_weights
    if wanted is None:
        return experiment
    weights = scaled(balanced(class_counts(experiment, dataset)) if wanted == "balanced" else np.array(wanted))
    return experiment._replace(train_step=functools.partial(experiment.train_step, class_weights=weights))


def class_counts(experiment: Experiment, dataset: Dataset) -> np.ndarray:
    """How often each class or tag is told in the training split, `[O]`.

    Raises:
        ValueError: it is generated.
    """
    if not isinstance(dataset.train, Split) and callable(dataset.train):
        raise ValueError("'balanced' counts the classes of the training data, and these are generated; give a list")
    shape, counts = experiment.config.shape, np.zeros(experiment.config.shape.outputs, np.int64)
    for batch in eval_batches(dataset, "train", shape, experiment.config.task.batch):
        told = np.asarray(batch.y)[np.asarray(batch.weight) > 0]
        counts += np.bincount(told, minlength=shape.outputs)
    return counts


def balanced(counts: np.ndarray) -> np.ndarray:
    """Weights with which all classes count the same in sum: `1 / n`, and 0 of a class that never occurs.

    Args:
        counts: `[O]`, how often each class occurs.

    Example:
        >>> balanced(np.array([50, 10, 0])).tolist()
        [0.02, 0.1, 0.0]
    """
    return np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0)


def scaled(weights: np.ndarray) -> np.ndarray:
    """Weights in the same proportions, float32, the smallest above 0 being 1.

    A weighted mean does not change with the scale. So those of a batch add up to 1 at least if there is any.

    Example:
        >>> scaled(np.array([0.02, 0.1, 0.0])).tolist()
        [1.0, 5.0, 0.0]
    """
    return (weights / weights[weights > 0].min()).astype(np.float32)
