"""How parameters start: one initializer per tensor, and presets named after the framework whose defaults they are."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.nn.initializers import glorot_uniform, lecun_normal, orthogonal, zeros

from gru_jax import checks
from gru_jax.types import Array, DType, Key

Initializer: TypeAlias = Callable[..., Array]
"""`(key, shape, dtype) -> array`, as in `jax.nn.initializers`."""


class Initializers(NamedTuple):
    """One initializer `(key, shape, dtype) -> array` for each tensor of a recurrent cell.

    Attributes:
      w_x: for the input matrix `[I, 3H]`.
      w_h: for the recurrent matrix `[H, 3H]`; with several heads, for each head's block `[H/k, 3H/k]`.
      b_x: for the bias of the projected input.
      b_h: for the bias inside the recurrent product.

    Example:
      >>> import jax, gru_jax as gj
      >>> from jax.nn.initializers import normal, ones, orthogonal, zeros
      >>> init = gj.Initializers(normal(0.1), gj.per_gate(orthogonal()), zeros, ones)
      >>> params = gj.GRU(4, init=init).init(jax.random.key(0), input_size=3)
      >>> float(params.b_h.sum())
      12.0
    """

    w_x: Initializer
    w_h: Initializer
    b_x: Initializer
    b_h: Initializer


@dataclasses.dataclass(frozen=True)
class PerGate:
    """What `per_gate` returns: a value rather than a closure, so that a cell that holds one can be compared."""

    base: Initializer
    gates: int = 3

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        keys = jax.random.split(key, self.gates)
        gate = (*shape[:-1], shape[-1] // self.gates)
        return jnp.concatenate([self.base(k, gate, dtype) for k in keys], axis=-1)


def per_gate(base: Initializer) -> PerGate:
    """An initializer that draws each of the three gates' blocks by itself.

    A fused `[H, 3H]` orthogonal matrix has no orthogonal gate in it; `per_gate(orthogonal())` makes all three so.

    Args:
      base: an initializer `(key, shape, dtype) -> array`.

    Returns:
      An initializer for tensors whose last axis holds the three gates side by side.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.nn.initializers import orthogonal
      >>> w = per_gate(orthogonal())(jax.random.key(0), (4, 12), jnp.float32)
      >>> bool(jnp.allclose(w[:, :4].T @ w[:, :4], jnp.eye(4), atol=1e-5))
      True
    """
    return PerGate(base)


@dataclasses.dataclass(frozen=True)
class UniformByHidden:
    """torch's rule: every tensor is drawn from U(-1/sqrt(H), 1/sqrt(H)), biases included."""

    hidden_size: int

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        bound = self.hidden_size**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)


PRESETS = ("flax", "keras", "torch")

# Built once: an initializer made anew for each cell would be another object, and equal cells would not be equal.
_FLAX = Initializers(per_gate(lecun_normal()), per_gate(orthogonal()), zeros, zeros)
_KERAS = Initializers(glorot_uniform(), orthogonal(), zeros, zeros)


def check(who: str, init: object) -> None:
    """Raises unless `init` is a preset's name or `Initializers`."""
    if isinstance(init, Initializers):
        for name, one in zip(init._fields, init, strict=True):
            if not callable(one):
                raise TypeError(f"{who}: init.{name} must be an initializer (key, shape, dtype); got {one!r}")
        return
    if not isinstance(init, str):
        raise TypeError(
            f"{who}: init must be one of {', '.join(map(repr, PRESETS))} or gj.Initializers(w_x, w_h, b_x, b_h);"
            f" got {init!r}"
        )
    checks.choice(who, "init", init, PRESETS)


def get(init: str | Initializers, hidden_size: int) -> Initializers:
    """The initializers behind a preset's name.

    "flax" is flax.linen.GRUCell (lecun_normal and orthogonal for each gate, zero biases), "keras" is
    keras.layers.GRU (glorot_uniform and orthogonal over the fused gates, zero biases), "torch" is torch.nn.GRU.
    """
    if isinstance(init, Initializers):
        return init
    if init == "torch":
        uniform = UniformByHidden(hidden_size)
        return Initializers(uniform, uniform, uniform, uniform)
    return _FLAX if init == "flax" else _KERAS


def of_input(init: str | Initializers, input_size: int) -> tuple[Initializer, Initializer]:
    """The initializers (w_x, b_x) behind a preset's name, for a cell without a recurrent matrix.

    "flax" is lecun_normal and zeros, "keras" glorot_uniform and zeros, "torch" is torch.nn.Linear: all of it drawn from
    U(-1/sqrt(I), 1/sqrt(I)).
    """
    if isinstance(init, Initializers):
        return init.w_x, init.b_x
    if init == "torch":
        return UniformByHidden(input_size), UniformByHidden(input_size)
    return (lecun_normal(), zeros) if init == "flax" else (glorot_uniform(), zeros)
