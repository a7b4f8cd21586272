"""A batch split over an explicit axis of a mesh, the default kind of `jax.make_mesh` in the newest JAX."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gru_jax as gj

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 6, 3))
LENGTHS = jnp.array([6, 2, 3, 0])
TOKENS = jnp.array([[0, 1, 4], [2, 2, 1], [3, 0, 0], [1, 4, 2]])
SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()


def scanned(cell: Any, method: Any = "auto", **options: Any) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """A scan with lengths and resets."""
    resets = jnp.zeros(X.shape[:2], bool).at[:, 2].set(True)

    def run(params: Any, x: Any, lengths: Any, resets: Any) -> Any:
        return gj.scan(cell, params, x, lengths=lengths, resets=resets, method=method, **options)

    return run, cell.init(KEY, 3), (X, LENGTHS, resets)


def network() -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """All that a stack does, and an output layer."""
    both = gj.bidirectional(gj.recurrent(gj.GRU(4)), merge="mean")
    model = gj.models.readout(gj.stack(both, both, dropout=0.5, residual=True, norm="layer"), 3, 2)
    run = lambda params, x, lengths: model.apply(params, x, lengths=lengths, key=KEY)  # noqa: E731
    return run, model.init(KEY), (X, LENGTHS)


def tokens() -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """An embedding in front."""
    model = gj.models.sequence_model(gj.recurrent(gj.GRU(4)), 5, 3)
    return lambda params, t: model.apply(params, t, return_state=True), model.init(KEY), (TOKENS,)


def block() -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """A convolution in front, and states of several shapes."""
    one = gj.models.min_block(4, conv=3)
    return lambda params, x, lengths: one.apply(params, x, lengths=lengths), one.init(KEY, 3), (X, LENGTHS)


def linen() -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """A Flax module."""
    layer = gj.linen.GRU(4, num_layers=2, bidirectional=True)
    return lambda params, x, lengths: layer.apply(params, x, lengths=lengths), layer.init(KEY, X), (X, LENGTHS)


SCANS = {
    "gru": lambda: scanned(gj.GRU(4), stats=True, return_gates=True),
    "gru, states kept": lambda: scanned(gj.GRU(4), gj.Sequential(kernel="scan", keep="states"), reverse=True),
    "chunked": lambda: scanned(gj.GRU(4), gj.Sequential(kernel="chunked")),
    "newton": lambda: scanned(gj.GRU(4), gj.Newton("diagonal")),
    "naive": lambda: scanned(gj.GRU(4), "naive"),
    "mgu": lambda: scanned(gj.MGU(4)),
    "min_gru": lambda: scanned(gj.MinGRU(4)),
    "lstm": lambda: scanned(gj.models.LSTM(4)),
    "network": network,
    "tokens": tokens,
    "block": block,
    "linen": linen,
}
QUICK = [("gru", True), ("gru", False), ("network", True)]
ROWS = [(name, inside) for name in SCANS for inside in (True, False)]


@pytest.mark.parametrize(
    ("name", "inside"),
    [pytest.param(*row, marks=() if row in QUICK else pytest.mark.slow) for row in ROWS],
    ids=[f"{name} {'in set_mesh' if inside else 'outside'}" for name, inside in ROWS],
)
def test_values_and_gradients(name: str, inside: bool) -> None:
    run, params, arrays = SCANS[name]()

    def loss(params: Any, *arrays: Any) -> tuple[Any, Any]:
        found = run(params, *arrays)
        return sum(jnp.sum(a.astype(jnp.float32) ** 2) for a in jax.tree.leaves(found)), found

    differentiated = jax.value_and_grad(loss, has_aux=True)
    (_, want), want_gradients = jax.jit(differentiated)(params, *arrays)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    split = jax.device_put(arrays, NamedSharding(mesh, SPLIT))
    if inside:
        params = jax.device_put(params, NamedSharding(mesh, WHOLE))
    with jax.set_mesh(mesh) if inside else contextlib.nullcontext():
        (_, got), gradients = jax.jit(differentiated)(params, *split)
    for leaf in jax.tree.leaves(got):
        assert leaf.sharding.spec[:1] == ("data",), leaf.sharding
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5)  # noqa: E731
    jax.tree.map(close, (got, gradients), (want, want_gradients))


def test_gradients_outside_of_jit() -> None:
    """The backward pass needs no surrounding mesh; JAX's own start from a scalar loss does."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    _, params, (x, *_) = scanned(gj.GRU(4))
    f = lambda params, x: gj.scan(gj.GRU(4), params, x)[0]  # noqa: E731
    y, back = jax.vjp(f, params, jax.device_put(x, NamedSharding(mesh, SPLIT)))
    want_y, want_back = jax.vjp(f, params, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5)  # noqa: E731
    jax.tree.map(close, back(2 * y), want_back(2 * want_y))
    with jax.set_mesh(mesh):
        got = jax.grad(lambda params, x: (f(params, x) ** 2).sum(), argnums=(0, 1))(
            jax.device_put(params, NamedSharding(mesh, WHOLE)), jax.device_put(x, NamedSharding(mesh, SPLIT))
        )
    jax.tree.map(close, got, want_back(2 * want_y))


def test_time_major_and_a_linear_recurrence() -> None:
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    cell = gj.MinGRU(4)
    params = cell.init(KEY, 3)
    x = jax.device_put(jnp.moveaxis(X, 0, 1), NamedSharding(mesh, PartitionSpec(None, "data")))
    y, h = gj.scan(cell, params, x, time_major=True)
    assert y.sharding.spec[:2] == (None, "data") and h.sharding.spec[:1] == ("data",)
    np.testing.assert_allclose(y, jnp.moveaxis(gj.scan(cell, params, X)[0], 0, 1), atol=1e-6)
    a = jax.device_put(X, NamedSharding(mesh, SPLIT))
    np.testing.assert_allclose(jax.jit(gj.linear_scan)(a, a), gj.linear_scan(X, X), atol=1e-6)
