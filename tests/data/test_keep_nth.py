"""Keep the n-th: the answer is the token there, and a position says which step it is."""

import jax
import numpy as np
import pytest

from gru_jax.data import keep_nth

N, TIME, NTH, VOCAB, POSITIONS = 4_000, 6, 3, 8, 4


def test_the_answer_is_the_nth_token_with_positions_or_without() -> None:
    def both(key: jax.Array) -> list:
        return [keep_nth.generator(TIME, NTH, VOCAB, positions)(key, N) for positions in (0, POSITIONS)]

    plain, placed = jax.device_get(jax.jit(both)(jax.random.key(0)))
    assert (plain.y == plain.x[:, NTH - 1]).all() and (plain.y == placed.y).all()
    share = np.bincount(plain.x[:, 0], minlength=VOCAB) / N
    assert np.abs(share - 1 / VOCAB).max() < 5 * np.sqrt(1 / VOCAB / N)
    assert placed.x.shape == (N, TIME, VOCAB + POSITIONS) and placed.x.dtype == np.float32
    assert (placed.x[:, :, :VOCAB].argmax(axis=2) == plain.x).all() and (placed.x[:, :, :VOCAB].sum(axis=2) == 1).all()
    assert (placed.x[:, :, VOCAB:] == keep_nth.encoded(TIME, POSITIONS)).all()


def test_every_step_has_its_own_position() -> None:
    places = keep_nth.encoded(100, 32)
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(100)
    assert apart.min() > 0.5 and np.abs(places).max() <= 1 and keep_nth.encoded(5, 0).shape == (5, 0)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [((4, 5), r"nth must lie in \[1, time = 4\]; got 5"), ((4, 0), "nth"), ((4, 1, 8, 3), "positions even; got 8")],
)
def test_wrong_arguments(arguments: tuple[int, ...], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        keep_nth.generator(*arguments)
