"""The adding problem: two marks, their sum, and what telling 1 costs."""

from functools import cache

import jax
import numpy as np
import pytest

from gru_jax.data import adding
from gru_jax.data.dataset import Split

N, TIME = 20_000, 7


@cache
def made_of_both() -> dict[str, Split]:
    # In one program, because compiling is what takes the time.
    make = jax.jit(lambda key: {marks: adding.generator(TIME, marks)(key, N) for marks in ("anywhere", "halves")})
    return jax.device_get(make(jax.random.key(0)))


@pytest.fixture(params=["anywhere", "halves"])
def made(request: pytest.FixtureRequest) -> tuple[str, np.ndarray, np.ndarray]:
    split = made_of_both()[request.param]
    return request.param, split.x, split.y


def test_the_sum_of_the_two_marked_numbers(made: tuple[str, np.ndarray, np.ndarray]) -> None:
    _, x, y = made
    numbers, marks = x[:, :, 0], x[:, :, 1]
    assert set(np.unique(marks)) == {0, 1} and (marks.sum(axis=1) == 2).all()
    assert (numbers >= 0).all() and (numbers < 1).all()
    np.testing.assert_array_equal(y[:, 0], (numbers * marks).sum(axis=1))


def test_marks_are_where_they_may_be_and_equally_often(made: tuple[str, np.ndarray, np.ndarray]) -> None:
    kind, x, _ = made
    marks = x[:, :, 1]
    pairs, times = np.unique(np.nonzero(marks)[1].reshape(N, 2), axis=0, return_counts=True)
    if kind == "halves":
        expected = [(i, j) for i in range(TIME // 2) for j in range(TIME // 2, TIME)]
    else:
        expected = [(i, j) for i in range(TIME) for j in range(i + 1, TIME)]
    assert list(map(tuple, pairs.tolist())) == expected
    share = 1 / len(expected)
    assert np.abs(times / N - share).max() < 5 * np.sqrt(share / N)


def test_telling_one_costs_a_sixth(made: tuple[str, np.ndarray, np.ndarray]) -> None:
    _, x, y = made
    error = (y - 1) ** 2
    assert abs(error.mean() - 1 / 6) < 5 * error.std() / np.sqrt(N)
    assert abs(x[:, :, 0].mean() - 0.5) < 5 * np.sqrt(1 / 12 / (N * TIME))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="at least 2 steps; got 1"):
        adding.generator(1)
    with pytest.raises(ValueError, match="'anywhere', 'halves'; got 'both'"):
        adding.generator(5, "both")  # type: ignore[arg-type]
