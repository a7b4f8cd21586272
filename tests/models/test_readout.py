"""The output layer: pooling that ignores masked steps, batching, gates, states, the Flax module."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gru_jax as gj
from gru_jax.models import output_layer

from ..scans.cases import table

T, I, H, CLASSES = 6, 3, 4, 5


def make(directions: int = 1, pool: str = "last", layers: int = 1, **options: object):
    layer = gj.recurrent(gj.GRU(H))
    if directions == 2:
        layer = gj.bidirectional(layer)
    model = gj.models.readout(gj.stack(*[layer] * layers, **options), I, CLASSES, steps=pool)
    return model, model.init(jax.random.key(0))


QUICK = ((1, "mean"), (2, "last"))  # one direction's last output has a test of its own
CASES = table((1, 2), ("last", "mean"), quick=lambda *row: row in QUICK)


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_masked_steps_never_count(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    x = jax.random.normal(jax.random.key(1), (4, T, I))
    lengths = np.array([6, 4, 1, 3])
    mask = np.arange(T) < lengths[:, None]
    noise = jnp.where(mask[..., None], x, 1e3)
    by_lengths = model.apply(params, noise, lengths=lengths)
    np.testing.assert_allclose(model.apply(params, noise, mask=mask), by_lengths, atol=1e-6)
    for row, length in enumerate(lengths):
        alone = model.apply(params, x[row, :length])
        np.testing.assert_allclose(by_lengths[row], alone, atol=1e-6)


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_holes_and_left_padding(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    x = jax.random.normal(jax.random.key(1), (T, I))
    mask = np.array([False, True, True, False, True, False])
    np.testing.assert_allclose(
        model.apply(params, jnp.where(mask[:, None], x, 1e3), mask=mask),
        model.apply(params, x[mask]),
        atol=1e-6,
    )


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_empty_sequences_see_the_bias_alone(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    params = params._replace(b=jnp.arange(CLASSES, dtype=jnp.float32))
    logits = model.apply(params, jnp.ones((2, T, I)), lengths=np.array([0, 0]))
    np.testing.assert_array_equal(logits, np.stack([params.b, params.b]))


@pytest.mark.parametrize(("directions", "pool"), CASES)
def test_leading_batch_dimensions_are_arbitrary(directions: int, pool: str) -> None:
    model, params = make(directions, pool)
    x = jax.random.normal(jax.random.key(1), (2, 3, T, I))
    together = model.apply(params, x)
    assert together.shape == (2, 3, CLASSES)
    np.testing.assert_allclose(together[1, 2], model.apply(params, x[1, 2]), atol=1e-6)
    mapped = jax.vmap(lambda one: model.apply(params, one))(x.reshape(6, T, I))
    np.testing.assert_allclose(together.reshape(6, CLASSES), mapped, atol=1e-6)


def test_last_of_one_direction_is_the_last_output() -> None:
    model, params = make(1, "last", layers=2)
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    layer = gj.recurrent(gj.GRU(H))
    y, _ = gj.stack(layer, layer).apply(params.net, x)
    np.testing.assert_allclose(model.apply(params, x), y[:, -1] @ params.w, atol=1e-6)


def test_last_of_two_directions_is_both_final_states() -> None:
    model, params = make(2, "last", layers=2)
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    layer = gj.bidirectional(gj.recurrent(gj.GRU(H)))
    y, _ = gj.stack(layer, layer).apply(params.net, x)
    final = jnp.concatenate([y[:, -1, :H], y[:, 0, H:]], axis=-1)
    np.testing.assert_allclose(model.apply(params, x), final @ params.w, atol=1e-6)


@pytest.mark.parametrize("norm", ["layer", *(pytest.param(norm, marks=pytest.mark.slow) for norm in (None, "rms"))])
def test_residual_and_norm_reach_the_head(norm: str | None) -> None:
    plain, params = make(1, "last", layers=2, residual=False, norm=norm)
    residual, _ = make(1, "last", layers=2, residual=True, norm=norm)
    x = jax.random.normal(jax.random.key(1), (T, I))
    assert not np.allclose(plain.apply(params, x), residual.apply(params, x))


def test_gates_of_every_layer_and_direction() -> None:
    model, params = make(2, "last", layers=2)
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    logits, layers = model.apply(params, x, deterministic=True, return_gates=True)
    np.testing.assert_allclose(logits, model.apply(params, x), atol=1e-6)
    assert len(layers) == 2
    for layer in layers:
        for direction in layer:
            assert direction.r.shape == direction.z.shape == (2, T, H)
            assert 0 < float(direction.z.min()) and float(direction.z.max()) < 1


def test_stats_of_every_layer() -> None:
    """They come last, after the states and the gates; a net that does not know them is not asked for them."""
    model, params = make(1, "last", layers=2)
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    out, stats = model.apply(params, x, stats=True)
    np.testing.assert_array_equal(out, model.apply(params, x))
    assert len(stats) == 2 and stats[1].iterations.shape == (2,) and not stats[0].fell_back.any()
    _, states, gates, again = model.apply(params, x, return_state=True, return_gates=True, stats=True)
    chex.assert_trees_all_equal(again, stats)
    assert states[1].shape == (2, H) and gates[1].z.shape == (2, T, H)

    module = gj.models.GRUReadout(I, H, CLASSES, rngs=nnx.Rngs(0))
    with jax.numpy_rank_promotion("allow"):
        out, h, found = module(x, return_state=True, stats=True)
    assert out.shape == (2, CLASSES) and h.shape == (2, H) and found.iterations.shape == (2,)

    last = gj.Layer(lambda key, size, dtype=jnp.float32: (), lambda params, x, h0=None, *, deterministic=False: (x, h0))
    own = gj.models.readout(last, I, CLASSES)
    assert own.apply(own.init(jax.random.key(0)), x, stats=False).shape == (2, CLASSES)


def test_unknown_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be one of 'last', 'mean', 'all'; got 'first'"):
        make(pool="first")


@pytest.mark.parametrize("directions", (1, 2))
@pytest.mark.parametrize("steps", ("last", "mean", "all"))
def test_without_a_stack_as_in_one(directions: int, steps: str) -> None:
    """A single layer's state has another structure than a stack's; the answer is the same."""
    layer = gj.recurrent(gj.GRU(H))
    layer = gj.bidirectional(layer) if directions == 2 else layer
    alone, stacked = (gj.models.readout(net, I, CLASSES, steps=steps) for net in (layer, gj.stack(layer)))
    params = alone.init(jax.random.key(0))
    in_stack = params._replace(net=gj.StackParams((params.net,), ()))
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    lengths = jnp.array([6, 3])
    out = alone.apply(params, x, lengths=lengths)
    np.testing.assert_allclose(out, stacked.apply(in_stack, x, lengths=lengths), atol=1e-6)
    if steps == "all":
        y, _ = layer.apply(params.net, x, lengths=lengths)
        np.testing.assert_allclose(out, y @ params.w, atol=1e-6)


@pytest.mark.parametrize("activation", ("linear", "softmax", "sigmoid"))
def test_activation_of_the_outputs(activation: str) -> None:
    net = gj.recurrent(gj.GRU(H))
    plain, model = (gj.models.readout(net, I, CLASSES, steps="all", activation=a) for a in ("linear", activation))
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    expected = {"linear": lambda a: a, "softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[activation]
    np.testing.assert_allclose(model.apply(params, x), expected(plain.apply(params, x)), atol=1e-6)


def test_states_chain_over_calls() -> None:
    layer = gj.recurrent(gj.GRU(H))
    model = gj.models.readout(gj.stack(layer, layer, norm="layer", residual=True), I, CLASSES, steps="all")
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    whole, end = model.apply(params, x, return_state=True)
    first, h = model.apply(params, x[:, :4], return_state=True)
    second, last, gates = model.apply(params, x[:, 4:], h, return_state=True, return_gates=True)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, atol=1e-6)
    chex.assert_trees_all_close(last, end, atol=1e-6)
    assert gates[1].z.shape == (2, 2, H)


@pytest.mark.parametrize("steps", ("last", "mean", "all"))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True},
        {"bidirectional": True, "merge": "sum", "num_layers": 2},
        {"num_layers": 2, "residual": True, "norm": "layer", "bidirectional": True},
    ],
    ids=str,
)
def test_module_is_the_same_function(steps: str, options: dict) -> None:
    model = gj.models.GRUReadout(I, H, CLASSES, steps=steps, activation="softmax", rngs=nnx.Rngs(0), **options)
    net, params = model.gru.functional()
    functional = gj.models.readout(net, I, CLASSES, steps=steps, activation="softmax")
    weights = gj.models.ReadoutParams(params, model.out.kernel[...], model.out.bias[...])
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    mask = jnp.array([[True, False, True, True, True, False], [True] * 6])
    with jax.numpy_rank_promotion("allow"):  # of nnx.Linear
        out, h = model(x, mask=mask, return_state=True)
    expected, state = functional.apply(weights, x, mask=mask, return_state=True)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    chex.assert_trees_all_equal(h, state)


def test_a_stateful_module_goes_on_where_it_stopped() -> None:
    model = gj.models.GRUReadout(I, H, 1, steps="all", stateful=True, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, T, I))
    with jax.numpy_rank_promotion("allow"):
        whole = model(x)
        model.gru.reset_state()
        parts = [model(x[:, :4]), model(x[:, 4:])]
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=1e-6)


def test_a_regression_learns() -> None:
    """The running sum of the input, from the module, in a few steps of Adam."""
    model = gj.models.GRUReadout(1, 8, 1, steps="all", rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (16, 8, 1)) * 0.3
    y = jnp.cumsum(x, axis=1)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.update(model, grads)
        return loss

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)
        losses = [step(model, optimizer) for _ in range(150)]
    assert losses[-1] < losses[0] / 20


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"activation": "softmx"}, ValueError, "did you mean 'softmax'"),
        ({"out_features": 0}, ValueError, "output_size must be at least 1; got 0"),
        ({"time_major": True}, ValueError, "x is batch-major"),
        ({"merge": None, "bidirectional": True}, ValueError, "merge=None gives a pair"),
    ],
    ids=str,
)
def test_the_module_refuses(wrong: dict, error: type, match: str) -> None:
    options = {"in_features": I, "hidden_features": H, "out_features": CLASSES, **wrong}
    with pytest.raises(error, match=match):
        gj.models.GRUReadout(**options, rngs=nnx.Rngs(0))(jnp.ones((2, T, I)))


def test_a_cell_is_no_network() -> None:
    with pytest.raises(TypeError, match="net must have init and apply"):
        gj.models.readout(jnp.tanh, I, CLASSES)


def test_a_mean_over_more_steps_than_half_precision_counts() -> None:
    y = jnp.full((2, 4100, 1), 20, jnp.float16)
    valid = jnp.arange(4100)[None] < jnp.array([[4099], [0]])
    np.testing.assert_array_equal(output_layer.pooled(y, None, valid, "mean"), [[20], [0]])
