"""Formal languages: every class found again by an automaton in plain Python, every length there."""

import itertools
from functools import cache

import jax
import numpy as np
import pytest

from gru_jax.data import formal
from gru_jax.data.dataset import Split

LANGUAGES = tuple(formal.SIZES)
N, LONGEST = 100_000, 12
COMPLETE = {"parity": 7, "even_pairs": 7, "cycle_navigation": 5, "modular_arithmetic": 3}


@cache
def made_of_all() -> dict[formal.Language, Split]:
    # In one program, because compiling is what takes the time.
    make = jax.jit(lambda key: {language: formal.generator(language, (1, LONGEST))(key, N) for language in LANGUAGES})
    return jax.device_get(make(jax.random.key(0)))


def made(language: formal.Language) -> Split:
    return made_of_all()[language]


def class_of(language: str, string: tuple[int, ...]) -> int:
    if language == "parity":
        state = 0
        for token in string:
            state = 1 - state if token else state
        return state
    if language == "even_pairs":
        changes = ["".join(map(str, string))[i : i + 2] in ("01", "10") for i in range(len(string) - 1)]
        return changes.count(True) % 2
    if language == "cycle_navigation":
        place = 0
        for token in string:
            place = {0: (place - 1) % 5, 1: place, 2: (place + 1) % 5}[token]
        return place
    return eval("".join("01234+-*"[token] for token in string)) % 5


def strings_of(language: str, length: int) -> set[tuple[int, ...]]:
    alphabets = [range({"cycle_navigation": 3}.get(language, 2))] * length
    if language == "modular_arithmetic":
        alphabets = [range(5) if i % 2 == 0 else range(5, 8) for i in range(length)]
    return set(itertools.product(*alphabets))


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_short_strings_occur_with_their_class(language: formal.Language) -> None:
    x, y, lengths, asked = made(language)
    assert asked is None
    for length in range(1, COMPLETE[language] + 1):
        rows = np.unique(np.column_stack([x[:, :length], y])[lengths == length], axis=0).tolist()
        seen = {tuple(row[:-1]): row[-1] for row in rows}
        assert len(seen) == len(rows), "a string with two classes"
        none = language == "modular_arithmetic" and length % 2 == 0
        assert set(seen) == (set() if none else strings_of(language, length))
        assert seen == {string: class_of(language, string) for string in seen}


@pytest.mark.parametrize("language", LANGUAGES)
def test_long_strings_have_their_class_and_nothing_after_them(language: formal.Language) -> None:
    x, y, lengths, _ = made(language)
    for tokens, label, length in zip(x[:1000].tolist(), y[:1000].tolist(), lengths[:1000].tolist(), strict=True):
        assert class_of(language, tuple(tokens[:length])) == label
        assert not any(tokens[length:])


@pytest.mark.parametrize("language", LANGUAGES)
def test_lengths_and_tokens_are_equally_likely(language: formal.Language) -> None:
    x, _, lengths, _ = made(language)
    odd_only = language == "modular_arithmetic"
    expected = range(1, LONGEST + 1, 2 if odd_only else 1)
    seen, times = np.unique(lengths, return_counts=True)
    assert seen.tolist() == list(expected)
    assert np.abs(times / N - 1 / len(seen)).max() < 5 * np.sqrt(1 / len(seen) / N)
    whole = x[lengths == max(expected)]
    for place in (0, 1):
        tokens, times = np.unique(whole[:, place], return_counts=True)
        alphabet = (range(5), range(5, 8))[place] if odd_only else range(formal.SIZES[language][0])
        assert tokens.tolist() == list(alphabet)
        assert np.abs(times / len(whole) - 1 / len(tokens)).max() < 5 * np.sqrt(1 / len(tokens) / len(whole))


value_of = jax.jit(formal._modular_arithmetic)


