"""Where episodes begin, seen from the other end of a sequence."""


import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gru_jax.scans.masking import from_lengths
from gru_jax.types import Array, Options


def other_way(options: Options, reverse: bool) -> Options:
    """The options of `scan` for a run against the direction that they are given for.

    Where episodes lie between the same steps for both, the second sets out anew at the last step of each, of those
    that count.

    Args:
      options: lengths, mask, resets and time_major are looked at, and have been checked.
      reverse: the direction that `resets` are given for.

    Returns:
      The options with `resets` for the other direction.

    Example:
      >>> other_way({"resets": jnp.array([0, 0, 1, 0], bool)}, False)["resets"].astype(int).tolist()
      [0, 1, 0, 0]
    """
    resets, mask, lengths = (options.get(name) for name in ("resets", "mask", "lengths"))
    if resets is None:
        return options
    axis = 0 if options.get("time_major", False) else -1

    def in_order(a: ArrayLike) -> Array:
        """Time leading, in the order of the given direction."""
        a = jnp.moveaxis(jnp.asarray(a), axis, 0)
        return jnp.flip(a, 0) if reverse else a

    first = in_order(resets)
    T = first.shape[0]
    use = jnp.ones_like(first) if mask is None else in_order(mask)
    if lengths is not None:
        use = from_lengths(jnp.asarray(lengths), T)
        use = jnp.flip(use, 0) if reverse else use
    steps = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32).reshape(-1, *(1,) * (first.ndim - 1)), use.shape)
    none = jnp.zeros_like(first[:1])
    # The next step that counts, T where there is none, and whether an episode begins with it.
    nearest = jax.lax.cummin(jnp.where(use, steps, jnp.full_like(steps, T)), reverse=True)
    following = jnp.concatenate([nearest, jnp.full(none.shape, T, jnp.int32)])[1:]
    last = jnp.take_along_axis(jnp.concatenate([first, none]), following, 0)
    return {**options, "resets": jnp.moveaxis(jnp.flip(last, 0) if reverse else last, 0, axis)}
