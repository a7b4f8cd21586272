"""The machine code's numbers at their edges: what is infinite stays in its place, long sums keep their digits."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from ..cases import table, weigh

GRUS = {"gates": (gj.GRU, {}), "states": (gj.GRU, {}), "before": (gj.GRU, {"reset": "before"})}
LINEAR = {
    "minGRU": (gj.MinGRU, {}), "minGRU log": (gj.MinGRU, {"form": "log"}), "minLSTM": (gj.MinLSTM, {}),
    "minLSTM log": (gj.MinLSTM, {"form": "log"}),
}  # fmt: skip


def method(name, kernel):
    if name in LINEAR:
        return gj.Associative(kernel)
    return gj.Sequential(kernel=kernel, keep="states" if name == "before" else name, cores=1)


@pytest.mark.parametrize(
    "name, units, bad, place",
    table(
        GRUS | LINEAR, (5, 20, 33), (np.inf, -np.inf, np.nan), ("x", "h0"),
        quick=lambda name, units, bad, place: units == 20 and (name, bad, place) in {
            ("gates", np.inf, "x"),
        },
    ),
)  # fmt: skip
def test_what_is_not_finite_stays_in_its_row(name, units, bad, place):
    make, options = (GRUS | LINEAR)[name]
    cell = make(units, **options)
    params = cell.init(jax.random.key(0), 4)
    x, h0 = jax.random.normal(jax.random.key(1), (3, 6, 4)), jnp.abs(jax.random.normal(jax.random.key(2), (3, units)))
    if place == "x":
        x = x.at[0, 2, 1].set(bad)
    elif options.get("form") == "log" and not bad > 0:
        pytest.skip("its states are 0 at least")
    else:
        h0 = h0.at[0, 1].set(bad)

    def found(kernel):
        def loss(*given):
            y = gj.scan(cell, *given, method=method(name, kernel))
            return weigh(y), y

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, x, h0)

    ours, plain = found("llvm"), found("scan")
    chex.assert_trees_all_equal(*(jax.tree.map(jnp.isfinite, each) for each in (ours, plain)))
    finite = lambda tree: jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, jnp.zeros_like(a)), tree)  # noqa: E731
    chex.assert_trees_all_close(finite(ours), finite(plain), rtol=1e-4, atol=1e-5)
    d_params, d_x, d_h0 = ours[1]
    assert bool(jnp.isfinite(d_x[1:]).all()) and bool(jnp.isfinite(d_h0[1:]).all())
    if place == "x" and np.isinf(bad) and name not in LINEAR:  # saturated gates: one row of a matrix meets it
        assert bool(jnp.isfinite(d_params.w_x[np.array([0, 2, 3])]).all()) and bool(jnp.isfinite(d_params.w_h).all())


FORMS = {
    "llvm, gates": gj.Sequential(kernel="llvm", keep="gates", cores=1),
    "llvm, states": gj.Sequential(kernel="llvm", keep="states", cores=2),
    "chunked": gj.Sequential(kernel="chunked", keep="states"),
    "chunked, gates": gj.Sequential(kernel="chunked", keep="gates"),
    "scan": gj.Sequential(kernel="scan", keep="states"),
    "auto": "auto",
}  # fmt: skip


def largest_error(cell, T, B, how):
    """Of every gradient in float32, relative to the largest element of that in float64."""
    params = cell.init(jax.random.key(0), 3)
    keys = jax.random.split(jax.random.key(1))
    x, h0 = jax.random.normal(keys[0], (B, T, 3)), jnp.abs(jax.random.normal(keys[1], (B, cell.hidden_size)))

    def gradients(how, dtype):
        given = jax.tree.map(lambda a: a.astype(dtype), (params, x, h0))
        # Of squares: sums that grow with time.
        loss = lambda *given: (gj.scan(cell, *given, method=how)[0] ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss, (0, 1, 2)))(*given)

    with jax.enable_x64(True):
        plain = gj.Associative("scan") if hasattr(cell, "affine") else gj.Sequential(kernel="scan", keep="gates")
        ours, exact = gradients(how, jnp.float32), gradients(plain, jnp.float64)
        off = lambda a, b: float(jnp.abs(a.astype(jnp.float64) - b).max() / jnp.abs(b).max())  # noqa: E731
        each = jax.tree.map(off, ours, exact)
    return max(jax.tree.leaves(each))


def test_gradients_over_long_time_keep_their_digits():
    assert largest_error(gj.GRU(5, init="torch"), 30_000, 1, FORMS["llvm, gates"]) < 2e-6


LONG = [
    *((gj.GRU(H, init="torch"), B, form) for H, B, form in itertools.product((17, 64, 128), (1, 20, 200), FORMS)),
    *((gj.GRU(17, reset="before"), B, form) for B, form in itertools.product((1, 200), ("chunked", "scan", "auto"))),
    *((gj.MGU(17), B, form) for B, form in itertools.product((1, 200), ("chunked", "scan", "auto"))),
    *(
        (make(H, form=of), B, kernel)
        for make, of, H, B, kernel in itertools.product(
            (gj.MinGRU, gj.MinLSTM), ("linear", "log"), (17, 64), (1, 200), ("linear, llvm", "linear, scan"),
        )
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cell, B, form", LONG, ids=lambda value: getattr(value, "name", None))
def test_gradients_over_200_000_steps_of_all_sequences(cell, B, form):
    how = gj.Associative(form.removeprefix("linear, ")) if form.startswith("linear") else FORMS[form]
    assert largest_error(cell, 200_000 // B, B, how) < 2e-6
