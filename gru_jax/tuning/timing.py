"""Times of several candidates that take turns in one process."""

import math
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from gru_jax.types import Tree

SAMPLE_S = 2e-3
"""Shorter calls are repeated until one sample takes this long: a clock and a scheduler have their own noise."""
SETTLED_S = 20e-3
"""Before each sample a candidate runs for so long without being counted: threads of the one before go on waiting for
more work for a while, on cores that the next one wants, and cores that were idle take time to wake up."""


class Timing(NamedTuple):
    """Milliseconds of a call: the median, the interquartile range, and the number of samples."""

    ms: float
    spread_ms: float
    rounds: int


def interleaved(
    steps: dict[str, Callable[[], Tree]], budget_s: float, fewest: int = 5, most: int = 200
) -> dict[str, Timing]:
    """Times of each, from rounds in which all take their turn, in another order every round.

    Args:
      steps: what is to be timed, each called before.
      budget_s: seconds after which no new round begins, once there are `fewest`.
      fewest: rounds that are run in any case.
      most: rounds after which it is enough.
    """
    samples = sampled(steps, budget_s, fewest, most)
    return {name: timing(each) for name, each in samples.items()}


def sampled(
    steps: dict[str, Callable[[], Tree]], budget_s: float, fewest: int, most: int
) -> dict[str, list[float]]:
    """The samples of `interleaved`, milliseconds of a call, round by round."""
    once = {name: min(_seconds(step, 1) for _ in range(2)) for name, step in steps.items()}
    repeats = {name: max(1, math.ceil(SAMPLE_S / max(took, 1e-7))) for name, took in once.items()}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    # Shuffled, not rotated: in a rotation everyone keeps its place behind the same one.
    order, shuffled = list(steps), random.Random(0)
    start, rounds = time.perf_counter(), 0
    while rounds < fewest or (rounds < most and time.perf_counter() - start < budget_s):
        shuffled.shuffle(order)
        for name in order:
            _settle(steps[name])
            samples[name].append(1e3 * _seconds(steps[name], repeats[name]))
        rounds += 1
    return samples


def timing(samples: list[float]) -> Timing:
    """What samples come to."""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(digits(middle), digits(high - low), len(samples))


def digits(number: float) -> float:
    """With as many as mean something."""
    return float(f"{number:.4g}")


def _settle(step: Callable[[], Tree]) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < SETTLED_S:
        jax.block_until_ready(step())


def _seconds(step: Callable[[], Tree], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(step())
    return (time.perf_counter() - start) / repeats
