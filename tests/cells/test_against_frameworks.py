"""Live oracles: torch, Keras and Flax run beside us on the same weights."""

import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gru_jax as gj

from ..scans.cases import table

B, T, I, H = 3, 6, 5, 4
LENGTHS = [6, 4, 1]
X = np.asarray(jax.random.normal(jax.random.key(0), (B, T, I)))
H0 = np.asarray(jax.random.normal(jax.random.key(1), (B, H)))


@pytest.fixture(scope="module")
def keras():
    """Keras on its JAX backend, imported quietly."""
    os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras")


def swap(a):
    """The first two of three equal blocks of the last axis exchanged: Keras' z, r, n against our r, z, n."""
    first, second, third = np.split(np.asarray(a), 3, -1)
    return np.concatenate([second, first, third], -1)


def close(ours, theirs, bound=1e-6):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() <= bound * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize(
    "layers, bidirectional, packed, bias",
    table(
        (1, 2), (False, True), (False, True), ("full", "none"),
        quick=lambda *row: row in ((1, False, False, "full"), (2, True, True, "full"), (1, True, False, "none")),
    ),
)  # fmt: skip
def test_torch_outputs_states_and_gradients(layers, bidirectional, packed, bias):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.GRU(I, H, layers, bias=bias == "full", batch_first=True, bidirectional=bidirectional)
    directions = 1 + bidirectional
    h0 = np.stack([H0 * (k + 1) / 4 for k in range(layers * directions)])

    def tensor(name, layer, direction):
        key = f"{name}_l{layer}{'_reverse' * direction}"
        return getattr(theirs, key) if hasattr(theirs, key) else None

    def to_params(read, layer, direction):
        w_ih, w_hh, b_ih, b_hh = (
            None if (t := tensor(name, layer, direction)) is None else read(t)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        return gj.GRUParams(w_ih.T, w_hh.T, b_ih, b_hh)

    def tree(read):
        per_layer = [[to_params(read, k, d) for d in range(directions)] for k in range(layers)]
        return gj.StackParams(tuple(tuple(p) if bidirectional else p[0] for p in per_layer), ())

    rnn = gj.recurrent(gj.GRU(H, bias=bias))
    net = gj.stack(*[gj.bidirectional(rnn) if bidirectional else rnn] * layers)
    params = jax.tree.map(jnp.asarray, tree(lambda t: t.detach().numpy()))
    starts = tuple(
        tuple(jnp.asarray(h) for h in h0[k * directions : (k + 1) * directions])
        if bidirectional
        else jnp.asarray(h0[k])
        for k in range(layers)
    )
    lengths = jnp.array(LENGTHS) if packed else None

    def loss(params, x, starts):
        y, h = net.apply(params, x, starts, lengths=lengths)
        weights = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return (y * weights).sum() + sum(jnp.sum(a * a) for a in jax.tree.leaves(h)), (y, h)

    (_, (y, h)), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, jnp.asarray(X), starts)

    x_t, h_t = torch.tensor(X, requires_grad=True), torch.tensor(h0, requires_grad=True)
    if packed:
        pack = torch.nn.utils.rnn.pack_padded_sequence(x_t, LENGTHS, batch_first=True)
        out, h_n = theirs(pack, h_t)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    else:
        out, h_n = theirs(x_t, h_t)
    weights = torch.cos(torch.arange(out.numel(), dtype=torch.float32)).reshape(out.shape)
    ((out * weights).sum() + (h_n * h_n).sum()).backward()

    close(y, out.detach())
    for ours, expected in zip(jax.tree.leaves(h), h_n.detach(), strict=True):
        close(ours, expected)
    expected = tree(lambda t: t.grad.numpy())
    for ours, theirs_grad in zip(jax.tree.leaves(grads[0]), jax.tree.leaves(expected), strict=True):
        close(ours, theirs_grad, 1e-5)
    close(grads[1], x_t.grad, 1e-5)
    for ours, theirs_grad in zip(jax.tree.leaves(grads[2]), h_t.grad, strict=True):
        close(ours, theirs_grad, 1e-5)


MASKS = {
    "no mask": None,
    "right padding": np.arange(T)[None] < np.array(LENGTHS)[:, None],
    "left padding": np.arange(T)[None] >= np.array([0, 3, 5])[:, None],
    "holes": np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1]], bool),
}


