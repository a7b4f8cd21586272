"""Fixed permutations of the steps of a sequence, as permuted pixels need them."""

import numpy as np


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
