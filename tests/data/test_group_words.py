"""The word problem: groups that are groups, and products that are those of their words."""

import jax
import numpy as np
import pytest

from gru_jax.data import group_words


@pytest.mark.parametrize(
    ("group", "order", "abelian"),
    [("C1", 1, True), ("C60", 60, True), ("S3", 6, False), ("A4", 12, False), ("A5", 60, False), ("S5", 120, False)],
)
def test_the_table_is_that_of_a_group(group: str, order: int, abelian: bool) -> None:
    table = group_words.products(group)
    numbers = np.arange(order)
    assert table.shape == (order, order) and table.dtype == np.int32
    assert (table[0] == numbers).all() and (table[:, 0] == numbers).all(), "0 changes nothing"
    assert (np.sort(table, axis=1) == numbers).all(), "every element has an inverse"
    assert (table[table] == table[numbers[:, None, None], table]).all(), "(a b) c is a (b c)"
    assert (table == table.T).all() == abelian


def test_a_product_of_permutations_is_one_after_the_other() -> None:
    # Of three points in the order of a dictionary: 012, 021, 102, 120, 201, 210.
    table = group_words.products("S3")
    assert table[1, 2] == 3, "0 -> 0 -> 1, 1 -> 2 -> 2, 2 -> 1 -> 0"


def test_a5_is_its_own_commutator() -> None:
    """What makes it the hard one: it cannot be solved by abelian groups."""
    table = group_words.products("A5")
    inverse = np.argmax(table == 0, axis=1)
    a, b = np.arange(60)[:, None], np.arange(60)
    assert len(np.unique(table[table[table[a, b], inverse[a]], inverse[b]])) == 60


def test_labels_are_the_running_products_and_all_elements_are_equally_likely() -> None:
    n = 20_000
    split = jax.jit(group_words.generator("A5", 5), static_argnums=1)(jax.random.key(0), n)
    x, y = np.asarray(split.x), np.asarray(split.y)
    assert split.lengths is None and split.asked is None and x.shape == y.shape == (n, 5)
    table, product = group_words.products("A5"), np.zeros(n, int)
    for t in range(5):
        product = table[product, x[:, t]]
        assert (y[:, t] == product).all()
        for tokens in (x[:, t], y[:, t]):
            assert np.abs(np.bincount(tokens, minlength=60) / n - 1 / 60).max() < 5 * np.sqrt(1 / 60 / n)


@pytest.mark.parametrize("group", ["C0", "A7", "S1", "Q8", "", 5])
def test_an_unknown_group(group: str) -> None:
    with pytest.raises(ValueError, match="group must be C1 to C999, S2 to S6 or A2 to A6; got"):
        group_words.generator(group, 3)


def test_no_steps() -> None:
    with pytest.raises(ValueError, match="length must be at least 1; got 0"):
        group_words.generator("C2", 0)
