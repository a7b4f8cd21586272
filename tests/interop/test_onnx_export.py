"""Exported files, run by onnxruntime, against the layers that they were made of."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.scans import naive

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from gru_jax.interop.onnx import Activation, export, load  # noqa: E402

from ..interop import onnx_models as models  # noqa: E402

CHOICES = {
    "num_layers": [1, 2, 3],
    "bidirectional": [False, True],
    "reset": ["after", "before"],
    "bias": ["full", "minimal", "none"],
    "reverse": [False, True],
    "time_major": [False, True],
    "padding": ["zero", "hold"],
    "merge": ["concat", "sum", "mul", "mean"],
    "norm": [None, None, "layer", "rms"],
    "residual": [False, False, True],
    "activation": ["tanh", "tanh", "softsign", "linear", jnp.tanh, Activation("ScaledTanh", 0.5, 2.0)],
    "gate_activation": ["sigmoid", "sigmoid", "hard_sigmoid", Activation("HardSigmoid")],
}


def drawn(rng):
    """One value of every option, each equally likely."""
    return {name: values[rng.integers(len(values))] for name, values in CHOICES.items()}


@pytest.mark.parametrize("seed", [*range(7), *(pytest.param(k, marks=pytest.mark.slow) for k in range(7, 100))])
def test_onnxruntime_computes_the_same(seed, tmp_path):
    rng = np.random.default_rng(seed)
    options = drawn(rng)
    if seed < 6:  # what everybody has, in every combination
        plain = {"merge": "concat", "norm": None, "residual": False, "padding": "zero", "time_major": False}
        some = {"num_layers": 1 + seed % 3, "bidirectional": seed % 2 == 0, "reset": ("after", "before")[seed // 3 % 2]}
        options |= {**plain, **some, "activation": "tanh", "gate_activation": "sigmoid"}
    # A norm over few features divides by next to nothing, and rounding is all that is left.
    sizes = (3, 8) if options["norm"] else ((3, 4), (1, 1), (5, 2))[seed % 3]
    layer = models.random_layer(rng, *sizes, **options)
    takes = {"h0": bool(rng.integers(2)), "lengths": bool(rng.integers(2))}
    path = export(layer, tmp_path / "gru.onnx", opset=int(rng.integers(14, 23)), **takes)
    session = models.session(path)
    for batch, steps in ((3, 5), (2, 3)):
        given = models.draw(rng, layer, batch, steps)
        given = {name: value for name, value in given.items() if takes.get(name, True)}
        models.close(session.run(["y", "h_n"], given), models.run(layer, **given))


@pytest.mark.parametrize(
    "options", [{"padding": "hold"}, {"reverse": True, "reset": "before"}, {"bidirectional": True, "num_layers": 2}]
)
def test_a_sequence_of_length_0_keeps_its_h0(options, tmp_path):
    rng = np.random.default_rng(0)
    layer = models.random_layer(rng, 2, 3, **options)
    given = models.draw(rng, layer, 2, 4)
    given["lengths"][:] = 0
    y, h_n = models.session(export(layer, tmp_path / "gru.onnx", h0=True, lengths=True)).run(None, given)
    np.testing.assert_array_equal(h_n, given["h0"])
    models.close((y, h_n), models.run(layer, **given))


PARAMS = gj.GRUParams(*(np.zeros(shape) for shape in ((3, 12), (4, 12), 12, 12)))
ACTIVATIONS = [
    *("tanh", "sigmoid", "relu", "softsign", "softplus", "elu", "hard_sigmoid", "linear"),
    Activation("Elu", 0.3),
    Activation("LeakyRelu"),
    Activation("LeakyRelu", 0.2),
    Activation("ThresholdedRelu", 0.25),
    Activation("HardSigmoid", 0.3, 0.4),
    Activation("Affine", 0.5, 0.25),
    Activation("ScaledTanh", 1.5, 0.5),
    Activation("Tanh", clip=0.5),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("option", ["activation", "gate_activation"])
def test_every_activation(activation, option, tmp_path):
    clip = getattr(activation, "clip", None)
    other = {"activation": "sigmoid", "gate_activation": "tanh"}[option]
    both = {"activation": "tanh", "gate_activation": "sigmoid", option: activation}
    if clip is not None:
        both[{"activation": "gate_activation", "gate_activation": "activation"}[option]] = Activation(
            other.capitalize(), clip=clip
        )
    cell = gj.GRU(4, **both)
    rng = np.random.default_rng(len(repr(activation)))
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)
    x = 2 * rng.normal(size=(2, 3, 3)).astype(np.float32)
    path = export((cell, params), tmp_path / "gru.onnx")
    y, h_n = naive.scan(cell, params, jnp.asarray(x))
    models.close(models.session(path).run(None, {"x": x}), (np.asarray(y), np.asarray(h_n)[None]))
    back = load(path)
    assert (back.spec.activation, back.spec.gate_activation) == (both["activation"], both["gate_activation"])


def test_a_linen_layer(tmp_path):
    x = np.ones((2, 3, 3), np.float32)
    module = gj.linen.GRU(4, merge="sum", bidirectional=True)
    variables = module.init(jax.random.key(0), x)
    path = export((module, variables), tmp_path / "linen.onnx")
    y, _ = jax.jit(module.apply)(variables, x)
    models.close(models.session(path).run(["y"], {"x": x}), [np.asarray(y)])


def test_a_front(tmp_path):
    torch = pytest.importorskip("gru_jax.interop.torch")
    x = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    front = torch.GRU(3, 4, 2, rngs=nnx.Rngs(0))
    session = models.session(export(front, tmp_path / "front.onnx"))
    models.close(session.run(None, {"x": x}), [np.asarray(one) for one in front(x)])


def test_every_opset_makes_a_valid_model(tmp_path):
    layer = models.random_layer(np.random.default_rng(0), 3, 4, bidirectional=True, norm="layer", padding="hold")
    for opset in range(14, onnx.defs.onnx_opset_version() + 1):
        made = onnx.load(export(layer, tmp_path / "gru.onnx", h0=True, lengths=True, opset=opset))
        assert [o.version for o in made.opset_import] == [opset]


def test_dropout_is_left_out(tmp_path):
    layer = gj.nnx.GRU(3, 4, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0))
    given = {"x": np.ones((2, 3, 3), np.float32)}
    y = models.session(export(layer, tmp_path / "gru.onnx")).run(["y"], given)
    layer.eval()
    models.close(y, models.run(layer, **given)[:1])


def test_the_file_says_what_it_is_and_is_the_same_each_time(tmp_path):
    layer = models.random_layer(np.random.default_rng(0), 3, 4, num_layers=2, bidirectional=True, norm="layer")
    first, second = (export(layer, tmp_path / name, h0=True, lengths=True) for name in ("a.onnx", "b"))
    assert first.read_bytes() == second.read_bytes()
    made = onnx.load(first)
    assert (made.producer_name, made.producer_version) == ("gru_jax", gj.__version__)
    assert [o.version for o in made.opset_import] == [17]
    assert [(i.name, [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]) for i in made.graph.input] == [
        ("x", ["batch", "time", 3]),
        ("h0", [4, "batch", 4]),
        ("lengths", ["batch"]),
    ]
    assert [o.name for o in made.graph.output] == ["y", "h_n"]


REFUSED = [
    ({"activation": "gelu"}, {}, "no activation='gelu'; those it has are 'sigmoid', 'tanh'"),
    ({"gate_activation": jnp.sin}, {}, "no gate_activation="),
    ({"activation": Activation("Tanh", clip=1.0)}, {}, "one clip for all activations; got clip=None"),
    ({"heads": 2}, {}, "one dense recurrent matrix"),
    ({"merge": None, "bidirectional": True}, {}, "merge=None"),
    ({"stateful": True}, {}, "pass h0=True"),
    ({"param_dtype": jnp.bfloat16}, {}, "the weights are bfloat16; .*dtype='float32'"),
    ({"dtype": jnp.float16}, {}, "computes in float16; .*dtype='float32'"),
    ({}, {"dtype": "float16"}, "dtype must be 'float32' or None; got 'float16'"),
    ({}, {"dtype": "nonsense"}, "dtype must be"),
    ({}, {"opset": 13}, r"opset must lie in \[14, "),
    ({}, {"opset": 1000}, r"opset must lie in \[14, "),
]


@pytest.mark.parametrize(("options", "how", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refusals_leave_the_file_alone(options, how, message, tmp_path):
    path = tmp_path / "gru.onnx"
    path.write_bytes(b"precious")
    layer = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0), **options)
    with pytest.raises(ValueError, match=message):
        export(layer, path, **how)
    assert os.listdir(tmp_path) == ["gru.onnx"]
    assert path.read_bytes() == b"precious"


def test_wrong_types(tmp_path):
    layer = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0))
    for bad in (lambda: export("layer", tmp_path / "a"), lambda: export(layer, 3), lambda: export(layer, "a", h0=1)):
        with pytest.raises(TypeError, match=r"^onnx.export: "):
            bad()
    with pytest.raises(TypeError, match="opset must be a whole number"):
        export(layer, tmp_path / "a", opset=17.0)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_widened_when_asked_for(dtype, tmp_path):
    layer = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0), param_dtype=dtype)
    back = load(export(layer, tmp_path / "gru.onnx", dtype="float32"))
    ours, theirs = layer.functional()[1], back.functional()[1]
    assert all((a.astype(jnp.float32) == b).all() for a, b in zip(ours, theirs, strict=True))


def test_double_precision_is_rounded_when_asked_for(x64, tmp_path):
    cell = gj.GRU(4)
    params = jax.tree.map(lambda p: jnp.asarray(p + 1 / 3), PARAMS)
    with pytest.raises(ValueError, match="the weights are float64"):
        export((cell, params), tmp_path / "gru.onnx")
    back = load(export((cell, params), tmp_path / "gru.onnx", dtype=np.float32))
    assert (back.functional()[1].w_x == params.w_x.astype(jnp.float32)).all()
    large = jax.tree.map(lambda p: p * 1e300, params)
    with pytest.raises(ValueError, match="too large for float32"):
        export((cell, large), tmp_path / "gru.onnx", dtype="float32")


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    layer = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0))
    with pytest.raises(FileNotFoundError, match="there is no folder .*missing; make it first"):
        export(layer, tmp_path / "missing" / "gru.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export(layer, tmp_path)
    path = export(layer, tmp_path / "gru.onnx")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        export(models.random_layer(np.random.default_rng(3), 3, 4), path)
    assert os.listdir(tmp_path) == ["gru.onnx"]
    assert path.read_bytes() == before


def test_weights_that_fit_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("gru_jax.interop.onnx.exporting.LARGEST", 100)
    with pytest.raises(ValueError, match="holds less than 2 GiB"):
        export(gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0)), tmp_path / "gru.onnx")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Activation("Gelu"), ValueError, "name must be one of 'Sigmoid'"),
        (lambda: Activation("Tanh", 1.0), ValueError, "Tanh takes no alpha"),
        (lambda: Activation("Elu", 1.0, 1.0), ValueError, "Elu takes no beta"),
        (lambda: Activation("Affine", 1.0), ValueError, "Affine has no default for beta"),
        (lambda: Activation("Tanh", clip=0.0), ValueError, "clip must be above 0"),
        (lambda: Activation("Tanh", clip=-1), ValueError, "clip must be above 0"),
        (lambda: Activation("Elu", float("nan")), ValueError, "alpha must be a finite float32"),
        (lambda: Activation("Elu", 1e300), ValueError, "alpha must be a finite float32"),
        (lambda: Activation("Elu", "1"), TypeError, "alpha must be a plain number"),
    ],
)
def test_activations_check_their_numbers(make, error, message):
    with np.errstate(over="ignore"), pytest.raises(error, match=message):
        make()
