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
    """Raises unless `activation` is a known name or an elementwise function."""
    if not callable(activation):
        checks.choice(who, name, activation, ACTIVATIONS)
        return
    given = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    fact = f"{who}: {name} must be an elementwise function of one array, of the same shape and dtype"
    try:
        made = jax.eval_shape(activation, given)
    except Exception as error:
        raise TypeError(f"{fact}; {activation!r} raised {type(error).__name__}; pass one such as jnp.tanh") from error
    if getattr(made, "shape", None) != given.shape or made.dtype != given.dtype:
        raise TypeError(f"{fact}; {activation!r} made {made} of {given}; pass one such as jnp.tanh")


def get(activation: Activation) -> Callable[[Array], Array]:
    """The function behind a name; a callable is returned as it is."""
    return activation if callable(activation) else ACTIVATIONS[activation]


def named(activation: Activation) -> Activation:
    """An activation by its name, where it is one that has a name: machine code goes by names."""
    if activation is jax.nn.hard_sigmoid:
        return "hard_sigmoid"
    return next((name for name, known in ACTIVATIONS.items() if known is activation), activation)


def slope(function: Callable[[Array], Array], x: Array) -> Array:
    """The derivative of an elementwise `function` at every element of `x`."""
    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
