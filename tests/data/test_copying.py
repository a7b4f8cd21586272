"""Copying memory: the layout of a sequence, and what is left to a network without memory."""

import jax
import numpy as np
import pytest

from gru_jax.data import copying

N, BLANK, SYMBOLS = 4_000, 12, 10


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray]:
    split = jax.jit(copying.generator(BLANK), static_argnums=1)(jax.random.key(0), N)
    assert split.asked is None and split.lengths is None
    return np.asarray(split.x), np.asarray(split.y)


def test_layout(made: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = made
    assert x.shape == y.shape == (N, BLANK + 20)
    symbols = x[:, :SYMBOLS]
    assert set(np.unique(symbols)) == set(range(1, 9))
    assert (x[:, SYMBOLS : SYMBOLS + BLANK - 1] == 0).all()
    assert (x[:, SYMBOLS + BLANK - 1 :] == 9).all()
    assert (y[:, :-SYMBOLS] == 0).all()
    np.testing.assert_array_equal(y[:, -SYMBOLS:], symbols)


def test_symbols_are_equally_likely(made: tuple[np.ndarray, np.ndarray]) -> None:
    share = np.bincount(made[0][:, :SYMBOLS].ravel(), minlength=10)[1:9] / (N * SYMBOLS)
    assert np.abs(share - 1 / 8).max() < 5 * np.sqrt(1 / 8 / (N * SYMBOLS))


def test_the_best_predictor_without_memory_and_the_first_loss(made: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = made
    time = BLANK + 20
    # What is known without memory is the step and the token there: the best prediction is how often each tag follows.
    often = np.zeros((time, 10, 10))
    steps = np.broadcast_to(np.arange(time), y.shape)
    np.add.at(often, (steps, x, y), 1)
    told = often / np.maximum(often.sum(axis=2, keepdims=True), 1)
    loss = -np.log(told[steps, x, y]).mean()
    assert loss == pytest.approx(10 * np.log(8) / time, rel=2e-3)
    assert -np.log(np.full(y.shape, 1 / copying.TOKENS)).mean() == pytest.approx(np.log(10))
    # At the published size: the table's 0.0204.
    assert round(10 * np.log(8) / copying.shape(1000, 10, epoch=1, valid=1, test=1).time, 4) == 0.0204


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0 and 10"):
        copying.generator(0)
