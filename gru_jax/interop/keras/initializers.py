"""Keras' initializers: the same names, arguments and, for the same seed, the same numbers as Keras on JAX."""

import math
import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.cells.base import accumulator
from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.identifiers import Configured, Identifier
from gru_jax.types import Array, DType, Function, Key, Options

Shape = Sequence[int]

Initial: TypeAlias = Identifier | np.ndarray | Array
"""What an initializer is made of."""


def key_of(seed: int) -> Key:
    """The random key that Keras on JAX makes of a seed."""
    return jnp.array([seed & 0xFFFFFFFF, 0], jnp.uint32)


def fresh_seed() -> int:
    """A seed of Python's own generator, as Keras draws it: `random.seed` makes it repeat."""
    return random.randint(1, int(1e9))


class Initializer(Configured):
    """What all have in common: how they are called. A whole number as `seed` makes each call give the same value."""

    def __post_init__(self) -> None:
        seed = getattr(self, "seed", None)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise TypeError(f"{type(self).__name__}: seed must be a whole number or None; got {seed!r}")

    def __call__(self, shape: Shape, dtype: DType = None, key: Key | None = None) -> Array:
        """The initial value: drawn from the seed when there is one, else from key, else from a fresh seed."""
        seed = getattr(self, "seed", None)
        if hasattr(self, "seed") and (seed is not None or key is None):
            key = key_of(fresh_seed() if seed is None else seed)
        return self.draw(key, tuple(shape), dtype or jnp.float32)  # type: ignore[arg-type]  # None where none is used

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        """The value drawn with a key."""
        raise NotImplementedError


class Zeros(Initializer):
    """Zeros.

    Example:
      >>> Zeros()((2, 3)).shape
      (2, 3)
    """

    draw = staticmethod(jax.nn.initializers.zeros)


class Ones(Initializer):
    """Ones."""

    draw = staticmethod(jax.nn.initializers.ones)


class Constant(Initializer):
    """`value` everywhere."""

    value: float = 0.0

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return jnp.full(shape, self.value, dtype)


class Identity(Initializer):
    """`gain` times the identity, cut or filled with zeros to the shape."""

    gain: float = 1.0

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        if len(shape) != 2:
            raise ValueError(f"Identity: only a matrix can be an identity; got shape {list(shape)}")
        return self.gain * jnp.eye(*shape, dtype=dtype)


class RandomNormal(Initializer):
    """Normal numbers of `mean` and `stddev`."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return jax.random.normal(key, shape, dtype) * self.stddev + self.mean


class TruncatedNormal(Initializer):
    """Normal numbers, those beyond two standard deviations drawn again; `stddev` is that before the cut."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) * self.stddev + self.mean


class RandomUniform(Initializer):
    """Uniform numbers from `minval` to `maxval`."""

    minval: float = -0.05
    maxval: float = 0.05
    seed: int | None = None

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return jax.random.uniform(key, shape, dtype, self.minval, self.maxval)


class Orthogonal(Initializer):
    """`gain` times a matrix of orthonormal rows or columns, whichever there are fewer of."""

    gain: float = 1.0
    seed: int | None = None

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: needs at least 2 dimensions; got shape {list(shape)}")
        # Half precision has no QR.
        return jax.nn.initializers.orthogonal(self.gain)(key, shape, accumulator(dtype)).astype(dtype)


MODES = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