@pytest.mark.parametrize(
    ("string", "value"),
    [((1, 5, 2, 7, 3), 2), ((1, 6, 1, 6, 1), 4), ((0, 7, 1, 5, 4, 7, 3, 6, 2), 0), ((4, 7, 4, 7, 4), 4), ((3,), 3)],
)
def test_expressions_of_the_source(string: tuple[int, ...], value: int) -> None:
    """The first three stand in the source's docstring."""
    x = np.zeros((1, 9), np.int32)
    x[0, : len(string)] = string
    assert value_of(x, np.arange(9)[None] < len(string)).tolist() == [value]
    assert class_of("modular_arithmetic", string) == value


def test_a_long_product_does_not_overflow() -> None:
    string = np.array([[3, 7] * 49 + [3]], np.int32)
    assert value_of(string, np.ones(string.shape, bool)).tolist() == [3**50 % 5]


def test_one_program_for_all_lengths() -> None:
    generate, traced = formal.generator("parity", (1, 9)), []

    def lengths_of(key: jax.Array, examples: int) -> jax.Array:
        traced.append(examples)
        return generate(key, examples).lengths

    make = jax.jit(lengths_of, static_argnums=1)
    lengths = [make(jax.random.wrap_key_data(np.array([7, seed], np.uint32)), 1).item() for seed in range(20)]
    assert len(set(lengths)) > 4 and traced == [1]


@pytest.mark.parametrize(("language", "own"), [("parity", [4, 5, 6, 7]), ("modular_arithmetic", [3, 5, 5, 7])])
def test_the_test_split_has_as_many_of_every_length(language: formal.Language, own: list[int]) -> None:
    generate = formal.generator(language, (4, 7), evenly=True)
    lengths = jax.jit(lambda key: generate(key, 12).lengths)(jax.random.key(0))
    assert lengths.tolist() == np.repeat(own, 3).tolist()
    assert formal.shape(language, 3, (4, 7), 3, epoch=1, valid=5).test == 12
    with pytest.raises(ValueError, match="5 strings are not as many of each of 4 lengths"):
        jax.eval_shape(lambda key: generate(key, 5), jax.random.key(0))


@pytest.mark.parametrize(
    ("language", "token"), [("parity", 2), pytest.param("modular_arithmetic", 8, marks=pytest.mark.slow)]
)
def test_a_token_may_ask_after_the_string(language: formal.Language, token: int) -> None:
    def both(key: jax.Array) -> list[Split]:
        return [formal.generator(language, (3, 8), ask=ask)(key, 50) for ask in (False, True)]

    plain, asked = jax.device_get(jax.jit(both)(jax.random.key(0)))
    assert (asked.y == plain.y).all() and (asked.lengths == plain.lengths + 1).all()
    shape = formal.shape(language, 8, (9, 9), 1, ask=True, epoch=1, valid=1)
    assert asked.x.shape[1] == plain.x.shape[1] + 1 == shape.time and shape.features == token + 1
    at = np.arange(asked.x.shape[1]) == plain.lengths[:, None]
    assert ((asked.x == token) == at).all(), "it stands once, and after the string"
    assert (np.where(at, 0, asked.x)[:, :-1] == plain.x).all()


@pytest.mark.slow
def test_strings_of_the_published_lengths() -> None:
    """Of structured-linear-cdes: 3..40 and 40..256, modular arithmetic with '=' rounded up to an even number."""
    lengths = {"train_length": 40, "test_lengths": (40, 256), "train_shortest": 3, "valid_lengths": (40, 256)}
    data = formal.load("modular_arithmetic", **lengths, test_per_length=1, ask=True, valid=500)
    assert set(data.valid.lengths.tolist()) <= set(range(40, 257, 2)) and data.valid.lengths.max() > 200
    assert sorted(set(data.test.lengths.tolist())) == list(range(40, 257, 2))
    trained = jax.jit(lambda key: data.train(key, 2_000).lengths)(jax.random.key(0))
    assert sorted(set(trained.tolist())) == list(range(4, 41, 2))


@pytest.mark.parametrize("lengths", [(0, 4), (5, 4)])
def test_wrong_lengths(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="1 <= shortest <= longest"):
        formal.generator("parity", lengths)


def test_unknown_language() -> None:
    with pytest.raises(ValueError, match="language must be one of 'parity', .*got 'palindromes'"):
        formal.generator("palindromes", (1, 4))  # type: ignore[arg-type]
