"""`hk.GRU` computes what the loaded layers do, and the way back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.interop import haiku

from ..interop import draws


@pytest.fixture(scope="module")
def hk():
    return pytest.importorskip("haiku")


def params(rng, i, h, dtype=np.float32):
    """Of one hk.GRU."""
    return {
        "w_i": jnp.asarray(draws.array(rng, i, 3 * h, dtype=dtype)),
        "w_h": jnp.asarray(draws.array(rng, h, 3 * h, dtype=dtype)),
        "b": jnp.asarray(draws.array(rng, 3 * h, dtype=dtype)),
    }


@functools.cache
def unroll(hk, h, reverse):
    """hk.dynamic_unroll of one hk.GRU, compiled once for its options."""

    def forward(x):
        core = hk.GRU(h)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False, reverse=reverse)

    return jax.jit(hk.without_apply_rng(hk.transform(forward)).apply)


def run_haiku(hk, layers, x):
    def one_direction(gru, x, reverse):
        return unroll(hk, gru["w_h"].shape[0], reverse)({"gru": gru}, x)

    return draws.run_layers(x, layers, one_direction)


@pytest.mark.parametrize(("layers", "two"), draws.GRID)
def test_both_ways(hk, layers, two):
    rng, i, h = draws.sizes(10 * layers + two)
    theirs = [
        (params(rng, width, h), params(rng, width, h)) if two else params(rng, width, h)
        for width in draws.widths(i, h, layers, two)
    ]
    theirs = theirs if layers > 1 else theirs[0]
    x = draws.array(rng, 2, 5, i)
    ours = haiku.load(theirs)
    assert ours.spec.reset == "before"
    draws.close(draws.run(ours, x), run_haiku(hk, theirs, x))
    draws.same_bits(haiku.export(ours), theirs)


@pytest.mark.parametrize(("layers", "two"), [(1, False), (2, True)])
@pytest.mark.parametrize("bias", ["full", "minimal", "none"])
def test_export_runs(hk, layers, two, bias):
    rng, i, h = draws.sizes(100 + 10 * layers + two)
    ours = draws.layer(rng, i, h, layers, two, bias=bias, reset="before")
    x = draws.array(rng, 2, 5, i)
    draws.close(draws.run(ours, x), run_haiku(hk, haiku.export(ours), x))


def test_the_mapping_of_a_transformed_function(hk):
    def forward(x):
        core = hk.DeepRNN([hk.GRU(4), hk.GRU(4)])
        y, _ = hk.dynamic_unroll(core, x, core.initial_state(2), time_major=False)
        return hk.Linear(1)(y)

    rng = np.random.default_rng(0)
    model, x = hk.without_apply_rng(hk.transform(forward)), draws.array(rng, 2, 5, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    given = jax.tree.map(lambda s: jnp.asarray(draws.array(rng, *s.shape)), shapes)
    with pytest.raises(ValueError, match=r"params hold 2 GRUs, 'gru', 'gru_1'; say which with names=\['gru', ...\]"):
        haiku.load(given)
    y, _ = haiku.load(given, names=["gru", "gru_1"])(jnp.asarray(x))
    linear = given["linear"]
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(y @ linear["w"] + linear["b"], jax.jit(model.apply)(given, x), atol=2e-6)
    one = haiku.load({"linear": linear, "gru": given["gru"]})
    for same in (haiku.load(given["gru"]), haiku.load(given, names="gru"), haiku.load(given, names=["gru"])):
        draws.same_bits(same.functional()[1], one.functional()[1])
    pair = haiku.load(given | {"back": given["gru"]}, names=("gru", "back"))
    assert pair.spec.bidirectional
    draws.same_bits(haiku.export(pair), (dict(given["gru"]), dict(given["gru"])))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_keeps_the_dtype(dtype):
    theirs = params(np.random.default_rng(0), 3, 4, dtype)
    ours = haiku.load(theirs)
    assert ours.spec.param_dtype == dtype
    draws.same_bits(haiku.export(ours), theirs)


def test_zeros_keep_their_sign():
    theirs = params(np.random.default_rng(0), 3, 4) | {"b": jnp.asarray([0.0, -0.0] * 6)}
    draws.same_bits(haiku.export(haiku.load(theirs)), theirs)


def wrong():
    one = params(np.random.default_rng(0), 2, 3)
    model = {"a/gru": one, "b/gru": one, "linear": {"w": 1, "b": 2}}
    rows = {
        "a string": ("gru", {}, TypeError, "params must be those of hk.GRU, .*got 'gru'"),
        "a function": (lambda x: x, {}, TypeError, "got function"),
        "nothing": ({}, {}, TypeError, "params hold no GRU.*got nothing"),
        "no layers": ([], {}, TypeError, "needs one GRU.*got list of 0"),
        "Linear": ({"linear": {"w": 1, "b": 2}}, {}, TypeError, "hold no GRU, that is no dict of w_i.*got 'linear'"),
        "its inside": ({"w": 1, "b": 2}, {}, TypeError, "got 'w', 'b'"),
        "several": (model, {}, ValueError, r"hold 2 GRUs, 'a/gru', 'b/gru'; say which with names"),
        "unknown name": (model, {"names": "gru"}, ValueError, "'gru' is not there; the GRUs are 'a/gru', 'b/gru'"),
        "no GRU's name": (model, {"names": ["linear"]}, ValueError, "'linear' is no GRU; the GRUs are"),
        "names of one": (one, {"names": "gru"}, TypeError, "leave them out for GRUs alone"),
        "three directions": ((one,) * 3, {}, TypeError, "layer 0 must be one GRU, or a pair"),
        "w_h": (one | {"w_h": np.ones((3, 8), "f")}, {}, ValueError, r"w_h must have shape \[3, 9\]; got \[3, 8\]"),
        "w_i": (one | {"w_i": np.ones((2, 8), "f")}, {}, ValueError, r"w_i must have shape \[2, 9\]; got \[2, 8\]"),
        "b": (one | {"b": np.ones(3, "f")}, {}, ValueError, r"b must have shape \[9\]; got \[3\]"),
        "dtypes": (one | {"b": np.ones(9, np.float16)}, {}, ValueError, "one dtype; got float32 and float16"),
        "whole numbers": (one | {"b": np.ones(9, int)}, {}, TypeError, "b must be an array of floating-point"),
        "mapped": (jax.tree.map(lambda a: a[None], one), {}, ValueError, "w_i must have 2 dimensions.*leading axes"),
        "decided": (one, {"reset": "after"}, TypeError, "reset follows from what is loaded; leave it out"),
    }
    return rows


@pytest.mark.parametrize("case", wrong())
def test_load_says_what_is_wrong(case):
    given, options, error, message = wrong()[case]
    with pytest.raises(error, match="^haiku.load: .*" + message) as raised:
        haiku.load(given, **options)
    assert "\n" not in str(raised.value)


def test_load_of_the_transformed_function_says_so(hk):
    with pytest.raises(TypeError, match="mapping that init returns; got Transformed"):
        haiku.load(hk.transform(lambda x: x))


LOST = {
    "reset": ({"reset": "after"}, "applies the reset gate before the recurrent product, this layer after"),
    "heads": ({"heads": 2}, "this layer 2 blocks"),
    "activation": ({"activation": "relu"}, "tanh and sigmoid alone; this layer has activation='relu'"),
    "gate": ({"gate_activation": "hard_sigmoid"}, "gate_activation='hard_sigmoid', which would be lost"),
    "norm": ({"norm": "rms"}, "norm='rms', which would be lost"),
    "residual": ({"residual": True}, "residual=True, which would be lost"),
    "merge": ({"two": True, "merge": None}, "merge=None, which would be lost"),
}


@pytest.mark.parametrize("case", LOST)
def test_nothing_is_lost_silently(case):
    options, message = LOST[case]
    layer = draws.layer(np.random.default_rng(0), 2, 4, **({"reset": "before"} | options))
    with pytest.raises(ValueError, match=f"^haiku.export: .*{message}"):
        haiku.export(layer)
