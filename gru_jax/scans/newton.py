"""Newton's method over the whole sequence at once: the parallel scan for cells that are not linear in their state."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax import checks
from gru_jax.cells.base import Cell, accumulator
from gru_jax.scans import derivative, jacobians, linear_by_iteration, masking, recurrences
from gru_jax.scans.jacobians import AllSteps, Jacobian
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.scans.trajectory import Stats, Trajectory
from gru_jax.types import Array, State

ERROR_OF_TOL = 16
"""The estimated error of an accepted trajectory, in units of tol, is at most this."""

CERTIFY = 48
"""Rounds in which the estimate of the error has to settle."""


@dataclasses.dataclass(frozen=True)
class Newton:
    """Newton's method over time: guess all states, linearize every step at once, solve the linear recurrence, repeat.

        h_t <- K_t h_{t-1} + (F_t(g_{t-1}) - K_t g_{t-1}),        g the last guess, K_t about dF_t/dh

    Every cell, a plain GRU included, gives the states of the step-by-step scan, in as many rounds as it takes for the
    residual `|h_t - F_t(h_{t-1})|` to vanish: few where the network forgets its past, too many where it is chaotic.
    Nothing that has not converged is returned: the residual is checked, and how much the network amplifies it. The
    gradient is exact, whatever K was.

    Args:
      jacobian: "dense" takes all of dF/dh (of every block, where the recurrent matrix has blocks): fewest rounds,
        `O(T H n)` memory for blocks of n. "diagonal" takes its diagonal, from the cell's closed form: `O(T H)` memory,
        no Jacobian is ever built. "auto" is "dense" for blocks of up to 16 and "diagonal" beyond.
      damping: at least 0; K is divided by 1 + damping. A sequence whose residual grows raises its own by itself.
      tol: largest accepted residual, relative to max(1, |h|); None is 8 units in the last place.
      max_iters: most rounds (of each window).
      window: steps that are solved at once, the state being carried from window to window; None is all of them.
      fallback: for sequences that have not converged: "sequential" computes them step by step, inside the same
        `jit`; "error" raises when the program runs; "nan" fills them with NaN.
      init: the first guess of the states, shaped as the states are, `[*batch, T, H]`: a trajectory from before, of
        slightly other parameters or input (in a training loop that sees the same sequences again), saves rounds. Only
        the number of rounds depends on it. None guesses one step from h0, everywhere.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax, jax.numpy as jnp, gru_jax as gj
      >>> cell = gj.GRU(4)
      >>> params = cell.init(jax.random.key(0), input_size=3)
      >>> x = jax.random.normal(jax.random.key(1), (2, 100, 3))
      >>> y, h, stats = gj.scan(cell, params, x, method=gj.Newton(), stats=True)
      >>> bool(stats.converged.all()), bool(jnp.allclose(y, gj.scan(cell, params, x)[0], atol=1e-5))
      (True, True)

    Source: Lim et al. 2023, arXiv:2309.12252 (dense); Gonzalez et al. 2024, arXiv:2407.19115 (diagonal).
    """

    jacobian: str = "auto"
    damping: float = 0.0
    tol: float | None = None
    max_iters: int = 64
    window: int | None = None
    fallback: str = "sequential"
    # An array cannot be hashed. `scan` takes it off before the method becomes a static argument of anything.
    init: State = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        checks.choice("Newton", "jacobian", self.jacobian, ("auto", "dense", "diagonal"))
        checks.choice("Newton", "fallback", self.fallback, ("sequential", "error", "nan"))
        checks.positive("Newton", "max_iters", self.max_iters)
        if self.window is not None:
            checks.positive("Newton", "window", self.window)
        for name, value, least in (("damping", self.damping, 0.0), ("tol", self.tol, None)):
            if value is None and name == "tol":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Newton: {name} must be a plain number; got {value!r}")
            if not (value > 0 if least is None else value >= least) or value == float("inf"):
                bound = "above 0" if least is None else "at least 0"
                raise ValueError(f"Newton: {name} must be {bound} and finite; got {value}")

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps, and how they were found."""
        size = jacobians.ravel(context.h0).shape[-1]
        jacobian = self.resolved(cell, size)

        def find(context: Context, steps: Steps, guess: State) -> tuple[State, Stats]:
            steps = steps._replace(guess=guess)
            if reverse:
                context, steps = context._replace(time=context.time.flipped()), _turned(steps)
            states, stats = self._find(cell, context, steps, jacobian)
            # JAX has no tangents for whole numbers and flags that differ from device to device.
            stats = jax.tree.map(lambda a: a.astype(stats.residual.dtype), stats)
            return _turned(states) if reverse else states, stats

        solver = functools.partial(linear_by_iteration.solver, cell, reverse, jacobian)
        recurrence = derivative.Recurrence(functools.partial(masking.F, cell), reverse, solver)
        run = derivative.differentiable(find, recurrence, aux=True)
        states, found = run(context, steps._replace(guess=None), steps.guess)
        rounds, residual, error, *flags = lax.stop_gradient(found)
        stats = Stats(rounds.astype(jnp.int32), residual, error, *(flag > 0 for flag in flags))
        return Trajectory(states, context.time.end(states, reverse), stats)

    def keeps_states(self) -> bool:
        """True: everything else is computed again for the backward pass."""
        return True

    def resolved(self, cell: Any, size: int) -> str:
        """The Jacobian behind "auto"."""
        if self.jacobian != "auto":
            return self.jacobian
        return "dense" if jacobians.block_size(cell, size) <= jacobians.EXACT_UP_TO else "diagonal"

    def _find(self, cell: Cell, context: Context, steps: Steps, jacobian: str) -> tuple[State, Stats]:
        kept_dtype = jax.tree.leaves(context.h0)[0].dtype
        # Residuals far under the states' own precision have to be seen, so half precision is solved in single.
        wide = context._replace(h0=jax.tree.map(lambda h: h.astype(accumulator(h.dtype)), context.h0))
        start = jacobians.ravel(wide.h0)
        tol = self.tol if self.tol is not None else _default_tol(kept_dtype)
        T = jax.tree.leaves(steps)[0].shape[0]

        def solve(steps: Steps, start: Array, error: Array) -> tuple[Array, Array, Stats]:
            guess = None if steps.guess is None else jacobians.ravel(steps.guess).astype(start.dtype)
            part = AllSteps(cell, wide, steps._replace(guess=None))
            return _iterate(part, start, error, guess, jacobian, self.damping, tol, self.max_iters)

        exact = jnp.zeros_like(start)
        if self.window is None or self.window >= T:
            h, _, stats = solve(steps, start, exact)
        else:
            h, stats = _in_windows(solve, steps, start, exact, self.window)
        h, stats = self._checked(AllSteps(cell, wide, steps._replace(guess=None)), start, h, stats, tol)
        like = jax.tree.map(lambda a: a.dtype, context.h0)
        states = jax.tree.map(lambda a, dtype: a.astype(dtype), jacobians.unravel(context.h0)(h), like)
        return states, stats

    def _checked(self, f: AllSteps, start: Array, h: Array, stats: Stats, tol: float) -> tuple[Array, Stats]:
        """The states, `[T, *batch, S]`, with what has not converged replaced or refused."""
        bad = ~stats.converged
        if self.fallback == "nan":
            return jnp.where(_rows(bad, h), jnp.full_like(h, jnp.nan), h), stats
        if self.fallback == "error":
            jax.debug.callback(_raise_unless_converged, stats, tol)
            return h, stats
        # One branch runs, so that the sequential scan costs nothing where all have converged (under jax.vmap both do).
        safe = lambda: jnp.where(_rows(bad, h), _step_by_step(f, start), h)  # noqa: E731
        return lax.cond(f.time.any(bad), safe, lambda: h), stats._replace(fell_back=bad)


