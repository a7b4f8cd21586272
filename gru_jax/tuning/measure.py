"""The forms of a scan at one shape: compared with the plain loop, then timed in turn."""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.cells.base import Cell, fresh
from gru_jax.scans import Sequential, scan, select
from gru_jax.scans.choices import Choice, Fastest, Row, Sizes
from gru_jax.scans.choices.costs import WORTH_THREADS
from gru_jax.scans.engines import registry
from gru_jax.tuning.timing import digits, sampled
from gru_jax.types import Array, DType, Params, State, Tree

FEWEST, MOST = 7, 200
"""Rounds in which all forms take their turn."""
AGREES = {"float64": 1e-9, "float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""How far numbers of two forms may be apart, in parts of the largest of each array: by more than any order of sums."""


class Shape(NamedTuple):
    """Of one call: T steps, B sequences, I features, H units."""

    T: int
    B: int
    I: int
    H: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Found(NamedTuple):
    """What came out at one shape.

    Attributes:
      row: the fastest and all times.
      left_out: which forms do not run here, or do not agree, and why.
    """

    row: Row
    left_out: list[str]


def forms(backend: str, *, training: bool) -> list[Choice]:
    """Those that a backend has, the plain loop first. What is not looked at is the number of steps in a chunk, 8 to 16
    being within each other's noise, and what a forward pass keeps."""
    if backend != "cpu":
        kernels = ("scan", "cudnn", "pallas") if backend == "gpu" else ("scan", "pallas")
        return [Choice(kernel, "states", 1) for kernel in kernels]
    cores = [1]
    while cores[-1] < registry.usable_cores():
        cores.append(min(2 * cores[-1], registry.usable_cores()))
    both = ("gates", "states") if training else ("gates",)
    chunked = [Choice("chunked", keep, 12) for keep in (("states", "gates") if training else ("states",))]
    return [Choice("scan", "gates", 12), *chunked, *(Choice("llvm", keep, 1, each) for keep in both for each in cores)]


def measured(cell: Cell, shape: Shape, dtype: str, budget_s: float) -> Found:
    """The row of a shape, in a training step and, on a CPU, in a forward pass alone.

    Args:
      cell: of H units.
      shape: of the call.
      dtype: of all numbers.
      budget_s: seconds for timing, apart from compiling.

    Raises:
      ValueError: where not even the plain loop runs.
    """
    backend, left_out = jax.default_backend(), []
    times = []
    kinds = (True, False) if backend == "cpu" else (True,)
    for training in kinds:
        steps, why = _agreeing(cell, shape, dtype, forms(backend, training=training), training)
        left_out += why
        found = sampled({str(choice): step for choice, step in steps.items()}, budget_s / len(kinds), FEWEST, MOST)
        # Means, not medians: threads that wait for each other in every step take now and then four times as long, and a
        # training run takes the sum.
        times.append({choice: digits(statistics.fmean(found[str(choice)])) for choice in steps})
    of_xla = [{choice: ms for choice, ms in each.items() if choice.kernel in ("scan", "chunked")} for each in times]
    if backend == "cpu":
        best = Fastest(fastest(times[0]), fastest(times[1]), fastest(of_xla[0]), fastest(of_xla[1]))
    else:
        best = Fastest(fastest(times[0]), None)
    named = [{str(choice): ms for choice, ms in each.items()} for each in times]
    row = Row(Sizes(shape.T, shape.B, shape.H), best, select.kind(cell), dtype, *named)
    return Found(row, list(dict.fromkeys(left_out)))


def fastest(times: dict[Choice, float]) -> Choice:
    """The one that took the least time, of two nearly the same the one that leaves the other cores alone."""
    return min(times, key=lambda choice: times[choice] * (WORTH_THREADS if choice.cores > 1 else 1))


def _agreeing(
    cell: Cell, shape: Shape, dtype: str, choices: list[Choice], training: bool
) -> tuple[dict[Choice, Callable[[], Tree]], list[str]]:
    """Compiled calls of those forms whose numbers are the plain loop's, and what was left out."""
    given = _given(cell, shape, jnp.dtype(dtype))
    steps, left_out = {}, []
    expected: Tree = None
    for choice in choices:
        try:
            step = _compiled(cell, choice, given, training)
            found = jax.tree.map(lambda a: np.asarray(a, np.float64), step())
        except Exception as error:  # a compiler's, a driver's or our refusal: the others go on
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            left_out.append(f"{choice}: {first[:200]}")
            continue
        expected = found if expected is None and choice is choices[0] else expected
        off = np.inf if expected is None else max(_apart(found, expected))
        if off <= AGREES[dtype]:
            steps[choice] = step
        else:
            left_out.append(f"{choice}: its numbers are {off:.1g} of the largest off those of the plain loop")
    if choices[0] not in steps:
        raise ValueError(f"tune: the plain loop does not run here at T,B,I,H = {shape}: {left_out[0]}")
    return steps, left_out


def _given(cell: Cell, shape: Shape, dtype: DType) -> tuple[Params, Array, State]:
    keys = jax.random.split(jax.random.key(0))
    params = fresh(cell.init, keys[0], shape.I, dtype)
    return params, jax.random.normal(keys[1], (shape.B, shape.T, shape.I), dtype), cell.initial_state((shape.B,), dtype)


def _compiled(cell: Cell, choice: Choice, given: tuple[Params, Array, State], training: bool) -> Callable[[], Tree]:
    """A call of the outputs or, in training, of a loss with its gradients by parameters, input and first state."""
    method = Sequential(kernel=choice.kernel, keep=choice.keep, chunk=choice.chunk, cores=choice.cores)

    def forward(params: Params, x: Array, h0: State) -> Array:
        return scan(cell, params, x, h0, method=method)[0]

    def loss(params: Params, x: Array, h0: State) -> Array:
        return (forward(params, x, h0) ** 2).sum()

    program = jax.jit(jax.value_and_grad(loss, (0, 1, 2)) if training else forward).lower(*given).compile()
    return lambda: program(*given)


def _apart(found: Tree, expected: Tree) -> Iterator[float]:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        largest = max(float(np.abs(b).max(initial=0)), float(np.finfo(np.float32).tiny))
        off = float(np.abs(a - b).max(initial=0)) / largest
        yield off if np.isfinite(off) else np.inf
