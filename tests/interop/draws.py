"""Random layers, and the comparisons that the tests of every framework share."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.between import Norm
from gru_jax.layers.spec import GRUSpec

# (layers, two directions); few, as each takes a second to compile: one alone, and all there is to nest.
SELDOM = [(1, True), (2, False), (3, True)]
GRID = [(1, False), (2, True), *(pytest.param(*row, marks=pytest.mark.slow) for row in SELDOM)]


def sizes(seed: int) -> tuple[np.random.Generator, int, int]:
    """A generator and the sizes I, H that it drew: few, as every new shape is compiled anew."""
    rng = np.random.default_rng(seed)
    return rng, *[(3, 4), (1, 1)][rng.integers(2)]


def widths(i: int, h: int, layers: int, two: bool) -> list[int]:
    """The number of input features of each layer."""
    return [i] + [h * (1 + two)] * (layers - 1)


def array(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Normal numbers, no bias left at zero."""
    return (0.6 * rng.normal(size=shape)).astype(dtype)


def layer(
    rng: np.random.Generator, i: int, h: int, layers: int = 1, two: bool = False, *, bias: str = "full", **options: Any
) -> Any:
    """A `gj.nnx.GRU` with random numbers in every parameter."""

    def gru(width: int) -> gj.GRUParams:
        heads = options.get("heads", 1)
        w_h = (h, 3 * h) if heads == 1 else (heads, h // heads, 3 * h // heads)
        b_x = None if bias == "none" else array(rng, 3 * h)
        b_h = {"none": None, "minimal": array(rng, h), "full": array(rng, 3 * h)}[bias]
        return gj.GRUParams(array(rng, width, 3 * h), array(rng, *w_h), b_x, b_h)

    each = [(gru(width), gru(width)) if two else gru(width) for width in widths(i, h, layers, two)]
    norm, residual = options.get("norm"), options.get("residual", False)
    norms = (Norm(array(rng, h), array(rng, h) if norm == "layer" else None),) * layers if norm else ()
    params = each[0] if layers == 1 and not norm and not residual else gj.StackParams(tuple(each), norms)
    return gj.nnx.GRU(i, h, num_layers=layers, bidirectional=two, bias=bias, params=params, **options)


@cache
def program(spec: GRUSpec) -> Callable[..., Any]:
    """(parameters by name, x, h0, lengths) to what the layer gives: compiled once for all weights."""
    return jax.jit(lambda named, x, h0, lengths: spec.run(named, x, h0, lengths=lengths, key=None, deterministic=True))


def run(ours: Any, x: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outputs, and the final states as a flat list."""
    y, h_n = program(ours.spec)(ours.spec.to_names(ours.functional()[1]), jnp.asarray(x), None, None)
    return np.asarray(y), [np.asarray(h) for h in jax.tree.leaves(h_n)]


def run_layers(x: Any, layers: Any, one_direction: Callable[[Any, Any, bool], tuple[Any, Any]]) -> Any:
    """The same of a nest of theirs; `one_direction(gru, x, reverse)` gives outputs in the input's order and a state."""
    states = []
    for gru in layers if isinstance(layers, list) else [layers]:
        if isinstance(gru, tuple):
            (y_f, h_f), (y_b, h_b) = one_direction(gru[0], x, False), one_direction(gru[1], x, True)
            x = np.concatenate([y_f, y_b], -1)
            states += [h_f, h_b]
        else:
            x, h = one_direction(gru, x, False)
            states.append(h)
    return np.asarray(x), [np.asarray(h) for h in states]


def close(got: Any, expected: Any, bound: float = 2e-6) -> None:
    """Outputs and states are the same numbers."""
    for a, b in zip([got[0], *got[1]], [expected[0], *expected[1]], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


def same_bits(got: Any, expected: Any) -> None:
    """The same tree, with the same dtypes and the same bits (so -0.0 is not 0.0)."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
