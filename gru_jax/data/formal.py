"""Formal languages: strings that a finite automaton classifies, shorter in training than in the test."""

from collections.abc import Callable
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.types import BoolArray, IntArray, Key

Language = Literal["parity", "even_pairs", "cycle_navigation", "modular_arithmetic"]
"""Which strings: see `generator`."""

SIZES: dict[Language, tuple[int, int]] = {
    "parity": (2, 2),
    "even_pairs": (2, 2),
    "cycle_navigation": (3, 5),
    "modular_arithmetic": (8, 5),
}
"""Tokens and classes of each language, without the token that asks."""

_PLUS, _MINUS, _TIMES = 5, 6, 7

_AT_ONCE = 2**22  # tokens; a test of long strings would need gigabytes


def shape(
    language: Language,
    train_length: int,
    test_lengths: tuple[int, int],
    test_per_length: int,
    *,
    ask: bool = False,
    epoch: int,
    valid: int,
) -> TaskShape:
    """The sizes of the task; `time` is the longest training string's."""
    tokens, classes = SIZES[language]
    test = (test_lengths[1] - test_lengths[0] + 1) * test_per_length
    time = _longest(language, train_length) + ask
    return TaskShape(epoch, valid, test, time, tokens + ask, classes, tokens=True)


def generator(language: Language, lengths: tuple[int, int], *, evenly: bool = False, ask: bool = False) -> Generator:
    """What makes strings of a language and their classes.

    Every token is drawn uniformly from those that may stand at its place.

    - `parity`: tokens 0 and 1; the class is the number of ones mod 2.
    - `even_pairs`: tokens 0 and 1; the class is the number of neighbours that differ, mod 2: 1 when the first
      token differs from the last.
    - `cycle_navigation`: tokens 0, 1 and 2 step by -1, 0 and +1 on a circle of 5; the class is the place
      reached from 0.
    - `modular_arithmetic`: digits 0 to 4 with an operator between any two, 5 for +, 6 for - and 7 for *; the
      class is the value mod 5, * binding tighter than + and -. A length that is even is shortened by one.

    Args:
        language: one of the four.
        lengths: shortest and longest, both included; every string's own is drawn uniformly from them.
        evenly: instead, as many strings of each length, the shortest first.
        ask: one more token of its own after each string, which asks for the class.

    Returns:
        A function of (key, N) whose splits have x `[N, T]` int32 (zeros past the length), y `[N]` int32 and
        `lengths`, which count the token that asks.

    Raises:
        ValueError: no such language, or lengths that are not 1 <= shortest <= longest; of the function: with
            `evenly`, N is no multiple of the number of lengths.

    Example:
        >>> make = jax.jit(generator("parity", (1, 40)), static_argnums=1)
        >>> x, y, lengths, _ = make(jax.random.key(0), 8)
        >>> x.shape, (x.sum(axis=1) % 2 == y).all().item()
        ((8, 40), True)

    Source: G. Delétang et al., Neural networks and the Chomsky hierarchy (2022), `tasks/regular` of
    google-deepmind/neural_networks_chomsky_hierarchy, where a batch has one length, drawn uniformly at each
    step; here each string has its own, so that all of training is one compiled program. Their networks read
    one more step, as with `ask`, and an unused ninth token of modular arithmetic. Their products are 32-bit
    integers, which some 16 factors overflow; ours are taken mod 5 throughout.
    B. Walker et al., Structured linear CDEs (2025), Benjamin-Walker/structured-linear-cdes: modular arithmetic
    has '=' at its end, as with `ask`, and an odd length is made longer by one for it.
    """
    if language not in SIZES:
        raise ValueError(f"formal: language must be one of {', '.join(map(repr, SIZES))}; got {language!r}")
    shortest, longest = lengths
    if not 1 <= shortest <= longest:
        raise ValueError(f"formal: lengths must be 1 <= shortest <= longest; got {shortest} and {longest}")
    time = _longest(language, longest)

    def generate(key: Key, examples: int) -> Split:
        of_lengths, of_tokens = jax.random.split(key)
        if evenly:
            of_each, rest = divmod(examples, longest - shortest + 1)
            if rest:
                number = longest - shortest + 1
                fact = f"{examples} strings are not as many of each of {number} lengths; ask for a multiple of {number}"
                raise ValueError(f"formal: {fact}")
            drawn = jnp.asarray(np.repeat(np.arange(shortest, longest + 1, dtype=np.int32), of_each))
        else:
            drawn = jax.random.randint(of_lengths, (examples,), shortest, longest + 1, jnp.int32)
        own = _longest(language, drawn)
        valid = generated.steps_before(own, time)
        x = jnp.where(valid, _TOKENS[language](of_tokens, (examples, time)), 0)
        y = _CLASSES[language](x, valid).astype(jnp.int32)
        if ask:
            x = jnp.put_along_axis(
                jnp.pad(x, ((0, 0), (0, 1))), own[:, None], SIZES[language][0], axis=1, inplace=False
            )
        return Split(x, y, own + int(ask))

    return generate


