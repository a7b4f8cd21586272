"""Calls of which XLA knows nothing but arguments and results: under `jax.vmap`, split over devices, in shard_map."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from gru_jax.scans.engines.partition import over_devices
from gru_jax.types import Array, DType

Found = TypeVar("Found")

Axes = tuple[int | None, ...]
"""The axis of the batch in each array; None for what all sequences share, or a sum over all of them."""


def mapped(run: Callable[..., tuple[Array, ...]], inputs: Axes, outputs: Axes) -> Callable[..., tuple[Array, ...]]:
    """`run`, which takes one batch on one device, wherever its batch lies and under `jax.vmap`.

    Args:
      run: the call.
      inputs: where the batch is in its arguments; the first has one.
      outputs: where it is in its results.

    Returns:
      A function of the same arguments and results. What `jax.vmap` adds goes into the batch; where it is added to what
      all sequences share, or to a sum over them, there is one call after the other.
    """
    placed = over_devices(run, inputs, outputs)

    @jax.custom_batching.custom_vmap
    def call(*args: Array) -> tuple[Array, ...]:
        return placed(*args)

    @call.def_vmap
    def rule(size: int, batched: list[bool], *args: Array) -> tuple[tuple[Array, ...], tuple[bool, ...]]:
        if not size:
            each = [jax.ShapeDtypeStruct(a.shape[b:], a.dtype) for a, b in zip(args, batched, strict=True)]
            nothing = jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), jax.eval_shape(call, *each))
            return nothing, jax.tree.map(lambda _: True, nothing)
        shared = any(b and axis is None for b, axis in zip(batched, inputs, strict=True))
        if shared or None in outputs:
            found = one_by_one(call, batched, args)
        else:
            whole = (a if b else jnp.broadcast_to(a, (size, *a.shape)) for a, b in zip(args, batched, strict=True))
            folded = [a[0] if axis is None else _fold(a, axis) for a, axis in zip(whole, inputs, strict=True)]
            found = tuple(_unfold(a, axis or 0, size) for a, axis in zip(call(*folded), outputs, strict=True))
        return found, jax.tree.map(lambda _: True, found)

    return call


def one_by_one(call: Callable[..., Found], batched: list[bool], args: tuple[Array, ...]) -> Found:
    """One call for each index of the first axis of the arguments that are batched."""

    def each(moving: list[Array]) -> Found:
        rest = iter(moving)
        return call(*(next(rest) if b else a for a, b in zip(args, batched, strict=True)))

    return lax.map(each, [a for a, b in zip(args, batched, strict=True) if b])


def result(shape: tuple[int, ...], dtype: DType, like: Array) -> jax.ShapeDtypeStruct:
    """What a call gives; inside `jax.shard_map` it varies over the same mesh axes as `like`."""
    axes = getattr(jax.typeof(like), "manual_axis_type", None)
    if axes is None or not axes.varying:
        return jax.ShapeDtypeStruct(shape, dtype)
    # What varies has a mesh, and that goes by the name of a sharding.
    everywhere = NamedSharding(jax.sharding.get_abstract_mesh(), PartitionSpec(*(None for _ in shape)))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere, manual_axis_type=axes)


def _fold(a: Array, axis: int) -> Array:
    """`[size, ...]` with that axis taken into another."""
    a = jnp.moveaxis(a, 0, axis)
    return a.reshape(*a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :])


def _unfold(a: Array, axis: int, size: int) -> Array:
    return jnp.moveaxis(a.reshape(*a.shape[:axis], size, a.shape[axis] // max(size, 1), *a.shape[axis + 1 :]), axis, 0)
