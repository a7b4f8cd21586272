"""The one derivative: exact in every mode, and what it keeps in memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals
from jax.test_util import check_grads

import gru_jax as gj

from .cases import CELLS, CHUNKED, SITUATIONS, arrays, table, weigh

MODES = {
    "grad": lambda f, given: jax.grad(lambda g: weigh(f(g)))(given),
    "jvp": lambda f, given: jax.jvp(f, (given,), (jax.tree.map(jnp.cos, given),)),
    "linearize": lambda f, given: jax.linearize(f, given)[1](given),
    "remat": lambda f, given: jax.grad(jax.checkpoint(lambda g: weigh(f(g))))(given),
    "forward over reverse": lambda f, given: jax.jvp(jax.grad(lambda g: weigh(f(g))), (given,), (given,))[1],
    "reverse over forward": lambda f, given: jax.grad(lambda g: weigh(jax.jvp(f, (g,), (g,))[1]))(given),
    "reverse over reverse": lambda f, given: jax.grad(
        lambda g: weigh(jax.grad(lambda g: weigh(f(g)))(g))
    )(given),
}


@pytest.mark.parametrize(
    "method, mode, cell, situation",
    table(
        ("states", *CHUNKED),
        MODES,
        ("after-full-1", "before-minimal-2"),
        ("plain", "everything"),
        quick=lambda method, mode, cell, situation: (
            (cell, situation) == ("after-full-1", "everything")
            and mode
            in {
                "states": ("forward over reverse",),
                "chunks": ("remat",),
                "kept chunks": ("jvp",),
            }.get(method, ())
        ),
    ),
)
def test_every_mode_agrees_with_plain_differentiation(x64, method, mode, cell, situation):
    cell, options = CELLS[cell], dict(SITUATIONS[situation])
    given = dict(zip(("params", "x", "h0"), arrays(cell, jnp.float64), strict=True))
    if "reset_to" in options:
        given["reset_to"] = options.pop("reset_to").astype(jnp.float64)
    results = [
        jax.jit(lambda g, m=method: MODES[mode](lambda g: gj.scan(cell, **g, method=m, **options), g))(given)
        for method in (CHUNKED.get(method, gj.Sequential(keep="states")), gj.Sequential(keep="gates"))
    ]
    for ours, plain in zip(*map(jax.tree.leaves, results), strict=True):
        scale = max(float(np.abs(plain).max()), 1e-3)
        assert float(np.abs(ours - plain).max()) <= 1e-12 * scale


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, keep",
    table(
        ("after-full-1", "before-full-4"),
        ("states", "gates", *CHUNKED),
        quick=lambda cell, keep: (cell, keep) == ("after-full-1", "states"),
    ),
)
def test_gradients_against_finite_differences(x64, cell, keep):
    cell, method = CELLS[cell], CHUNKED.get(keep) or gj.Sequential(keep=keep)
    params, x, h0 = arrays(cell, jnp.float64)
    check_grads(
        lambda *given: weigh(gj.scan(cell, *given, method=method)), (params, x, h0), order=2, atol=1e-5, rtol=1e-5
    )


def saved(function, *given, capsys):
    """(shape, where from) of every residual that the backward pass of `function` is given."""
    print_saved_residuals(function, *given)
    lines = capsys.readouterr().out.strip().splitlines()
    return [(re.match(r"[\w<>]+\[([\d,]*)\]", line).group(1), line) for line in lines]


@pytest.mark.parametrize("situation", ["plain", "lengths", "everything"])
@pytest.mark.parametrize("time_major", [False, True])
def test_residuals_are_the_arguments_and_the_states(situation, time_major, capsys):
    cell = CELLS["after-full-1"]
    params, x, h0 = arrays(cell, steps=11, batch=(3,))
    options = dict(SITUATIONS[situation])
    for name in ("mask", "resets"):
        if name in options:
            options[name] = jnp.ones((11, 3) if time_major else (3, 11), bool)
    x = x.swapaxes(0, 1) if time_major else x
    function = lambda p, x, h0: gj.scan(  # noqa: E731
        cell, p, x, h0, method=gj.Sequential(keep="states"), time_major=time_major, **options
    )[0].sum()
    residuals = saved(function, params, x, h0, capsys=capsys)
    made = [shape for shape, line in residuals if "argument" not in line and "constant" not in line]
    assert made == ["11,3,4"], residuals
    arguments = [shape for shape, line in residuals if "argument" in line]
    assert len(arguments) == len(jax.tree.leaves((params, x, h0)))


def test_keeping_the_gates_keeps_more(capsys):
    cell = CELLS["after-full-1"]
    given = arrays(cell, steps=11)
    function = lambda *g: gj.scan(cell, *g, method=gj.Sequential(keep="gates"))[0].sum()  # noqa: E731
    assert len(saved(function, *given, capsys=capsys)) > len(jax.tree.leaves(given)) + 1


@pytest.mark.slow
def test_memory_of_a_deep_stack_grows_by_the_states():
    # Ten layers and two differ by what eight layers keep for the backward pass: with keep="states" the trajectory and
    # the copy of it that is the next layer's input, with keep="gates" several arrays of gates more.
    T, B, H = 64, 16, 32
    states = 4 * T * B * H

    def temporaries(layers, keep):
        net = gj.stack(*[gj.recurrent(gj.GRU(H), method=gj.Sequential(keep=keep))] * layers)
        params = net.init(jax.random.key(0), H)
        loss = lambda p, x: (net.apply(p, x)[0] ** 2).sum()  # noqa: E731
        x = jnp.ones((B, T, H))
        return jax.jit(jax.grad(loss)).lower(params, x).compile().memory_analysis().temp_size_in_bytes

    growth = {keep: (temporaries(10, keep) - temporaries(2, keep)) / 8 / states for keep in ("states", "gates")}
    assert growth["states"] <= 3.5, growth
    assert growth["gates"] >= 3 * growth["states"], growth


@pytest.mark.parametrize(
    "cell, situation",
    table(
        ("after-full-1", "before-minimal-2", "after-none-4", "callables"), ("plain", "holes", "resets"),
        quick=lambda *row: row in (("after-full-1", "holes"), ("before-minimal-2", "resets"), ("callables", "plain")),
    ),
)  # fmt: skip
def test_value_and_gradient_compile_to_two_loops(cell, situation):
    cell = CELLS[cell]
    given = arrays(cell)
    loss = lambda *g: weigh(gj.scan(cell, *g, method=gj.Sequential(keep="states"), **SITUATIONS[situation]))  # noqa: E731
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(*given).compile().as_text()
    assert compiled.count(" while(") == 2
