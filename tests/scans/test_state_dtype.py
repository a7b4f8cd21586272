"""A state in float32 between the steps of a network in half precision."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gru_jax as gj
from gru_jax import inside

from .cases import table

HALF = jnp.bfloat16
CELL = gj.GRU(4)
FORMS = {
    "scan": gj.Sequential(kernel="scan"),
    "scan, states kept": gj.Sequential(kernel="scan", keep="states"),
    "chunked": gj.Sequential(kernel="chunked"),
    "llvm": gj.Sequential(kernel="llvm"),
}


def slow_units(dtype: Any) -> Any:
    """Units that keep 0.998 of their state at each step, whatever x and h are."""
    nothing = CELL.init(jax.random.key(0), 2)
    z = jnp.concatenate([jnp.zeros(4), jnp.full(4, math.log(0.998 / 0.002)), jnp.full(4, 2.0)])
    params = jax.tree.map(jnp.zeros_like, nothing)._replace(b_x=z)
    return jax.tree.map(lambda a: a.astype(dtype), params)


@pytest.mark.parametrize("form", table(FORMS, quick=lambda form: form in ("scan", "llvm")))
def test_a_slow_unit_goes_all_of_its_way(form: str) -> None:
    T, params, x = 1000, slow_units(HALF), jnp.zeros((1, 1000, 2), HALF)
    b_z, b_n = (float(params.b_x[place]) for place in (4, 8))
    z = 1 / (1 + math.exp(-b_z))
    want = math.tanh(b_n) * (1 - z**T)
    run = lambda **options: gj.scan(CELL, params, x, method=FORMS[form], **options)  # noqa: E731
    y, h = run(state_dtype="float32")
    assert y.dtype == HALF and h.dtype == jnp.float32
    np.testing.assert_allclose(h, want, rtol=1e-4)
    np.testing.assert_allclose(y[:, -1].astype("float32"), want, rtol=2**-8)
    assert run()[1].max() < 0.7 * want  # and in bfloat16 it stops on its way


@pytest.mark.parametrize("form", table(FORMS, quick=lambda form: form in ("chunked", "scan, states kept")))
def test_values_and_gradients_are_those_of_float32(form: str) -> None:
    """With parameters and input that are bfloat16's, rounding the outputs is all that is left."""
    params = jax.tree.map(lambda a: a.astype(HALF), CELL.init(jax.random.key(0), 2))
    x = jax.random.normal(jax.random.key(1), (2, 70, 2), HALF)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    weights = jax.random.normal(jax.random.key(2), (2, 4), jnp.float32)

    def loss(given: Any, **options: Any) -> Any:
        h = gj.scan(CELL, *given, lengths=jnp.array([70, 33]), method=FORMS[form], **options)[1]
        return (h * weights).sum(), h

    (_, h), got = jax.jit(jax.value_and_grad(lambda g: loss(g, state_dtype=jnp.float32), has_aux=True))((params, x))
    (_, want_h), want = jax.jit(jax.value_and_grad(loss, has_aux=True))(wide)
    # XLA rounds the state to multiply it with half-precision weights; the kernel for CPUs does not.
    np.testing.assert_allclose(h, want_h, atol=4e-3)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == HALF
        np.testing.assert_allclose(a.astype("float32"), b, atol=0.02 * float(np.abs(b).max()) + 1e-6)


SELDOM = [pytest.param(cell, marks=pytest.mark.slow) for cell in (gj.MGU(4), gj.MinGRU(4))]


@pytest.mark.parametrize("cell", [gj.GRU(4), gj.models.LSTM(4), *SELDOM], ids=type)
def test_as_the_reference(cell: Any) -> None:
    params = cell.init(jax.random.key(0), 2, HALF)
    x = jax.random.normal(jax.random.key(1), (2, 5, 2), HALF)
    resets = jnp.zeros((2, 5), bool).at[0, 2].set(True)
    options: dict[str, Any] = {"resets": resets, "state_dtype": jnp.float32}
    y, h = gj.scan(cell, params, x, **options)
    want_y, want_h = gj.scan(cell, params, x, method="naive", **options)
    np.testing.assert_allclose(y.astype("float32"), want_y.astype("float32"), atol=2**-7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), h, want_h)
    # Two halves are the whole: the state that is handed on has lost nothing.
    first, middle = gj.scan(cell, params, x[:, :3], resets=resets[:, :3], state_dtype=jnp.float32)
    second, end = gj.scan(cell, params, x[:, 3:], middle, resets=resets[:, 3:], state_dtype=jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), end, h)


def test_in_layers() -> None:
    net = gj.stack(gj.recurrent(CELL, state_dtype=jnp.float32), gj.bidirectional(gj.recurrent(CELL)))
    params = net.init(jax.random.key(0), 2, HALF)
    y, (first, _) = net.apply(params, jnp.ones((2, 3, 2), HALF))
    assert y.dtype == HALF and first.dtype == jnp.float32


