"""Checks of values under jit: of a closed-over array every operation is traced, though its values are known."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

X = jnp.ones((2, 5, 3))
GRU = gj.GRU(4)
PARAMS = GRU.init(jax.random.key(0), 3)
TWO = jnp.array([2])
LOG = gj.MinGRU(4, form="log")
LOG_PARAMS = LOG.init(jax.random.key(0), 3)
MODEL = gj.models.sequence_model(gj.recurrent(GRU), vocabulary=5, width=3)
MODEL_PARAMS = MODEL.init(jax.random.key(0))


def tokens(given: Any, **options: Any) -> Any:
    return MODEL.apply(MODEL_PARAMS, given, **options)


def sampled(prompt: Any, *temperature: Any, **options: Any) -> Any:
    return MODEL.sample(MODEL_PARAMS, jax.random.key(1), prompt, 2, *temperature, **options)


CASES: dict[str, tuple[Callable[..., Any], Any, Any, str]] = {
    # what runs, a good argument, a bad one, what is said of it
    "h0": (lambda a: gj.scan(LOG, LOG_PARAMS, X, a)[0], np.ones((2, 4), "float32"), -np.ones((2, 4), "float32"), "h0"),
    "lengths": (lambda a: gj.scan(GRU, PARAMS, X, lengths=a)[0], np.array([5, 2]), np.array([6, 2]), "got 6"),
    "tokens": (tokens, np.array([[0, 4]]), np.array([[0, 5]]), "got 5"),
    "masked tokens": (
        lambda a: tokens(a, lengths=TWO), np.array([[0, 4, 9]]), np.array([[0, 9, 0]]), "got 9",
    ),
    "prompt's lengths": (lambda a: sampled(np.array([[1, 2]]), lengths=a), np.array([1]), np.array([0]), "at least 1"),
    "temperature": (lambda a: sampled(np.array([[1]]), a), np.float32(0.5), np.float32(-1), "temperature"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, kind) for case in CASES for kind in ("jax", "numpy", "list") if (case, kind) != ("h0", "list")],
)
def test_what_is_closed_over_is_checked(case: str, kind: str) -> None:
    run, *values, words = CASES[case]
    make = {"jax": jnp.asarray, "numpy": lambda a: a, "list": lambda a: a.tolist()}[kind]
    good, bad = map(make, values)
    jax.eval_shape(lambda: run(good))
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: run(bad))


def test_the_right_numbers() -> None:
    h0 = jnp.full((2, 4), 0.5)
    inside = jax.jit(lambda p: gj.scan(LOG, p, X, h0)[0])(LOG_PARAMS)
    np.testing.assert_allclose(inside, gj.scan(LOG, LOG_PARAMS, X, h0)[0], atol=1e-6)


def test_diagnose_inside_jit_is_refused() -> None:
    with pytest.raises(TypeError, match="outside of jit"):
        jax.eval_shape(lambda: gj.diagnose(GRU, PARAMS, X).lyapunov)
