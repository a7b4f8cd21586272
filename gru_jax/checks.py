"""Trace-time checks; every error message of the library speaks in the voice set here.

A message is one line: who speaks, the fact, what was got, the fix. Shapes, dtypes and choices are known while
JAX traces and are always checked; values (a length, a mask) only when they are concrete.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.types import Array, DType, Tree

_T = TypeVar("_T")


def described(got: object) -> str:
    """What was got, in a few words: arrays by their shape, containers by their length, never their contents."""
    if hasattr(got, "shape") and hasattr(got, "dtype"):
        return f"an array of shape {list(got.shape)}"
    if isinstance(got, type):
        return f"the class {got.__name__}"
    if isinstance(got, tuple | list):
        return f"{type(got).__name__} of {len(got)}"
    if isinstance(got, str | int | float | None):
        return repr(got)
    home = type(got).__module__.split(".")[0]
    return type(got).__name__ if home in ("builtins", "flax", "gru_jax") else f"{type(got).__name__} of {home}"


def did_you_mean(got: object, options: Iterable[object], otherwise: str = "", before: str = "; ") -> str:
    """What an error says at its end: the option that is spelled most like what was given, or `otherwise`, or nothing.

    Example:
      >>> did_you_mean("tahn", ["relu", "tanh"])
      "; did you mean 'tanh'?"
      >>> did_you_mean("gur", ["mgu", "gru"])
      "; did you mean 'gru'?"
    """
    word, names = str(got), [str(option) for option in options]
    # First what differs in capitals alone, of which the letters would not tell: LOAD has none of load.
    near = [name for name in names if name.lower() == word.lower()] or difflib.get_close_matches(word, names)
    # Of two that are as near, letters are rather exchanged within a word than at its beginning.
    nearness = lambda name: (difflib.SequenceMatcher(None, name, word).ratio(), name[:1] == word[:1])  # noqa: E731
    said = f"did you mean {max(near, key=nearness)!r}?" if near else otherwise
    return said and before + said


def listed(names: Iterable[object], said: Callable[[Any], str] = str) -> str:
    """The first twelve of some names, and how many more there are."""
    every = [said(name) for name in names]
    return ", ".join(every[:12]) + (f" and {len(every) - 12} more" if len(every) > 12 else "")


def choice(who: str, name: str, got: object, options: Iterable[object]) -> None:
    """Raises ValueError unless `got` is one of `options`, with the nearest option as a suggestion."""
    options = list(options)
    if any(type(got) is type(option) and got == option for option in options):
        return
    one_of = ", ".join(map(repr, options))
    raise ValueError(f"{who}: {name} must be one of {one_of}; got {got!r}{did_you_mean(got, options)}")


def known(who: str, what: str, given: Iterable[str], names: Iterable[str]) -> None:
    """Raises TypeError for a name that is none of `names`, with the nearest one as a suggestion."""
    names = tuple(names)
    for name in given:
        if name not in names:
            longer = [f"did you mean {one!r}?" for one in names if one.startswith(name)]
            hint = did_you_mean(name, names, [*longer, f"there are {', '.join(names)}"][0])
            raise TypeError(f"{who}: there is no {what} {name!r}{hint}")


def suggesting(thing: _T) -> _T:
    """Decorator: a function, or a class when it is made, answers an unknown keyword as `known` does."""
    if isinstance(thing, type):
        thing.__init__ = _suggesting(thing.__init__, thing.__name__)  # type: ignore[misc]
        return thing
    return _suggesting(thing, thing.__qualname__.split(".")[0])  # type: ignore[attr-defined]


def _suggesting(function: Any, who: str) -> Any:
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.POSITIONAL_ONLY]
    names = [name for name in names if name != "self"]

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        if options.keys() - names:
            known(who, "argument", options, names)
        return function(*args, **options)

    return checked


def positive(who: str, name: str, got: object) -> None:
    """Raises unless `got` is a whole number of at least 1."""
    if isinstance(got, bool) or not isinstance(got, int | np.integer):
        raise TypeError(f"{who}: {name} must be a whole number; got {got!r} of type {type(got).__name__}")
    if got < 1:
        raise ValueError(f"{who}: {name} must be at least 1; got {got}")


def flag(who: str, name: str, got: object) -> None:
    """Raises TypeError unless `got` is True or False."""
    if not isinstance(got, bool):
        raise TypeError(f"{who}: {name} must be True or False; got {got!r} of type {type(got).__name__}")


def rate(who: str, name: str, got: object) -> None:
    """Raises unless `got` is a dropout rate, a plain number in [0, 1)."""
    if isinstance(got, bool) or not isinstance(got, int | float | np.integer | np.floating):
        raise TypeError(
            f"{who}: {name} is a dropout rate and must be a plain number; got {got!r} of type {type(got).__name__}"
        )
    if not 0 <= got < 1:
        raise ValueError(
            f"{who}: {name} is the share that dropout sets to zero and must lie in [0, 1); got {got}"
        )


def key_for_dropout(
    who: str, names: Sequence[str], key: object, *, off: str, batch: tuple[int, ...] | None = None
) -> None:
    """Raises when dropout is on (`names` are the rates above 0) and there is no random key, or none that is one.

    There may be one for each sequence; `batch` is then the shape that they have to have, or None for any.
    """
    if not names:
        return
    if key is None:
        rates = " and ".join(names)
        raise ValueError(
            f"{who}: {rates} above 0 needs a random key; got key=None; pass key=jax.random.key(0), or {off}"
        )
    if not (is_keys(key) and batch in (None, getattr(key, "shape", None))):
        random_key(who, key, or_keys="" if batch is None else f", or one for each sequence, {list(batch)}")


def is_keys(key: Any) -> bool:
    """Whether `key` is an array of typed random keys, and not a single one."""
    return hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape != ()


def random_key(who: str, key: object, or_keys: str = "") -> None:
    """Raises TypeError unless `key` is one random key, typed or of the older kind (a row of uint32)."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if typed and shape == ():
        return
    if dtype == jnp.uint32 and shape is not None and len(shape) == 1:
        return
    got = f"{dtype} of shape {list(shape)}" if dtype is not None and shape is not None else repr(key)
    fix = "pick one of them, or map over them with jax.vmap" if typed else "pass key=jax.random.key(0)"
    raise TypeError(f"{who}: key must be one random key{or_keys}; got {got}; {fix}")


