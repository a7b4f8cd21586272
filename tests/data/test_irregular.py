"""Irregular sampling: what is missing, what stands in its place, and the loss that nothing goes below."""

import jax
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.data import irregular

N, TIME, D = 4_000, 24, 3


@pytest.fixture(scope="module")
def drawn():
    make = jax.jit(lambda key: irregular.drawn(key, N, TIME, D, 0.6, 0.5))
    return jax.tree.map(lambda a: np.asarray(a, np.float64), make(jax.random.key(0)))


def test_shares_and_moments(drawn):
    series, times, last = drawn
    assert np.isnan(series[:, -1]).all()
    assert abs(np.isnan(series[:, :-1]).mean() - 0.6) < 0.01
    assert abs(np.diff(times).mean() - 0.1) < 0.002
    assert abs(last.mean()) < 0.05 and abs(last.var() - 1) < 0.05
    assert abs(np.nanvar(series) - 1.25) < 0.05


def test_kalman_s_filter_has_the_least_loss(drawn):
    series, times, last = drawn
    mean, variance = np.zeros((N, D)), np.ones((N, D))
    for t in range(TIME):
        gap = times[:, t] - times[:, t - 1] if t else np.zeros(N)
        left = np.exp(-gap[:, None] / np.array([0.2, 0.2 * 32**0.5, 6.4]))
        mean, variance = left * mean, left**2 * variance + 1 - left**2
        gain = np.where(np.isnan(series[:, t]), 0, variance / (variance + 0.25))
        mean, variance = mean + gain * np.nan_to_num(series[:, t] - mean), (1 - gain) * variance
    error = ((mean - last) ** 2).mean()
    least = irregular.least_loss(N, TIME, D, 0.6)
    assert abs(error - least) < 0.02 and 0.2 < least < 0.8


def test_what_stands_in_place_of_a_missing_value(drawn):
    key = jax.random.key(0)
    made = {seen: irregular.generator(TIME, D, 0.6, seen=seen)(key, 50).x for seen in ("gaps", "last", "zeros")}
    series, times, _ = irregular.drawn(key, 50, TIME, D, 0.6, 0.5)
    known = ~np.isnan(series)
    np.testing.assert_array_equal(made["zeros"], np.where(known, series, 0))
    np.testing.assert_array_equal(made["gaps"][..., :D], made["last"])
    np.testing.assert_array_equal(made["gaps"][..., D : 2 * D], known)
    np.testing.assert_array_equal(made["gaps"], gj.observed(series, times).x)
    for seen, x in made.items():
        assert irregular.shape(TIME, D, seen, epoch=1, valid=1, test=1).features == x.shape[-1]


@pytest.mark.parametrize(
    ("options", "match"),
    [((1,), "at least 2; got 1"), ((5, 2, 1.0), "share in .0, 1.; got 1.0"), ((5, 2, 0.5, 0.5, "gap"), "got 'gap'")],
)
def test_wrong_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        irregular.generator(*options)
