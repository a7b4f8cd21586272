"""Elementwise activations by name; the names and the formulas are those of Keras 3."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.types import Activation, Array


def linear(x: Array) -> Array:
    """The identity."""
    return x


def hard_sigmoid(x: Array) -> Array:
    """`clip(x / 6 + 1/2, 0, 1)`, as in Keras 3 and torch."""
    return jax.nn.relu6(x + 3) / 6


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_tanh": jax.nn.hard_tanh,
    "linear": linear,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "exponential": jnp.exp,
}


def check(who: str, name: str, activation: Activation) -> None:
    """Raises unless `activation` is a known name or a callable."""
    if not callable(activation):
        checks.choice(who, name, activation, ACTIVATIONS)


def get(activation: Activation) -> Callable[[Array], Array]:
    """The function behind a name; a callable is returned as it is."""
    return activation if callable(activation) else ACTIVATIONS[activation]


def slope(function: Callable[[Array], Array], x: Array) -> Array:
    """The derivative of an elementwise `function` at every element of `x`."""
    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