def load(
    language: Language,
    train_length: int,
    test_lengths: tuple[int, int],
    test_per_length: int,
    *,
    train_shortest: int = 1,
    valid_lengths: tuple[int, int] | None = None,
    ask: bool = False,
    valid: int,
) -> Dataset:
    """The task's data.

    The test split has as many strings of every length, so that accuracy over its strings is the mean over
    lengths of the accuracy at each, the published score. (The paper states lengths above the training
    lengths, from 41; the repository's `example.py` averages from 42 on.)

    Args:
        language: see `generator`.
        train_length: longest string in training.
        test_lengths: shortest and longest in the test split, both included.
        test_per_length: strings of each of these lengths.
        train_shortest: shortest string in training.
        valid_lengths: shortest and longest in the validation split; those of training when None.
        ask: see `generator`.
        valid: strings in the validation split.
    """
    shortest, longest = test_lengths
    description = (
        f"{language.replace('_', ' ')}, strings of {train_shortest} to {train_length} tokens made at each step;"
        f" test {test_per_length} of each length from {shortest} to {longest}"
    )
    test = (longest - shortest + 1) * test_per_length
    parts = (part for part in range(1, test_per_length) if test_per_length % part == 0)
    return generated.dataset(
        generator(language, (train_shortest, train_length), ask=ask),
        valid=valid,
        test=test,
        description=description,
        generate_valid=None if valid_lengths is None else generator(language, valid_lengths, ask=ask),
        generate_test=generator(language, test_lengths, evenly=True, ask=ask),
        test_parts=next((part for part in parts if test // part * longest <= _AT_ONCE), test_per_length),
    )


_Length = TypeVar("_Length", int, IntArray)


def _longest(language: Language, length: _Length) -> _Length:
    """The length that a string of (at most) `length` tokens has: that of an expression is odd."""
    return length - 1 + length % 2 if language == "modular_arithmetic" else length


def _uniform(tokens: int) -> Callable[[Key, tuple[int, int]], IntArray]:
    return lambda key, size: jax.random.randint(key, size, 0, tokens, jnp.int32)


def _expressions(key: Key, size: tuple[int, int]) -> IntArray:
    of_digits, of_operators = jax.random.split(key)
    digits = jax.random.randint(of_digits, size, 0, 5, jnp.int32)
    operators = jax.random.randint(of_operators, size, _PLUS, _TIMES + 1, jnp.int32)
    return jnp.where(jnp.arange(size[1])[None] % 2 == 0, digits, operators)


def _parity(x: IntArray, valid: BoolArray) -> IntArray:
    return jnp.sum(x, axis=1) % 2


def _even_pairs(x: IntArray, valid: BoolArray) -> IntArray:
    return jnp.sum((x[:, :-1] != x[:, 1:]) & valid[:, 1:], axis=1) % 2


def _cycle_navigation(x: IntArray, valid: BoolArray) -> IntArray:
    return jnp.sum(jnp.where(valid, x - 1, 0), axis=1) % 5


def _modular_arithmetic(x: IntArray, valid: BoolArray) -> IntArray:
    """The value mod 5 from left to right: the sum of the terms that are complete, and the term at hand."""

    def step(state: tuple[IntArray, IntArray], pair: tuple[IntArray, IntArray, BoolArray]) -> tuple[tuple, None]:
        total, term = state
        operator, digit, there = pair
        times = operator == _TIMES
        new_total = jnp.where(times, total, (total + term) % 5)
        new_term = jnp.where(times, term * digit, jnp.where(operator == _MINUS, -digit, digit)) % 5
        return (jnp.where(there, new_total, total), jnp.where(there, new_term, term)), None

    pairs = (x[:, 1::2].T, x[:, 2::2].T, valid[:, 2::2].T)
    (total, term), _ = jax.lax.scan(step, (jnp.zeros_like(x[:, 0]), x[:, 0]), pairs)
    return (total + term) % 5


_TOKENS: dict[Language, Callable[[Key, tuple[int, int]], IntArray]] = {
    "parity": _uniform(2),
    "even_pairs": _uniform(2),
    "cycle_navigation": _uniform(3),
    "modular_arithmetic": _expressions,
}
_CLASSES: dict[Language, Callable[[IntArray, BoolArray], IntArray]] = {
    "parity": _parity,
    "even_pairs": _even_pairs,
    "cycle_navigation": _cycle_navigation,
    "modular_arithmetic": _modular_arithmetic,
}
