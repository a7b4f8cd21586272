"""`jax.export`: what it writes of functions over our types, and what needs sizes that it leaves open."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import gru_jax as gj
from gru_jax.interop import torch as torch_front

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 5, 3))
NET = gj.stack(gj.recurrent(gj.MGU(4)), gj.bidirectional(gj.recurrent(gj.MinLSTM(4))), norm="layer")
READOUT = gj.models.readout(gj.recurrent(gj.models.LSTM(4)), 3, 2)
TOKENS = gj.models.sequence_model(gj.recurrent(gj.MinGRU(4)), 5, 3)
BLOCK = gj.models.min_block(4, conv=2)
CELL = gj.GRU(4)
PARAMS = CELL.init(KEY, 3)
GRUD = gj.GRUD(1)
SEEN = gj.observed(jnp.where(X > 0, X, jnp.nan))
PACKED = torch_front.pack_padded_sequence(X, [3, 5], batch_first=True, enforce_sorted=False)

CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "params, gates and stats": (
        lambda p, x: gj.scan(CELL, p, x, return_gates=True, stats=True), (PARAMS, X),
    ),
    "stack": (lambda p, x: NET.apply(p, x), (NET.init(KEY, 3), X)),
    "readout and an LSTM's state": (
        lambda p, x, h: READOUT.apply(p, x, h, return_state=True),
        (READOUT.init(KEY), X, gj.models.LSTM(4).initial_state((2,), jnp.float32)),
    ),
    "tokens": (lambda p, x: TOKENS.apply(p, x), (TOKENS.init(KEY), jnp.array([[1, 2, 0]]))),
    "block": (lambda p, x: BLOCK.apply(p, x), (BLOCK.init(KEY, 3), X)),
    "GRU-D": (lambda p, s: (GRUD.linearize(p, GRUD.project(p, s.x), s.mask[..., :1]), s), (GRUD.init(KEY, 9), SEEN)),
    "packed sequence": (lambda p: p.with_data(2 * p.data), (PACKED,)),
    "a step's derivative": (
        lambda p, x, h: CELL.linearize(p, CELL.project(p, x), h), (PARAMS, X[:, 0], jnp.zeros((2, 4))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_written_and_read_again(call: str) -> None:
    run, arguments = CALLS[call]
    read = export.deserialize(export.export(jax.jit(run))(*arguments).serialize())
    want, got = run(*arguments), read.call(*arguments)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)


STEPS = gj.Sequential
OPEN: list[tuple[Any, Any, str, str]] = [
    # a cell, a method, the shape of x, what is said (nothing: it is served)
    (CELL, "auto", "b, t, 3", ""),
    (CELL, STEPS(kernel="chunked"), "b, 6, 3", ""),
    (CELL, STEPS(kernel="chunked"), "2, t, 3", "kernel='chunked' needs a number of steps"),
    (CELL, STEPS(checkpoint_every=4), "2, t, 3", "checkpoint_every=4 needs a number of steps"),
    (CELL, STEPS(kernel="scan", unroll=4), "2, t, 3", "unroll=4 needs a number of steps"),
    (CELL, STEPS(kernel="interpret-gpu"), "b, 6, 3", "does not serve sizes that are not known"),
    (CELL, STEPS(kernel="interpret-tpu"), "2, t, 3", "does not serve sizes that are not known"),
    (CELL, "naive", "2, t, 3", "'naive' needs a number of steps"),
    (gj.MinGRU(4), "auto", "b, t, 3", ""),
    (gj.MinGRU(4, form="log"), "auto", "b, t, 3", ""),
    (gj.MinGRU(4), gj.Associative(kernel="chunked"), "b, 6, 3", ""),
    (gj.MinGRU(4), gj.Associative(kernel="chunked"), "2, t, 3", "kernel='chunked' needs a number of steps"),
    (gj.MinGRU(4), gj.Associative(kernel="associative"), "2, t, 3", "kernel='associative' needs a number of steps"),
    (gj.MinGRU(4), gj.Associative(kernel="llvm"), "b, 6, 3", "kernel='llvm' needs sizes"),
    (gj.MinGRU(4), gj.Associative(kernel="interpret-gpu"), "b, 6, 3", "kernel='interpret-gpu' needs sizes"),
]


@pytest.mark.parametrize(
    ("cell", "method", "shape", "words"),
    # What is served takes a program each.
    [pytest.param(*row, marks=() if row[-1] or row is OPEN[0] or row is OPEN[9] else pytest.mark.slow) for row in OPEN],
)
def test_sizes_that_are_left_open(cell: Any, method: Any, shape: str, words: str) -> None:
    params = cell.init(KEY, 3)
    x = jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float32)
    gradient = jax.jit(jax.grad(lambda p, x: gj.scan(cell, p, x, method=method)[0].sum()))
    if words:
        with pytest.raises(ValueError, match=words):
            export.export(gradient)(params, x)
        return
    sizes = tuple(size if isinstance(size, int) else 2 for size in x.shape)
    got = export.export(gradient)(params, x).call(params, jnp.ones(sizes))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, gradient(params, jnp.ones(sizes)))


def test_linear_scan_of_so_many_steps() -> None:
    a = jax.ShapeDtypeStruct(export.symbolic_shape("2, t, 3"), jnp.float32)
    with pytest.raises(ValueError, match="linear_scan: kernel='associative' needs a number of steps"):
        export.export(jax.jit(lambda a: gj.linear_scan(a, a, kernel="associative")))(a)
