"""A task: of a noisy wave, whether it is slow or fast. The places for your own data are `shape` and `load`."""

import numpy as np

from gru_jax.data.dataset import Dataset, Split, TaskShape
from gru_jax.data.generated import fingerprint

TRAIN, VALID, TEST = 1024, 256, 256


def shape(length: int = 40) -> TaskShape:
    """The sizes of the task, told without loading anything."""
    return TaskShape(train=TRAIN, valid=VALID, test=TEST, time=length, features=1, outputs=2, target="class")


def load(length: int = 40) -> Dataset:
    """Three splits: x `[N, T, I]` float32, and the class of each sequence, `[N]` int32."""
    train, valid, test = (waves(seed, count, length) for seed, count in enumerate((TRAIN, VALID, TEST)))
    # A run refuses to go on with other data: the fingerprint changes with every value.
    return Dataset(train, valid, test, "noisy waves, slow or fast", fingerprint((train, valid, test)), ("slow", "fast"))


def waves(seed: int, count: int, length: int) -> Split:
    """Waves of random phase, with as much noise as signal."""
    random = np.random.default_rng(seed)
    fast = random.integers(0, 2, count)
    turns = np.where(fast, 5, 3)[:, None] * np.arange(length) / length + random.random((count, 1))
    x = np.sin(2 * np.pi * turns) + random.normal(size=(count, length))
    return Split(x[..., None].astype(np.float32), fast.astype(np.int32))
