"""Weights of DreamerV3's cell, Dreamer's and TorchRL's, and the numbers that these packages gave with them.

The recorded numbers are those that `findings/torchrl_dreamer_norms_come_before_the_gates.sh` prints.
"""

import math

import jax
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.interop import dreamer

# torchrl 0.14.1, torch 2.13.0: DreamerV3BlockGRU(6, 8, projection_size=4, num_blocks=2, num_layers=2).
TORCHRL = [
    [
        [0.049914, 0.091855, 0.310771, 0.108790, -0.509307, -0.730271, -0.392878, 0.218657],
        [-0.074966, -0.301977, -0.038409, 0.083943, -0.370312, -0.531534, -0.287640, 0.153109],
        [-0.137575, -0.478438, -0.249145, 0.063040, -0.264151, -0.387599, -0.224227, 0.098030],
        [-0.157978, -0.558659, -0.391494, 0.038326, -0.189284, -0.299377, -0.197038, 0.059641],
    ],
    [
        [0.557792, 0.091376, -0.266305, -0.604217, -0.673620, -0.471720, 0.135838, 0.756392],
        [0.356779, -0.216478, -0.470761, -0.538481, -0.455160, -0.457319, -0.072141, 0.574564],
        [-0.043849, -0.293319, -0.256602, -0.033776, -0.015087, -0.110899, -0.111957, -0.022334],
        [-0.148593, -0.474945, -0.359098, -0.020900, 0.014149, -0.060209, -0.077419, -0.050198],
    ],
]
# dreamerv3 1.5.0: RSSM(deter=8, norm="layer")._gru.
DREAMERV3 = [
    [
        [-0.908147, -0.351807, 0.335776, 0.803307, 0.725862, 0.512532, -0.473040, -0.906719],
        [-0.840152, -0.385782, 0.186399, 0.788431, 0.696007, 0.465876, -0.292473, -0.840152],
        [-0.776974, -0.268843, 0.307912, 0.771817, 0.673540, 0.655673, -0.145763, -0.777262],
        [-0.722926, -0.334613, 0.175109, 0.770800, 0.664694, 0.542413, -0.028523, -0.724598],
    ],
    [
        [-0.569453, 0.029721, 0.619924, 0.816934, 0.494598, 0.097660, -0.747212, -0.559746],
        [-0.537904, -0.138468, 0.253859, 0.773975, 0.548991, 0.181324, -0.530703, -0.530638],
        [-0.508850, -0.253206, 0.166962, 0.776977, 0.592218, 0.296326, -0.336010, -0.504084],
        [-0.503515, -0.217497, 0.297169, 0.775572, 0.639307, 0.569018, -0.177824, -0.501473],
    ],
]


def made(number, *shape):
    """Numbers that every machine makes alike."""
    return np.cos(1.7 * number + 0.9 * np.arange(math.prod(shape))).reshape(shape).astype(np.float32)


def named(shapes):
    return {name: made(k, *shapes[name]) for k, name in enumerate(sorted(shapes))}


