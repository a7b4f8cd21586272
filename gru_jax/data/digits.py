"""Handwritten digits as sequences: the 1,797 images of 8 x 8 that scikit-learn carries along."""

import hashlib

import numpy as np

from gru_jax.data.dataset import DataMissing, Dataset, Split, TaskShape

TRAIN, VALID, TEST = 1266, 178, 353


def shape(view: str) -> TaskShape:
    """The sizes of the task, without loading it.

    Args:
        view: `"pixels"`, 64 steps of one pixel, or `"rows"`, 8 steps of 8 pixels.
    """
    time, features = {"pixels": (64, 1), "rows": (8, 8)}[view]
    return TaskShape(TRAIN, VALID, TEST, time, features, outputs=10)


def load(view: str, permutation_seed: int | None = None) -> Dataset:
    """The digits, pixels scaled to [0, 1], in a fixed split.

    Within each class, of every ten images in the order of the file seven go to training, one to
    validation and two to test. No random numbers are involved, so the split is the same everywhere,
    for ever.

    Args:
        view: `"pixels"`, x is `[N, 64, 1]`, or `"rows"`, x is `[N, 8, 8]`.
        permutation_seed: the steps of every image come in another order, the same for all, see `permutation`; None
            leaves them as they are.

    Raises:
        DataMissing: scikit-learn is not installed.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataMissing(
            "the digits come with scikit-learn, which is not installed;"
            " gru-jax[experiments] brings it: pip install '.[experiments]' in a clone"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    sizes = shape(view)
    x = (pixels / 16).astype(np.float32).reshape(-1, sizes.time, sizes.features)
    y = labels.astype(np.int32)
    if permutation_seed is not None:
        x = x[:, permutation(permutation_seed, sizes.time)]
    turn = _rank_within_class(y) % 10
    train, valid, test = (Split(x[chosen], y[chosen]) for chosen in (turn < 7, turn == 7, turn > 7))
    digest = hashlib.sha256()
    for split in (train, valid, test):
        digest.update(split.x.tobytes() + split.y.tobytes())
    order = "" if permutation_seed is None else f" in permuted order (seed {permutation_seed})"
    description = (
        f"digits as {sizes.time} steps of {sizes.features}{order}, 10 classes; fixed stratified split"
        f" of {len(y)}: {len(train.y)} train, {len(valid.y)} validation, {len(test.y)} test"
    )
    return Dataset(train, valid, test, description, digest.hexdigest()[:16])


def _rank_within_class(labels: np.ndarray) -> np.ndarray:
    """For each position, how many earlier positions have the same label: `[N]` -> `[N]`."""
    rank = np.empty_like(labels)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return rank


def permutation(seed: int, steps: int) -> np.ndarray:
    """An order of the steps that is the same on every machine and with every version of NumPy.

    It is drawn by `numpy.random.RandomState(seed).permutation(steps)`, a Mersenne twister and a shuffle whose results
    NumPy has frozen.

    Args:
        seed: 0 to 2**32 - 1.
        steps: T.

    Returns:
        `[T]`, each number from 0 to T - 1 once.

    Example:
        >>> permutation(0, 8).tolist()
        [6, 2, 1, 7, 3, 0, 5, 4]
    """
    return np.random.RandomState(seed).permutation(steps)
