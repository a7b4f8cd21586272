"""What stands between the layers of a stack: normalisation, dropout, and what padding holds after both."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells.base import Cell, accumulator
from gru_jax.scans.masking import each_key
from gru_jax.types import Array, BoolArray, DType, Key, Options, Params, Tree, exportable

NORMS = ("layer", "rms", None)
EPSILON = 1e-6
"""What a normalisation adds to the mean of squares."""


class Network(Protocol):
    """A pair of pure functions, such as a `gru_jax.Layer`, or of somebody's own.

    Attributes:
        init: `(key, input_size, dtype=float32) -> params`.
        apply: `(params, x, h0=None, ...) -> (y, h, ...)`, over whole sequences.
    """

    @property
    def init(self) -> Callable[..., Params]: ...

    @property
    def apply(self) -> Callable[..., Tree]: ...


class Recurrent(NamedTuple):
    """What one recurrent layer was made of, see `gru_jax.recurrent`."""

    cell: Cell
    state_dtype: DType | None


class Stack(NamedTuple):
    """What a stack was made of, see `gru_jax.stack`."""

    layers: tuple[Any, ...]
    residual: bool
    norm: str | None


class Both(NamedTuple):
    """What two directions were made of, see `gru_jax.bidirectional`."""

    layers: tuple[Any, Any]
    merge: str | None


class Output(NamedTuple):
    """What a network with an output layer was made of, see `gru_jax.models.readout`."""

    net: Any
    steps: str
    activation: str
    input_size: int


class OutputOfTokens(NamedTuple):
    """What a network over tokens was made of, see `gru_jax.models.sequence_model`."""

    net: Any
    steps: str
    vocabulary: int


@exportable("Norm")
class Norm(NamedTuple):
    """Parameters of a normalisation: `scale` `[H]`, and `bias` `[H]` (None for "rms")."""

    scale: Array
    bias: Array | None


def normalize(norm: str, params: Norm, y: Array) -> Array:
    """Layer or RMS normalisation over features, in float32 at least."""
    for name, array in params._asdict().items():
        if array is not None:
            checks.shape("stack", f"a norm's {name}", array.shape, y.shape[-1:], "one number for each feature")
    wide = y.astype(accumulator(y.dtype))
    if norm == "layer":
        wide = wide - wide.mean(-1, keepdims=True)
    wide = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + EPSILON)
    y = wide.astype(y.dtype) * jnp.broadcast_to(params.scale, y.shape)
    return y if params.bias is None else y + jnp.broadcast_to(params.bias, y.shape)


def two_keys(key: Key, index: int | None = None) -> tuple[Key, Key]:
    """Two keys of one, or of its part for layer `index`; of an array of keys, two arrays."""
    if index is not None:
        key = each_key(functools.partial(_folded, index=index), key)
    both = each_key(jax.random.split, key)
    axis = key.ndim if checks.is_keys(key) else 0
    return jnp.take(both, 0, axis=axis), jnp.take(both, 1, axis=axis)


def kept(key: Key, rate: float, shape: tuple[int, ...], time_major: bool) -> BoolArray:
    """True where an output is kept, `[*batch, T, H]`; each sequence by its own key, where there is one for each."""
    if not checks.is_keys(key):
        return jax.random.bernoulli(key, rate, shape)
    steps = shape[0] if time_major else shape[-2]
    keep = each_key(lambda key: jax.random.bernoulli(key, rate, (steps, shape[-1])), key)
    return jnp.moveaxis(keep, -2, 0) if time_major else keep


def only(keep: BoolArray, rate: float, y: Array) -> Array:
    """y where it is kept, made larger for what is not."""
    return jnp.where(keep, y / jnp.asarray(rate, y.dtype), jnp.zeros_like(y))


def padded(a: Array, options: Options) -> Array:
    """`a` `[*batch, T, F]` with what the `padding` of a call asks for at masked steps.

    Args:
      a: laid out as y.
      options: of `gru_jax.scan`: lengths, mask, reverse, time_major, padding.

    Returns:
      0 there, or with "hold" what stands at the last step before that counts, 0 where there is none.
    """
    mask, lengths, time_major = options.get("mask"), options.get("lengths"), options.get("time_major", False)
    if mask is None and lengths is None:
        return a
    axis = 0 if time_major else a.ndim - 2
    shape = a.shape[:-1]
    time = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    if mask is None:
        ends = jnp.expand_dims(jnp.asarray(lengths).astype(jnp.int32), axis)
        mask = time < jnp.broadcast_to(ends, shape)
    if options.get("padding", "zero") == "zero":
        return jnp.where(jnp.expand_dims(mask, -1), a, jnp.zeros_like(a))
    # The run's last step so far that counts: of those before in time, or, from the end, of those after.
    back, T = options.get("reverse", False), shape[axis]
    running = functools.partial(jax.lax.cummin if back else jax.lax.cummax, axis=axis, reverse=back)
    last = running(jnp.where(mask, time, jnp.full_like(time, T if back else -1)))
    there = jnp.take_along_axis(a, jnp.expand_dims(jnp.clip(last, 0, max(T - 1, 0)), -1), axis=axis)
    return jnp.where(jnp.expand_dims((last >= 0) & (last < T), -1), there, jnp.zeros_like(a))


def adds(index: int, x: Array, y: Array) -> bool:
    """Whether a layer's input is added to its output; raises ValueError where it has to be and cannot."""
    if x.shape == y.shape:
        return True
    if index:
        raise ValueError(unequal(index, x.shape[-1], y.shape[-1]))
    return False


def unequal(index: int, before: int, after: int) -> str:
    """What is wrong with a residual sum of other sizes."""
    return (
        f"stack: residual=True needs layers that keep the number of features; layer {index} maps"
        f" {before} features to {after}; give all layers the same output size"
    )


def _folded(key: Key, index: int) -> Key:
    return jax.random.fold_in(key, index)
