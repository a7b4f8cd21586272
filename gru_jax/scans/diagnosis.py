"""Which method pays for a cell and its data: how fast the network forgets, and what each method takes, measured."""

import dataclasses
import functools
import math
import statistics
import time
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.cells.base import Cell, accumulator, gifts
from gru_jax.scans import masking
from gru_jax.scans.methods import jacobians
from gru_jax.scans.methods.associative import Associative
from gru_jax.scans.methods.newton import Newton
from gru_jax.scans.methods.sequential import Sequential
from gru_jax.scans.over_time import scan
from gru_jax.scans.select import Method
from gru_jax.scans.trajectory import Stats
from gru_jax.types import Array, BoolArray, Function, IntArray, Options, Params, State, Tree

DENSE_BUDGET = 2**31
"""Up to how many bytes of Jacobians, over all of x, "newton dense" is tried."""

ROUNDS = 5
"""How often each method is timed."""

LONG = 1.0
"""Seconds from which on one run is timing enough."""


class Diagnosis(NamedTuple):
    """How fast a network forgets and what each method takes for it; `print` shows it as a table.

    Attributes:
      lyapunov: the largest Lyapunov exponent over the measured steps, `[*batch]`: the mean logarithm, each step, of
        how much a small difference in the state grows. Below 0 the network forgets, above 0 it is chaotic.
      iterations: Newton's rounds for each sequence, `[*batch]`, by the name of the method.
      converged: whether each sequence converged, `[*batch]`; what did not fell back to the steps.
      milliseconds: the median time of a run on the measured steps, by name.
      memory: MiB that the compiled program allocates for them beside its arguments and results, by name.
      best: the fastest method that converged, as `method` takes it.
      measured: how many steps were measured.
      steps: how many there are.
      gradient: whether a run was a training step (value and gradient) or outputs alone.
      left_out: why a method was not measured, by name.
    """

    lyapunov: Array
    iterations: dict[str, Array]
    converged: dict[str, Array]
    milliseconds: dict[str, float]
    memory: dict[str, float]
    best: Method
    measured: int
    steps: int
    gradient: bool
    left_out: dict[str, str]

    def __str__(self) -> str:
        found = np.asarray(self.lyapunov, np.float64)
        counted = found[~np.isnan(found)]
        kind = "training step" if self.gradient else "outputs"
        part = "all" if self.measured == self.steps else f"{self.measured} of the"
        lines = [
            f"{part} {self.steps} steps measured, {found.size} sequences, {kind}, on {jax.default_backend()}",
            f"largest Lyapunov exponent, per step: {_verdict(counted)}",
            f"{'':18}{'rounds':>8}{'converged':>14}{'ms':>12}{'MiB':>12}",
        ]
        for name, ms in self.milliseconds.items():
            rounds = f"{int(self.iterations[name].max())}" if name in self.iterations else "-"
            good = f"{int(self.converged[name].sum())} of {found.size}" if name in self.converged else "-"
            lines.append(f"{name:18}{rounds:>8}{good:>14}{ms:12.2f}{self.memory[name]:12.1f}")
        lines += [f"{name:18}left out: {why}" for name, why in self.left_out.items()]
        lines.append(f"fastest here: {_short(self.best)}")
        if self.measured < self.steps:
            lines.append("rounds hardly depend on T where the network forgets; ms and MiB are of the measured steps")
        return "\n".join(lines)


