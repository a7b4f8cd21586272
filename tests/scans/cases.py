"""The tables that the tests of scans run over: every cell, every situation, and what to compare."""

import itertools
import os
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

B, T, I, H = 3, 5, 3, 4

CELLS = {
    f"{reset}-{bias}-{heads}": gj.GRU(H, reset=reset, bias=bias, heads=heads, init="torch")
    for reset, bias, heads in itertools.product(
        ("after", "before"), ("full", "minimal", "none"), (1, 2, H)
    )
} | {
    "activations": gj.GRU(H, activation="softsign", gate_activation="hard_sigmoid", init="torch"),
    "callables": gj.GRU(H, reset="before", activation=jnp.sin, gate_activation=jax.nn.sigmoid),
}

# Of T = 5 steps: one by one, with a rest of 2, and all in one.
CHUNKED = {
    "chunks of 1": gj.Sequential(kernel="chunked", chunk=1, keep="gates"),
    "chunks": gj.Sequential(kernel="chunked", chunk=3, keep="states"),
    "kept chunks": gj.Sequential(kernel="chunked", chunk=3, keep="gates"),
    "one chunk": gj.Sequential(kernel="chunked", chunk=8, keep="states"),
}

LENGTHS = jnp.array([T, 2, 0])
HOLES = jnp.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
LEFT = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], bool)
RESETS = jnp.array([[0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], bool)
KEY = jax.random.key(7)
# Above 0, as the states of some cells are.
RESET_TO = jnp.linspace(0.1, 0.9, B * H).reshape(B, H)

SITUATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": LENGTHS},
    "lengths, held": {"lengths": LENGTHS, "padding": "hold"},
    "holes": {"mask": HOLES},
    "left padding": {"mask": LEFT, "padding": "hold"},
    "resets": {"resets": RESETS},
    "resets and holes": {"resets": RESETS, "reset_to": RESET_TO, "mask": HOLES},
    "input dropout": {"input_dropout": 0.4, "key": KEY, "lengths": LENGTHS},
    "recurrent dropout": {"recurrent_dropout": 0.4, "key": KEY, "resets": RESETS},
    "everything": {
        "mask": HOLES,
        "resets": RESETS,
        "reset_to": RESET_TO,
        "input_dropout": 0.3,
        "recurrent_dropout": 0.2,
        "key": KEY,
        "padding": "hold",
    },
}


def table(*columns: Any, quick: Any) -> list[Any]:
    """Every combination of the columns; those for which `quick` is False run with the slow tests.

    They are not even made where only quick ones run: eight thousand items cost half a minute of every `make test`.
    """
    rows = [(row, quick(*row)) for row in itertools.product(*columns)]
    return [
        pytest.param(*row, marks=() if first else pytest.mark.slow, id=", ".join(map(str, row)))
        for row, first in rows
        if first or "GRU_JAX_ONLY_QUICK" not in os.environ
    ]


@cache
def arrays(cell: Any, dtype: Any = jnp.float32, batch: tuple[int, ...] = (B,), steps: int = T) -> Any:
    """(params, x, h0) for a cell."""
    keys = jax.random.split(jax.random.key(1), 3)
    params = cell.init(keys[0], I, dtype)
    x = jax.random.normal(keys[1], (*batch, steps, I), dtype)
    return params, x, jax.random.normal(keys[2], (*batch, H), dtype)


def weigh(tree: Any) -> jax.Array:
    """A scalar in which every element of every array has a weight of its own."""
    return sum(
        jnp.sum(a * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape))
        for a in jax.tree.leaves(tree)
    )


def to_time_major(options: dict[str, Any]) -> dict[str, Any]:
    """The same options for arrays whose time axis leads."""
    moved = {k: v.T if k in ("mask", "resets") else v for k, v in options.items()}
    return {**moved, "time_major": True}


def outputs_and_gradients(cell: Any, params: Any, x: Any, h0: Any, **options: Any) -> Any:
    """(y, h_T) and the gradients of a weighted sum of both with respect to params, x, h0 and, if given, reset_to."""
    given = (params, x, h0)
    if "reset_to" in options:
        given = (*given, options.pop("reset_to").astype(x.dtype))

    def loss(params: Any, x: Any, h0: Any, *reset_to: Any) -> Any:
        to = {"reset_to": reset_to[0]} if reset_to else {}
        outputs = gj.scan(cell, params, x, h0, **to, **options)
        return weigh(outputs), outputs

    run = jax.value_and_grad(loss, tuple(range(len(given))), has_aux=True)
    # The unrolled loop of the oracle takes longer to compile than to run operation by operation.
    run = run if options.get("method") == "naive" else jax.jit(run)
    (_, outputs), gradients = run(*given)
    return outputs, gradients


@cache
def oracle(cell: str, situation: str, reverse: bool) -> Any:
    """What `naive` finds of a cell in a situation: it is found once for all files that ask."""
    options = {"method": "naive", "reverse": reverse, **SITUATIONS[situation]}
    return outputs_and_gradients(CELLS[cell], *arrays(CELLS[cell]), **options)


def assert_close(ours: Any, naive: Any, outputs: float, gradients: float) -> None:
    """Outputs to an absolute, gradients to a relative bound (of each gradient's largest element)."""
    for a, b in zip(jax.tree.leaves(ours[0]), jax.tree.leaves(naive[0]), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert difference(a, b) <= outputs
    for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(naive[1]), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert difference(a, b) <= gradients * max(difference(b, 0), 1e-3)


def difference(a: Any, b: Any) -> float:
    """The largest one of two arrays, found without a program for each of their shapes."""
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max(initial=0)