def _default_tol(dtype: Any) -> float:
    eps = float(jnp.finfo(dtype).eps)
    return 8 * eps if jnp.dtype(dtype).itemsize >= 4 else eps


def _iterate(
    f: AllSteps,
    start: Array,
    error: Array,
    guess: Array | None,
    jacobian: str,
    damping: float,
    tol: float,
    max_iters: int,
) -> tuple[Array, Array, Stats]:
    """The states from `start` on, which may be off by `error`, and by how much their last one may be off."""
    batch, dtype = start.shape[:-1], start.dtype
    kernel = recurrences.chosen("auto")
    length = jax.tree.leaves(f.steps)[0].shape[0]

    def size(a: Array, h: Array) -> Array:
        return _size(f, a, h)

    class Loop(NamedTuple):
        h: Array
        round: Array
        residual: Array
        damping: Array
        done: Array
        taken: Array

    def more(loop: Loop) -> Array:
        return f.time.any(~loop.done) & (loop.round < max_iters)

    def step(loop: Loop) -> Loop:
        before = f.before(loop.h, start)
        after = f(before)
        off = after - loop.h
        residual = size(off, loop.h)
        j = f.linearize(before, jacobian)
        # Sequences that are there stay as they are; the others differ from them in nothing but this choice.
        grew = residual > loop.residual
        raised = jnp.where(grew, jnp.maximum(loop.damping * 4, 0.25), jnp.maximum(loop.damping / 2, damping))
        raised = jnp.where(raised < jnp.maximum(damping, 1e-2), jnp.full_like(raised, damping), raised)
        moved = j.solve(off, jnp.zeros_like(start), kernel, raised)
        new = loop.h + moved
        # Where a product of factors above 1 has overflowed, a plain step is taken instead.
        new = jnp.where(jnp.isfinite(new), new, after)
        done = loop.done | ((residual <= tol) & (size(moved, loop.h) <= ERROR_OF_TOL * tol))
        h = jnp.where(_rows(done, new), loop.h, new)
        taken = jnp.where(done, loop.taken, loop.taken + 1)
        return Loop(h, loop.round + 1, jnp.where(loop.done, loop.residual, residual), raised, done, taken)

    if guess is None:
        guess = f(jnp.broadcast_to(start, (length, *start.shape)))
    none = jnp.zeros(batch, bool)
    first = Loop(
        jnp.where(jnp.isfinite(guess), guess, jnp.zeros_like(guess)),
        jnp.zeros((), jnp.int32),
        jnp.full(batch, jnp.inf, dtype),
        jnp.full(batch, damping, dtype),
        none,
        jnp.zeros(batch, jnp.int32),
    )
    together = on_same_axes(first._replace(round=none))
    loop = lax.while_loop(more, step, together._replace(round=first.round))
    before = f.before(loop.h, start)
    off = f(before) - loop.h
    j = f.linearize(before, jacobian)
    errors, largest = _errors(f, j, off, f.rounding(before), error, loop.h, kernel)
    converged = loop.done & (largest <= ERROR_OF_TOL * tol) & jnp.isfinite(loop.residual)
    return loop.h, errors[-1], Stats(loop.taken, loop.residual, largest, converged, none)


