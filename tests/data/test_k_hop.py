"""k hops: every answer found again in plain Python, and only what has one is asked."""

import jax
import numpy as np
import pytest

from gru_jax.data import k_hop

N, TIME, VOCAB = 500, 16, 4


def answer(tokens: list[int], place: int, hops: int) -> int | None:
    for _ in range(hops):
        before = [at for at in range(place) if tokens[at] == tokens[place]]
        if not before:
            return None
        place = before[-1] + 1
    return tokens[place]


def test_every_answer_is_where_the_hops_lead() -> None:
    # In one program, because compiling is what takes the time.
    make = jax.jit(lambda key: {hops: k_hop.generator(TIME, hops, VOCAB)(key, N) for hops in (1, 3)})
    for hops, split in jax.device_get(make(jax.random.key(0))).items():
        x, y, asked = (part.tolist() for part in (split.x, split.y, split.asked))
        for tokens, tags, at in zip(x, y, asked, strict=True):
            expected = [answer(tokens, place, hops) for place in range(TIME)]
            assert at == [each is not None for each in expected]
            assert tags == [each or 0 for each in expected]
        assert np.bincount(np.ravel(x), minlength=VOCAB).min() > 0.9 * N * TIME / VOCAB


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [((1,), "time must be at least 2; got 1"), ((5, 0), "hops must be at least 1"), ((5, 1, 0), "vocab must be")],
)
def test_wrong_arguments(arguments: tuple[int, ...], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        k_hop.generator(*arguments)
