"""flax: a training step of `flax.linen.RNN` around each of flax's cells, and of ours around the same cell."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from benchmarks import agreement, timing
from benchmarks.inside_rows import row
from benchmarks.layer_shapes import Shape
from gru_jax import inside

SHAPES = (Shape(100, 32, 64, 64), Shape(256, 32, 64, 128), Shape(2000, 16, 32, 64), Shape(1000, 1, 64, 128))
QUICK = (Shape(5, 2, 3, 4),)
BOUND = 1e-5
"""How far gradients may be apart, in parts of the largest of each array."""

LINEN: dict[str, Any] = {
    "GRUCell": linen.GRUCell,
    "MGUCell": linen.MGUCell,
    "LSTMCell": linen.LSTMCell,
    "OptimizedLSTMCell": linen.OptimizedLSTMCell,
    "SimpleCell": linen.SimpleCell,
}
CASES = [("linen", name, {}) for name in LINEN] + [
    ("linen", "GRUCell", {"seq_lengths": True, "return_carry": True}),
    ("nnx", "GRUCell", {}),
    ("nnx", "OptimizedLSTMCell", {}),
]


def step(api: str, name: str, RNN: Any, shape: Shape, call: dict[str, Any]) -> Callable[[], Any]:
    """A call of the compiled value and gradients of a loss of the outputs, with respect to parameters and input."""
    T, B, I, H = shape
    x = jax.random.normal(jax.random.key(1), (B, T, I))
    given = call | ({"seq_lengths": jnp.linspace(1, T, B).astype(jnp.int32)} if "seq_lengths" in call else {})
    if api == "linen":
        rnn = RNN(LINEN[name](H))
        weights = rnn.init(jax.random.key(0), x)
        run: Callable[..., Any] = lambda weights, x: rnn.apply(weights, x, **given)  # noqa: E731
    else:
        graph, weights = nnx.split(RNN(getattr(nnx, name)(I, H, rngs=nnx.Rngs(0))))
        run = lambda weights, x: nnx.merge(graph, weights)(x, **given)  # noqa: E731
    # As a list: taking flax's own containers apart at every call is no part of a layer's time.
    leaves, tree = jax.tree.flatten(weights)
    floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    moving = [leaf for leaf, moves in zip(leaves, floats, strict=True) if moves]

    def loss(moving: list[Any], x: Any) -> Any:
        rest = iter(moving)
        whole = [next(rest) if moves else leaf for leaf, moves in zip(leaves, floats, strict=True)]
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(run(tree.unflatten(whole), x)))

    return functools.partial(jax.jit(jax.value_and_grad(loss, (0, 1))), moving, x)


def rows(quick: bool, budget_s: float) -> Iterator[dict[str, Any]]:
    """A row for each shape and cell."""
    for shape in QUICK if quick else SHAPES:
        for api, name, call in CASES:
            case = f"{api} {name}{', lengths' if call else ''}"
            sides = ((inside.linen.RNN, linen.RNN) if api == "linen" else (inside.nnx.RNN, nnx.RNN))
            ours, theirs = (step(api, name, RNN, shape, call) for RNN in sides)
            found = [[np.asarray(leaf) for leaf in jax.tree.leaves(each())] for each in (theirs, ours)]
            off = max(agreement.distance(a, b) for a, b in zip(*found, strict=True))
            if not off <= BOUND * max(1.0, shape.T / 100):
                raise agreement.Disagreement(f"flax, {case}, T,B,I,H = {shape}: gradients are off by {off:.2g}")
            yield row("flax", "training", case, shape, off, timing.side_by_side(ours, theirs, budget_s))
        jax.clear_caches()
