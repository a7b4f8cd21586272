"""Newton's method over the whole sequence at once: the parallel scan for cells that are not linear in their state."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax import checks
from gru_jax.cells.base import Cell, accumulator
from gru_jax.scans import derivative, masking
from gru_jax.scans.choices import Sizes
from gru_jax.scans.engines import registry
from gru_jax.scans.linear import forms
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.methods import jacobians, newton_derivative, newton_error, newton_rounds
from gru_jax.scans.methods.jacobians import AllSteps
from gru_jax.scans.methods.newton_rounds import Look
from gru_jax.scans.time_axis import on_same_axes
from gru_jax.scans.trajectory import Stats, Trajectory
from gru_jax.types import Array, State, Tree


@checks.suggesting
@dataclasses.dataclass(frozen=True)
class Newton:
    """Newton's method over time: guess all states, linearize every step at once, solve the linear recurrence, repeat.

        h_t <- K_t h_{t-1} + (F_t(g_{t-1}) - K_t g_{t-1}),        g the last guess, K_t about dF_t/dh

    Every cell, a plain GRU included, gives the states of the step-by-step scan, in as many rounds as it takes for the
    residual `|h_t - F_t(h_{t-1})|` to vanish: few where the network forgets its past, too many where it is chaotic.
    Nothing that has not converged is returned: the residual is checked, and how much the network amplifies it and the
    rounding of the steps. What is accepted is estimated to be within 16 tol of the exact trajectory, relative to
    max(1, |h|); half precision is solved in float32 and adds half a unit of its own. The gradient is exact, whatever K
    was.

    Args:
      jacobian: "dense" takes all of dF/dh (of every block, where the recurrent matrix has blocks): fewest rounds,
        `O(T H n)` memory for blocks of n. "diagonal" takes its diagonal, from the cell's closed form: `O(T H)` memory,
        no Jacobian is ever built. "auto" is "dense" for blocks of up to 16 and "diagonal" beyond.
      damping: at least 0; K is divided by 1 + damping. A sequence whose residual grows raises its own by itself.
      tol: largest accepted residual, relative to max(1, |h|); None is 8 units in the last place, of float32 for
        half precision.
      max_iters: most rounds (of each window).
      window: steps that are solved at once, the state being carried from window to window; None is all of them.
      kernel: what computes a round and solves the derivative's linear recurrence: "xla"; on a GPU or a TPU, with the
        diagonal Jacobian, also "pallas": step, diagonal and recurrence in one kernel for a `GRU` that resets "after"
        the product or has a diagonal recurrent matrix, the recurrence alone for any other cell; "interpret-gpu" and
        "interpret-tpu", which run these kernels slowly on any backend; "auto" is "xla".
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
    kernel: str = "auto"
    # An array cannot be hashed. `scan` takes it off before the method becomes a static argument of anything.
    init: State = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        checks.choice("Newton", "jacobian", self.jacobian, ("auto", "dense", "diagonal"))
        checks.choice("Newton", "fallback", self.fallback, ("sequential", "error", "nan"))
        checks.choice("Newton", "kernel", self.kernel, ("auto", "xla", *registry.ROUNDS))
        if self._by_rounds and self.jacobian == "dense":
            raise ValueError(
                f"Newton: kernel={self.kernel!r} solves with the diagonal of the Jacobian; got jacobian='dense';"
                f" use jacobian='diagonal' or kernel='xla'"
            )
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

        solver = functools.partial(newton_derivative.solver, cell, reverse, jacobian, self._recurrences)
        recurrence = derivative.Recurrence(functools.partial(masking.F, cell), reverse, solver)
        run = derivative.differentiable(find, recurrence, aux=True)
        states, found = run(context, steps._replace(guess=None), steps.guess)
        rounds, residual, error, *flags = lax.stop_gradient(found)
        stats = Stats(rounds.astype(jnp.int32), residual, error, *(flag > 0 for flag in flags))
        return Trajectory(states, context.time.end(states, reverse), stats)

    def check_sizes(self, sizes: Sizes) -> None:
        """Raises for a size that is symbolic, under `jax.export`, where its number decides what is computed."""
        symbolic = [name for name, size in sizes._asdict().items() if not isinstance(size, int)]
        if self.window is not None and "T" in symbolic:
            raise ValueError(
                f"Newton: window={self.window} needs a known number of steps; got T = {sizes.T}; export with a fixed"
                f" number of steps, or use window=None"
            )
        if self._by_rounds and symbolic:
            raise ValueError(
                f"Newton: kernel={self.kernel!r} needs known sizes; got {symbolic[0]} ="
                f" {getattr(sizes, symbolic[0])}; export with fixed sizes, or use kernel='xla'"
            )

    def keeps_states(self) -> bool:
        """True: everything else is computed again for the backward pass."""
        return True

    def resolved(self, cell: Cell, size: int) -> str:
        """The Jacobian behind "auto"."""
        if self.jacobian != "auto":
            return self.jacobian
        if self._by_rounds:
            return "diagonal"
        return "dense" if jacobians.block_size(cell, size) <= jacobians.EXACT_UP_TO else "diagonal"

    @property
    def _by_rounds(self) -> bool:
        """Whether an engine is to run whole rounds, on the diagonal."""
        return self.kernel in registry.ROUNDS

    @property
    def _recurrences(self) -> str:
        """The kernel of the linear recurrences."""
        return forms.chosen("auto" if self.kernel == "xla" else self.kernel)

    def _find(self, cell: Cell, context: Context, steps: Steps, jacobian: str) -> tuple[State, Stats]:
        # Half precision is solved in single: residuals far under the states' own precision have to be seen, in steps
        # that round nothing to less. Each state is rounded once, at the end.
        kept = jnp.finfo(jax.tree.leaves(context.h0)[0].dtype)
        wide, steps = _widened((context, steps))
        start = jacobians.ravel(wide.h0)
        tol = self.tol if self.tol is not None else 8 * float(jnp.finfo(start.dtype).eps)

        def solve(steps: Steps, start: Array, error: Array, part: Array) -> tuple[Array, Array, Stats]:
            guess = None if steps.guess is None else jacobians.ravel(steps.guess)
            f = AllSteps(cell, wide, steps._replace(guess=None))
            look = self._look(f, start, jacobian)
            how = (jacobian, self._recurrences, self.damping, tol, self.max_iters)
            return newton_rounds.iterate(f, start, error, part, guess, look, *how)

        exact = jnp.zeros((newton_error.DRAWS, *start.shape), start.dtype)
        T = jax.tree.leaves(steps)[0].shape[0]
        if self.window is None or self.window >= T:
            h, _, stats = solve(steps, start, exact, jnp.zeros((), jnp.int32))
        else:
            h, stats = _in_windows(solve, steps, start, exact, self.window)
        h, stats = self._checked(AllSteps(cell, wide, steps._replace(guess=None)), start, h, stats, tol)
        if kept.dtype != start.dtype:
            stats = stats._replace(error=stats.error + float(kept.eps) / 2)
        like = jax.tree.map(lambda a: a.dtype, context.h0)
        states = jax.tree.map(lambda a, dtype: a.astype(dtype), jacobians.unravel(context.h0)(h), like)
        return states, stats

    def _look(self, f: AllSteps, start: Array, jacobian: str) -> Look:
        """How a round sees the iterate."""
        if not f.time.split:
            rounds = registry.engine(self.kernel).rounds(f.cell, f.context, f.steps)
            if rounds is not None:
                return newton_rounds.fused(f, start, rounds)
        return newton_rounds.apart(f, start, jacobian, self._recurrences)

    def _checked(self, f: AllSteps, start: Array, h: Array, stats: Stats, tol: float) -> tuple[Array, Stats]:
        """The states, `[T, *batch, S]`, with what has not converged replaced or refused."""
        bad = ~stats.converged
        if self.fallback == "nan":
            return jnp.where(newton_rounds.rows(bad, h), jnp.full_like(h, jnp.nan), h), stats
        if self.fallback == "error":
            jax.debug.callback(_raise_unless_converged, stats, tol)
            return h, stats
        # One branch runs, so that the sequential scan costs nothing where all have converged (under jax.vmap both do).
        safe = lambda: jnp.where(newton_rounds.rows(bad, h), _step_by_step(f, start), h)  # noqa: E731
        return lax.cond(f.time.any(bad), safe, lambda: h), stats._replace(fell_back=bad)