def diagnose(
    cell: Cell,
    params: Params,
    x: Array,
    h0: State = None,
    *,
    lengths: IntArray | None = None,
    mask: BoolArray | None = None,
    resets: BoolArray | None = None,
    reset_to: State = None,
    reverse: bool = False,
    time_major: bool = False,
    gradient: bool = False,
    steps: int | None = 1024,
) -> Diagnosis:
    """Measures which method of `scan` pays for a cell, its parameters and its data.

        lyapunov = mean over t of log(|J_t v_t| / |v_t|),        v_{t+1} = J_t v_t,  J_t = dF_t/dh,  v_1 random

    The exponent says whether Newton's method can pay at all: its number of rounds depends on how fast the network
    forgets and, where the exponent is below 0, hardly on T. So the rounds are those of an actual run on the first
    `steps` steps, and are the prediction for all of x. Times and memory are measured too, compiled, on this backend and
    at this batch size; nothing is extrapolated. On an accelerator the parallel methods gain with T: `steps=None`
    measures all of x.

    Masked steps do not count. A reset cuts the sequence: no difference passes it, so that it does not count either and
    the direction v is kept; the exponent is the mean growth between resets.

    Args:
      cell: what one step computes, such as `GRU(hidden_size=64)`.
      params: its parameters, of x's dtype.
      x: input, `[*batch, T, I]`, floating point.
      h0: state before the first step, `[*batch, H]`; zeros when None.
      lengths: `[*batch]`, as for `scan`.
      mask: `[*batch, T]` booleans, as for `scan`.
      resets: `[*batch, T]` booleans, as for `scan`.
      reset_to: the state after resets, `[*batch, H]`, as for `scan`.
      reverse: from each sequence's last step to its first; "first" steps are then the last ones.
      time_major: the time axis leads in x, mask and resets.
      gradient: measure a training step, value and gradient, instead of the outputs alone.
      steps: how many steps are measured, from the first that is not masked in every sequence; None is all of them.

    Returns:
      A `Diagnosis`: `lyapunov`, `iterations`, `milliseconds`, `memory` and more, and the fastest method as `best`. A
      sequence without a step that counts, or without finite states, has exponent NaN; one with a step that forgets
      all of the state has -inf.

    Raises:
      TypeError, ValueError: for what `scan` refuses, for arrays that are being traced, and for no steps at all.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.GRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> x = jax.random.normal(jax.random.key(1), (2, 200, 3))
      >>> found = gj.diagnose(cell, params, x, steps=50)
      >>> bool((found.lyapunov < 0).all()), sorted(found.milliseconds)
      (True, ['newton dense', 'newton diagonal', 'sequential'])
      >>> y, h = gj.scan(cell, params, x, method=found.best)

    Source: the exponent as a measure of what Newton's method can do: Gonzalez et al. 2025, arXiv:2508.16817.
    """
    options: Options = {"lengths": lengths, "mask": mask, "resets": resets, "reset_to": reset_to}
    # Whatever is computed is traced inside jit, be the arguments concrete.
    for name, tree in {"params": params, "x": x, "h0": h0, **options, "what is computed": jnp.zeros(())}.items():
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
            raise TypeError(
                f"diagnose: {name} must be concrete, for runs are timed; got an array that is being traced; call it"
                f" outside of jit, grad and vmap"
            )
    checks.flag("diagnose", "gradient", gradient)
    if steps is not None:
        checks.positive("diagnose", "steps", steps)
    # Nothing is computed here; what scan has to say against its arguments, it says.
    jax.eval_shape(lambda: scan(cell, params, x, h0, reverse=reverse, time_major=time_major, **options))
    x = jnp.asarray(x)
    if 0 in (x.size, *x.shape[:-1]):
        raise ValueError(f"diagnose: x must have steps to measure; got shape {list(x.shape)}")

    def in_order(a: ArrayLike | None, axis: int) -> Array | None:
        """Time leading, in the order in which the steps are taken."""
        if a is None:
            return None
        a = jnp.asarray(a) if time_major else jnp.moveaxis(jnp.asarray(a), axis, 0)
        return jnp.flip(a, 0) if reverse else a

    total = x.shape[0] if time_major else x.shape[-2]
    use = in_order(mask, -1)
    if lengths is not None:
        use = masking.from_lengths(jnp.asarray(lengths), total)
        use = jnp.flip(use, 0) if reverse else use
    first = 0 if use is None else int(jnp.argmax(use.reshape(total, -1).any(-1)))
    piece = slice(first, None if steps is None else first + steps)
    reset = in_order(resets, -1)
    x = cast(Array, in_order(x, -2))[piece]
    use, reset = (None if flag is None else flag[piece] for flag in (use, reset))
    batch = x.shape[1:-1]
    h0 = cell.initial_state(batch, x.dtype) if h0 is None else jax.tree.map(jnp.asarray, h0)

    arrays = (params, x, h0, use, reset, reset_to)
    methods, left_out = _candidates(cell, h0, total)
    runs, memory = {}, {}
    for name, method in methods.items():
        runs[name], memory[name] = _compiled(cell, method, gradient, arrays)
    stats, milliseconds = _times(runs, arrays)
    newton = [name for name in methods if isinstance(methods[name], Newton)]
    good = [name for name in methods if bool(stats[name].converged.all())]
    return Diagnosis(
        lyapunov=lyapunov(cell, *arrays),
        iterations={name: stats[name].iterations for name in newton},
        converged={name: stats[name].converged for name in newton},
        milliseconds=milliseconds,
        memory=memory,
        best=methods[min(good, key=lambda name: milliseconds[name])],
        measured=x.shape[0],
        steps=total,
        gradient=gradient,
        left_out=left_out,
    )