def test_what_is_no_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match="recurrent: state_dtype must be a floating-point dtype"):
        gj.recurrent(CELL, state_dtype=int)
    with pytest.raises(TypeError, match="state_dtype must be a floating-point dtype"):
        gj.models.min_block(4, state_dtype="int32")
    with pytest.raises(TypeError, match="scan: state_dtype must be a floating-point dtype"):
        gj.scan(CELL, slow_units(jnp.float32), jnp.ones((1, 2, 2)), state_dtype="int32")


@pytest.mark.parametrize("kind", ["nnx", "linen"])
def test_in_flax_modules(kind: str) -> None:
    x, options = jnp.ones((2, 3, 2), HALF), {"dtype": HALF, "state_dtype": jnp.float32}
    if kind == "nnx":
        layer = gj.nnx.GRU(2, 4, rngs=nnx.Rngs(0), stateful=True, **options)
        y, h = layer(x)
        after, _ = layer(x)
    else:
        module = gj.linen.GRU(4, **options)
        variables = module.init(jax.random.key(0), x)
        y, h = module.apply(variables, x)
        after, _ = module.apply(variables, x, h)
    assert y.dtype == HALF and h.dtype == jnp.float32 and (after != y).any()


FLAX_RNNS = {"nnx": nnx.RNN, "inside nnx": inside.nnx.RNN, "linen": linen.RNN, "inside linen": inside.linen.RNN}


WITHOUT = ("nnx", "inside linen")  # lengths, where only one row of each is quick


@pytest.mark.parametrize(
    "rnn, lengths",
    table(FLAX_RNNS, (None, (90, 41)), quick=lambda rnn, lengths: (lengths is None) == (rnn in WITHOUT)),
)
def test_cells_of_flax_s_loops(rnn: str, lengths: Any) -> None:
    """What the loop carries is float32, what it puts out is not, by flax's loop and by ours."""
    params, x = slow_units(HALF), jax.random.normal(jax.random.key(0), (2, 90, 2), HALF)
    if lengths is not None:
        lengths = jnp.array(lengths)
    want_y, want_h = gj.scan(CELL, params, x, lengths=lengths, state_dtype=jnp.float32)
    options = {"dtype": HALF, "param_dtype": HALF, "state_dtype": jnp.float32}
    if "nnx" in rnn:
        cell = gj.nnx.GRUCell(2, 4, rngs=nnx.Rngs(0), **options)
        for name, leaf in params._asdict().items():
            getattr(cell, name).set_value(leaf)
        h, y = FLAX_RNNS[rnn](cell)(x, seq_lengths=lengths, return_carry=True)
    else:
        module = FLAX_RNNS[rnn](gj.linen.GRUCell(4, **options), return_carry=True)
        variables = {"params": {"cell": params._asdict()}}
        h, y = module.apply(variables, x, seq_lengths=lengths)
    assert y.dtype == HALF and h.dtype == jnp.float32
    np.testing.assert_allclose(h, want_h, atol=1e-4)
    if lengths is None:
        np.testing.assert_allclose(y.astype("float32"), want_y.astype("float32"), atol=2**-8)


@pytest.mark.parametrize("kind", ["min_gru", pytest.param("min_lstm", marks=pytest.mark.slow)])
def test_in_blocks(kind: str) -> None:
    """Two halves are the whole, by a state that has lost nothing; what goes on is in half precision."""
    block = gj.models.min_block(4, cell=kind, conv=2, state_dtype=jnp.float32)
    params = block.init(jax.random.key(0), 2, HALF)
    x = jax.random.normal(jax.random.key(1), (2, 8, 2), HALF)
    y, end = block.apply(params, x)
    assert y.dtype == HALF and end.conv.dtype == HALF and end.cell.dtype == jnp.float32
    first, middle = block.apply(params, x[:, :3])
    second, h = block.apply(params, x[:, 3:], middle)
    np.testing.assert_allclose(h.cell, end.cell, atol=1e-6)
    np.testing.assert_array_equal(jnp.concatenate([first, second], 1), y)
    net = gj.stack(block, block)
    assert net.apply(net.init(jax.random.key(0), 2, HALF), x)[0].dtype == HALF


@pytest.mark.parametrize("both", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_head_reads_states_that_are_wider_than_its_weights(both: bool) -> None:
    rnn = gj.recurrent(CELL, state_dtype="float32")
    model = gj.models.readout(gj.bidirectional(rnn) if both else rnn, 2, 3)
    params = jax.tree.map(lambda a: a.astype(HALF), model.init(jax.random.key(0)))
    assert model.apply(params, jnp.ones((2, 5, 2), HALF), deterministic=True).dtype == HALF
