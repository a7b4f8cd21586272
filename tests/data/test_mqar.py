"""Multi-query associative recall: every key asked once and answered by its value, gaps as often as announced."""

from functools import cache

import jax
import numpy as np
import pytest

from gru_jax.data import mqar
from gru_jax.data.dataset import Split

N, TIME, PAIRS, VOCAB = 20_000, 12, 2, 16
GAPS = (TIME - 2 * PAIRS) // 2


@cache
def made_of_both() -> list[Split]:
    # In one program, because compiling is what takes the time.
    generators = [mqar.generator(TIME, PAIRS, VOCAB, random_filler=filler) for filler in (False, True)]
    return jax.device_get(jax.jit(lambda key: [generate(key, N) for generate in generators])(jax.random.key(0)))


@pytest.fixture(params=[False, True], ids=["zeros", "random"])
def made(request: pytest.FixtureRequest) -> tuple[bool, np.ndarray, np.ndarray, np.ndarray]:
    split = made_of_both()[request.param]
    return request.param, split.x, split.y, split.asked


def test_every_query_is_answered_by_its_value(made: tuple[bool, np.ndarray, np.ndarray, np.ndarray]) -> None:
    random_filler, x, y, asked = made
    context = 2 * PAIRS
    assert not asked[:, :context].any() and (asked.sum(axis=1) == PAIRS).all()
    assert not asked[:, context + 1 :: 2].any(), "queries stand at even distances"
    for tokens, tags, at in zip(x[:2000].tolist(), y[:2000].tolist(), asked[:2000], strict=True):
        keys, values = tokens[:context:2], tokens[1:context:2]
        assert len(set(keys)) == len(set(values)) == PAIRS
        assert all(1 <= key < VOCAB // 2 for key in keys)
        assert all(VOCAB // 2 <= value < VOCAB for value in values)
        places = np.flatnonzero(at).tolist()
        assert sorted(tokens[place] for place in places) == sorted(keys)
        answers = dict(zip(keys, values, strict=True))
        assert [tags[place] for place in places] == [answers[tokens[place]] for place in places]
    filler = x[:, context:][~asked[:, context:]]
    assert (set(np.unique(filler)) == set(range(VOCAB))) if random_filler else (filler == 0).all()
    assert (y[~asked] == 0).all()


def test_keys_and_values_are_equally_likely_at_every_place(
    made: tuple[bool, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, x, _, _ = made
    for place in range(2 * PAIRS):
        tokens, times = np.unique(x[:, place], return_counts=True)
        first, beyond = ((1, VOCAB // 2), (VOCAB // 2, VOCAB))[place % 2]
        assert tokens.tolist() == list(range(first, beyond))
        assert np.abs(times / N - 1 / len(tokens)).max() < 5 * np.sqrt(1 / len(tokens) / N)


def test_gaps_are_drawn_by_the_power_law_without_replacement(
    made: tuple[bool, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, x, _, asked = made
    context = 2 * PAIRS
    law = np.arange(1, GAPS + 1) ** (0.01 - 1)
    law /= law.sum()
    # The first key draws from the law, the second from what the first leaves of it.
    chances = np.array([[i != j and law[i] * law[j] / (1 - law[i]) for j in range(GAPS)] for i in range(GAPS)], float)
    assert chances.sum() == pytest.approx(1)
    rows = np.arange(N)
    queries = np.where(asked, x, -1)[:, context::2]
    gaps = [np.argmax(queries == x[rows, 2 * pair][:, None], axis=1) for pair in range(PAIRS)]
    seen = np.zeros((GAPS, GAPS))
    np.add.at(seen, tuple(gaps), 1 / N)
    assert (np.abs(seen - chances) <= 5 * np.sqrt(chances / N)).all()


@pytest.mark.parametrize(("gaps", "power"), [(28, 0.01), (30, 1.0), (4000, 0.5)])
def test_weights_follow_the_law_and_can_be_summed(gaps: int, power: float) -> None:
    weights = mqar.gap_weights(gaps, power)
    law = np.arange(1, gaps + 1) ** (power - 1)
    np.testing.assert_allclose(weights / weights.sum(), law / law.sum(), rtol=1e-4)
    assert 0 < weights.sum(dtype=np.int64) < 2**31 and weights.dtype == np.int32


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ((8, 0, 20), "pairs must be at least 1; got 0"),
        ((9, 2, 20), "time must be even; got 9"),
        ((8, 3, 20), r"at least 4 \* pairs = 12; got 8"),
        ((8, 2, 8), "more than time = 8; got 8"),
    ],
)
def test_wrong_arguments(arguments: tuple[int, ...], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        mqar.generator(*arguments)