@functools.partial(jax.jit, static_argnums=0)
def lyapunov(
    cell: Cell,
    params: Params,
    x: Array,
    h0: State,
    use: BoolArray | None = None,
    reset: BoolArray | None = None,
    reset_to: State = None,
) -> Array:
    """The largest Lyapunov exponent of each sequence, over the steps that count, `[*batch]`; time leads in x."""

    def wide(a: Array) -> Array:
        # How fast differences grow is asked of the function, not of how bfloat16 rounds it.
        return a.astype(accumulator(a.dtype)) if jnp.issubdtype(a.dtype, jnp.floating) else a

    if reset is not None and reset_to is None:
        reset_to = cell.initial_state(x.shape[1:-1], x.dtype)
    params, x, h0, reset_to = jax.tree.map(wide, (params, x, h0, reset_to))
    context = masking.Context(params, h0, None, None, reset_to=reset_to)
    steps = masking.Steps(masking.zero_where_masked(use, x), use, reset)
    counts = jnp.ones(x.shape[:-1], bool) if use is None else use
    counts = counts if reset is None else counts & ~reset
    pack = jacobians.unravel(h0)
    start = jacobians.ravel(h0)
    batch = start.shape[:-1]

    def normed(v: Array, size: Array) -> Array:
        return v / jnp.broadcast_to(size[..., None], v.shape)

    def body(
        carry: tuple[State, Array, Array], now: tuple[masking.Steps, Array]
    ) -> tuple[tuple[State, Array, Array], None]:
        h, v, total = carry
        step, count = now
        h, moved = jax.jvp(lambda h: masking.F(cell, context, step, h), (h,), (pack(v),))
        moved = jacobians.ravel(moved)
        size = jnp.linalg.norm(moved, axis=-1)
        total = total + jnp.where(count, jnp.log(size), jnp.zeros_like(size))
        follow = count & (size > 0)
        v = jnp.where(jnp.broadcast_to(follow[..., None], v.shape), normed(moved, size), v)
        return (h, v, total), None

    v = jax.random.normal(jax.random.key(0), start.shape, start.dtype)
    first = (h0, normed(v, jnp.linalg.norm(v, axis=-1)), jnp.zeros(batch, start.dtype))
    (_, _, total), _ = lax.scan(body, first, (steps, counts))
    return total / counts.sum(0).astype(total.dtype)


def _candidates(cell: Cell, h0: State, steps: int) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods that could pay for a cell, and why others are not among them."""
    methods: dict[str, Method] = {"sequential": Sequential()}
    if gifts(cell).affine:
        return {**methods, "associative": Associative()}, {}
    start = jacobians.ravel(h0)
    width = jacobians.block_size(cell, start.shape[-1])
    needed = steps * start.size * width * jnp.dtype(accumulator(start.dtype)).itemsize
    left_out = {}
    if width == 1:
        left_out["newton dense"] = "the Jacobian is diagonal"
    elif needed > DENSE_BUDGET:
        left_out["newton dense"] = f"the Jacobians of all {steps} steps take {needed / 2**30:.1f} GiB"
    else:
        methods["newton dense"] = Newton("dense")
    return {**methods, "newton diagonal": Newton("diagonal")}, left_out


def _compiled(cell: Cell, method: Method, gradient: bool, arrays: tuple[Tree, ...]) -> tuple[Function, float]:
    """A compiled run, which returns what it computes and the stats, and the MiB it allocates."""

    def outputs(
        params: Params, x: Array, h0: State, use: BoolArray | None, reset: BoolArray | None, reset_to: State
    ) -> tuple[tuple[Array, State], Stats]:
        flags = {"mask": use, "resets": reset, "reset_to": reset_to}
        y, h, stats = scan(cell, params, x, h0, **flags, time_major=True, method=method, stats=True)
        return (y, h), stats

    def training(params: Params, x: Array, *others: Tree) -> tuple[Tree, Stats]:
        def loss(params: Params, x: Array) -> tuple[Array, Stats]:
            (y, _), stats = outputs(params, x, *others)
            return (y * y).sum(), stats

        (value, stats), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True)(params, x)
        return (value, gradients), stats

    run = jax.jit(training if gradient else outputs).lower(*arrays).compile()
    analysis = run.memory_analysis()
    # Not every backend tells.
    return run, analysis.temp_size_in_bytes / 2**20 if analysis is not None else float("nan")


def _times(
    runs: dict[str, Function], arrays: tuple[Tree, ...]
) -> tuple[dict[str, Stats], dict[str, float]]:
    """The stats of each run, and its median time in milliseconds, all of them taking turns."""
    stats: dict[str, Stats] = {}
    times: dict[str, list[float]] = {}

    def timed(name: str) -> float:
        start = time.perf_counter()
        _, stats[name] = jax.block_until_ready(runs[name](*arrays))
        return time.perf_counter() - start

    times = {name: [timed(name)] for name in runs}
    quick = [name for name in runs if times[name][0] < LONG]
    for name in quick:
        times[name].clear()  # the first run also warms caches up
    for _ in range(ROUNDS):
        for name in quick:
            times[name].append(timed(name))
    return stats, {name: 1e3 * statistics.median(each) for name, each in times.items()}


def _verdict(found: np.ndarray) -> str:
    if not found.size:
        return "none, for no step counts or the states are not finite"
    low, high = float(found.min()), float(found.max())
    numbers = f"{high:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
    if high >= 0:
        return f"{numbers}; differences grow, Newton's method cannot be counted on"
    few = max(1, math.ceil(-1 / high))
    return f"{numbers}; differences fall to a third in {few} step{'s' if few > 1 else ''}"


def _short(method: Any) -> str:
    """`gj.Newton(jacobian='dense')`: a method without what is as by default."""
    options = {field.name: (getattr(method, field.name), field.default) for field in dataclasses.fields(method)}
    chosen = (f"{name}={value!r}" for name, (value, default) in options.items() if value != default)
    return f"gj.{type(method).__name__}({', '.join(chosen)})"