def _widened(tree: Tree) -> Tree:
    """The tree with its numbers of half precision in single."""
    wide = lambda a: a.astype(accumulator(a.dtype)) if jnp.issubdtype(a.dtype, jnp.floating) else a  # noqa: E731
    return jax.tree.map(wide, tree)


def _step_by_step(f: AllSteps, start: Array) -> Array:
    pack = jacobians.unravel(f.context.h0)

    def body(h: State, now: Steps) -> tuple[State, State]:
        h = masking.F(f.cell, f.context, now, h)
        return h, h

    def run(start: State) -> tuple[State, State]:
        return lax.scan(body, start, f.steps)

    return jacobians.ravel(f.time.relay(run, pack(start), False)[1])


def _in_windows(
    solve: Callable[..., tuple[Array, Array, Stats]], steps: Steps, start: Array, exact: Array, window: int
) -> tuple[Array, Stats]:
    """One window after the other, the end of each, and how far off it may be, being the start of the next."""
    T = jax.tree.leaves(steps)[0].shape[0]
    whole = T // window

    def cut(a: Array) -> Array:
        return a[: whole * window].reshape(whole, window, *a.shape[1:])

    def body(carry: tuple[Array, Array], now: tuple[Steps, Array]) -> tuple[tuple[Array, Array], tuple[Array, Stats]]:
        h, error, stats = solve(now[0], *carry, now[1])
        return (h[-1], error), (h, stats)

    parts = (jax.tree.map(cut, steps), jnp.arange(whole, dtype=jnp.int32))
    end, (h, each) = lax.scan(body, on_same_axes((start, exact)), parts)
    h = h.reshape(whole * window, *h.shape[2:])
    if T % window:
        rest, _, last = solve(jax.tree.map(lambda a: a[whole * window :], steps), *end, jnp.full((), whole, jnp.int32))
        h = jnp.concatenate([h, rest])
        each = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), each, last)
    rounds, residual, error, *flags = each
    return h, Stats(rounds.max(0), residual.max(0), error.max(0), flags[0].all(0), flags[1].any(0))


def _turned(tree: Tree) -> Tree:
    """Time the other way round."""
    return jax.tree.map(lambda a: jnp.flip(a, 0), tree)


def _raise_unless_converged(stats: Stats, tol: float) -> None:
    rounds, residual, error, converged, _ = stats
    if not converged.all():
        bad = ~converged
        # Short: JAX puts a trace of its own in front of it.
        raise FloatingPointError(
            f"Newton: {int(bad.sum())} of {converged.size} sequences did not converge in {int(rounds.max())}"
            f" iterations: residual {float(residual[bad].max()):.1e} (tol {tol:.1e}), estimated error"
            f" {float(error[bad].max()):.1e} (at most {newton_rounds.ERROR_OF_TOL * tol:.1e}); use"
            f" fallback='sequential', a larger max_iters or a window"
        )
