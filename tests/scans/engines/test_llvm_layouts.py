"""Weights read as other frameworks lay them out: the numbers of the neutral layout, to the bit, and no copies."""

import re

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.cells import GRUParams
from gru_jax.cells.gru_layout import NEUTRAL, LaidOut, Layout, Original
from gru_jax.interop import keras, torch

from ..cases import table

BY_KERNEL = gj.Sequential(kernel="llvm", keep="gates", cores=2)
LAYOUTS = {
    "keras": Layout("zrn"), "torch": Layout(transposed=True), "onnx": Layout("zrn", True), "nrz": Layout("nrz"),
}  # fmt: skip
UNEVEN = (2, 40, 17, 19)
SIZES = [UNEVEN, (1, 3, 16, 32), (5, 20, 33, 48)]
"""(B, T, I, H): blocks that are not full, a matrix that is read where it is, one that is laid out anew."""


def laid_out(params, layout):
    """The parameters, and what a framework of this layout has in their place."""

    def of(array):
        if array is None:
            return None
        gates = dict(zip("rzn", jnp.split(array, 3, -1), strict=True))
        made = jnp.concatenate([gates[gate] for gate in layout.gates], -1)
        return made.T if layout.transposed else made

    return LaidOut(params, Original(GRUParams(*map(of, params)), layout))


def drawn(B, T, I, H, bias="full", seed=0):
    cell = gj.GRU(H, bias=bias, init="torch")
    keys = jax.random.split(jax.random.key(seed), 3)
    return cell, cell.init(keys[0], I), jax.random.normal(keys[1], (B, T, I)), jax.random.normal(keys[2], (B, H))


@pytest.mark.parametrize(
    "layout, lanes, sizes",
    table(
        LAYOUTS, (4, 8, 16), SIZES,
        quick=lambda name, lanes, sizes: (name, lanes, SIZES.index(sizes)) in {
            ("torch", 16, 2),
        },
    ),
    indirect=["lanes"],
)  # fmt: skip
def test_the_numbers_of_the_neutral_layout(layout, lanes, sizes):
    layout = LAYOUTS[layout]
    cell, params, x, h0 = drawn(*sizes, "none" if layout.gates == "nrz" else "full")

    def found(given, x, h0):
        y, h = gj.scan(cell, given, x, h0, method=BY_KERNEL)
        return (y**2).sum() + (y * h[:, None]).sum(), y

    graded = jax.jit(jax.value_and_grad(found, (0, 1, 2), has_aux=True))
    (_, y), (d_given, *others) = graded(laid_out(params, layout), x, h0)
    (_, same), (d_params, *same_others) = graded(params, x, h0)
    chex.assert_trees_all_equal((y, d_given.params, others), (same, d_params, same_others))
    chex.assert_trees_all_equal(d_given.original, jax.tree.map(jnp.zeros_like, d_given.original))


def test_only_the_kernel_reads_the_original():
    cell, params, x, _ = drawn(3, 6, 4, 8)
    others = drawn(3, 6, 4, 8, seed=1)[1]
    mixed = LaidOut(params, Original(others, NEUTRAL))
    run = lambda given, method: gj.scan(cell, given, x, method=method)[0]  # noqa: E731
    chex.assert_trees_all_equal(run(mixed, BY_KERNEL), run(others, BY_KERNEL))
    for method in ("naive", gj.Sequential(kernel="scan"), gj.Sequential(kernel="chunked", chunk=4), gj.Newton()):
        chex.assert_trees_all_equal(run(mixed, method), run(params, method))


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
def test_under_vmap_over_weights_and_in_other_dtypes(dtype):
    cell = gj.GRU(5)
    params = jax.vmap(lambda key: cell.init(key, 3, dtype))(jax.random.split(jax.random.key(0), 2))
    x = jax.random.normal(jax.random.key(1), (4, 7, 3), dtype)
    turned = jax.vmap(lambda p: laid_out(p, LAYOUTS["torch"]))(params)
    run = jax.vmap(lambda p: gj.scan(cell, p, x, method=BY_KERNEL)[0])
    chex.assert_trees_all_equal(run(turned), run(params))


FRONTS = {
    "keras": lambda: keras.GRU(16, return_sequences=True, method=BY_KERNEL, rngs=nnx.Rngs(0)),
    "torch": lambda: torch.GRU(8, 16, batch_first=True, method=BY_KERNEL, rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize("name", FRONTS)
def test_fronts_copy_no_matrix_forwards(name):
    front, x = FRONTS[name](), jnp.ones((4, 20, 8))
    y = lambda found: found[0] if name == "torch" else found  # noqa: E731
    y(front(x))  # Keras' is built by its first call
    graph, weights, rest = nnx.split(front, nnx.Param, ...)
    compiled = jax.jit(lambda weights: y(nnx.merge(graph, weights, rest)(x))).lower(weights).compile().as_text()
    made = re.findall(r"= f32\[([\d,]*)\]\S* (\w+)\(", compiled[compiled.index("ENTRY") :])
    assert len(made) > 4 and any(operation == "parameter" for _, operation in made)
    matrices = {"8,48", "48,8", "16,48", "48,16"}
    assert {operation for shape, operation in made if shape in matrices} == {"parameter"}
