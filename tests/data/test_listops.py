"""ListOps: values found again by parsing the text, limits kept, nothing twice, the drawing as announced."""

import statistics

import numpy as np
import pytest

from gru_jax.data import listops
from gru_jax.data.dataset import Dataset
from gru_jax.data.listops import Limits

LIMITS = Limits(10, 60, max_depth=4, max_args=5)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return listops.load(LIMITS, train=400, valid=50, test=60)


def parsed(words: list[str]) -> tuple[int, int, list[int]]:
    """The value of the expression that the words begin with, its depth, and its operators' numbers of arguments."""
    word = words.pop(0)
    if word.isdigit():
        return int(word), 1, []
    values, depths, numbers = [], [0], []
    while words[0] != "]":
        value, depth, inner = parsed(words)
        values.append(value)
        depths.append(depth)
        numbers += inner
    words.pop(0)
    operator = {
        "[MIN": min,
        "[MAX": max,
        "[MED": lambda of: int(statistics.median(of)),
        "[SM": lambda of: sum(of) % 10,
    }[word]
    return operator(values), 1 + max(depths), [len(values), *numbers]


def test_values_and_limits(data: Dataset) -> None:
    deepest, most = 0, 0
    for split, count in ((data.train, 400), (data.valid, 50), (data.test, 60)):
        assert len(split) == count
        for i in range(count):
            x, y = split[i]
            words = listops.text(x).split()
            assert LIMITS.min_length < len(words) == len(x) == split.lengths[i] < LIMITS.max_length
            value, depth, numbers = parsed(words)
            assert value == y and words == []
            assert y.dtype == np.int32 and min(numbers) >= 2
            deepest, most = max(deepest, depth), max(most, *numbers)
    assert (deepest, most) == (LIMITS.max_depth, LIMITS.max_args)


def test_no_expression_twice(data: Dataset) -> None:
    few = listops.load(Limits(0, 5, max_depth=2, max_args=2), train=60, valid=10, test=10)
    for one in (data, few):
        texts = [listops.text(split[i].x) for split in (one.train, one.valid, one.test) for i in range(len(split))]
        assert len(set(texts)) == len(texts)


def test_shape_and_fingerprint(data: Dataset) -> None:
    shape = listops.shape(LIMITS, train=400, valid=50, test=60)
    assert (shape.train, shape.valid, shape.test, shape.time) == (400, 50, 60, 59)
    assert (shape.features, shape.outputs, shape.tokens, shape.target) == (15, 10, True, "class")
    # The drawing is fixed for ever: a change makes published accuracies meaningless, and must be a decision.
    assert data.fingerprint == "414eecc95c86fc30"
    again = listops.load(LIMITS, train=400, valid=50, test=60)
    other = listops.load(LIMITS, train=400, valid=50, test=60, seed=1)
    assert again.fingerprint == data.fingerprint != other.fingerprint


def test_drawing_is_the_sources() -> None:
    depth, args = 4, 6
    limits, bits = Limits(0, 10**5, depth, args), np.random.PCG64(5)
    drawn = [tokens for _ in range(4) for tokens, _ in listops._drawn(limits, bits)]
    assert len(drawn) == 4 * listops._DRAWN_AT_ONCE  # nothing is left out
    # Expected length: 1 at the greatest depth; above it 3/4 times 1 and 1/4 times two brackets and the arguments.
    expected = 1.0
    for _ in range(depth - 1):
        expected = 0.75 + 0.25 * (2 + (2 + args) / 2 * expected)
    lengths = np.array([len(tokens) for tokens in drawn])
    assert abs(lengths.mean() - expected) < 5 * lengths.std() / np.sqrt(len(lengths))
    words = np.bincount(np.concatenate(drawn), minlength=15)
    assert words[14] == words[10:14].sum()
    for group in (words[:10], words[10:14]):
        share = group / group.sum()
        assert np.abs(share - 1 / len(group)).max() < 5 * np.sqrt(1 / len(group) / group.sum())
    alone = (lengths == 1).mean()
    assert abs(alone - 0.75) < 5 * np.sqrt(0.75 * 0.25 / len(lengths))


def test_too_few_expressions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listops, "_PATIENCE", 5)
    with pytest.raises(ValueError, match=r"more than 0 and fewer than 2 tokens; 10 of 11 found; ask for fewer"):
        listops.load(Limits(0, 2), train=9, valid=1, test=1)


@pytest.mark.slow
def test_the_published_limits() -> None:
    data = listops.load(Limits(), train=300, valid=10, test=10)
    assert data.train.lengths.min() > 500 and data.train.lengths.max() < 2000
    for i in range(20):
        x, y = data.train[i]
        value, depth, numbers = parsed(listops.text(x).split())
        assert value == y and depth <= 10 and max(numbers) <= 10
