"""Arrays of any framework as NumPy's and JAX's, without importing the framework."""

import importlib
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.types import Array

Weight: TypeAlias = Any
"""An array of NumPy's or of JAX's: NumPy's on its way in or out, also where `GRUParams` speak of JAX's alone."""


def to_numpy(who: str, name: str, value: object) -> np.ndarray:
    """A NumPy, JAX, torch or Keras array, or a Flax variable, as a NumPy array of the same numbers.

    Args:
      who: whose error message it is.
      name: what the array is called there.
      value: the array.

    Raises:
      TypeError: when it is no array of floating-point numbers.
    """
    if hasattr(value, "detach"):
        value = of_torch(who, name, value)
    elif hasattr(value, "get_value"):  # flax.nnx
        value = value.get_value()
    elif hasattr(value, "value") and not hasattr(value, "__array__"):
        value = value.value
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{who}: {name} has no numbers yet inside jit, grad or vmap; convert weights outside of them")
    if isinstance(value, jax.ShapeDtypeStruct):
        raise TypeError(f"{who}: {name} is a shape without numbers (jax.ShapeDtypeStruct); give the arrays themselves")
    try:
        array = np.asarray(value)
    except Exception as error:
        raise TypeError(f"{who}: {name} must be an array; got {checks.described(value)}") from error
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{who}: {name} must be an array of floating-point numbers; got {described(value, array)}")
    return array


def of_torch(who: str, name: str, tensor: Any) -> np.ndarray:
    """A torch tensor of any dtype as a NumPy array; raises TypeError for one without dense numbers of its own."""
    try:
        tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
        if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such type of its own; jnp's is the same bits
            return tensor.float().numpy().astype(jnp.bfloat16)
        return tensor.numpy()
    except (AttributeError, RuntimeError, TypeError) as error:  # sparse, quantized, nested, or on the device "meta"
        kind = f"{tensor.dtype} of layout {tensor.layout} on {tensor.device}" if hasattr(tensor, "layout") else (
            checks.described(tensor)
        )
        raise TypeError(f"{who}: {name} must be a dense tensor with numbers in it; got {kind}") from error


def of_rank(who: str, name: str, value: object, rank: int) -> np.ndarray:
    """`to_numpy`, and a check that the array is the one of a single layer: of the given number of dimensions."""
    array = to_numpy(who, name, value)
    if array.ndim > rank:
        raise ValueError(
            f"{who}: {name} must have {rank} dimensions; got shape {list(array.shape)}, parameters stacked along"
            f" leading axes, as vmap and scan make them; take one of them: jax.tree.map(lambda a: a[0], params)"
        )
    if array.ndim < rank:
        raise ValueError(f"{who}: {name} must have {rank} dimensions; got shape {list(array.shape)}")
    return array


def imported(who: str, package: str) -> ModuleType:
    """A framework that is not needed unless asked for; raises ImportError that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{who}: needs the package {package}; pip install 'gru-jax[interop]'") from error


def described(value: object, array: np.ndarray) -> str:
    """What was got instead of floating-point numbers."""
    return f"{array.dtype}" if hasattr(value, "dtype") else checks.described(value)


def to_jax(who: str, name: str, array: np.ndarray) -> Array:
    """The array on the device, in its own dtype; raises TypeError rather than cut float64 down to float32."""
    if array.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        raise TypeError(
            f"{who}: {name} is float64, which JAX would cut down to float32; call"
            f" jax.config.update('jax_enable_x64', True) first, or convert it with .astype('float32')"
        )
    return jnp.asarray(array)


def shape(who: str, name: str, array: np.ndarray, expected: tuple[int, ...], fix: str) -> None:
    """Raises ValueError unless the array has the expected shape."""
    checks.shape(who, name, array.shape, expected, fix)
