"""Selective copying: every symbol once, in its order, asked for at the end."""

import itertools

import jax
import numpy as np
import pytest

from gru_jax.data import selective_copying

N, LENGTH, MEMORIZE, VOCAB = 20_000, 6, 2, 6


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    split = jax.jit(selective_copying.generator(LENGTH, MEMORIZE, VOCAB), static_argnums=1)(jax.random.key(0), N)
    return np.asarray(split.x), np.asarray(split.y), np.asarray(split.asked)


def test_order_is_kept(made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, y, asked = made
    strewn, markers = x[:, :LENGTH], x[:, LENGTH:]
    is_symbol = strewn != VOCAB - 1
    assert (is_symbol.sum(axis=1) == MEMORIZE).all() and (markers == 0).all()
    np.testing.assert_array_equal(strewn[is_symbol].reshape(N, MEMORIZE), y[:, LENGTH:])
    assert asked[:, LENGTH:].all() and not asked[:, :LENGTH].any()


def test_symbols_and_steps_are_equally_likely(made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, y, _ = made
    symbols, times = np.unique(y[:, LENGTH:], axis=0, return_counts=True)
    assert list(map(tuple, symbols.tolist())) == list(itertools.product(range(1, VOCAB - 1), repeat=MEMORIZE))
    of_symbols = np.nonzero(x[:, :LENGTH] != VOCAB - 1)[1].reshape(N, MEMORIZE)
    places, often = np.unique(of_symbols, axis=0, return_counts=True)
    assert list(map(tuple, places.tolist())) == list(itertools.combinations(range(LENGTH), MEMORIZE))
    for seen in (times, often):
        share = 1 / len(seen)
        assert np.abs(seen / N - share).max() < 5 * np.sqrt(share / N)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [((3, 4), r"memorize must lie in \[1, length = 3\]; got 4"), ((3, 1, 2), "vocab must be at least 3.*got 2")],
)
def test_wrong_arguments(arguments: tuple[int, ...], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        selective_copying.generator(*arguments)
