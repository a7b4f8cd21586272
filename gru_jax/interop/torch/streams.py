"""The random numbers of modules that are made without any: one stream for the process, as torch has."""

import itertools
import threading

import jax
from flax import nnx

from gru_jax import checks

_lock = threading.Lock()
_seed = 0
_count = itertools.count()


def manual_seed(seed: int) -> None:
    """Sets the process's stream, which modules that are made without `rngs` draw from; it starts at seed 0.

    Args:
      seed: a whole number.

    Returns:
      Nothing.

    Raises:
      TypeError: for anything but a whole number.

    Example:
      >>> from gru_jax.interop import torch as nn
      >>> nn.manual_seed(1)
      >>> first = nn.GRU(3, 4)
      >>> nn.manual_seed(1)
      >>> second, third = nn.GRU(3, 4), nn.GRU(3, 4)
      >>> [bool((first.weight_hh_l0[...] == other.weight_hh_l0[...]).all()) for other in (second, third)]
      [True, False]

    Source: torch.manual_seed, whose stream starts anew in every process, and whose numbers are others.
    """
    global _seed, _count
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"manual_seed: seed must be a whole number; got {checks.described(seed)}")
    with _lock:
        _seed, _count = seed, itertools.count()


def default() -> nnx.Rngs:
    """The next streams of the process."""
    with _lock:
        seed, place = _seed, next(_count)
    # In two halves: a key takes 32 bits of a seed, and torch's seeds have 64.
    key = jax.random.fold_in(jax.random.key(seed % 2**32), seed // 2**32 % 2**32)
    return nnx.Rngs(jax.random.fold_in(key, place))


def checked(who: str, rngs: nnx.Rngs | None, names: tuple[str, ...]) -> nnx.Rngs:
    """Given streams, or the process's for None; raises TypeError for others, and ValueError when one is missing."""
    if rngs is None:
        return default()
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"{who}: rngs must be nnx.Rngs; got {checks.described(rngs)}; pass rngs=nnx.Rngs(0)")
    for name in names:
        if not hasattr(rngs, name):
            raise ValueError(f"{who}: rngs has no stream {name!r}; pass nnx.Rngs(0), or nnx.Rngs({name}=0, ...)")
    return rngs
