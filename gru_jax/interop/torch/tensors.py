"""Arguments of torch's kind, such as tensors and dtypes, as JAX's, without importing torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, Union

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gru_jax import checks
from gru_jax.interop import arrays
from gru_jax.types import Array, DType

if TYPE_CHECKING:
    import torch

TensorLike: TypeAlias = Union[Array, np.ndarray, nnx.Variable[Array], "torch.Tensor"]
"""What is taken for a tensor."""

Whole: TypeAlias = Sequence[int] | TensorLike
"""What is taken for whole numbers in one row."""


def array(who: str, name: str, given: object) -> np.ndarray | Array:
    """A JAX, NumPy or torch array of any dtype as JAX's or NumPy's; raises TypeError for anything else."""
    if isinstance(given, nnx.Variable):
        given = given[...]
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(f"{who}: {name} must be an array without a mask; got a masked one; pass {name}.filled(0)")
    if isinstance(given, jax.Array | np.ndarray):
        return given
    if hasattr(given, "detach"):
        return arrays.of_torch(who, name, given)
    fix = ""
    if isinstance(given, list | tuple):
        fix = "; a GRU has one state, no pair" if name == "h0" else (
            "; pack sequences of different lengths with pack_sequence"
        )
    raise TypeError(f"{who}: {name} must be a JAX, NumPy or torch array; got {checks.described(given)}{fix}")


def floating(who: str, name: str, given: object, dtype: DType) -> Array:
    """A floating-point array of the weights' dtype; raises TypeError, naming both fixes, for another dtype."""
    found = array(who, name, given)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        fix = f"convert it with {name}.astype({dtype.name!r})"
        raise TypeError(f"{who}: {name} must be floating point; got {found.dtype}; {fix}")
    if found.dtype != dtype:
        raise TypeError(
            f"{who}: {name} is {found.dtype} but the weights are {dtype.name}; convert the input,"
            f" {name}.astype({dtype.name!r}), or the module, module.to({found.dtype.name!r})"
        )
    return on_device(who, name, found)


def on_device(who: str, name: str, found: np.ndarray | Array) -> Array:
    """The array as JAX's; float64 is refused rather than cut down where JAX runs without it."""
    return found if isinstance(found, jax.Array) else arrays.to_jax(who, name, found)


def place(who: str, given: object) -> None:
    """Raises ValueError when what should be a dtype is a device."""
    named = isinstance(given, str) and given.partition(":")[0] in ("cpu", "cuda", "gpu", "mps", "tpu", "xpu")
    if named or type(given).__name__ in ("device", "Device"):
        device(who, given)


def dtype(who: str, given: DType, *, floating: bool = True) -> DType:
    """A torch, NumPy or JAX dtype, of floating-point numbers unless told otherwise, as NumPy's; float32 for None."""
    if given is None:
        return jnp.dtype(jnp.float32)
    # torch's dtypes are recognised by name, for this must not import torch.
    name = str(given).removeprefix("torch.") if type(given).__module__ == "torch" else given
    if floating:
        checks.floating_dtype(who, name)
    try:
        found = jnp.dtype(name)
    except TypeError as error:
        raise TypeError(f"{who}: dtype must be one such as jnp.float32; got {given!r}") from error
    if found.itemsize == 8 and found.kind in "fiu" and not jax.config.read("jax_enable_x64"):
        raise TypeError(
            f"{who}: dtype {found.name} needs JAX's 64-bit mode; call jax.config.update('jax_enable_x64', True) first"
        )
    return found


def device(who: str, given: object) -> None:
    """Raises ValueError unless `given` is None: where arrays live is JAX's affair."""
    if given is not None:
        raise ValueError(
            f"{who}: device must be None; got {given!r}; JAX places arrays itself: use jax.default_device(...), or"
            f" move them with jax.device_put"
        )


def lengths(who: str, given: object, batch: int, other: int, steps: int, *, least: int = 1) -> np.ndarray:
    """Whole numbers in [least, steps], one for each sequence, as NumPy's int64.

    Args:
      who: whose error message it is.
      given: a list, or a NumPy, JAX or torch array.
      batch: how many there must be.
      other: how many there would be if the batch axis were the other one.
      steps: T.
      least: 0 or 1.
    """
    if isinstance(given, jax.core.Tracer):
        raise TypeError(
            f"{who}: lengths must be known while JAX traces, as they decide shapes; got a traced array; pass a list or"
            f" NumPy array, or run gj.nnx.GRU with lengths=, which takes traced ones"
        )
    found = whole(who, "lengths", given)
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"{who}: lengths must be whole numbers; got {found.dtype}; convert with lengths.astype(int)")
    if found.ndim != 1 or len(found) != batch:
        fix = "; pass batch_first=True or False as fits input" if found.shape == (other,) else ""
        raise ValueError(
            f"{who}: lengths must hold one number for each of the {batch} sequences of input; got shape"
            f" {list(found.shape)}{fix}"
        )
    if found.size and found.min() < least:
        fix = "; leave empty sequences out, or run gj.nnx.GRU with lengths=, which takes 0" if least else ""
        raise ValueError(
            f"{who}: every length must be at least {least}; got {found.min()} at index {found.argmin()}{fix}"
        )
    if found.size and found.max() > steps:
        raise ValueError(
            f"{who}: input has {steps} time steps but a length is {found.max()}, at index {found.argmax()}; pad input"
            f" along time, or clip the lengths"
        )
    return found.astype(np.int64)


def whole(who: str, name: str, given: object) -> np.ndarray:
    """Numbers that are known while JAX traces as a NumPy array; whether they are whole is left to the caller."""
    if isinstance(given, jax.core.Tracer):
        raise TypeError(f"{who}: {name} must be known while JAX traces; got a traced array; pass NumPy's")
    if hasattr(given, "detach"):
        return arrays.of_torch(who, name, given)
    try:
        return np.asarray(given)
    except ValueError as error:  # lists of different lengths
        raise TypeError(f"{who}: {name} must be whole numbers in one row; got {checks.described(given)}") from error


def number(who: str, name: str, given: object) -> None:
    """Raises TypeError unless `given` is a single number."""
    if not isinstance(given, int | float | np.number | np.bool) and getattr(given, "shape", None) != ():
        raise TypeError(f"{who}: {name} must be a number; got {checks.described(given)}")


def offsets(batch_sizes: np.ndarray) -> np.ndarray:
    """Where each step starts in packed data."""
    return np.cumsum(batch_sizes) - batch_sizes