def of_torchrl():
    """The state dict of the recorded cell."""
    linears = {"input_linear": (4, 6), "hidden_linear": (4, 8), "gates": (2, 4, 12)}
    linears |= {"dynamic_linears.0": (2, 12, 4), "dynamic_linears.1": (2, 4, 4)}
    wide = {"input_linear": 4, "hidden_linear": 4, "gates": 24, "dynamic_linears.0": 8, "dynamic_linears.1": 8}
    shapes = {f"cell.{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"cell.{name}.bias": (wide[name],) for name in linears}
    norms = {f"cell.{name.replace('linear', 'norm')}.weight": (wide[name],) for name in linears if name != "gates"}
    return named(shapes | norms)


def of_dreamer(norm="rms"):
    """Weights of an RSSM of 8 units in two blocks, a latent of 4 and an action of 2, two layers of dynamics."""
    wide = {"dynin0": (8, 3), "dynin1": (4, 3), "dynin2": (2, 3), "dynhid0": (2, 13, 4), "dynhid1": (2, 4, 4)}
    shapes = {f"dyn/{name}/kernel": shape for name, shape in (wide | {"dyngru": (2, 4, 12)}).items()}
    for name, shape in wide.items():
        size = (shape[-1] * (2 if len(shape) == 3 else 1),)
        shapes |= {f"dyn/{name}/bias": size, f"dyn/{name}norm/scale": size}
        shapes |= {f"dyn/{name}norm/shift": size} if norm == "layer" else {}
    # What is not the recurrent cell's is there, too.
    return named(shapes | {"dyn/dyngru/bias": (24,), "dyn/prior0/kernel": (8, 5), "enc/mlp0/kernel": (3, 3)})


def of_dreamer_1_5():
    return named({"rssm/gru/kernel": (11, 24), "rssm/gru/norm/bias": (24,), "rssm/gru/norm/scale": (24,)})


def test_the_numbers_are_those_of_torchrl():
    cell, params = dreamer.load_torchrl(of_torchrl())
    assert cell == gj.DreamerGRU(8, heads=2, norm="rms", layers=2, projection_size=4)
    first = np.array([[0, 0, 0, 0], [0, 0, 1, 0]], bool)
    y, _ = gj.scan(cell, params, made(50, 2, 4, 6), made(51, 2, 8), resets=first)
    np.testing.assert_allclose(y, TORCHRL, atol=1e-5)


def test_the_numbers_are_those_of_dreamerv3_1_5():
    cell, params = dreamer.load(of_dreamer_1_5(), prefix="rssm/")
    assert cell == gj.DreamerGRU(8, heads=1, epsilon=1e-3)
    np.testing.assert_allclose(gj.scan(cell, params, made(60, 2, 4, 3), made(61, 2, 8))[0], DREAMERV3, atol=1e-5)


@pytest.mark.parametrize("norm", ("rms", "layer"))
def test_the_numbers_are_those_of_dreamers_core(norm):
    """In float64, on the arrays as Dreamer has them: the state's block, then all three projections, in every block."""
    weights = of_dreamer(norm)
    cell, params = dreamer.load(weights)
    assert cell == gj.DreamerGRU(8, heads=2, norm=norm, layers=2, projection_size=3, input_sizes=(4, 2))
    w = {name.removeprefix("dyn/"): array.astype(np.float64) for name, array in weights.items()}
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731

    def normed(name, a):
        a = a - a.mean(-1, keepdims=True) if norm == "layer" else a
        a = a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-4) * w[f"{name}norm/scale"]
        a = a + w.get(f"{name}norm/shift", 0)
        return a * sigmoid(a)

    def blocks(name, a):
        made = np.stack([a[:, g] @ w[f"{name}/kernel"][g] for g in range(2)], 1)
        return made.reshape(len(a), -1) + w[f"{name}/bias"]

    x, h = made(70, 2, 4, 6), made(71, 2, 8)
    wanted, now = [], h.astype(np.float64)
    for t in range(4):
        given = {"dynin0": now, "dynin1": x[:, t, :4], "dynin2": x[:, t, 4:]}
        parts = [normed(name, a @ w[f"{name}/kernel"] + w[f"{name}/bias"]) for name, a in given.items()]
        v = np.concatenate([now.reshape(2, 2, 4), *(np.repeat(part[:, None], 2, 1) for part in parts)], -1)
        for name in ("dynhid0", "dynhid1"):
            v = normed(name, blocks(name, v)).reshape(2, 2, 4)
        gates = blocks("dyngru", v).reshape(2, 2, 3, 4)
        reset, candidate, update = (gates[:, :, k].reshape(2, 8) for k in range(3))
        update = sigmoid(update - 1)
        now = update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * now
        wanted.append(now)
    np.testing.assert_allclose(gj.scan(cell, params, x, h)[0], np.stack(wanted, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("load", "export", "weights", "prefix"),
    [
        (dreamer.load_torchrl, dreamer.export_torchrl, of_torchrl(), "cell."),
        (dreamer.load, dreamer.export, of_dreamer("layer"), "dyn/"),
        (dreamer.load, dreamer.export, of_dreamer_1_5(), "rssm/"),
    ],
    ids=["torchrl", "dreamer", "dreamerv3 1.5.0"],
)
def test_back_again_bit_for_bit(load, export, weights, prefix):
    back = export(*load(weights, prefix=prefix), prefix=prefix)
    weights = {name: array for name, array in weights.items() if "prior" not in name and "enc" not in name}
    assert back.keys() == weights.keys()
    assert all((back[name] == array).all() and back[name].dtype == array.dtype for name, array in weights.items())


def without(weights, name):
    return {key: array for key, array in weights.items() if key != name}


def fresh(**options):
    cell = gj.DreamerGRU(8, heads=2, **options)
    return cell, cell.init(jax.random.key(0), 6)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: dreamer.load_torchrl(of_dreamer()), ValueError, "no name begins with 'cell.'; got dyn/"),
        (lambda: dreamer.load_torchrl(3), TypeError, "weights must be arrays by their names; got 3"),
        (lambda: dreamer.load(without(of_dreamer(), "dyn/dynin2/bias")), ValueError, "dynin2/bias is missing; got"),
        (lambda: dreamer.load(of_dreamer() | {"dyn/dynin3/bias": made(0, 3)}), ValueError, "no place for dynin3/bias"),
        (
            lambda: dreamer.load_torchrl(of_torchrl() | {"cell.gates.bias": made(0, 12)}),
            ValueError,
            r"gates.bias must have shape \[24\]; got \[12\]",
        ),
        (
            lambda: dreamer.load_torchrl(of_torchrl() | {"cell.gates.bias": made(0, 24).astype(np.float16)}),
            ValueError,
            "one dtype; got float16 and float32",
        ),
        (lambda: dreamer.load_torchrl(of_torchrl(), heads=4), TypeError, "heads follows from the weights, it is 2"),
        (lambda: dreamer.export(*fresh()), ValueError, "heads=1 and norm='layer'; got heads=2"),
        (lambda: dreamer.export(*fresh(layers=1)), ValueError, "2 part.s. of the input; got layers=1"),
        (lambda: dreamer.export_torchrl(*fresh(layers=1)), ValueError, "norm='rms'; got norm='layer'"),
        (lambda: dreamer.export_torchrl(*fresh(norm="rms")), ValueError, "layers of at least 1"),
    ],
)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
