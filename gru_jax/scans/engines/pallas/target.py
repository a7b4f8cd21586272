"""What a Pallas kernel is made for."""

from typing import Any, NamedTuple, TypeAlias

import jax

from gru_jax.types import Array, DType

Ref: TypeAlias = Any
"""Memory that a Pallas kernel reads and writes by its indices."""


class Target(NamedTuple):
    """What a Pallas kernel is made for.

    Attributes:
      platform: "gpu" or "tpu".
      interpret: whether Pallas's interpreter runs it.
    """

    platform: str
    interpret: bool = False


def target(who: str, kernel: str) -> Target:
    """What the kernel of this name is made for.

    Args:
      who: the method that was asked, for the message.
      kernel: "pallas", "interpret-gpu" or "interpret-tpu".

    Returns:
      The target; for "pallas" that of JAX's default backend.

    Raises:
      ValueError: for "pallas" where there is neither a GPU nor a TPU.

    Example:
      >>> target("Sequential", "interpret-gpu")
      Target(platform='gpu', interpret=True)
    """
    if kernel != "pallas":
        return Target(kernel.removeprefix("interpret-"), interpret=True)
    backend = jax.default_backend()
    if backend not in ("gpu", "tpu"):
        raise ValueError(
            f"{who}: kernel='pallas' needs a GPU or a TPU; JAX runs on {backend} here; use kernel='auto', or"
            f" kernel='interpret-gpu' to see what the kernel computes, slowly"
        )
    return Target(backend)


def output(shape: tuple[int, ...], dtype: DType, *given: Array) -> jax.ShapeDtypeStruct:
    """What a kernel writes, for `pallas_call`; inside `jax.shard_map` it varies over the mesh as what is given does."""
    axes = [kind for a in given if (kind := getattr(jax.typeof(a), "manual_axis_type", None)) is not None]
    if not axes:
        return jax.ShapeDtypeStruct(shape, dtype)
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=max(axes, key=lambda kind: len(kind.varying)))
