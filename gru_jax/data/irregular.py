"""Irregular sampling: noisy values of processes at random times, many of them missing; tell where they all stand."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data import generated
from gru_jax.data.dataset import Dataset, Generator, Split, TaskShape
from gru_jax.irregular import observed
from gru_jax.types import Array, Key

Seen = Literal["gaps", "last", "zeros"]
"""What stands where a value is missing: nothing but a mask and the time since, the last value, or 0."""

FASTEST, SLOWEST = 2.0, 64.0
"""Time constants of the first and of the last process, in mean gaps between steps."""


def shape(time: int, channels: int, seen: Seen, *, epoch: int, valid: int, test: int) -> TaskShape:
    """The sizes of the task: a number to tell of each process, and of each at each step what `seen` says."""
    features = channels * (3 if seen == "gaps" else 1)
    return TaskShape(
        epoch, valid, test, time, features=features, outputs=channels, target="values", gaps=seen == "gaps"
    )


def generator(time: int, channels: int = 4, missing: float = 0.5, noise: float = 0.5, seen: Seen = "gaps") -> Generator:
    """What makes sequences of the irregular task.

    The processes are those of Ornstein and Uhlenbeck, of mean 0 and variance 1, with time constants from `FASTEST` to
    `SLOWEST`. Gaps between steps are exponential, 0.1 on average. What is seen of a process at a step is its value and
    noise, or, with the probability `missing`, nothing; at the last step it is nothing of any. What is told is where all
    of them stand then, without noise.

    Args:
        time: steps, T, at least 2.
        channels: processes, D.
        missing: the share of values that are missing, in [0, 1).
        noise: standard deviation of what is added to a value.
        seen: "gaps": of each process the last value, the mask and the time since, see `gru_jax.observed`, `[N, T, 3D]`;
            "last": the last value alone, `[N, T, D]`; "zeros": the value, 0 where it is missing. A value that was not
            seen yet is 0, the mean.

    Returns:
        A function of (key, N) whose splits have y `[N, D]`, float32.

    Raises:
        ValueError: there are fewer than two steps, a share is none, or there is no such kind of input.

    Example:
        >>> x, y, *_ = generator(time=10, channels=2, missing=0.3)(jax.random.key(0), 3)
        >>> x.shape, y.shape, float(x[:, -1, 2:4].sum())
        ((3, 10, 6), (3, 2), 0.0)
    """
    if time < 2:
        raise ValueError(f"irregular: a step that is seen and one to tell need a time of at least 2; got {time}")
    if not 0 <= missing < 1:
        raise ValueError(f"irregular: missing is a share in [0, 1); got {missing}")
    if seen not in ("gaps", "last", "zeros"):
        raise ValueError(f"irregular: seen must be one of 'gaps', 'last', 'zeros'; got {seen!r}")

    def generate(key: Key, examples: int) -> Split:
        series, times, y = drawn(key, examples, time, channels, missing, noise)
        made = observed(series, times)
        x = {"gaps": made.x, "last": made.value, "zeros": made.value * made.mask}[seen]
        return Split(x, y)

    return generate


def drawn(
    key: Key, examples: int, time: int, channels: int, missing: float, noise: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Series `[N, T, D]`, NaN where a value is missing, their times `[N, T]`, and where the processes end, `[N, D]`."""
    of_gaps, of_process, of_noise, of_mask = jax.random.split(key, 4)
    gaps = jax.random.exponential(of_gaps, (examples, time), jnp.float32) / 10
    steps = (time, examples, channels)
    kept = jnp.exp(-gaps.T[..., None] / jnp.asarray(_constants(channels), jnp.float32)[None, None])
    moved = jax.random.normal(of_process, steps, jnp.float32) * jnp.sqrt(1 - kept**2)

    def step(z: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        left, new = now
        z = left * z + new
        return z, z

    # The first step's gap is that since a draw of the stationary process, so that it is one too.
    first = jax.random.normal(jax.random.fold_in(of_process, 1), steps[1:], jnp.float32)
    last, z = jax.lax.scan(step, first, (kept, moved))
    z = jnp.moveaxis(z, 0, 1)
    values = z + noise * jax.random.normal(of_noise, z.shape, jnp.float32)
    hidden = jax.random.bernoulli(of_mask, missing, z.shape) | (jnp.arange(time) == time - 1)[None, :, None]
    return jnp.where(hidden, jnp.full_like(values, jnp.nan), values), jnp.cumsum(gaps, 1), last


def least_loss(
    examples: int, time: int, channels: int = 4, missing: float = 0.5, noise: float = 0.5, seed: int = 0
) -> float:
    """The mean square error of the best there is, Kalman's filter, which knows the processes and the noise.

    Args:
        examples: sequences to take the mean over.
        time, channels, missing, noise: see `generator`.
        seed: of those sequences.

    Source: Kalman 1960, of one process at a time: they are independent.
    """
    key = jax.random.wrap_key_data(jnp.array((0, seed), jnp.uint32), impl="threefry2x32")
    series, times, _ = map(np.asarray, drawn(key, examples, time, channels, missing, noise))
    variance = np.ones((examples, channels))
    for t in range(time):
        gap = times[:, t] - times[:, t - 1] if t else np.zeros(examples)
        left = np.exp(-2 * gap[:, None] / _constants(channels))
        variance = left * variance + 1 - left
        known = ~np.isnan(series[:, t])
        variance = np.where(known, variance * noise**2 / (variance + noise**2), variance)
    return float(variance.mean())


def _constants(channels: int) -> np.ndarray:
    """Time constants, in the unit of the times, evenly spaced by their logarithms."""
    return np.geomspace(FASTEST, SLOWEST, channels) / 10


def load(
    time: int,
    channels: int = 4,
    missing: float = 0.5,
    noise: float = 0.5,
    seen: Seen = "gaps",
    *,
    valid: int,
    test: int,
) -> Dataset:
    """The task's data; see `generator` for the arguments, `valid` and `test` are numbers of sequences."""
    instead = {"gaps": "masks and times since beside the last values", "last": "the last value", "zeros": "0"}[seen]
    description = (
        f"irregular sampling of {channels} processes at {time} steps, {missing:.0%} of the values missing,"
        f" {instead} in their place; training data made at each step"
    )
    make = generator(time, channels, missing, noise, seen)
    return generated.dataset(make, valid=valid, test=test, description=description)
