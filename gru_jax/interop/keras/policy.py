"""Names, dtypes and the trace that a layer was called in: what every Keras layer has beside its mathematics."""

import collections
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.interop.keras import identifiers
from gru_jax.types import DType, Options

_USED: collections.Counter[str] = collections.Counter()
_AUTOMATIC: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
_TOP = jax.extend.core.get_opaque_trace_state(convention="nnx")
NAMES = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")


class Policy(NamedTuple):
    """Which dtype parameters have and which the computation.

    Attributes:
      name: as in Keras, such as "float32" or "mixed_bfloat16".
    """

    name: str

    @property
    def compute(self) -> DType:
        """The dtype of the computation and of what comes out."""
        return jnp.dtype(self.name.removeprefix("mixed_"))

    @property
    def variable(self) -> DType:
        """The dtype of the parameters."""
        return jnp.dtype("float32") if self.name.startswith("mixed_") else self.compute

    def config(self) -> Options:
        """As Keras writes it."""
        return identifiers.registered("keras", "DTypePolicy", {"name": self.name})


def get(who: str, given: DType) -> Policy:
    """The policy behind None (float32), a dtype, a policy's name or config, or Keras' own policy object."""
    name = given
    if given is None:
        name = "float32"
    elif isinstance(given, Policy):
        return given
    elif isinstance(given, Mapping):
        name = given.get("config", {}).get("name")
    elif not isinstance(given, str):
        name = getattr(given, "name", None) if hasattr(given, "compute_dtype") else _dtype_name(given)
    checks.choice(who, "dtype", name, NAMES)
    if name == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            f"{who}: dtype='float64' needs 64-bit floats, which JAX has switched off; call"
            f" jax.config.update('jax_enable_x64', True) first"
        )
    return Policy(name)


def checked_name(who: str, given: object) -> str:
    """A name that was given; raises ValueError for what is none."""
    if not isinstance(given, str) or not given or "/" in given:
        raise ValueError(f"{who}: name must be a string without '/'; got {given!r}")
    return given


def automatic_name(layer: object, kind: str) -> str:
    """A layer's own name, made as Keras makes it at the first call for that layer: gru, gru_1, gru_2."""
    if layer not in _AUTOMATIC:
        base = identifiers.snake(kind)
        _USED[base] += 1
        _AUTOMATIC[layer] = base if _USED[base] == 1 else f"{base}_{_USED[base] - 1}"
    return _AUTOMATIC[layer]


def make_automatic(layer: Any) -> None:
    """Turns the name that a layer was given into an automatic one."""
    _AUTOMATIC[layer], layer._name = layer._name, None


def at_top_level() -> bool:
    """Whether no JAX transformation is being traced, so that what is made here outlives it."""
    return bool(jax.extend.core.get_opaque_trace_state(convention="nnx") == _TOP)


def number(who: str, option: str, given: object, kind: str) -> None:
    """Raises TypeError unless `given` is None or a whole number."""
    if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
        raise TypeError(f"{who}: {option} must be {kind} or None; got {checks.described(given)}")


def _dtype_name(given: DType) -> object:
    try:
        return jnp.dtype(given).name
    except TypeError:
        return given