# Keras 3.15 converts its variables in a way that numpy 2 warns of.
quietly = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@quietly
@pytest.mark.parametrize(
    "mask, reset, backwards",
    table(
        MASKS, ("after", "before"), (False, True),
        quick=lambda mask, reset, backwards: (reset == "after") == (list(MASKS).index(mask) % 2 == backwards),
    ),
)  # fmt: skip
def test_keras_outputs_and_states(keras, reset, mask, backwards):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras.layers.GRU(
            H, reset_after=reset == "after", return_sequences=True, return_state=True, go_backwards=backwards
        )
        theirs.build(X.shape)
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=w.shape).astype(np.float32) * 0.5 for w in theirs.get_weights()]
        theirs.set_weights(weights)
        flags = MASKS[mask]
        y_keras, h_keras = theirs(X, mask=flags, initial_state=H0)
    kernel, recurrent, bias = (swap(w) for w in weights)
    b_x, b_h = bias if reset == "after" else (bias, np.zeros_like(bias))
    params = jax.tree.map(jnp.asarray, gj.GRUParams(kernel, recurrent, b_x, b_h))
    y, h = gj.scan(
        gj.GRU(H, reset=reset), params, X, jnp.asarray(H0), mask=flags, padding="hold", reverse=backwards
    )
    close(y[:, ::-1] if backwards else y, y_keras)
    close(h, h_keras)


@quietly
@pytest.mark.parametrize("reset", ["after", "before"])
def test_keras_gradients(keras, reset):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras.layers.GRU(H, reset_after=reset == "after", return_sequences=True)
        theirs.build(X.shape)
        rng = np.random.default_rng(1)
        theirs.set_weights([rng.normal(size=w.shape).astype(np.float32) * 0.5 for w in theirs.get_weights()])
        variables = [jnp.asarray(v) for v in theirs.get_weights()]
        weigh = lambda y: (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum()  # noqa: E731
        fixed = [jnp.asarray(v.value) for v in theirs.non_trainable_variables]
        keras_grads = jax.grad(lambda v: weigh(theirs.stateless_call(v, fixed, X)[0]))(variables)

    def ours(variables):
        kernel, recurrent, bias = (
            jnp.concatenate([v[..., H : 2 * H], v[..., :H], v[..., 2 * H :]], -1) for v in variables
        )
        b_x, b_h = bias if reset == "after" else (bias, jnp.zeros_like(bias))
        return weigh(gj.scan(gj.GRU(H, reset=reset), gj.GRUParams(kernel, recurrent, b_x, b_h), jnp.asarray(X))[0])

    for a, b in zip(jax.grad(ours)(variables), keras_grads, strict=True):
        close(a, b, 1e-5)


def test_flax_linen_is_the_minimal_bias():
    theirs = linen.RNN(linen.GRUCell(H, bias_init=linen.initializers.normal(0.5)))
    variables = theirs.init(jax.random.key(2), X)
    p = variables["params"]["cell"]
    params = gj.GRUParams(
        jnp.concatenate([p[f"i{g}"]["kernel"] for g in "rzn"], -1),
        jnp.concatenate([p[f"h{g}"]["kernel"] for g in "rzn"], -1),
        jnp.concatenate([p[f"i{g}"]["bias"] for g in "rzn"], -1),
        p["hn"]["bias"],
    )
    y, _ = gj.scan(gj.GRU(H, bias="minimal"), params, X)
    close(y, theirs.apply(variables, X))


def test_flax_nnx_lacks_the_recurrent_bias_and_agrees_without_it():
    cell = nnx.GRUCell(I, H, rngs=nnx.Rngs(0))
    params = gj.GRUParams(cell.dense_i.kernel[...], cell.dense_h.kernel[...], jnp.full(3 * H, 0.3), jnp.zeros(H))
    cell.dense_i.bias.set_value(params.b_x)
    with jax.numpy_rank_promotion("allow"):
        expected = nnx.RNN(cell)(jnp.asarray(X))
    close(gj.scan(gj.GRU(H, bias="minimal"), params, X)[0], expected)
    different, _ = gj.scan(gj.GRU(H, bias="minimal"), params._replace(b_h=jnp.ones(H)), X)
    assert jnp.abs(different - expected).max() > 0.1
