"""Kernels for GPU, TPU and CPU, each beside nothing but the plain form that it must equal.

A kernel is asked for by the option `kernel` of a method. "llvm" is code for a CPU. "pallas" is the kernel for the GPU
or TPU that JAX uses; "interpret-gpu" and "interpret-tpu" run the GPU's and the TPU's kernel in Pallas's interpreter on
any backend, slowly: for tests, and for looking at what a kernel does without its device.
"""

import os
from typing import Any, NamedTuple

import jax

from gru_jax.types import DType

PALLAS = ("pallas", "interpret-gpu", "interpret-tpu")
"""The values of `kernel` that stand for a Pallas kernel."""


FUSED = (*PALLAS, "llvm")
"""The kernels of linear recurrences with a factor for each unit."""


class Asked(NamedTuple):
    """What one call of `scan` asks of a kernel, as far as kernels differ in it.

    Attributes:
      dtype: of x and the states.
      lengths: whether sequences have lengths.
      mask: whether there is a mask, which may have holes.
      resets: whether there are resets.
      recurrent_dropout: whether there is recurrent dropout.
      segments: whether steps are run again in segments, with `checkpoint_every`.
      symbolic: whether a size of x is not known, under `jax.export`.
      other_state: whether states have another dtype than x.
    """

    dtype: DType
    lengths: bool = False
    mask: bool = False
    resets: bool = False
    recurrent_dropout: bool = False
    segments: bool = False
    symbolic: bool = False
    other_state: bool = False


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
      kernel: one of `PALLAS`.

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


def usable_cores() -> int:
    """How many of the machine's cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def output(shape: tuple[int, ...], dtype: DType, *given: Any) -> jax.ShapeDtypeStruct:
    """What a kernel writes, for `pallas_call`; inside `jax.shard_map` it varies over the mesh as what is given does."""
    axes = [kind for a in given if (kind := getattr(jax.typeof(a), "manual_axis_type", None)) is not None]
    if not axes:
        return jax.ShapeDtypeStruct(shape, dtype)
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=max(axes, key=lambda kind: len(kind.varying)))
