"""`eqx.nn.GRUCell` computes what the loaded layers do, and the way back."""

import doctest
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.interop import equinox

from ..interop import draws

eqx = pytest.importorskip("equinox")


def arrays_of(cell):
    return [cell.weight_ih, cell.weight_hh, *([cell.bias, cell.bias_n] if cell.use_bias else [])]


def gru_cell(rng, i, h, use_bias=True, dtype=jnp.float32):
    empty = eqx.filter_eval_shape(eqx.nn.GRUCell, i, h, use_bias, dtype, key=jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(draws.array(rng, *s.shape, dtype=dtype)), empty)


@eqx.filter_jit
def scan(cell, x, reverse):
    """One cell over a batch of sequences."""

    def sequence(x):
        def step(h, x_t):
            h = cell(x_t, h)
            return h, h

        return jax.lax.scan(step, jnp.zeros(cell.hidden_size, x.dtype), x, reverse=reverse)

    h, y = jax.vmap(sequence)(x)
    return y, h


def run_equinox(layers, x):
    return draws.run_layers(x, layers, lambda cell, x, reverse: scan(cell, jnp.asarray(x), reverse))


@pytest.mark.parametrize(("layers", "two"), draws.GRID)
def test_both_ways(layers, two):
    use_bias = layers != 2
    rng, i, h = draws.sizes(10 * layers + two)
    cells = [[gru_cell(rng, width, h, use_bias) for _ in range(2)] for width in draws.widths(i, h, layers, two)]
    theirs = [tuple(pair) if two else pair[0] for pair in cells]
    theirs = theirs if layers > 1 else theirs[0]
    x = draws.array(rng, 2, 5, i)
    ours = equinox.load(theirs)
    assert ours.spec.bias == ("minimal" if use_bias else "none")
    draws.close(draws.run(ours, x), run_equinox(theirs, x))
    # The structures carry the static fields.
    draws.same_bits(equinox.export(ours), theirs)


@pytest.mark.parametrize(("layers", "two"), [(1, False), (2, True)])
@pytest.mark.parametrize("bias", ["full", "minimal", "none"])
def test_export_runs(layers, two, bias):
    rng, i, h = draws.sizes(100 + 10 * layers + two)
    ours = draws.layer(rng, i, h, layers, two, bias=bias)
    x = draws.array(rng, 2, 5, i)
    draws.close(draws.run(ours, x), run_equinox(equinox.export(ours), x))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_keeps_the_dtype(dtype):
    theirs = gru_cell(np.random.default_rng(0), 3, 4, dtype=dtype)
    ours = equinox.load(theirs)
    assert ours.spec.param_dtype == dtype
    draws.same_bits(equinox.export(ours), theirs)


def test_what_equinox_makes_itself_loads():
    theirs = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
    x = draws.array(np.random.default_rng(0), 2, 5, 3)
    draws.close(draws.run(equinox.load([theirs], method="naive"), x), run_equinox(theirs, x))


@cache
def wrong():
    rng = np.random.default_rng(0)
    cell = gru_cell(rng, 2, 3)

    def changed(name, value):
        return eqx.tree_at(lambda c: getattr(c, name), cell, value)

    return {
        "a class": (eqx.nn.GRUCell, TypeError, "got the class GRUCell"),
        "an LSTM": ([eqx.nn.LSTMCell(2, 3, key=jax.random.key(0))], TypeError, "must be eqx.nn.GRUCell.*got LSTMCell"),
        "a layer": (eqx.nn.Linear(2, 3, key=jax.random.key(0)), TypeError, "got Linear"),
        "a dict": ({"weight_ih": 1}, TypeError, "got dict"),
        "no layers": ([], TypeError, "needs one GRU.*got list of 0"),
        "three directions": ((cell,) * 3, TypeError, "layer 0 must be one GRU, or a pair"),
        "directions": ([cell, (cell, cell)], ValueError, "one direction, or all two"),
        "units": ([cell, gru_cell(rng, 3, 4)], ValueError, "layer 0 has 3 units but layer 1 has 4"),
        "order": ([cell, cell], ValueError, "layer 1 takes 2 features but layer 0 has 3"),
        "biases": ([cell, gru_cell(rng, 3, 3, False)], ValueError, "must both have biases, or none"),
        "hh": (changed("weight_hh", jnp.ones((8, 3))), ValueError, r"weight_hh must have shape \[9, 3\]; got \[8, 3\]"),
        "ih": (changed("weight_ih", jnp.ones((2, 9))), ValueError, r"weight_ih must have shape \[9, 9\]; got \[2, 9\]"),
        "bias": (changed("bias", jnp.ones(3)), ValueError, r"bias must have shape \[9\]; got \[3\]"),
        "bias_n": (changed("bias_n", jnp.ones(9)), ValueError, r"bias_n must have shape \[3\]; got \[9\]"),
        "none": (changed("bias_n", None), TypeError, "layer 0 bias_n must be an array.*got None"),
        "dtypes": (changed("bias", jnp.ones(9, jnp.float16)), ValueError, "one dtype; got float32 and float16"),
        "mapped": (jax.tree.map(lambda a: a[None], cell), ValueError, "weight_ih must have 2 dimensions.*leading axes"),
        "abstract": (
            eqx.filter_eval_shape(eqx.nn.GRUCell, 2, 3, key=jax.random.key(0)),
            TypeError,
            "weight_ih is a shape without numbers",
        ),
    }


@pytest.mark.parametrize("case", wrong())
def test_load_says_what_is_wrong(case):
    given, error, message = wrong()[case]
    with pytest.raises(error, match="^equinox.load: .*" + message) as raised:
        equinox.load(given)
    assert "\n" not in str(raised.value)


LOST = {
    "reset": ({"reset": "before"}, "applies the reset gate after the recurrent product, this layer before"),
    "heads": ({"heads": 4}, "this layer 4 blocks"),
    "activation": ({"activation": "relu"}, "tanh and sigmoid alone; this layer has activation='relu'"),
    "gate": ({"gate_activation": "hard_sigmoid"}, "gate_activation='hard_sigmoid', which would be lost"),
    "norm": ({"norm": "layer"}, "norm='layer', which would be lost"),
    "residual": ({"residual": True}, "residual=True, which would be lost"),
    "merge": ({"two": True, "merge": "mean"}, "merge='mean', which would be lost"),
}


@pytest.mark.parametrize("case", LOST)
def test_nothing_is_lost_silently(case):
    options, message = LOST[case]
    layer = draws.layer(np.random.default_rng(0), 2, 4, **options)
    with pytest.raises(ValueError, match=f"^equinox.export: .*{message}"):
        equinox.export(layer)


LAYER = draws.layer(np.random.default_rng(0), 2, 3)


@pytest.mark.parametrize("call", [lambda: equinox.load(1), lambda: equinox.export(LAYER)])
def test_without_equinox(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(ImportError, match=r"needs the package equinox; pip install 'gru-jax\[interop\]'"):
        call()


def test_the_examples_run_where_equinox_is():
    """They are skipped in the docstrings, which are also tested where it is not."""
    for function in (equinox.load, equinox.export):
        text = function.__doc__.replace("  # doctest: +SKIP", "")
        test = doctest.DocTestParser().get_doctest(text, vars(equinox).copy(), function.__name__, None, 0)
        assert doctest.DocTestRunner().run(test) == (0, 4)
