"""Keras' activations by name, beyond those that the cell knows."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.cells import activations as cell_activations
from gru_jax.interop import onnx
from gru_jax.interop.keras import versions
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.types import Activation, Array


def tanh_shrink(x: Array) -> Array:
    """`x - tanh(x)`."""
    return x - jnp.tanh(x)


def soft_shrink(x: Array) -> Array:
    """`x` moved towards 0 by 1/2, and 0 within that distance of it."""
    return x - jnp.clip(x, -0.5, 0.5)


def hard_shrink(x: Array) -> Array:
    """`x`, and 0 where it is not farther than 1/2 from 0."""
    return jnp.where(jnp.abs(x) > 0.5, x, jnp.zeros_like(x))


def leaky_relu(x: Array) -> Array:
    """`x`, and `x / 5` below 0: the slope that Keras takes."""
    return jax.nn.leaky_relu(x, 0.2)


def sparsemax(x: Array) -> Array:
    """The point of the probability simplex that is nearest to x, over the last axis."""
    ordered = jnp.flip(jnp.sort(x, axis=-1), -1)
    ranks = jnp.broadcast_to(jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype), x.shape)
    sums = jnp.cumsum(ordered, -1)
    inside = 1 + ranks * ordered > sums
    count = inside.sum(-1, keepdims=True)
    threshold = (jnp.take_along_axis(sums, count - 1, -1) - 1) / count.astype(x.dtype)
    return jnp.maximum(x - threshold, 0)


_OF_JAX = (
    "celu", "hard_silu", "log_sigmoid", "log_softmax", "mish", "softmax", "sparse_plus", "sparse_sigmoid", "squareplus"
)  # fmt: skip
FURTHER: dict[str, Callable[[Array], Array]] = {
    **{name: getattr(jax.nn, name) for name in _OF_JAX},
    **{each.__name__: each for each in (hard_shrink, leaky_relu, soft_shrink, sparsemax, tanh_shrink)},
    "hard_swish": jax.nn.hard_silu,
    versions.KERAS_2_HARD_SIGMOID: onnx.Activation("HardSigmoid"),  # clip(x / 5 + 1/2, 0, 1), ONNX' default as well
}
"""What Keras has and the cell does not. The cell's own names and formulas are Keras' already."""

ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
NAMES = tuple(sorted({*cell_activations.ACTIVATIONS, *FURTHER, *ALIASES}))


def get(who: str, option: str, given: Identifier) -> Activation:
    """A name that is known here, or the caller's own function.

    Args:
      who: whose error message it is.
      option: the option's name.
      given: None (linear), a name, a config dict, a function of Keras or of the caller.

    Raises:
      TypeError, ValueError: for anything else.
    """
    if isinstance(given, Mapping):
        given = _name_in(who, option, given)
    if given is None:
        return "linear"
    if isinstance(given, str):
        checks.choice(who, option, given, NAMES)
        return ALIASES.get(given, given)
    home, name = getattr(given, "__module__", None) or "", getattr(given, "__name__", "")
    theirs = versions.of_module(home)
    # The same in JAX, whatever Keras' backend is. Not keras.ops, where gelu is another function.
    if theirs is not None and ".activations" in home and name in NAMES:
        return versions.hard_sigmoid(theirs) if name == "hard_sigmoid" else ALIASES.get(name, name)  # type: ignore[return-value]
    cell_activations.check(who, option, given)
    return given


def for_cell(activation: Activation) -> Activation:
    """What the cell takes: its own name, or a function."""
    return FURTHER.get(activation, activation) if isinstance(activation, str) else activation


@functools.lru_cache(maxsize=256)
def is_elementwise(activation: Activation) -> bool:
    """Whether each output depends on its own input alone, which softmax' do not; found by trying."""
    with jax.ensure_compile_time_eval():
        function = cell_activations.get(for_cell(activation))
        x = jnp.linspace(-1.5, 2.0, 5, dtype=jnp.float32)[None]
        return bool(np.allclose(function(x)[:, 1:3], function(x[:, 1:3]), atol=1e-6))


def _name_in(who: str, option: str, given: Mapping[str, object]) -> str:
    # Keras writes {"class_name": "function", "config": "relu"} or a config of its own; code in it is never run.
    name = given.get("config")
    if given.get("class_name") == "function" and name in NAMES:
        return str(name)
    raise ValueError(
        f"{who}: {option} is a config that stands for code of its own, which is not run; pass the function itself"
    )
