"""A GRU's batch in parts that run side by side on the cores of a CPU: the same numbers, and nothing that waits."""

import os
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax as gj
from gru_jax.scans import gru_parts
from gru_jax.scans.chunked import Chunks

from .cases import arrays, assert_close, outputs_and_gradients, table, to_time_major

B, T = 9, 11
IN_PARTS = gj.Sequential(kernel="chunked", chunk=4, cores=2)

CELLS = {
    **{bias: gj.GRU(4, bias=bias, init="torch") for bias in ("full", "minimal", "none")},
    "activations": gj.GRU(4, activation="softsign", gate_activation="hard_sigmoid", init="torch"),
    # These are not written in parts, and have to come out all the same.
    "before": gj.GRU(4, reset="before", init="torch"),
    "heads": gj.GRU(4, heads=2, init="torch"),
    "MGU": gj.MGU(4),
}
MASK = jax.random.bernoulli(jax.random.key(5), 0.7, (B, T)).at[3].set(False)
RESETS = jax.random.bernoulli(jax.random.key(6), 0.2, (B, T))
SITUATIONS = {
    "plain": {},
    "holes": {"mask": MASK},
    "holes, held": {"mask": MASK, "padding": "hold"},
    "lengths": {"lengths": jnp.array([11, 0, 3, 11, 1, 7, 10, 2, 5])},
    "resets": {"resets": RESETS, "mask": MASK},
    "dropout": {"input_dropout": 0.3, "recurrent_dropout": 0.2, "key": jax.random.key(7)},
}


@pytest.mark.parametrize(
    "name, situation, reverse, time_major",
    table(
        CELLS, SITUATIONS, (False, True), (False, True),
        quick=lambda name, situation, reverse, time_major: (
            (reverse != time_major and name == "full" and situation in ("plain", "holes"))
            or (not reverse and not time_major and (name == "full" or (name != "MGU" and situation == "plain")))
        ),
    ),
)  # fmt: skip
def test_the_same_numbers_as_the_naive_loop(name, situation, reverse, time_major):
    cell, options = CELLS[name], SITUATIONS[situation]
    params, x, h0 = arrays(cell, batch=(B,), steps=T)
    if time_major:
        x, options = jnp.swapaxes(x, 0, 1), to_time_major(options)
    ours, naive = (
        outputs_and_gradients(cell, params, x, h0, reverse=reverse, method=method, **options)
        for method in (IN_PARTS, "naive")
    )
    assert_close(ours, naive, 1e-6, 2e-5)


@settings(max_examples=6, deadline=None)
@given(
    steps=st.integers(1, 14), rows=st.integers(0, 21), features=st.integers(1, 3), chunk=st.integers(1, 9),
    cores=st.integers(1, 5),
)  # fmt: skip
def test_any_sizes(steps, rows, features, chunk, cores):
    cell = gj.GRU(3, init="torch")
    params = cell.init(jax.random.key(0), features)
    x = jax.random.normal(jax.random.key(1), (rows, steps, features))
    h0 = jax.random.normal(jax.random.key(2), (rows, 3))
    method = gj.Sequential(kernel="chunked", chunk=chunk, cores=cores)
    ours, plain = (
        outputs_and_gradients(cell, params, x, h0, method=m) for m in (method, gj.Sequential(kernel="scan"))
    )
    assert_close(ours, plain, 1e-6, 3e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=str)
def test_half_precision_stays_in_one(dtype):
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, dtype, (B,), T)
    ours, one = (
        outputs_and_gradients(cell, params, x, h0, method=gj.Sequential(kernel="chunked", chunk=4, cores=cores))
        for cores in (2, 1)
    )
    chex.assert_trees_all_equal(ours, one)


def test_several_batch_dimensions_and_none():
    cell = gj.GRU(4)
    for batch in ((3, 5), (2, 2, 3), ()):
        params, x, h0 = arrays(cell, batch=batch, steps=T)
        ours, naive = (outputs_and_gradients(cell, params, x, h0, method=m) for m in (IN_PARTS, "naive"))
        assert_close(ours, naive, 1e-6, 2e-5)


