"""What the answers on a split are worth beyond loss and accuracy, and which classes are taken for which."""

import numpy as np

from gru_jax.data.dataset import Dataset, TaskShape, has_scores
from gru_jax.runs.answers import Answers, answers
from gru_jax.runs.forecasting import forecasts
from gru_jax.training.experiment import Experiment
from gru_jax.types import Params


def answered(experiment: Experiment, dataset: Dataset, params: Params, split: str) -> Answers | None:
    """The answers that scores are computed from; None where there are no scores, or an answer is not finite.

    Args:
        experiment: whose model it is, whole.
        dataset: of the task.
        params: parameters.
        split: "train", where it is not generated, "valid" or "test".
    """
    shape = experiment.config.shape
    if not has_scores(shape, getattr(shape, split)):
        return None
    found = answers(experiment, dataset, params, split)
    return found if np.isfinite(found.outputs).all() else None


def scores(found: Answers | None, dataset: Dataset, shape: TaskShape, split: str) -> dict[str, float]:
    """The scores of answers, by their names in result.json; none of None.

    Args:
        found: of `answered`.
        dataset: that they belong to.
        shape: of the task.
        split: "train", "valid" or "test": what the names begin with.
    """
    if found is None:
        return {}
    if dataset.series is not None:
        return forecasts.scores(forecasts.of(found, dataset, shape))
    made = of_values(found.outputs, found.y) if shape.target == "values" else of_classes(found.outputs, found.y)
    return {f"{split}/{name}": value for name, value in made.items()}


def of_values(outputs: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The mean absolute error and the root of the mean square error, in the units of the task.

    Args:
        outputs: `[M, O]`.
        y: `[M, O]`.

    Example:
        >>> of_values(np.array([[1.0], [2.0]]), np.array([[4.0], [-2.0]]))
        {'mae': 3.5, 'rmse': 3.5355339059327378}
    """
    errors = outputs.astype(np.float64) - y
    return {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(np.square(errors).mean()))}


def of_classes(outputs: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Macro F1, balanced accuracy, and, where it is defined, the area under the ROC curve.

    Args:
        outputs: `[M, O]`, logits.
        y: `[M]`, classes.

    Example:
        >>> of_classes(np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), np.array([0, 0, 0, 1]))
        {'macro_f1': 0.7333333333333334, 'balanced_accuracy': 0.8333333333333333, 'auc': 0.8333333333333334}
    """
    counts = confusion(outputs, y)
    area = auc(outputs, y)
    found = {"macro_f1": macro_f1(counts), "balanced_accuracy": balanced_accuracy(counts)}
    return found if area is None else found | {"auc": area}


def confusion(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How often each class was taken for which: `[O, O]` counts, a row the class that was true.

    Args:
        outputs: `[M, O]`, logits.
        y: `[M]`, classes.

    Example:
        >>> confusion(np.array([[2.0, 1.0], [1.0, 2.0], [0.0, 1.0]]), np.array([0, 0, 1])).tolist()
        [[1, 1], [0, 1]]
    """
    classes = outputs.shape[-1]
    places = y.astype(np.int64) * classes + outputs.argmax(-1)
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def macro_f1(counts: np.ndarray) -> float:
    """The mean over classes of `2 TP / (2 TP + FP + FN)`, of those that are true or predicted at all.

    Args:
        counts: `[O, O]`, of `confusion`.
    """
    right, both = counts.diagonal(), counts.sum(0) + counts.sum(1)
    seen = both > 0
    return float((2 * right[seen] / both[seen]).mean())


def balanced_accuracy(counts: np.ndarray) -> float:
    """The mean over the classes that occur of the share of them that was found.

    Args:
        counts: `[O, O]`, of `confusion`.
    """
    true = counts.sum(1)
    return float((counts.diagonal()[true > 0] / true[true > 0]).mean())


def auc(outputs: np.ndarray, y: np.ndarray) -> float | None:
    """The area under the ROC curve: how often one of a class has a higher probability of it than one that is not.

    Ties count half. Of more than two classes it is the mean over those that some are of and some are not, each against
    the rest; None where there is none.

    Args:
        outputs: `[M, O]`, logits.
        y: `[M]`, classes.

    Source: J. A. Hanley and B. J. McNeil, The meaning and use of the area under a ROC curve, Radiology 143 (1982).
    """
    logits = outputs.astype(np.float64)
    areas = []
    # Of two classes one says it all: what speaks for the one speaks against the other.
    for label in range(1 if logits.shape[-1] == 2 else 0, logits.shape[-1]):
        of_it = y == label
        pairs = int(of_it.sum()) * int((~of_it).sum())
        if pairs:
            ranks = _ranks(_log_odds(logits, label))[of_it]
            areas.append((ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / pairs)
    return float(np.mean(areas)) if areas else None


def _log_odds(logits: np.ndarray, label: int) -> np.ndarray:
    """What grows with the probability of a class, and is not 1 for all of which the model is sure: `[M]`."""
    others = np.delete(logits, label, 1)
    if not others.size:
        return logits[:, label]
    highest = others.max(1)
    return logits[:, label] - highest - np.log(np.exp(others - highest[:, None]).sum(1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each among the sorted, from 1; equal ones share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
