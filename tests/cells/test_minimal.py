"""minGRU and minLSTM against their equations, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

I, H = 3, 4
CELLS = {"MinGRU": gj.MinGRU, "MinLSTM": gj.MinLSTM}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def g(a):
    return np.where(a >= 0, a + 0.5, sigmoid(a))


def expected_step(name, form, params, x, h):
    u = np.asarray(x, np.float64) @ np.asarray(params.w_x, np.float64) + np.asarray(params.b_x, np.float64)
    if name == "MinGRU":
        k, n = np.split(u, 2, -1)
        keep, take = 1 - sigmoid(k), sigmoid(k)
    else:
        f, i, n = np.split(u, 3, -1)
        f, i = sigmoid(f), sigmoid(i)
        keep, take = f / (f + i), i / (f + i)
    return keep * h + take * (n if form == "linear" else g(n))


@pytest.mark.parametrize("form", ("linear", "log"))
@pytest.mark.parametrize("name", CELLS)
def test_step_is_the_equation(name, form):
    cell = CELLS[name](H, form=form, init="torch")
    params = cell.init(jax.random.key(0), I)
    x, h = jax.random.normal(jax.random.key(1), (5, I)) * 3, jnp.abs(jax.random.normal(jax.random.key(2), (5, H)))
    made = cell.step(params, cell.project(params, x), h)
    np.testing.assert_allclose(made, expected_step(name, form, params, x, np.asarray(h)), atol=2e-6)


@pytest.mark.parametrize("name", CELLS)
def test_logarithms_are_those_of_the_coefficients(name):
    """Far from 0 too, where a sigmoid alone would underflow to a logarithm of minus infinity."""
    cell = CELLS[name](H, form="log")
    u = jnp.linspace(-80, 80, cell.parts * H * 3).reshape(3, -1)
    a, b = cell.affine(None, u)
    log_a, log_b = cell.log_affine(None, u)
    assert jnp.isfinite(log_a).all() and jnp.isfinite(log_b).all()
    np.testing.assert_allclose(jnp.exp(log_a), a, rtol=2e-5)
    np.testing.assert_allclose(jnp.exp(log_b), b, rtol=2e-5)


def test_the_positive_candidate_has_a_slope_at_zero():
    cell = gj.MinGRU(1, form="log")
    slope = jax.grad(lambda u_n: cell.affine(None, jnp.stack([jnp.zeros(()), u_n]))[1][0])(jnp.zeros(()))
    assert float(slope) == pytest.approx(0.5)


@pytest.mark.parametrize("init", ("flax", "keras", "torch"))
@pytest.mark.parametrize("bias", (True, False))
def test_parameters(init, bias):
    cell = gj.MinLSTM(H, bias=bias, init=init)
    params = cell.init(jax.random.key(0), I, jnp.bfloat16)
    assert params.w_x.shape == (I, 3 * H) and params.w_x.dtype == jnp.bfloat16
    assert (params.b_x is None) != bias
    bound = {"torch": I**-0.5, "keras": (6 / (I + 3 * H)) ** 0.5, "flax": 2 * I**-0.5 / 0.87}[init]
    assert 0 < np.abs(params.w_x).max() <= bound * 1.01


@pytest.mark.parametrize("cell", (gj.MinGRU, gj.MinLSTM))
def test_equal_options_make_equal_cells_and_the_two_differ(cell):
    assert cell(4) == cell(4) and hash(cell(4)) == hash(cell(4))
    assert cell(4) != cell(4, form="log")
    assert gj.MinGRU(4) != gj.MinLSTM(4)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: gj.MinGRU(0), ValueError, "hidden_size must be at least 1; got 0"),
        (lambda: gj.MinGRU(4, form="lin"), ValueError, "form must be one of 'linear', 'log'; got 'lin'"),
        (lambda: gj.MinGRU(4, bias=1), TypeError, "bias must be True or False"),
        (lambda: gj.MinLSTM(4, init="orthogonal"), ValueError, "init must be one of"),
        (lambda: run(gj.MinGRU(4), features=5), ValueError, "x has 5 features but params were made for 3"),
        (lambda: run(gj.MinGRU(5), made_by=gj.MinGRU(4)), ValueError, r"w_x must have shape \[3, 10\]; got \[3, 8\]"),
        (lambda: run(gj.MinGRU(4), made_by=gj.MinGRU(4, bias=False)), ValueError, "b_x must have shape"),
        (lambda: run(gj.MinGRU(4, bias=False), made_by=gj.MinGRU(4)), ValueError, "b_x must be None"),
        (lambda: run(gj.MinGRU(4), made_by=gj.GRU(4)), TypeError, "must be MinParams"),
        (lambda: run(gj.MinGRU(4, form="log"), h0=-jnp.ones((2, 4))), ValueError, "states are 0 at least; got h0"),
        (lambda: run(gj.MinGRU(4), method="associativ"), ValueError, "did you mean 'associative'"),
        (lambda: run(gj.GRU(4), method="associative"), ValueError, "linear in its state.*GRU is not"),
        (lambda: run(gj.GRU(4), method=gj.Associative()), ValueError, "linear in its state.*GRU is not"),
        (lambda: run(gj.MinGRU(4), recurrent_dropout=0.5, key=jax.random.key(0)), ValueError, "takes a dropout mask"),
        (lambda: gj.Associative("fast"), ValueError, "kernel must be one of"),
    ],
)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def run(cell, features=I, made_by=None, h0=None, **options):
    params = (made_by or cell).init(jax.random.key(0), I)
    return gj.scan(cell, params, jnp.ones((2, 7, features)), h0, **options)
