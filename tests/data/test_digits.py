"""The digits: sizes, scaling, and a split that never changes."""

import sys

import numpy as np
import pytest

from gru_jax.data import digits
from gru_jax.data.dataset import DataMissing
from gru_jax.data.digits import permutation

VIEWS = ("pixels", "rows")


@pytest.mark.parametrize("view", VIEWS)
def test_shapes_are_those_announced(view: str) -> None:
    dataset, shape = digits.load(view), digits.shape(view)
    for name in ("train", "valid", "test"):
        split = getattr(dataset, name)
        assert split.x.shape == (getattr(shape, name), shape.time, shape.features)
        assert split.y.shape == (getattr(shape, name),)
        assert split.x.dtype == np.float32 and split.y.dtype == np.int32
        assert split.x.min() == 0 and split.x.max() == 1
        assert set(split.y) == set(range(shape.outputs))


def test_split_is_stratified_and_holds_every_image_once() -> None:
    dataset = digits.load("pixels")
    splits = (dataset.train, dataset.valid, dataset.test)
    assert sum(len(split.y) for split in splits) == 1797
    for split, share in zip(splits, (0.7, 0.1, 0.2), strict=True):
        of_class = np.bincount(split.y)
        whole = sum(np.bincount(other.y) for other in splits)
        assert np.all(np.abs(of_class - share * whole) < 2.2)  # ten at a time, and what is left over
    rows = np.concatenate([split.x for split in splits]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    original = (load_digits().data / 16).astype(np.float32)
    assert np.array_equal(np.unique(rows, axis=0), np.unique(original, axis=0))


def test_views_are_the_same_pixels() -> None:
    pixels, rows = digits.load("pixels"), digits.load("rows")
    assert np.array_equal(pixels.test.x.reshape(-1, 8, 8), rows.test.x)
    assert np.array_equal(pixels.test.y, rows.test.y)


def test_fingerprint_is_pinned() -> None:
    # A change of the data or the split makes published accuracies meaningless: it must be a decision.
    assert digits.load("pixels").fingerprint == "416a48042d5ebf7b"
    assert digits.load("pixels").fingerprint == digits.load("rows").fingerprint


def test_description_states_the_split() -> None:
    description = digits.load("rows").description
    for said in ("8 steps of 8", "1266 train", "178 validation", "353 test", "fixed stratified"):
        assert said in description


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataMissing, match=r"scikit-learn.*gru-jax\[experiments\]"):
        digits.load("pixels")


def test_permuted_steps_are_the_same_pixels_in_the_order_of_the_seed() -> None:
    plain, permuted = digits.load("pixels"), digits.load("pixels", permutation_seed=4)
    assert np.array_equal(permuted.test.x, plain.test.x[:, permutation(4, 64)])
    assert np.array_equal(permuted.test.y, plain.test.y)
    assert permuted.fingerprint != plain.fingerprint and "permuted order (seed 4)" in permuted.description
