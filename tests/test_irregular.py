"""Series with holes as arrays without: the paper's recurrence for times since, in pieces, in episodes, under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

NAN = np.nan
RNG = np.random.default_rng(0)
B, T, D = 4, 30, 3
SERIES = np.where(RNG.random((B, T, D)) < 0.6, NAN, RNG.normal(size=(B, T, D)))
SERIES[:, 5:9] = NAN
SERIES[0, :, 1] = NAN
TIMES = np.cumsum(RNG.exponential(size=(B, T)), -1) + np.array([[0.0], [1e9], [0.0], [-5.0]])
TIMES[2, 12:] += 1e4
MEAN = np.array([0.5, -1.0, 2.0])
RESETS = RNG.random((B, T)) < 0.1


def by_steps(series, times, mean, resets):
    """Values, masks and times since of one sequence, as the paper has them: one step after the other."""
    value, since, seen = mean.copy(), np.zeros(D), np.ones(D, bool)
    found = []
    for t in range(len(series)):
        if t == 0 or resets[t]:
            value, since = mean.copy(), np.zeros(D)
        else:
            gap = times[t] - times[t - 1]
            since = np.where(seen, gap, gap + since)
        seen = ~np.isnan(series[t])
        value = np.where(seen, series[t], value)
        found.append([value, seen.astype(float), since])
    return np.array(found).transpose(1, 0, 2)


def expected(resets):
    return np.stack([by_steps(*each, MEAN, r) for *each, r in zip(SERIES, TIMES, resets, strict=True)], 1)


@pytest.mark.parametrize("resets", (None, RESETS), ids=("whole", "episodes"))
def test_one_step_after_the_other(resets):
    want = expected(np.zeros((B, T), bool) if resets is None else resets)
    seen = gj.observed(SERIES, TIMES, mean=MEAN, resets=resets)
    for got, each in zip(seen[:3], want, strict=True):
        # Times of 1e9 are known to 1e-7 in float64.
        np.testing.assert_allclose(got, each, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(seen.x, np.concatenate(seen[:3], -1))


def test_in_pieces_as_a_whole():
    whole, seen, parts = gj.observed(SERIES, TIMES, mean=MEAN), None, []
    for start, stop in ((0, 1), (1, 2), (2, 7), (7, T)):
        seen = gj.observed(SERIES[:, start:stop], TIMES[:, start:stop], mean=MEAN, before=seen)
        parts.append(seen)
    for got, want in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_allclose(np.concatenate(got, 1), want, rtol=0, atol=1e-6)


def test_under_jit_and_without_times():
    series = jnp.asarray(SERIES, jnp.float32)
    seen = jax.jit(lambda a, r: gj.observed(a, mean=jnp.asarray(MEAN), resets=r))(series, jnp.asarray(RESETS))
    want = gj.observed(SERIES.astype(np.float32), np.arange(T), mean=MEAN, resets=RESETS)
    assert isinstance(seen.x, jax.Array) and seen.x.dtype == want.x.dtype == np.float32
    np.testing.assert_array_equal(seen.x, want.x)
    assert gj.observed(SERIES[0, :0]).x.shape == (0, 3 * D)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: gj.observed(np.zeros((3, 2), int)), TypeError, "series must be floating point.*got int64"),
        (lambda: gj.observed(np.zeros(3)), ValueError, r"series must be \[\*batch, T, D\]; got shape \[3\]"),
        (lambda: gj.observed(SERIES, TIMES[:2]), ValueError, r"times must have shape \[4, 30\], or \[30\]"),
        (lambda: gj.observed(SERIES, -TIMES), ValueError, "times must never fall"),
        (lambda: gj.observed(SERIES, TIMES * NAN), ValueError, "or are NaN"),
        (lambda: gj.observed(SERIES, resets=RESETS[0]), ValueError, r"resets must have shape \[4, 30\]; got \[30\]"),
        (lambda: gj.observed(SERIES, means=0.0), TypeError, "did you mean 'mean'"),
    ],
)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