def _errors(
    f: AllSteps, j: Jacobian, off: Array, rounding: Array, start: Array, h: Array, kernel: str
) -> tuple[Array, Array]:
    """An estimate of how far off the states are, `[T, *batch, S]`, and the largest of it, `[*batch]`.

    Even a trajectory whose every step is right to the last bit drifts away from the true one where the network
    amplifies differences. So the tangent system is solved for what is left of the residual, with its signs, and for
    rounding of a random sign in every step.
    """
    signs = jax.random.rademacher(jax.random.key(1), (h.shape[0], h.shape[-1]), h.dtype)
    signs = jnp.broadcast_to(signs.reshape(h.shape[0], *(1,) * (h.ndim - 2), h.shape[-1]), h.shape)
    new_in_step = off + signs * rounding
    e = j.solve(new_in_step, start, kernel)
    if j.exact:
        return e, _size(f, e, h)

    def more(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, _, settled, k = carry
        return f.time.any(~settled) & (k < CERTIFY)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        e, changed, settled, k = carry
        before = f.before(e, start)
        new = j.solve(new_in_step + j.tangent(before) - j.times_kept(before), start, kernel)
        change = _size(f, new - e, h)
        # What all rounds to come would change, if each changes as much less than the one before.
        shrinks = change / jnp.maximum(changed, jnp.finfo(h.dtype).tiny)
        to_come = change * shrinks / (1 - shrinks)
        small = (change == 0) | ((shrinks < 0.9) & (to_come <= 0.25 * _size(f, new, h)))
        return new, change, settled | small, k + 1

    first = on_same_axes((e, _size(f, e, h), jnp.zeros(h.shape[1:-1], bool)))
    e, _, settled, _ = lax.while_loop(more, step, (*first, jnp.zeros((), jnp.int32)))
    largest = 1.25 * _size(f, e, h)
    return e, jnp.where(settled, largest, jnp.full_like(largest, jnp.inf))


def _step_by_step(f: AllSteps, start: Array) -> Array:
    pack = jacobians.unravel(f.context.h0)

    def body(h: State, now: Steps) -> tuple[State, State]:
        h = masking.F(f.cell, f.context, now, h)
        return h, h

    def run(start: State) -> tuple[State, State]:
        return lax.scan(body, start, f.steps)

    return jacobians.ravel(f.time.relay(run, pack(start), False)[1])


def _in_windows(solve: Any, steps: Steps, start: Array, exact: Array, window: int) -> tuple[Array, Stats]:
    """One window after the other, the end of each, and how far off it may be, being the start of the next."""
    T = jax.tree.leaves(steps)[0].shape[0]
    whole = T // window

    def cut(a: Array) -> Array:
        return a[: whole * window].reshape(whole, window, *a.shape[1:])

    def body(carry: tuple[Array, Array], steps: Steps) -> tuple[tuple[Array, Array], tuple[Array, Stats]]:
        h, error, stats = solve(steps, *carry)
        return (h[-1], error), (h, stats)

    end, (h, each) = lax.scan(body, on_same_axes((start, exact)), jax.tree.map(cut, steps))
    h = h.reshape(whole * window, *h.shape[2:])
    if T % window:
        rest, _, last = solve(jax.tree.map(lambda a: a[whole * window :], steps), *end)
        h = jnp.concatenate([h, rest])
        each = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), each, last)
    rounds, residual, error, *flags = each
    return h, Stats(rounds.max(0), residual.max(0), error.max(0), flags[0].all(0), flags[1].any(0))


def _turned(tree: Any) -> Any:
    """Time the other way round."""
    return jax.tree.map(lambda a: jnp.flip(a, 0), tree)


def _size(f: AllSteps, a: Array, h: Array) -> Array:
    """The largest element relative to max(1, |h|), for each sequence: `[T, *batch, S]` to `[*batch]`."""
    return f.time.largest(jnp.abs(a) / jnp.maximum(jnp.abs(h), 1))


def _rows(flag: Array, like: Array) -> Array:
    """`[*batch]` spread over `[T, *batch, S]`."""
    return jnp.broadcast_to(flag[None, ..., None], like.shape)


def _raise_unless_converged(stats: Stats, tol: float) -> None:
    rounds, residual, error, converged, _ = stats
    if not converged.all():
        bad = ~converged
        raise FloatingPointError(
            f"Newton: {int(bad.sum())} of {converged.size} sequences did not converge in {int(rounds.max())}"
            f" iterations; the residual is {float(residual[bad].max()):.2e} (tolerance {tol:.1e}), the estimated error"
            f" {float(error[bad].max()):.2e} (at most {ERROR_OF_TOL * tol:.1e}); use fallback='sequential', a larger"
            f" max_iters or tol, or, where time is not split over devices, a window"
        )
