"""Keras itself on its JAX backend, imported quietly, and what comparisons with it share."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

# Keras 3.15 converts its variables in a way that numpy 2 warns of.
QUIETLY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def keras() -> Any:
    """The real Keras; skips without it."""
    os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras")


@contextlib.contextmanager
def theirs() -> Iterator[None]:
    """JAX's own settings, which Keras needs."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def close(ours: Any, expected: Any, bound: float = 5e-6) -> None:
    """Asserts equal shapes and numbers, arrays or tuples of them."""
    if isinstance(expected, tuple | list):
        assert isinstance(ours, tuple | list) and len(ours) == len(expected)
        for a, b in zip(ours, expected, strict=True):
            close(a, b, bound)
        return
    a, b = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape
    if a.size:
        assert np.abs(a - b).max() <= bound * max(1.0, np.abs(b).max())


def weights_for(layer: Any, seed: int) -> list[np.ndarray]:
    """Random weights, biases included, for a built layer."""
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.5, w.shape).astype("float32") for w in layer.get_weights()]