def test_every_mode_of_differentiation():
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=(B,), steps=T)

    def loss(method):
        return lambda *given: (gj.scan(cell, *given, mask=MASK, method=method)[0] ** 2).sum()

    directions = jax.tree.map(jnp.cos, (params, x, h0))
    found = []
    for method in (IN_PARTS, gj.Sequential(kernel="scan")):
        pushed = lambda *given, method=method: jax.jvp(loss(method), given, directions)[1]  # noqa: E731
        found.append((pushed(params, x, h0), jax.grad(pushed, (0, 1, 2))(params, x, h0)))
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-4)


def test_under_vmap():
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=(2, B), steps=T)
    run = lambda method: jax.vmap(  # noqa: E731
        lambda x, h0: outputs_and_gradients(cell, params, x, h0, method=method)
    )(x, h0)
    chex.assert_trees_all_close(run(IN_PARTS), run(gj.Sequential(kernel="scan")), rtol=1e-4, atol=1e-5)


def test_under_shard_map_and_pmap():
    cell = gj.GRU(4)
    params, x, h0 = arrays(cell, batch=(2 * B,), steps=T)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec

    def mean_loss(params, x, h0):
        return jax.lax.pmean((gj.scan(cell, params, x, h0, method=IN_PARTS)[0] ** 2).sum(), "data")

    sharded = jax.shard_map(mean_loss, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
    ours = jax.jit(jax.grad(sharded, (0, 1, 2)))(params, x, h0)
    plain = jax.grad(lambda *given: (gj.scan(cell, *given)[0] ** 2).sum() / 2, (0, 1, 2))(params, x, h0)
    chex.assert_trees_all_close(ours, plain, rtol=1e-4, atol=1e-5)
    halves = [a.reshape(2, B, *a.shape[1:]) for a in (x, h0)]
    y = jax.pmap(lambda x, h0: gj.scan(cell, params, x, h0, method=IN_PARTS)[0])(*halves)
    chex.assert_trees_all_close(y.reshape(2 * B, T, 4), gj.scan(cell, params, x, h0)[0], rtol=1e-5, atol=1e-6)


def test_rows_are_cut_into_no_more_parts_than_are_worth_one():
    def rows(batch, cores):
        chunks = Chunks.of(4, T, 1, False, True)
        return [part.rows for part in gru_parts.Layout.of(chunks, (batch,), batch, cores).parts]

    assert rows(9, 2) == [4, 5] and rows(16, 4) == [4, 4, 4, 4] and rows(15, 4) == [5, 5, 5]
    assert rows(7, 2) == [7] and rows(64, 1) == [64]


PROGRAM = """
import jax, jax.numpy as jnp, gru_jax as gj
cell = gj.GRU(16)
params = cell.init(jax.random.key(0), 8)
x, mask = jnp.ones((16, 48, 8)), {mask}
method = gj.Sequential(kernel="chunked", chunk=12, cores=2)
loss = lambda p, x: (gj.scan(cell, p, x, mask=mask, reverse={reverse}, method=method)[0] ** 2).sum()
jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, x).compile()
"""


@pytest.mark.parametrize("mask, reverse", [("None", False), ("None", True), ("jnp.ones((16, 48), bool)", False)])
def test_no_part_waits_for_another(mask, reverse):
    # XLA says what each operation waits for. Were a part to wait for another, only time would tell.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "thunk_executor=6", "XLA_FLAGS": ""}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(mask=mask, reverse=reverse)], env=environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    waits = re.findall(r"op_name=jit_call_\S*, kind=call, dependencies=\[(.*?)\]", run.stderr)
    if not waits:
        pytest.skip("this jaxlib does not say what its operations wait for")
    assert len(waits) == 4 and not any(waits), waits