class VarianceScaling(Initializer):
    """Numbers of variance `scale / n`, n by `mode` the number of inputs, of outputs, or their mean.

    Args:
      scale: the factor, above 0.
      mode: "fan_in", "fan_out" or "fan_avg".
      distribution: "truncated_normal", "untruncated_normal" or "uniform".
      seed: a whole number makes each call give the same value.
      input_axes: accepted as in Keras; None or the first axis, a GRU's weights being matrices.
      output_axes: likewise, None or the last.
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None
    input_axes: Sequence[int] | None = None
    output_axes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        who = type(self).__name__
        if not self.scale > 0:
            raise ValueError(f"{who}: scale must be above 0; got {self.scale}")
        object.__setattr__(self, "distribution", str(self.distribution).lower())
        if self.distribution == "normal":
            object.__setattr__(self, "distribution", "truncated_normal")
        checks.choice(who, "mode", str(self.mode).lower(), MODES)
        checks.choice(who, "distribution", self.distribution, DISTRIBUTIONS)
        for name, axis in (("input_axes", 0), ("output_axes", -1)):
            given = getattr(self, name)
            if given is not None and tuple(given) not in ((axis,), (axis % 2,), (axis % 2 - 2,)):
                raise ValueError(f"{who}: {name} must be None or [{axis}] for a GRU's matrices; got {given!r}")
            object.__setattr__(self, name, None if given is None else tuple(given))

    def draw(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        fan_in, fan_out = (shape[0], shape[-1]) if shape else (1, 1)
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        variance = self.scale / max(1.0, fans[self.mode])
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return jax.random.uniform(key, shape, dtype, -limit, limit)
        if self.distribution == "untruncated_normal":
            return jax.random.normal(key, shape, dtype) * math.sqrt(variance)
        # The standard deviation of a normal cut at 2 is this, of one before the cut 1.
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) * (math.sqrt(variance) / 0.87962566103423978)


def _scaled(name: str, scale: float, mode: str, distribution: str) -> type:
    """A named special case of `VarianceScaling`, whose arguments are the seed and the axes alone."""

    def __init__(
        self: Any,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        VarianceScaling.__init__(self, scale, mode, distribution, seed, input_axes, output_axes)

    def get_config(self: Any) -> Options:
        return {"seed": self.seed, "input_axes": self.input_axes, "output_axes": self.output_axes}

    # Classes of two lines that differ in three values; each must be one, its name being what configs hold.
    doc = f"""`VarianceScaling(scale={scale}, mode={mode!r}, distribution={distribution!r})`.

    Args:
      seed: a whole number makes each call give the same value.
      input_axes: see `VarianceScaling`.
      output_axes: see `VarianceScaling`.
    """
    members = {"__init__": __init__, "get_config": get_config, "__doc__": doc, "__module__": __name__}
    return type(name, (VarianceScaling,), members)


GlorotUniform = _scaled("GlorotUniform", 1.0, "fan_avg", "uniform")
GlorotNormal = _scaled("GlorotNormal", 1.0, "fan_avg", "truncated_normal")
LecunNormal = _scaled("LecunNormal", 1.0, "fan_in", "truncated_normal")
LecunUniform = _scaled("LecunUniform", 1.0, "fan_in", "uniform")
HeNormal = _scaled("HeNormal", 2.0, "fan_in", "truncated_normal")
HeUniform = _scaled("HeUniform", 2.0, "fan_in", "uniform")

KNOWN = identifiers.table(
    Zeros, Ones, Constant, Identity, RandomNormal, TruncatedNormal, RandomUniform, Orthogonal, VarianceScaling,
    GlorotUniform, GlorotNormal, LecunNormal, LecunUniform, HeNormal, HeUniform,
    zero=Zeros, one=Ones, normal=RandomNormal, uniform=RandomUniform,
    IdentityInitializer=Identity, OrthogonalInitializer=Orthogonal,
)  # fmt: skip


class Given:
    """An initializer that gives an array; equal to itself alone, arrays having no hash."""

    def __init__(self, value: np.ndarray | Array) -> None:
        self.value = np.asarray(value)

    def __call__(self, shape: Shape, dtype: DType = None, key: Key | None = None) -> Array:
        """The array, when it has the shape."""
        fix = "pass an array of the parameter's shape"
        checks.shape("initializer", "the given array", self.value.shape, tuple(shape), fix)
        return jnp.asarray(self.value, dtype or jnp.float32)


def get(who: str, option: str, given: Initial) -> Function:
    """The initializer behind an identifier: a name, a config, a class, an object, an array, or a function."""
    if given is None:
        raise TypeError(f"{who}: {option} must be an initializer; got None; pass 'zeros', say")
    if isinstance(given, np.ndarray | jax.Array):
        return Given(given)
    return identifiers.get(who, option, given, KNOWN, "initializer")


def make(who: str, option: str, initializer: Function, shape: Shape, dtype: DType, key: Key | None) -> Array:
    """The initial value of one parameter.

    Args:
      who: whose error message it is.
      option: the option's name.
      initializer: what `get` returned; a function takes `(shape, dtype)`, as in Keras, or `(key, shape, dtype)`.
      shape: of the parameter.
      dtype: of the parameter.
      key: random key, or None for a fresh seed.
    """
    ours = isinstance(initializer, Configured | Given)
    if ours:
        value = initializer(shape, dtype, key)
    elif identifiers.takes_key_first(initializer):
        value = initializer(key_of(fresh_seed()) if key is None else key, tuple(shape), dtype)
    else:
        value = initializer(tuple(shape), dtype=dtype)
    value = checks.floating(who, f"what {option} made", value)
    checks.shape(who, f"what {option} made", value.shape, tuple(shape), "return an array of the shape it is given")
    return value.astype(dtype)
