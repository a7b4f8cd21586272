"""ListOps: nested expressions of minimum, maximum, median and sum over digits; tell the value."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset, Sequences, TaskShape

WORDS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""The tokens by their numbers."""

_MIN, _END = 10, 14
_DRAWN_AT_ONCE = 1 << 13
_PATIENCE = 200


class Limits(NamedTuple):
    """How long and how deep an expression is.

    Attributes:
        min_length, max_length: tokens; both bounds are excluded.
        max_depth: levels of nesting, the digits' included.
        max_args: of an operator, from 2.
    """

    min_length: int = 500
    max_length: int = 2000
    max_depth: int = 10
    max_args: int = 10


def shape(limits: Limits, *, train: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: sequences of up to `max_length - 1` tokens, ten classes."""
    return TaskShape(train, valid, test, limits.max_length - 1, len(WORDS), outputs=10, tokens=True)


def load(limits: Limits, *, train: int, valid: int, test: int, seed: int = 0) -> Dataset:
    """Expressions and their values, all different, the same for a seed on every machine.

    An expression is a digit, all as likely, or with probability 1/4 (never at the greatest depth) an
    operator, all as likely, with 2 to `max_args` arguments, all numbers of them as likely, which are
    expressions. Those of other lengths are left out. `[MED` is the median rounded down, `[SM` the sum
    mod 10. The first expressions drawn are for training, the next for validation, the last for the test.

    Args:
        limits: of the expressions.
        train, valid, test: how many.
        seed: of the draws.

    Returns:
        A `Dataset` of three `Sequences`: x `[T]` tokens (uint8), y the value.

    Raises:
        ValueError: hardly any, or not as many different, expressions keep to the limits.

    Example:
        >>> data = load(Limits(5, 12, max_depth=3, max_args=3), train=3, valid=1, test=1)
        >>> text(data.train[0].x), int(data.train[0].y)
        ('[MIN 4 [MIN 0 9 8 ] ]', 0)

    Source: N. Nangia and S. Bowman, ListOps (2018), in the form of Y. Tay et al., Long range arena (2021),
    `lra_benchmarks/data/listops.py`. Its files have a pair of parentheses around every step of an operator,
    which its readers drop, as here; some of them drop the closing brackets too, without which the value
    is not determined: they are kept here. Its sets of samples are in no fixed order, so its very files
    cannot be made again.
    """
    found = _different(limits, train + valid + test, np.random.PCG64(seed))
    x, y = [tokens for tokens, _ in found], list(np.array([value for _, value in found], np.int32))
    parts = slice(train), slice(train, train + valid), slice(train + valid, None)
    digest = hashlib.sha256(np.array(y).tobytes())
    for tokens in x:
        digest.update(tokens.tobytes() + b"\n")
    description = (
        f"ListOps, expressions of {limits.min_length + 1} to {limits.max_length - 1} tokens, depth up to"
        f" {limits.max_depth}, 10 classes; generated: {train} train, {valid} validation, {test} test"
    )
    splits = [Sequences(x[part], y[part]) for part in parts]
    return Dataset(splits[0], splits[1], splits[2], description, digest.hexdigest()[:16])


def text(tokens: np.ndarray) -> str:
    """An expression as people write it.

    Example:
        >>> text(np.array([11, 2, 9, 10, 4, 7, 14, 0, 14]))
        '[MAX 2 9 [MIN 4 7 ] 0 ]'
    """
    return " ".join(WORDS[token] for token in tokens)


def _different(limits: Limits, count: int, bits: np.random.PCG64) -> list[tuple[np.ndarray, int]]:
    found: list[tuple[np.ndarray, int]] = []
    seen: set[bytes] = set()
    without = 0
    while len(found) < count:
        before = len(found)
        for tokens, value in _drawn(limits, bits):
            mark = hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()
            if mark not in seen:
                seen.add(mark)
                found.append((tokens, value))
        without = without + 1 if len(found) == before else 0
        if without == _PATIENCE:
            raise ValueError(
                f"listops: {without * _DRAWN_AT_ONCE} draws in a row gave no new expression of more than"
                f" {limits.min_length} and fewer than {limits.max_length} tokens; {len(found)} of {count} found;"
                " ask for fewer, or widen the limits"
            )
    return found[:count]


class _Level(NamedTuple):
    """The nodes of one depth of many trees, those of a tree together, siblings in their order.

    Attributes:
        tree: the number of each node's tree.
        args: children in the next level, 0 of a digit.
    """

    tree: np.ndarray
    args: np.ndarray


def _drawn(limits: Limits, bits: np.random.PCG64) -> Iterator[tuple[np.ndarray, int]]:
    """The expressions within the limits of some thousand draws, depth by depth, all trees at once."""
    levels, good = _grown(limits, bits)
    trees = int(good.sum())
    if not trees:
        return
    number = np.cumsum(good) - 1
    levels = [_Level(number[level.tree[good[level.tree]]], level.args[good[level.tree]]) for level in levels]
    heads = [np.where(args == 0, _below(bits, len(args), 10), 10 + _below(bits, len(args), 4)) for _, args in levels]
    sizes, values = _evaluated(levels, heads)
    starts = np.cumsum(sizes[0]) - sizes[0]
    tokens = _written(levels, heads, sizes, starts)
    for start, size, value in zip(starts.tolist(), sizes[0].tolist(), values.tolist(), strict=True):
        yield tokens[start : start + size].copy(), value


def _grown(limits: Limits, bits: np.random.PCG64) -> tuple[list[_Level], np.ndarray]:
    """The levels, and `[trees]`, which of them keep to the limits; only of those the levels are whole."""
    tree = np.arange(_DRAWN_AT_ONCE)
    length = np.zeros(_DRAWN_AT_ONCE, np.int64)
    levels = []
    for depth in range(1, limits.max_depth + 1):
        args = np.zeros(len(tree), np.int64)
        if depth < limits.max_depth:
            operators = np.flatnonzero(_below(bits, len(tree), 4) == 0)
            args[operators] = 2 + _below(bits, len(operators), limits.max_args - 1)
        levels.append(_Level(tree, args))
        # What is sure so far: the digits and brackets seen, and a token for every argument to come.
        length += _count(tree, 1 + (args > 0), len(length))
        to_come = _count(tree, args, len(length))
        tree = np.repeat(tree, args)
        # Most nodes belong to trees that grow too long: those are not grown on.
        tree = tree[(length + to_come < limits.max_length)[tree]]
        length[length + to_come >= limits.max_length] = limits.max_length
    return levels, (length > limits.min_length) & (length < limits.max_length)


def _evaluated(levels: list[_Level], heads: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Tokens of the expression at every node, by levels, and the values of the first level's, from the leaves up."""
    sizes: list[np.ndarray] = []
    values = np.empty(0, np.int64)
    for (_, args), head in zip(reversed(levels), reversed(heads), strict=True):
        size, value = np.ones(len(args), np.int64), head.copy()
        operators = np.flatnonzero(args)
        if len(operators):
            number = args[operators]
            first = np.cumsum(number) - number
            of_operator = np.repeat(np.arange(len(operators)), number)
            size[operators] = 2 + np.add.reduceat(sizes[-1], first)
            ascending = np.sort(10 * of_operator + values) % 10
            median = (ascending[first + (number - 1) // 2] + ascending[first + number // 2]) // 2
            total = np.add.reduceat(values, first) % 10
            results = [ascending[first], ascending[first + number - 1], median, total]
            value[operators] = np.choose(head[operators] - _MIN, results)
        sizes.append(size)
        values = value
    return sizes[::-1], values


def _written(
    levels: list[_Level], heads: list[np.ndarray], sizes: list[np.ndarray], places: np.ndarray
) -> np.ndarray:
    """The tokens of all trees one after the other, `places` being where each starts, from the root down."""
    tokens = np.empty(int(sizes[0].sum()), np.uint8)
    for depth, (_, args) in enumerate(levels):
        operators = np.flatnonzero(args)
        tokens[places] = heads[depth]
        tokens[(places + sizes[depth] - 1)[operators]] = _END
        if not len(operators):
            break
        number, of_children = args[operators], sizes[depth + 1]
        before = np.cumsum(of_children) - of_children
        first = np.cumsum(number) - number
        places = np.repeat(places[operators] + 1 - before[first], number) + before
    return tokens


def _count(tree: np.ndarray, of_node: np.ndarray, trees: int) -> np.ndarray:
    return np.bincount(tree, of_node, minlength=trees).astype(np.int64)


def _below(bits: np.random.PCG64, count: int, bound: int) -> np.ndarray:
    """`[count]` whole numbers in [0, bound), from the bits themselves, which no release of numpy may change."""
    return ((bits.random_raw(count) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
