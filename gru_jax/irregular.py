"""Series with holes and uneven steps, as arrays without any: values, which of them were seen, and the time since."""

from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.types import Array, BoolArray, exportable

NumPyOrJAX: TypeAlias = Any
"""An array of NumPy's, or of JAX's where the series was one."""


@exportable("Observed")
class Observed(NamedTuple):
    """What is known of a series at each of its steps; NumPy's arrays, or JAX's where the series was one.

    Attributes:
      value: the last value that was seen, at this step or before it, `[*batch, T, D]`; the mean where there was none.
      mask: 1 where the value is of this step, 0 where it was missing, `[*batch, T, D]`.
      since: the time since the last step before this one at which the variable was seen, or since the first step where
        there was none, `[*batch, T, D]`; 0 at the first step.
      time: of the step, `[*batch, T]`.
    """

    value: NumPyOrJAX
    mask: NumPyOrJAX
    since: NumPyOrJAX
    time: NumPyOrJAX

    @property
    def x(self) -> NumPyOrJAX:
        """Values, masks and times since side by side, `[*batch, T, 3D]`: the input of a `GRUD`, or of any cell."""
        of = jnp if isinstance(self.value, jax.Array) else np
        return of.concatenate([self.value, self.mask, self.since], -1)


@checks.suggesting
def observed(
    series: np.ndarray | Array,
    times: np.ndarray | Array | None = None,
    *,
    mean: ArrayLike = 0.0,
    resets: np.ndarray | BoolArray | None = None,
    before: Observed | None = None,
) -> Observed:
    """What was seen of a series, and when.

        since_1 = 0
        since_t = s_t - s_{t-1}                     seen at t - 1
        since_t = s_t - s_{t-1} + since_{t-1}       missing at t - 1

    Args:
      series: `[*batch, T, D]`, floating point, NaN where a value is missing. A NumPy array is worked on by NumPy, times
        in their own dtype; of a JAX array, also under `jit`, times have JAX's, and float32 knows the seconds of one day
        to 1/128 only: pass times that start near 0.
      times: s, `[T]` for all sequences alike or `[*batch, T]`, never falling; 0, 1, 2, ... when None. Padding repeats
        the last time.
      mean: a number or `[D]`, the value of a variable that was not seen yet: that of the observed training values.
      resets: `[*batch, T]` booleans, True where a new episode begins, which knows nothing of the one before.
      before: what this function returned for the steps before these, for a series that comes in pieces.

    Returns:
      `Observed(value, mask, since, time)`, the first three in series' dtype; its `x` is the input of a `GRUD`.

    Raises:
      TypeError: for a series that is not floating point.
      ValueError: for shapes that do not fit, and for times that fall.

    Example:
      >>> import numpy as np
      >>> nan = np.nan
      >>> seen = observed(np.array([[nan], [2.0], [nan], [nan], [5.0]]), np.array([0.0, 0.5, 0.75, 2.0, 4.0]))
      >>> seen.value[:, 0].tolist(), seen.mask[:, 0].tolist()
      ([0.0, 2.0, 2.0, 2.0, 5.0], [0.0, 1.0, 0.0, 0.0, 1.0])
      >>> seen.since[:, 0].tolist()
      [0.0, 0.5, 0.25, 1.5, 3.5]

    Source: Che et al. 2018, arXiv:1606.01865, section 2.1; what stands before the first observation is this library's.
    """
    of = jnp if isinstance(series, jax.Array) else np
    series = of.asarray(series)
    if not jnp.issubdtype(series.dtype, jnp.floating):
        raise TypeError(f"observed: series must be floating point, NaN where a value is missing; got {series.dtype}")
    if series.ndim < 2:
        raise ValueError(f"observed: series must be [*batch, T, D]; got shape {list(series.shape)}")
    *batch, T, D = series.shape
    time = _times(of, times, (*batch, T))
    seen = ~of.isnan(series)
    start = of.broadcast_to(of.asarray(mean, series.dtype), (*batch, 1, D))
    if before is None:
        began = time[..., :1, None] if T else of.zeros((*batch, 1, 1), time.dtype)
    else:
        # As one step more, at which every variable was seen when it was seen last.
        start = before.value[..., -1:, :]
        ago = of.where(before.mask[..., -1:, :] > 0, of.zeros_like(start), before.since[..., -1:, :])
        began = of.asarray(before.time)[..., -1:, None] - ago.astype(before.time.dtype)
    # Step 0 is the one before the first: what a variable that was not seen yet is said to have been seen at.
    value = of.concatenate([start.astype(series.dtype), of.where(seen, series, of.zeros_like(series))], -2)
    at = of.concatenate([of.broadcast_to(began, (*batch, 1, D)), of.broadcast_to(time[..., None], series.shape)], -2)
    steps = of.broadcast_to(of.arange(1, T + 1, dtype=of.int32)[:, None], series.shape)
    last = _running_maximum(of, of.where(seen, steps, of.zeros_like(steps)))
    known = of.concatenate([of.zeros_like(last[..., :1, :]), last[..., :-1, :]], -2)
    if resets is not None:
        flags = of.asarray(resets)
        checks.shape("observed", "resets", flags.shape, (*batch, T), "one flag for each step of series")
        begins = _running_maximum(of, of.where(flags[..., None] & of.ones_like(seen), steps, of.zeros_like(steps)))
        mean_again, known = last < begins, of.maximum(known, begins)
    found = of.take_along_axis(value, last, -2)
    if resets is not None:
        found = of.where(mean_again, of.broadcast_to(of.asarray(mean, series.dtype), series.shape), found)
    since = at[..., 1:, :] - of.take_along_axis(at, known, -2)
    return Observed(found, seen.astype(series.dtype), since.astype(series.dtype), time)


def _times(of: ModuleType, times: NumPyOrJAX | None, shape: tuple[int, ...]) -> NumPyOrJAX:
    """Times as floating point of that shape; raises for others, and where they fall."""
    T = shape[-1]
    time = of.arange(T, dtype=float) if times is None else of.asarray(times)
    if time.shape not in (shape, shape[-1:]):
        raise ValueError(
            f"observed: times must have shape {list(shape)}, or {[T]} for all sequences alike; got {list(time.shape)}"
        )
    if not jnp.issubdtype(time.dtype, jnp.floating):
        time = time.astype(float)
    values = checks.concrete(time)
    if values is not None and not (np.diff(values, axis=-1) >= 0).all():
        raise ValueError(
            "observed: times must never fall; got some that do, or are NaN; sort the steps by time, and repeat the last"
            " time in padding"
        )
    return of.broadcast_to(time, shape)


def _running_maximum(of: ModuleType, a: NumPyOrJAX) -> NumPyOrJAX:
    return np.maximum.accumulate(a, -2) if of is np else jax.lax.cummax(a, a.ndim - 2)