def floating_dtype(who: str, got: DType, name: str = "dtype") -> None:
    """Raises TypeError unless `got` is a floating-point dtype."""
    try:
        good = jnp.issubdtype(jnp.dtype(got), jnp.floating)
    except TypeError:
        good = False
    if not good:
        raise TypeError(f"{who}: {name} must be a floating-point dtype such as jnp.float32; got {got!r}")


def as_array(who: str, name: str, got: object) -> Array:
    """`got` as a JAX array; raises TypeError when it is none and cannot become one."""
    try:
        return jnp.asarray(got)
    except (TypeError, ValueError, OverflowError) as error:
        dtype = f" of {got.dtype}" if isinstance(got, np.ndarray) else ""
        raise TypeError(
            f"{who}: {name} must be an array of numbers; got {type(got).__name__}{dtype}; pass a JAX or NumPy array"
        ) from error


def concrete(got: Tree) -> np.ndarray | None:
    """The numbers of an array as NumPy's; None where they are traced, or lie with another process.

    What checks values computes with these: inside `jit` every operation of JAX is traced, that on a concrete array too.
    """
    leaves = jax.tree.leaves(got)
    if any(isinstance(a, jax.core.Tracer) or not getattr(a, "is_fully_addressable", True) for a in leaves):
        return None
    return np.asarray(got)


def floating(who: str, name: str, got: object) -> Array:
    """`got` as a JAX array of floating-point numbers; raises TypeError for other dtypes."""
    array = as_array(who, name, got)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{who}: {name} must be floating point; got {array.dtype}; convert it with {name}.astype(jnp.float32)"
        )
    return array


def real(who: str, name: str, got: object) -> Array:
    """`got` as a JAX array of floating-point or whole numbers or booleans, for a caller that promotes them."""
    array = as_array(who, name, got)
    whole = jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_
    return array if whole else floating(who, name, array)


def boolean(who: str, name: str, got: object) -> Array:
    """`got` as a JAX array of booleans; raises TypeError for other dtypes."""
    array = as_array(who, name, got)
    if array.dtype != jnp.bool_:
        raise TypeError(
            f"{who}: {name} must be boolean (True = yes); got {array.dtype}; pass {name}.astype(bool) if 1 means yes"
        )
    return array


def same_dtype(who: str, name: str, got: Array, dtype: DType, owner: str) -> None:
    """Raises TypeError when `got` has another dtype than `owner`; nothing is converted silently."""
    if got.dtype != dtype:
        raise TypeError(
            f"{who}: {owner} is {jnp.dtype(dtype).name} but {name} is {got.dtype.name}; convert one of them,"
            f" for example {name}.astype({owner}.dtype)"
            if name != "params"
            else f"{who}: {owner} is {jnp.dtype(dtype).name} but params are {got.dtype.name}; convert one of them:"
            f" {owner}.astype(jnp.{got.dtype.name}), or jax.tree.map(lambda p: p.astype({owner}.dtype), params)"
        )


def shape(who: str, name: str, got: Sequence[int], expected: Sequence[int], fix: str) -> None:
    """Raises ValueError unless the two shapes are equal."""
    if tuple(got) != tuple(expected):
        raise ValueError(f"{who}: {name} must have shape {list(expected)}; got {list(got)}; {fix}")


def lengths(who: str, got: object, batch: Sequence[int], steps: int) -> Array:
    """`got` as whole numbers `[*batch]` in [0, steps].

    Values are checked when they are concrete. Under `jit`, where they are not, a length below 0 acts as 0 and
    one above `steps` as `steps`.
    """
    array = as_array(who, "lengths", got)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{who}: lengths must be whole numbers; got {array.dtype}; convert with lengths.astype(jnp.int32)"
        )
    shape(who, "lengths", array.shape, batch, "one length for each sequence of x")
    values = concrete(got)
    if values is not None and values.size and (values.min() < 0 or values.max() > steps):
        worst = values.min() if values.min() < 0 else values.max()
        raise ValueError(
            f"{who}: lengths must lie in [0, {steps}], x having {steps} time steps; got {worst};"
            f" clip them, or pad x along time"
        )
    # Compared with step numbers, which an int8 cannot count beyond 127.
    return array.astype(jnp.int32) if array.dtype.itemsize < 4 else array
