"""The backward pass from the states alone, piece of time by piece: its numbers and its memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.scans import backward

CELLS = {"GRU": gj.GRU(4), "LSTM": gj.models.LSTM(4)}  # with a derivative in closed form, and without


def gradient(cell: Any, keep: str, reverse: bool) -> Any:
    """Of all that moves."""
    method = gj.Sequential(kernel="scan", keep=keep)

    def loss(params: Any, x: Any, h0: Any, lengths: Any, resets: Any) -> Any:
        options = {"lengths": lengths, "resets": resets, "reverse": reverse, "method": method}
        y, h = gj.scan(cell, params, x, h0, **options)
        return (y**2).sum() + sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(h))

    return jax.jit(jax.grad(loss, (0, 1, 2)))


def arrays(cell: Any, steps: int, batch: int = 2) -> tuple[Any, ...]:
    """What `gradient` takes."""
    params = cell.init(jax.random.key(0), 3)
    x = jax.random.normal(jax.random.key(1), (batch, steps, 3))
    h0 = jax.tree.map(lambda a: a + 0.5, cell.initial_state((batch,), jnp.float32))
    lengths = jnp.arange(batch) % 2 * (steps // 3) + steps // 2
    return params, x, h0, lengths, jnp.zeros(x.shape[:2], bool).at[:, 5].set(True)


@pytest.mark.parametrize(
    ("name", "steps", "reverse"),
    [
        ("GRU", 67, True),
        ("LSTM", 67, False),
        *(pytest.param("GRU", *row, marks=pytest.mark.slow) for row in ((67, False), (72, True))),
    ],
)
def test_the_gradients_of_plain_differentiation(name: str, steps: int, reverse: bool) -> None:
    cell = CELLS[name]
    given = arrays(cell, steps)
    want, got = (gradient(cell, keep, reverse)(*given) for keep in ("gates", "states"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), got, want)


@pytest.mark.parametrize("name", [pytest.param(one, marks=() if one == "GRU" else pytest.mark.slow) for one in CELLS])
def test_memory(name: str) -> None:
    """Nothing but arrays of all states and inputs, a few of them, lives through the backward pass."""
    cell, given = CELLS[name], arrays(CELLS[name], 400, 4)
    compiled = {keep: gradient(cell, keep, False).lower(*given).compile() for keep in ("gates", "states")}
    needed = {keep: program.memory_analysis().temp_size_in_bytes for keep, program in compiled.items()}
    assert needed["states"] < 0.6 * needed["gates"], needed


def test_pieces_leave_nothing_over_where_they_can() -> None:
    assert [backward.piece_of(steps) for steps in (64, 72, 67, 1000)] == [16, 12, 8, 50]
